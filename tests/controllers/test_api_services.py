"""Whether the server of an APIService can be asked: every reason, in the words of upstream."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Again, Create, Probe, SetStatus, Update
from sampan.controllers.api_services import (
    RESOURCE,
    SLICES,
    ApiServiceAvailability,
    Tries,
    View,
)
from sampan.controllers.authentication_trust import NAME, NAMESPACE, AuthenticationTrust
from sampan.lib.clock import parse_rfc3339
from sampan.testing.plans import PlanWorld

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


def api(port: int = 443, conditions: Any = (), *, is_local: bool = False) -> Body:
    spec: Body = {"group": "g", "version": "v1"}
    if not is_local:
        spec["service"] = {"namespace": "n", "name": "s", "port": port}
    return {"metadata": {"name": "v1.g"}, "spec": spec, "status": {"conditions": [*conditions]}}


def service(kind: str = "ClusterIP", port: int = 443, name: str = "") -> Obj:
    one = {"port": port, **({"name": name} if name else {})}
    body = {"metadata": {"name": "s", "namespace": "n"}, "spec": {"type": kind, "ports": [one]}}
    return Obj.of(Key("services", "n", "s"), body, 1)


def endpoints(name: str = "", *, ready: bool | None = True, port: int | None = 8443) -> Obj:
    conditions = {} if ready is None else {"ready": ready}
    labels = {"kubernetes.io/service-name": "s"}
    body: Body = {
        "metadata": {"name": "s-1", "namespace": "n", "labels": labels},
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}],
        "ports": [{"name": name, **({"port": port} if port else {})}],
    }
    return Obj.of(Key(SLICES, "n", "s-1"), body, 1)


def told(view: View, answer: str = "", at: str = NOW) -> tuple[Body | None, float | None]:
    """What the condition becomes, and when it is looked at again."""

    async def check(name: str) -> str:
        assert name == "v1.g"
        return answer

    actions = [*ApiServiceAvailability(check).plan(view, parse_rfc3339(at))]
    if len(actions) == 1 and isinstance(actions[0], Probe):
        actions = [*actions[0].then(answer)]
    again = next((a.after for a in actions if isinstance(a, Again)), None)
    written = [a for a in actions if isinstance(a, SetStatus)]
    assert len(written) <= 1 and all(w.resource == RESOURCE for w in written)
    return (written[0].body["status"]["conditions"][-1] if written else None), again


def condition(status: str, reason: str, message: str, at: str = NOW) -> Body:
    return {"type": "Available", "status": status, "lastTransitionTime": at, "reason": reason,
            "message": message}  # fmt: skip


PASSED = condition("True", "Passed", "all checks passed")


@pytest.mark.parametrize(
    ("given", "found", "slices", "reason", "message"),
    [
        (api(), None, (), "ServiceNotFound", 'service/s in "n" is not present'),
        (api(8443), service(), (), "ServicePortError",
         'service/s in "n" is not listening on port 8443'),
        (api(), service(), (), "EndpointsNotFound",
         'cannot find endpointslices for service/s in "n"'),
        (api(), service(), (endpoints(ready=False),), "MissingEndpoints",
         'endpointslices for service/s in "n" have no addresses with port name ""'),
        (api(), service(name="https"), (endpoints(),), "MissingEndpoints",
         'endpointslices for service/s in "n" have no addresses with port name "https"'),
        (api(), service(), (endpoints(port=None),), "MissingEndpoints",
         'endpointslices for service/s in "n" have no addresses with port name ""'),
    ],
)  # fmt: skip
def test_a_service_that_cannot_be_asked(
    given: Body, found: Obj | None, slices: tuple[Obj, ...], reason: str, message: str
) -> None:
    view = View(given, found, slices, Tries())
    assert told(view) == (condition("False", reason, message), None)


@pytest.mark.parametrize(
    ("found", "slices"),
    [
        (service(), (endpoints(),)), (service(), (endpoints(ready=None),)),
        (service(name="https"), (endpoints("http"), endpoints("https"))),
        (service("ExternalName"), ()), (service("NodePort"), ()),
    ],
)  # fmt: skip
def test_one_that_answers_is_available(found: Obj, slices: tuple[Obj, ...]) -> None:
    assert told(View(api(), found, slices, Tries())) == (PASSED, 30.0)


def test_one_that_does_not_answer_is_asked_again_soon_then_rarely() -> None:
    tries = Tries()
    view = View(api(), service(), (endpoints(),), tries)
    pauses = []
    for _ in range(10):
        new, again = told(view, "no answer")
        assert new == condition("False", "FailedDiscoveryCheck", "no answer")
        pauses.append(again)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert told(view)[0] == PASSED and tries.failures == 0


def test_the_time_is_that_of_the_last_change_of_state_and_nothing_new_is_not_written() -> None:
    view = View(api(conditions=[PASSED]), service(), (endpoints(),), Tries())
    assert told(view, at=LATER) == (None, 30.0)
    failed = condition("False", "FailedDiscoveryCheck", "a")
    view = View(api(conditions=[failed]), service(), (endpoints(),), Tries())
    assert told(view, "b", LATER)[0] == failed | {"message": "b"}
    assert told(view, "", LATER)[0] == PASSED | {"lastTransitionTime": LATER}


def test_conditions_of_others_stay() -> None:
    other = {"type": "Other", "status": "True"}
    world = PlanWorld()
    actions = ApiServiceAvailability(_never).plan(
        View(api(conditions=[other], is_local=True), None, (), Tries()), parse_rfc3339(NOW)
    )
    (written,) = actions
    assert isinstance(written, SetStatus)
    local = condition("True", "Local", "Local APIServices are always available")
    assert written.body["status"]["conditions"] == [other, local]
    again = View(written.body, None, (), Tries())
    assert ApiServiceAvailability(_never).plan(again, world.now) == []


async def _never(_name: str) -> str:
    raise AssertionError("a local one is not asked")


# ---- what other servers are told -----------------------------------------------------------------


def trust(held: Body | None) -> Any:
    return AuthenticationTrust({"client-ca-file": "CA"}).plan((held,), 0.0)


def test_the_trust_is_published_and_put_right() -> None:
    (made,) = trust(None)
    assert isinstance(made, Create)
    assert made.body["metadata"] == {"name": NAME, "namespace": NAMESPACE}
    assert made.body["data"] == {"client-ca-file": "CA"}
    assert trust(made.body) == []
    (changed,) = trust({**made.body, "data": {"client-ca-file": "other", "more": "1"}})
    assert isinstance(changed, Update)
    assert changed.body["data"] == {"client-ca-file": "CA", "more": "1"}
