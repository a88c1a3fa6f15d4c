"""EndpointSlices and Endpoints of services: golden pairs, and what holds whatever happens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key
from sampan.control.plan import Action, Create, Delete, Update
from sampan.controllers.endpoints import EndpointsController
from sampan.controllers.endpointslice import EndpointSliceController
from sampan.controllers.mirroring import EndpointSliceMirroringController
from sampan.controllers.slices import Group, Maker, plan
from sampan.testing.plans import PlanWorld

SLICES = "endpointslices.discovery.k8s.io"
WEB = Key("services", "default", "web")
TIME = "endpoints.kubernetes.io/last-change-trigger-time"
READY_AT = "2026-01-01T00:00:00Z"


def world(*pods: Body, zones: dict[str, str] | None = None, **spec: Any) -> PlanWorld:
    w = PlanWorld(
        EndpointSliceController(), EndpointsController(), EndpointSliceMirroringController()
    )
    body = {
        "metadata": {
            "name": "web",
            "labels": {"team": "a"},
            "creationTimestamp": "2026-01-01T10:00:00Z",
        },
        "spec": service_spec(**spec),
    }
    w.add("services", body)
    for name, zone in (zones or {"n1": "", "n2": ""}).items():
        labels = {"topology.kubernetes.io/zone": zone} if zone else {}
        w.add("nodes", {"metadata": {"name": name, "namespace": "", "labels": labels}})
    for p in pods:
        w.add("pods", p)
    return w


def service_spec(**spec: Any) -> Body:
    made = {
        "type": "ClusterIP", "clusterIP": "10.43.1.1", "ipFamilies": ["IPv4"],
        "selector": {"app": "web"},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}], **spec,
    }  # fmt: skip
    return {k: v for k, v in made.items() if v is not None}


def pod(
    name: str, ip: str = "", *, ready: bool = True, node: str = "n1", phase: str = "Running",
    deleting: bool = False, ips: list[str] | None = None, **spec: Any,
) -> Body:  # fmt: skip
    meta: Body = {"name": name, "labels": {"app": "web", "x": "y"}}
    if deleting:
        meta["deletionTimestamp"] = READY_AT
    status: Body = {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": READY_AT}],
    }
    if ip or ips:
        status["podIPs"] = [{"ip": i} for i in ips or [ip]]
        status["podIP"] = (ips or [ip])[0]
    return {"metadata": meta, "spec": {"nodeName": node, "containers": [], **spec},
            "status": status}  # fmt: skip


def slices(w: PlanWorld) -> list[Body]:
    return [b for k, b in sorted(w.objects.items()) if k.resource == SLICES]


def step(w: PlanWorld) -> list[Action]:
    return [*w.step(EndpointSliceController(), WEB)]


def test_one_ready_pod() -> None:
    w = world(pod("a", "10.42.1.2"))
    assert len(step(w)) == 1
    (made,) = slices(w)
    uid = w.objects[WEB]["metadata"]["uid"]
    meta = made["metadata"]
    assert meta["generateName"] == "web-" and meta["name"].startswith("web-")
    assert meta["labels"] == {
        "team": "a", "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }  # fmt: skip
    assert meta["annotations"] == {TIME: READY_AT}
    assert meta["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Service", "name": "web", "uid": uid, "controller": True,
         "blockOwnerDeletion": True}
    ]  # fmt: skip
    assert made["addressType"] == "IPv4"
    assert made["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
    (endpoint,) = made["endpoints"]
    assert endpoint == {
        "addresses": ["10.42.1.2"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": "n1",
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "a",
                      "uid": endpoint["targetRef"]["uid"]},
    }  # fmt: skip
    assert step(w) == []


@pytest.mark.parametrize(
    ("given_", "spec", "expected"),
    [
        # ready, serving, terminating; None: not listed
        (pod("a", "1.1.1.1"), {}, (True, True, False)),
        (pod("a", "1.1.1.1", ready=False), {}, (False, False, False)),
        (pod("a", "1.1.1.1", deleting=True), {}, (False, True, True)),
        (pod("a", "1.1.1.1", deleting=True, ready=False), {}, (False, False, True)),
        (pod("a", "1.1.1.1", ready=False), {"publishNotReadyAddresses": True},
         (True, False, False)),
        (pod("a", "1.1.1.1", deleting=True, ready=False), {"publishNotReadyAddresses": True},
         (True, False, True)),
        (pod("a"), {}, None),
        (pod("a", "1.1.1.1", phase="Succeeded"), {}, None),
        (pod("a", "1.1.1.1", phase="Failed"), {"publishNotReadyAddresses": True}, None),
        (pod("a", "1.1.1.1", node="gone"), {}, None),
        (pod("a", "1.1.1.1", node="gone"), {"publishNotReadyAddresses": True},
         (True, True, False)),
        (pod("a", "fd00::1"), {}, None),
    ],
)  # fmt: skip
def test_conditions(given_: Body, spec: Body, expected: Any) -> None:
    w = world(given_, **spec)
    step(w)
    (made,) = slices(w)
    found = [tuple(e["conditions"][k] for k in ("ready", "serving", "terminating"))
             for e in made["endpoints"]]  # fmt: skip
    assert found == ([expected] if expected else [])


def test_without_pods_one_empty_slice_stands_for_the_service() -> None:
    w = world()
    step(w)
    (made,) = slices(w)
    assert made["endpoints"] == [] and made["ports"] == []
    assert made["metadata"]["annotations"] == {TIME: "2026-01-01T10:00:00Z"}
    assert step(w) == []
    w.add("pods", pod("a", "1.1.1.1"))
    (action,) = step(w)
    assert isinstance(action, Update)  # the empty one is used
    del w.objects[Key("pods", "default", "a")]
    (action,) = step(w)
    assert isinstance(action, Update) and TIME not in action.body["metadata"].get("annotations", {})
    assert len(slices(w)) == 1 and slices(w)[0]["ports"] == []


def test_headless_hostname_zone_and_named_ports() -> None:
    ports = [{"name": "h", "port": 80, "protocol": "TCP", "targetPort": "http",
              "appProtocol": "kubernetes.io/h2c"},
             {"name": "d", "port": 53, "protocol": "UDP", "targetPort": "dns"}]  # fmt: skip
    container = {"ports": [{"name": "http", "containerPort": 8080},
                           {"name": "dns", "containerPort": 5353, "protocol": "TCP"}]}  # fmt: skip
    sidecar = {"restartPolicy": "Always",
               "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]}  # fmt: skip
    named = pod("a", "1.1.1.1", hostname="web-0", subdomain="web", containers=[container],
                initContainers=[sidecar])  # fmt: skip
    other = pod("b", "1.1.1.2", hostname="b", subdomain="other", containers=[container])
    w = world(named, other, clusterIP="None", ports=ports, zones={"n1": "z1"})
    step(w)
    one, two = sorted(slices(w), key=lambda s: len(s["ports"]))
    assert one["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    assert [p["port"] for p in two["ports"]] == [8080, 53]
    assert two["ports"][0]["appProtocol"] == "kubernetes.io/h2c"
    assert [p["port"] for p in one["ports"]] == [8080]
    assert two["endpoints"][0]["hostname"] == "web-0" and two["endpoints"][0]["zone"] == "z1"
    assert "hostname" not in one["endpoints"][0]
    assert step(w) == []


@pytest.mark.parametrize(
    ("distribution", "hints"),
    [
        (None, None),
        ("PreferClose", {"forZones": [{"name": "z1"}]}),
        ("PreferSameZone", {"forZones": [{"name": "z1"}]}),
        ("PreferSameNode", {"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]}),
    ],
)
def test_hints(distribution: str | None, hints: Body | None) -> None:
    w = world(pod("a", "1.1.1.1"), trafficDistribution=distribution, zones={"n1": "z1"})
    step(w)
    assert slices(w)[0]["endpoints"][0].get("hints") == hints


def test_dual_stack_services_have_slices_of_both_families() -> None:
    w = world(pod("a", ips=["1.1.1.1", "fd00::1"]), ipFamilies=["IPv4", "IPv6"])
    step(w)
    assert {(s["addressType"], s["endpoints"][0]["addresses"][0]) for s in slices(w)} == {
        ("IPv4", "1.1.1.1"), ("IPv6", "fd00::1")
    }  # fmt: skip
    w.objects[WEB]["spec"]["ipFamilies"] = ["IPv4"]
    step(w)
    assert [s["addressType"] for s in slices(w)] == ["IPv4"]


def many(count: int, start: int = 0) -> list[Body]:
    return [pod(f"p{i:04d}", f"10.{i // 250}.0.{i % 250 + 1}") for i in range(start, count)]


def test_up_to_a_hundred_endpoints_a_slice_and_few_writes_for_few_changes() -> None:
    w = world(*many(250))
    assert len(step(w)) == 3
    assert sorted(len(s["endpoints"]) for s in slices(w)) == [50, 100, 100]
    w.add("pods", pod("new", "10.9.9.9"))
    (action,) = step(w)
    assert isinstance(action, Update) and len(action.body["endpoints"]) == 51
    w.objects[Key("pods", "default", "p0003")]["status"]["phase"] = "Failed"
    w.add("pods", pod("other", "10.9.9.8"))
    (action,) = step(w)  # the slice that loses one takes the other
    assert isinstance(action, Update) and len(action.body["endpoints"]) == 100
    assert step(w) == []


def test_slices_of_users_and_of_a_former_service_of_the_name() -> None:
    w = world(pod("a", "1.1.1.1"))
    user = {"metadata": {"name": "mine", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "endpoints": [], "ports": []}  # fmt: skip
    w.add(SLICES, user)
    former = {
        "metadata": {"name": "former", "labels": {
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
            "ownerReferences": [{"uid": "gone", "controller": True}]},
        "addressType": "IPv4", "endpoints": [], "ports": [],
    }  # fmt: skip
    w.add(SLICES, former)
    kinds = sorted(type(a).__name__ for a in step(w))
    assert kinds == ["Create", "Delete"]
    names = {s["metadata"]["name"] for s in slices(w)}
    assert "mine" in names and "former" not in names and len(names) == 2


def test_labels_of_the_service_come_along_later_and_external_names_have_none() -> None:
    w = world(pod("a", "1.1.1.1"))
    step(w)
    w.objects[WEB]["metadata"]["labels"] = {"team": "b"}
    step(w)
    (made,) = slices(w)
    assert made["metadata"]["labels"]["team"] == "b"
    for spec in ({"selector": None}, {"type": "ExternalName"}):
        assert step(world(pod("a", "1.1.1.1"), **spec)) == []


def test_a_refused_slice_is_told() -> None:
    w = world(pod("a", "1.1.1.1"))
    w.refuse = lambda _key: "no room"
    step(w)
    assert w.events == [
        ("FailedToUpdateEndpointSlices",
         "Error updating Endpoint Slices for Service default/web: no room")
    ]  # fmt: skip
    w.events.clear()
    w.step(EndpointsController(), WEB)
    assert w.events == [
        ("FailedToCreateEndpoint",
         "Failed to create endpoint for service default/web: no room")
    ]  # fmt: skip


# -- whatever happens

change = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 30), st.booleans(), st.booleans()),
    st.tuples(st.just("gone"), st.integers(0, 30), st.booleans(), st.booleans()),
    st.tuples(st.just("port"), st.sampled_from([8080, 8081]), st.booleans(), st.booleans()),
    st.tuples(st.just("slice"), st.integers(0, 3), st.booleans(), st.booleans()),
)


@settings(max_examples=60, deadline=None)
@given(rounds=st.lists(st.lists(change, max_size=12), max_size=6))
def test_the_slices_always_show_exactly_the_pods_and_then_nothing_is_written(
    rounds: list[list[tuple[str, int, bool, bool]]],
) -> None:
    w = world()
    for changes in rounds:
        for what, number, ready, deleting in changes:
            key = Key("pods", "default", f"p{number}")
            if what == "put":
                body = pod(f"p{number}", f"10.0.0.{number + 1}", ready=ready, deleting=deleting)
                w.add("pods", body)
            elif what == "gone":
                w.objects.pop(key, None)
            elif what == "port":
                w.objects[WEB]["spec"]["ports"][0]["targetPort"] = number
            else:
                for held in slices(w)[number : number + 1]:
                    w.objects.pop(Key(SLICES, "default", held["metadata"]["name"]))
        actions = step(w)
        assert all(isinstance(a, Create | Update | Delete) for a in actions)
        shown = [e["targetRef"]["uid"] for s in slices(w) for e in s["endpoints"]]
        pods = {b["metadata"]["uid"] for k, b in w.objects.items() if k.resource == "pods"}
        assert sorted(shown) == sorted(pods)
        assert len(slices(w)) == 1 and step(w) == []


@settings(max_examples=60, deadline=None)
@given(
    before=st.sets(st.integers(0, 60)), after=st.sets(st.integers(0, 60)),
    maximum=st.integers(1, 20),
)  # fmt: skip
def test_slices_are_never_too_full_and_a_write_changes_something(
    before: set[int], after: set[int], maximum: int
) -> None:
    owner = {"metadata": {"name": "web", "namespace": "default", "uid": "u"}}
    reference = {"uid": "u", "controller": True}
    maker = Maker(owner, "web", {"kubernetes.io/service-name": "web"}, reference, maximum=maximum)
    ports = [{"name": "", "port": 80, "protocol": "TCP"}]

    def group(numbers: set[int]) -> list[Group]:
        return [Group(ports, [{"addresses": [f"10.0.0.{n}"]} for n in sorted(numbers)])]

    w = PlanWorld()
    for wanted in (before, after):
        actions = plan(maker, {"IPv4": group(wanted)}, slices(w))
        for action in actions:
            if isinstance(action, Update):
                key = Key(SLICES, "default", action.body["metadata"]["name"])
                assert w.objects[key] != action.body
            w.run(action)
        shown = [e["addresses"][0] for s in slices(w) for e in s["endpoints"]]
        assert sorted(shown) == sorted(f"10.0.0.{n}" for n in wanted)
        assert all(len(s["endpoints"]) <= maximum for s in slices(w))
        assert plan(maker, {"IPv4": group(wanted)}, slices(w)) == []
    assert len([a for a in actions if isinstance(a, Create)]) <= len(after) // maximum + 1


# -- Endpoints


def endpoints_step(w: PlanWorld) -> Body | None:
    w.step(EndpointsController(), WEB)
    assert w.step(EndpointsController(), WEB) == []
    return w.objects.get(Key("endpoints", "default", "web"))


def test_endpoints_group_addresses_by_ports() -> None:
    w = world(
        pod("b", "1.1.1.2", ready=False), pod("a", "1.1.1.1"), pod("c", "1.1.1.3", deleting=True),
        pod("d", "1.1.1.4", hostname="h", subdomain="web"),
    )  # fmt: skip
    made = endpoints_step(w)
    assert made is not None
    assert made["metadata"]["labels"] == {
        "team": "a", "endpoints.kubernetes.io/managed-by": "endpoint-controller"
    }  # fmt: skip
    (subset,) = made["subsets"]
    assert [a["ip"] for a in subset["addresses"]] == ["1.1.1.1", "1.1.1.4"]
    assert [a["ip"] for a in subset["notReadyAddresses"]] == ["1.1.1.2"]
    assert subset["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert subset["addresses"][1]["hostname"] == "h"
    assert subset["addresses"][0]["targetRef"]["name"] == "a"
    assert made["metadata"]["annotations"] == {TIME: READY_AT}
    for k in [k for k in w.objects if k.resource == "pods"]:
        del w.objects[k]
    made = endpoints_step(w)
    assert made is not None and "subsets" not in made


def test_endpoints_of_a_headless_service() -> None:
    made = endpoints_step(world(pod("a", "1.1.1.1"), clusterIP="None"))
    assert made is not None
    assert made["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


def test_endpoints_publish_what_is_not_ready_and_terminating_where_asked() -> None:
    w = world(pod("a", "1.1.1.1", ready=False, deleting=True), publishNotReadyAddresses=True,
              clusterIP="None", ports=[])  # fmt: skip
    made = endpoints_step(w)
    assert made is not None
    assert made["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    assert [list(s) for s in made["subsets"]] == [["addresses"]]


def test_endpoints_end_at_a_thousand_and_with_their_service() -> None:
    w = world(*many(1100))
    made = endpoints_step(w)
    assert made is not None
    assert len(made["subsets"][0]["addresses"]) == 1000
    notes = made["metadata"]["annotations"]
    assert notes["endpoints.kubernetes.io/over-capacity"] == "truncated"
    del w.objects[WEB]
    assert endpoints_step(w) is None


def test_endpoints_of_users_are_left_alone() -> None:
    w = world(selector=None)
    w.add(
        "endpoints", {"metadata": {"name": "web"}, "subsets": [{"addresses": [{"ip": "9.9.9.9"}]}]}
    )
    before = dict(w.objects)
    assert w.step(EndpointsController(), WEB) == [] and w.objects == before


def test_endpoints_of_users_go_with_their_service_but_not_without_one() -> None:
    w = world(selector=None)
    mine = {"metadata": {"name": "web"}, "subsets": [{"addresses": [{"ip": "9.9.9.9"}]}]}
    w.add("endpoints", mine)
    controller = EndpointsController()
    assert w.step(controller, WEB) == []
    del w.objects[WEB]
    (action,) = w.step(controller, WEB)
    assert isinstance(action, Delete)
    assert w.step(controller, WEB) == []
    w.add("endpoints", mine)
    assert w.step(controller, WEB) == []


# -- mirroring

ENDPOINTS = Key("endpoints", "default", "web")


def mirrored(w: PlanWorld) -> list[Body]:
    w.step(EndpointSliceMirroringController(), ENDPOINTS)
    assert w.step(EndpointSliceMirroringController(), ENDPOINTS) == []
    return slices(w)


def test_endpoints_that_users_write_are_mirrored() -> None:
    w = world(selector=None)
    subset = {"addresses": [{"ip": "9.9.9.9"}, {"ip": "fd00::1"}],
              "notReadyAddresses": [{"ip": "9.9.9.8", "hostname": "h"}],
              "ports": [{"port": 80, "protocol": "TCP"}]}  # fmt: skip
    notes = {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    w.add("endpoints", {"metadata": {"name": "web", "labels": {"l": "m"}, "annotations": notes},
                        "subsets": [subset]})  # fmt: skip
    four, six = sorted(mirrored(w), key=lambda s: str(s["addressType"]))
    assert [e["addresses"] for e in four["endpoints"]] == [["9.9.9.9"], ["9.9.9.8"]]
    assert [e["conditions"] for e in four["endpoints"]] == [{"ready": True}, {"ready": False}]
    assert four["endpoints"][1]["hostname"] == "h"
    assert six["endpoints"][0]["addresses"] == ["fd00::1"]
    assert four["metadata"]["annotations"] == {"a": "b"}
    assert four["metadata"]["labels"] == {
        "l": "m", "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
    }  # fmt: skip
    assert four["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
    w.objects[ENDPOINTS]["subsets"][0]["addresses"].pop()
    assert [s["addressType"] for s in mirrored(w)] == ["IPv4"]
    w.objects[WEB]["spec"]["selector"] = {"app": "web"}
    assert mirrored(w) == []


def test_a_thousand_addresses_are_mirrored() -> None:
    w = world(selector=None)
    many_ = [{"ip": f"9.9.{i // 250}.{i % 250 + 1}"} for i in range(1100)]
    subset = {"addresses": many_[:999], "notReadyAddresses": many_[999:],
              "ports": [{"port": 80, "protocol": "TCP"}]}  # fmt: skip
    w.add("endpoints", {"metadata": {"name": "web"}, "subsets": [subset]})
    (made,) = mirrored(w)
    assert len(made["endpoints"]) == 1000 and not made["endpoints"][-1]["conditions"]["ready"]
    assert w.events == [
        ("TooManyAddressesToMirror",
         "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 100 "
         "addresses were skipped")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "meta",
    [{"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
     {"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}],
)  # fmt: skip
def test_what_is_not_mirrored(meta: Body) -> None:
    w = world(selector=None)
    w.add("endpoints", {"metadata": {"name": "web", **meta},
                        "subsets": [{"addresses": [{"ip": "9.9.9.9"}]}]})  # fmt: skip
    assert mirrored(w) == []
