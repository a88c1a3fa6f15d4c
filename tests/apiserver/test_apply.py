"""Server-side apply, as clients see it, over a memory store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from sampan.api.call import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, Call, User
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.apiserver.endpoint import ApiServer
from sampan.testing.api import ADMIN, api_server, client_of

LAST = "kubectl.kubernetes.io/last-applied-configuration"
Kind = tuple[str, str, str]
MAP: Kind = ("configmaps", "v1", "ConfigMap")
DEPLOYMENT: Kind = ("deployments.apps", "apps/v1", "Deployment")


class World:
    """An API server and the ways to write to it."""

    def __init__(self, api: ApiServer) -> None:
        self.api = api

    async def call(
        self, verb: str, resource: str, name: str = "", *, user: User = ADMIN, **more: Any
    ) -> Obj:
        call = Call(verb=verb, resource=resource, namespace="default", name=name, **more)
        self.last = call
        answer = await self.api.handle(user, call)
        assert isinstance(answer, Obj)
        return answer

    async def apply(
        self, kind: Kind, config: Body, *, by: str = "me", name: str = "x", user: User = ADMIN,
        subresource: str = "", repeated: list[str] | None = None, **options: str,
    ) -> Obj:  # fmt: skip
        resource, version, title = kind
        body = {"apiVersion": version, "kind": title, "metadata": {"name": name}, **config}
        return await self.call(
            "patch", resource, name, user=user, body=orjson.loads(orjson.dumps(body)),
            content_type=APPLY_PATCH, subresource=subresource, repeated=repeated or [],
            options={"fieldManager": by, **options} if by else options,
        )  # fmt: skip

    async def patch(
        self, resource: str, body: Any, *, by: str = "", kind: str = MERGE_PATCH, **more: Any
    ) -> Obj:
        options = {"fieldManager": by} if by else {}
        return await self.call(
            "patch", resource, "x", body=body, content_type=kind, options=options, **more
        )

    async def get(self, resource: str) -> Obj:
        return await self.call("get", resource, "x")


def run(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        api = await api_server()
        await scenario(World(api))
        await api.authorizer.stop()

    asyncio.run(main())


async def refused(work: Awaitable[Any]) -> StatusError:
    with pytest.raises(StatusError) as e:
        await work
    return e.value


def managers(obj: Obj) -> list[tuple[str, str, str]]:
    entries = obj.meta.get("managedFields") or []
    return [(e["manager"], e["operation"], e.get("subresource", "")) for e in entries]


def deployment(image: str = "i", **spec: Any) -> Body:
    return {"spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}},
                     "spec": {"containers": [{"name": "c", "image": image}]}}, **spec,
    }}  # fmt: skip


def test_what_is_not_there_is_created_and_the_same_again_writes_nothing() -> None:
    async def scenario(w: World) -> None:
        made = await w.apply(DEPLOYMENT, deployment(replicas=2))
        assert w.last.is_creation and made.meta["generation"] == 1
        entry = made.meta["managedFields"][0]
        assert entry["operation"] == "Apply" and entry["apiVersion"] == "apps/v1"
        assert entry["fieldsV1"]["f:spec"]["f:replicas"] == {}
        assert "f:strategy" not in entry["fieldsV1"]["f:spec"]  # a default is nobody's
        assert made.spec["strategy"]["type"] == "RollingUpdate"
        again = await w.apply(DEPLOYMENT, deployment(replicas=2))
        assert again.revision == made.revision and not w.last.is_creation

    run(scenario)


def test_conflicts_and_force() -> None:
    async def scenario(w: World) -> None:
        await w.apply(MAP, {"data": {"a": "1", "b": "1"}}, by="one")
        config = {"data": {"a": "2", "b": "1", "c": "2"}}
        error = await refused(w.apply(MAP, config, by="two"))
        assert (error.code, error.reason) == (409, "Conflict")
        assert error.message == 'Apply failed with 1 conflict: conflict with "one": .data.a'
        assert error.status()["details"]["causes"] == [{
            "reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a",
        }]  # fmt: skip
        done = await w.apply(MAP, config, by="two", force="true")
        assert done.body["data"] == {"a": "2", "b": "1", "c": "2"}
        less = await w.apply(MAP, {"data": {"c": "2"}}, by="two")
        assert less.body["data"] == {"b": "1", "c": "2"}  # b is still another's

    run(scenario)


def test_writes_that_are_no_apply_take_what_they_change() -> None:
    async def scenario(w: World) -> None:
        await w.apply(DEPLOYMENT, deployment(replicas=1))
        scaled = await w.patch(DEPLOYMENT[0], {"spec": {"replicas": 3}}, subresource="scale",
                               user_agent="kubectl/v1")  # fmt: skip
        assert scaled.spec["replicas"] == 3
        assert ("kubectl", "Update", "scale") in managers(await w.get(DEPLOYMENT[0]))
        error = await refused(w.apply(DEPLOYMENT, deployment(replicas=1)))
        assert '"kubectl" with subresource "scale" using apps/v1 at ' in error.message
        left = await w.apply(DEPLOYMENT, deployment())  # it gives the field up
        assert left.spec["replicas"] == 3
        status = await w.patch(DEPLOYMENT[0], {"status": {"replicas": 3}, "spec": {"replicas": 9}},
                               by="ctl", subresource="status")  # fmt: skip
        assert status.spec["replicas"] == 3
        entry = next(e for e in status.meta["managedFields"] if e["manager"] == "ctl")
        assert entry["fieldsV1"] == {"f:status": {"f:replicas": {}}}

    run(scenario)


def test_status_and_scale_may_be_applied() -> None:
    async def scenario(w: World) -> None:
        missing = await refused(w.apply(DEPLOYMENT, {"status": {"replicas": 1}},
                                        subresource="status"))  # fmt: skip
        assert missing.code == 404
        await w.apply(DEPLOYMENT, {**deployment(replicas=1), "status": {"replicas": 8}})
        assert "replicas" not in (await w.get(DEPLOYMENT[0])).status
        condition = {"type": "Odd", "status": "True"}
        done = await w.apply(
            DEPLOYMENT, {"status": {"conditions": [condition]}, "spec": {"replicas": 5}},
            by="ctl", subresource="status",
        )  # fmt: skip
        assert done.status["conditions"] == [condition] and done.spec["replicas"] == 1
        assert ("ctl", "Apply", "status") in managers(done)
        scale = ("deployments.apps", "autoscaling/v1", "Scale")
        clash = await refused(w.apply(scale, {"spec": {"replicas": 2}}, by="hpa",
                                      subresource="scale"))  # fmt: skip
        assert clash.code == 409 and ".spec.replicas" in clash.message
        answer = await w.apply(
            scale, {"spec": {"replicas": 2}}, by="hpa", subresource="scale", force="true"
        )  # fmt: skip
        assert answer.body["kind"] == "Scale" and answer.spec["replicas"] == 2
        assert ("hpa", "Apply", "scale") in managers(await w.get(DEPLOYMENT[0]))

    run(scenario)


def test_dry_runs() -> None:
    async def scenario(w: World) -> None:
        made = await w.apply(MAP, {"data": {"a": "1"}}, dryRun="All")
        assert made.body["data"] == {"a": "1"}
        assert (await refused(w.get(MAP[0]))).code == 404
        await w.apply(MAP, {"data": {"a": "1"}})
        changed = await w.apply(MAP, {"data": {"a": "2"}}, dryRun="All")
        assert changed.body["data"] == {"a": "2"}
        assert (await w.get(MAP[0])).body["data"] == {"a": "1"}

    run(scenario)


@pytest.mark.parametrize(
    ("by", "options", "kind", "said"),
    [
        ("", {}, APPLY_PATCH, "fieldManager: Required value: is required for apply patch"),
        ("x" * 129, {}, APPLY_PATCH, "fieldManager: Too long: may not be more than 128 bytes"),
        ("a\nb", {}, APPLY_PATCH, "should only contain printable characters"),
        ("", {"force": "true"}, MERGE_PATCH,
         "force: Forbidden: may not be specified for non-apply patch"),
    ],
)  # fmt: skip
def test_options(by: str, options: dict[str, str], kind: str, said: str) -> None:
    async def scenario(w: World) -> None:
        named = {"fieldManager": by} if by else {}
        error = await refused(w.call(
            "patch", "configmaps", "x", body={}, content_type=kind, options={**named, **options}
        ))  # fmt: skip
        assert error.code == 422 and said in error.message
        assert error.message.startswith('PatchOptions.meta.k8s.io "" is invalid: ')

    run(scenario)


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ({"kind": ""}, 400, "Object 'Kind' is missing in "),
        ({"apiVersion": "v2"}, 400, "Specified patch version: v2, expected: apps/v1"),
        ({"kind": "Pod"}, 400, "does not match the resource"),
        ({"metadata": {"name": "y"}}, 400, "the name of the object (y) does not match"),
        ({"metadata": {"managedFields": [{}]}}, 400, "metadata.managedFields must be nil"),
        ({"metadata": {"name": "x", "uid": "u"}}, 409, "Precondition failed: UID"),
        ({"spec": {"replicas": "x"}}, 500,
         "failed to create typed patch object (default/x; apps/v1, Kind=Deployment): "),
        ({"spec": {"template": {"spec": {"containers": [{"name": "c", "imag": "i"}]}}}}, 500,
         '.spec.template.spec.containers[name="c"].imag: field not declared in schema'),
        ({"spec": {"template": {"spec": {"containers": [{"image": "i"}]}}}}, 500,
         'element 0: associative list with keys has an element that omits key field "name"'),
        ({"spec": {}}, 422, "spec.selector: Required value"),
    ],
)  # fmt: skip
def test_refusals(config: Body, code: int, said: str) -> None:
    async def scenario(w: World) -> None:
        error = await refused(w.apply(DEPLOYMENT, config))
        assert (error.code, said in error.message) == (code, True), error.message

    run(scenario)


def test_fields_that_are_there_twice() -> None:
    async def scenario(w: World) -> None:
        twice = ['line 3: key "a" already set in map']
        error = await refused(w.apply(MAP, {}, repeated=list(twice), fieldValidation="Strict"))
        assert error.code == 400 and twice[0] in error.message
        await w.apply(MAP, {}, repeated=list(twice))
        assert w.last.warnings == twice
        await w.apply(MAP, {}, repeated=list(twice), fieldValidation="Ignore")
        assert w.last.warnings == []

    run(scenario)


def test_creating_by_an_apply_needs_both_rights() -> None:
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}
    bob = User("bob", ("system:authenticated",))

    async def scenario(w: World) -> None:
        await w.call("create", "roles.rbac.authorization.k8s.io",
                     body={"metadata": {"name": "r"}, "rules": [rule]})  # fmt: skip
        await w.call("create", "rolebindings.rbac.authorization.k8s.io", body={
            "metadata": {"name": "r"}, "subjects": [{"kind": "User", "name": "bob"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        })  # fmt: skip
        while "cannot patch" in (error := await refused(w.apply(MAP, {}, user=bob))).message:
            await asyncio.sleep(0.01)  # until the authorizer has heard of the role
        assert error.code == 403 and 'cannot create resource "configmaps"' in error.message
        await w.apply(MAP, {"data": {"a": "1"}})
        done = await w.apply(MAP, {"data": {"b": "1"}}, by="bob", user=bob)
        assert done.body["data"] == {"a": "1", "b": "1"}

    run(scenario)


def test_preconditions() -> None:
    async def scenario(w: World) -> None:
        made = await w.apply(MAP, {"data": {"a": "1"}})
        stale = {"name": "x", "resourceVersion": str(made.revision)}
        await w.apply(MAP, {"metadata": stale, "data": {"a": "2"}})
        error = await refused(w.apply(MAP, {"metadata": stale, "data": {"a": "3"}}))
        assert error.code == 409 and "the object has been modified" in error.message
        other = {"name": "x", "uid": "other"}
        error = await refused(w.apply(MAP, {"metadata": other, "data": {"a": "3"}}))
        assert error.code == 409 and "Precondition failed: UID" in error.message

    run(scenario)


def test_objects_nobody_kept_an_account_of() -> None:
    """What was there before the first apply is of a manager of its own, from then on."""

    async def scenario(w: World) -> None:
        await w.call("create", "configmaps", body={"metadata": {"name": "x"}, "data": {"a": "1"}})
        reset = await w.patch("configmaps", {"metadata": {"managedFields": [{}]}})
        assert "managedFields" not in reset.meta
        untracked = await w.patch("configmaps", {"data": {"b": "1"}}, by="late")
        assert "managedFields" not in untracked.meta
        error = await refused(w.apply(MAP, {"data": {"a": "2"}}))
        assert 'conflict with "before-first-apply" using v1 at ' in error.message
        done = await w.apply(MAP, {"data": {"c": "2"}})
        assert managers(done) == [("me", "Apply", ""), ("before-first-apply", "Update", "")]

    run(scenario)


def test_managers_may_be_rewritten_by_clients_but_not_over_a_subresource() -> None:
    async def scenario(w: World) -> None:
        made = await w.apply(DEPLOYMENT, deployment())
        entries = [{**made.meta["managedFields"][0], "manager": "new"}]
        patch = [{"op": "replace", "path": "/metadata/managedFields", "value": entries}]
        await w.patch(DEPLOYMENT[0], patch, kind=JSON_PATCH, subresource="status")
        assert managers(await w.get(DEPLOYMENT[0])) == [("me", "Apply", "")]
        await w.patch(DEPLOYMENT[0], patch, kind=JSON_PATCH)
        assert managers(await w.get(DEPLOYMENT[0])) == [("new", "Apply", "")]

    run(scenario)


def test_kubectl_takes_over_what_it_applied_on_its_own() -> None:
    async def scenario(w: World) -> None:
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"},
                  "data": {"a": "1", "b": "1"}}  # fmt: skip
        annotated = {**config, "metadata": {
            "name": "x", "annotations": {LAST: orjson.dumps(config).decode()}
        }}  # fmt: skip
        await w.call("create", "configmaps", body=annotated,
                     options={"fieldManager": "kubectl-client-side-apply"})  # fmt: skip
        wanted = {"data": {"a": "2"}}
        error = await refused(w.apply(MAP, wanted, by="other"))
        assert '"kubectl-client-side-apply" using v1 at ' in error.message
        done = await w.apply(MAP, wanted, by="kubectl")
        assert done.body["data"] == {"a": "2", "b": "1"}
        assert orjson.loads(done.meta["annotations"][LAST])["data"] == {"a": "2"}
        # What another has changed since is no longer what kubectl had applied.
        await w.patch("configmaps", {"data": {"b": "9"}}, by="other")
        error = await refused(w.apply(MAP, {"data": {"a": "2", "b": "3"}}, by="kubectl"))
        assert 'conflict with "other"' in error.message

    run(scenario)


def test_events_and_leases_are_not_kept_account_of() -> None:
    async def scenario(w: World) -> None:
        made = await w.call("create", "leases.coordination.k8s.io", body={
            "metadata": {"name": "x"}, "spec": {"holderIdentity": "h"}
        })  # fmt: skip
        assert "managedFields" not in made.meta
        lease = ("leases.coordination.k8s.io", "coordination.k8s.io/v1", "Lease")
        done = await w.apply(lease, {"spec": {"leaseDurationSeconds": 3}})
        assert done.spec == {"holderIdentity": "h", "leaseDurationSeconds": 3}

    run(scenario)


def test_another_shape_of_what_is_stored() -> None:
    async def scenario(w: World) -> None:
        v1 = ("horizontalpodautoscalers.autoscaling", "autoscaling/v1", "HorizontalPodAutoscaler")
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
        spec = {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}
        body = {"apiVersion": v1[1], "kind": v1[2], "metadata": {"name": "x"}, "spec": spec}
        made = await w.call(
            "patch", v1[0], "x", version="v1", body=body, content_type=APPLY_PATCH,
            options={"fieldManager": "me"},
        )  # fmt: skip
        assert made.body["apiVersion"] == "autoscaling/v1" and w.last.is_creation
        assert made.spec["targetCPUUtilizationPercentage"] == 50

    run(scenario)


@pytest.mark.parametrize(
    ("user", "manager"),
    [
        ("system:serviceaccount:kube-system:replicaset-controller", "kube-controller-manager"),
        ("system:kube-scheduler", "kube-scheduler"),
        ("system:node:n1", "kubelet"),
        ("system:apiserver", "kube-apiserver"),
        ("bob", "sampan"),
    ],
)
def test_components_of_the_process_are_called_as_in_other_clusters(user: str, manager: str) -> None:
    async def scenario(w: World) -> None:
        client = client_of(w.api, User(user, ("system:masters",)))
        made = await client.create("configmaps", {"metadata": {"name": "x"}, "data": {"a": "b"}},
                                   "default")  # fmt: skip
        assert managers(made) == [(manager, "Update", "")]

    run(scenario)


def test_appliers_that_meet_all_get_their_say() -> None:
    async def scenario(w: World) -> None:
        await asyncio.gather(
            *(w.apply(MAP, {"data": {f"k{i}": "v"}}, by=f"m{i}") for i in range(12))
        )
        done = await w.get(MAP[0])
        assert len(done.body["data"]) == 12 and len(managers(done)) == 12

    run(scenario)
