"""The volume plug-ins' decisions, each on its own."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.obj import Body, Key, Obj
from sampan.control import storage
from sampan.scheduler.framework import SKIP, NodeInfo, PodInfo, Prepared, Reject
from sampan.scheduler.plugins.node_volume_limits import CSI_NODES, NodeVolumeLimits
from sampan.scheduler.plugins.volume_binding import (
    BIND_CONFLICT,
    NO_VOLUME,
    NODE_CONFLICT,
    UNBOUND,
    Choice,
    Claims,
    Storage,
    choose,
    sort_out,
)
from sampan.scheduler.plugins.volume_restrictions import VolumeRestrictions
from sampan.scheduler.plugins.volume_zone import VolumeZone
from sampan.scheduler.snapshot import Snapshot


class _Caches:
    """Objects by resource, as ``Caches`` give them."""

    def __init__(self, *bodies: tuple[str, Body]) -> None:
        self._of: dict[str, _Cache] = {}
        for resource, body in bodies:
            self[resource].add(resource, body)

    def __getitem__(self, resource: str) -> _Cache:
        return self._of.setdefault(resource, _Cache())


class _Cache:
    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Obj] = {}

    def add(self, resource: str, body: Body) -> None:
        meta = body["metadata"]
        key = Key(resource, meta.get("namespace", ""), meta["name"])
        self._objects[key.namespace, key.name] = Obj.of(key, body, 1)

    def get(self, namespace: str, name: str) -> Obj | None:
        return self._objects.get((namespace, name))

    def list(self) -> list[Obj]:
        return [*self._objects.values()]


def claim(name: str = "c", **more: Any) -> Body:
    meta = {"name": name, "namespace": "default", "uid": f"uid-{name}",
            "annotations": more.pop("notes", {})}  # fmt: skip
    phase = more.pop("phase", "Pending")
    meta |= more.pop("meta", {})
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "later",
            "resources": {"requests": {"storage": "1Gi"}}, **more}  # fmt: skip
    return {"metadata": meta, "spec": spec, "status": {"phase": phase}}


def bound(name: str = "c", to: str = "v", **more: Any) -> Body:
    return claim(name, volumeName=to, phase="Bound", notes={storage.BIND_COMPLETED: "yes"}, **more)


def on(*nodes: str) -> Body:
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}]}]}}  # fmt: skip


def volume(name: str = "v", labels: Body | None = None, **spec: Any) -> Body:
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                 "storageClassName": "later", **spec},
        "status": {"phase": "Available"},
    }  # fmt: skip


LATER: Body = {"metadata": {"name": "later"}, "provisioner": "x.io/y",
               "volumeBindingMode": "WaitForFirstConsumer"}  # fmt: skip
NOW: Body = {**LATER, "metadata": {"name": "now"}, "volumeBindingMode": "Immediate"}
STATIC: Body = {**LATER, "provisioner": storage.NO_PROVISIONER}


def node(name: str = "n1", **labels: str) -> Obj:
    body = {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
            "status": {"allocatable": {"cpu": "4", "pods": "10"}}}  # fmt: skip
    return Obj.of(Key("nodes", "", name), body, 1)


def pod(*claims: str, name: str = "p", ephemeral: bool = False) -> Obj:
    volumes: list[Body] = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims]
    if ephemeral:
        volumes.append({"name": "e", "ephemeral": {"volumeClaimTemplate": {}}})
    body = {"metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": volumes}}  # fmt: skip
    return Obj.of(Key("pods", "default", name), body, 1)


def held(*bodies: tuple[str, Body]) -> Storage:
    caches: Any = _Caches((storage.CLASSES, LATER), (storage.CLASSES, NOW), *bodies)
    return Storage(caches)


CLAIMS, VOLUMES = storage.CLAIMS, storage.VOLUMES


@pytest.mark.parametrize(
    ("bodies", "p", "why"),
    [
        ((), pod("c"), 'persistentvolumeclaim "c" not found'),
        ((), pod(ephemeral=True),
         'waiting for ephemeral volume controller to create the persistentvolumeclaim "p-e"'),
        (((CLAIMS, claim("p-e")),), pod(ephemeral=True),
         "PVC default/p-e was not created for pod default/p (pod is not owner)"),
        (((CLAIMS, claim(meta={"deletionTimestamp": "x"})),), pod("c"),
         'persistentvolumeclaim "c" is being deleted'),
        (((CLAIMS, claim(phase="Lost", volumeName="v")),), pod("c"),
         'persistentvolumeclaim "c" bound to non-existent persistentvolume "v"'),
        (((CLAIMS, bound()),), pod("c"), NO_VOLUME),
        (((CLAIMS, claim(storageClassName="now")),), pod("c"), UNBOUND),
        (((CLAIMS, claim(storageClassName="")),), pod("c"), UNBOUND),
        (((CLAIMS, claim(volumeName="v")),), pod("c"), UNBOUND),
    ],
)  # fmt: skip
def test_pods_that_fit_nowhere(bodies: Any, p: Obj, why: str) -> None:
    found = sort_out(p, held(*bodies))
    assert isinstance(found, Reject)
    assert found.reason == why


def test_claims_are_sorted_out() -> None:
    found = sort_out(
        pod("big", "c", "small"),
        held((CLAIMS, bound()), (VOLUMES, volume()), (CLAIMS, claim("small")),
             (CLAIMS, claim("big", resources={"requests": {"storage": "9Gi"}}))),
    )  # fmt: skip
    assert isinstance(found, Claims)
    assert [c["metadata"]["name"] for c, _ in found.bound] == ["c"]
    assert [c["metadata"]["name"] for c in found.open] == ["small", "big"]


def decide(claims: Claims, *volumes: Body, where: Obj | None = None, kind: Body = LATER,
           taken: tuple[str, ...] = ()) -> Choice | str:  # fmt: skip
    found = choose(
        claims, where or node(), volumes=volumes, taken=taken, class_of=lambda _name: kind
    )
    return found.reason if isinstance(found, Reject) else found


def names(choice: Choice | str) -> tuple[list[tuple[str, str]], list[str]]:
    assert isinstance(choice, Choice)
    return (
        [(c["metadata"]["name"], v["metadata"]["name"]) for c, v in choice.matched],
        [c["metadata"]["name"] for c in choice.provisioned],
    )


def test_bound_volumes_decide_where_a_pod_may_go() -> None:
    claims = Claims(bound=((bound(), volume(nodeAffinity=on("n2"))),))
    assert decide(claims) == NODE_CONFLICT
    assert names(decide(claims, where=node("n2"))) == ([], [])


def test_each_open_claim_gets_a_volume_of_its_own() -> None:
    claims = Claims(open=(claim("a"), claim("b")))
    assert names(decide(claims, volume("v1"), volume("v2"), kind=STATIC)) == (
        [("a", "v1"), ("b", "v2")], []
    )  # fmt: skip
    assert decide(claims, volume("v1"), kind=STATIC) == BIND_CONFLICT
    assert decide(claims, volume("v1"), volume("v2"), kind=STATIC, taken=("v1",)) == BIND_CONFLICT
    # What is not there is provisioned, where the class can.
    assert names(decide(claims, volume("v1"))) == ([("a", "v1")], ["b"])


def test_static_volumes_have_to_be_reachable() -> None:
    claims = Claims(open=(claim(),))
    there = volume(nodeAffinity=on("n2"))
    assert decide(claims, there, kind=STATIC) == BIND_CONFLICT
    assert names(decide(claims, there, kind=STATIC, where=node("n2")))[0] == [("c", "v")]


def test_a_claim_that_is_being_provisioned_for_stays_with_its_node() -> None:
    claims = Claims(open=(claim(notes={storage.SELECTED_NODE: "n2"}),))
    assert decide(claims, volume()) == BIND_CONFLICT
    assert names(decide(claims, volume(), where=node("n2"))) == ([], ["c"])


def test_topologies_of_the_class() -> None:
    narrow = {**LATER, "allowedTopologies": [
        {"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]}  # fmt: skip
    claims = Claims(open=(claim(),))
    assert decide(claims, kind=narrow) == BIND_CONFLICT
    assert names(decide(claims, kind=narrow, where=node(zone="a"))) == ([], ["c"])


def check(plugin: Any, p: Obj, where: Obj, *others: Obj, view: Snapshot | None = None) -> str:
    info = NodeInfo.of(where)
    for other in others:
        info.add(PodInfo.of(other))
    view = view or Snapshot()
    view.nodes[where.name] = info
    prepared = plugin.prepare(PodInfo.of(p), view)
    if prepared is SKIP:
        return "skip"
    assert isinstance(prepared, Prepared)
    verdict = prepared.check(info)
    return verdict.reason if verdict is not None else ""


def test_a_claim_of_one_pod_only() -> None:
    single = claim(accessModes=["ReadWriteOncePod"])
    plugin = VolumeRestrictions(held((CLAIMS, single), (CLAIMS, claim("d"))))
    assert check(plugin, pod("d"), node()) == "skip"
    assert check(plugin, pod("c"), node()) == ""
    text = (
        "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access "
        "mode"
    )
    assert check(plugin, pod("c"), node(), pod("c", name="q")) == text
    assert check(plugin, pod("c"), node(), pod("d", name="q")) == ""
    elsewhere = Snapshot()
    elsewhere.nodes["n2"] = NodeInfo.of(node("n2"))
    elsewhere.nodes["n2"].add(PodInfo.of(pod("c", name="q")))
    assert check(plugin, pod("c"), node(), view=elsewhere) == text


def test_zones_of_volumes() -> None:
    zone = "topology.kubernetes.io/zone"
    plugin = VolumeZone(held((CLAIMS, bound()), (VOLUMES, volume(labels={zone: "a__b"}))))
    assert check(plugin, pod("c"), node()) == ""  # a node without zones
    assert check(plugin, pod("c"), node(**{zone: "b"})) == ""
    assert check(plugin, pod("c"), node(**{zone: "c"})) == "node(s) had no available volume zone"
    beta = "failure-domain.beta.kubernetes.io/zone"
    assert check(plugin, pod("c"), node(**{beta: "a"})) == ""
    plain = VolumeZone(held((CLAIMS, bound()), (VOLUMES, volume())))
    assert check(plain, pod("c"), node()) == "skip"


def test_limits_of_csi_drivers() -> None:
    bodies: list[tuple[str, Body]] = []
    for i in range(3):
        csi = {"driver": "d", "volumeHandle": f"h{i}"}
        bodies += [(CLAIMS, bound(f"c{i}", f"v{i}")), (VOLUMES, volume(f"v{i}", csi=csi))]
    driver = {"name": "d", "nodeID": "x", "allocatable": {"count": 2}}
    bodies.append((CSI_NODES, {"metadata": {"name": "n1"}, "spec": {"drivers": [driver]}}))
    caches: Any = _Caches((storage.CLASSES, LATER), *bodies)
    plugin = NodeVolumeLimits(caches, Storage(caches))
    assert check(plugin, pod(), node()) == "skip"
    assert check(plugin, pod("c0", "c1"), node()) == ""
    one = pod("c0", "c1", name="q")
    assert check(plugin, pod("c2"), node(), one) == "node(s) exceed max volume count"
    assert check(plugin, pod("c0"), node(), one) == ""  # the same volume counts once
    assert check(plugin, pod("c2"), node("n2"), one) == ""  # it said nothing of that node
