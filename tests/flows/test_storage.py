"""Volumes and claims in virtual time: from the claim to the bound pod, and back again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.lib.loop import run_virtual
from sampan.sim.faults import Faults
from sampan.testing.world import World, world

CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"


def run(scenario: Callable[[World], Awaitable[Any]], *, nodes: int = 2, seed: int = 0) -> Any:
    async def main() -> Any:
        async with world(nodes=nodes, seed=seed) as w:
            return await scenario(w)

    return run_virtual(main())


async def until(what: Callable[[], Awaitable[Any]], *, seconds: float = 120.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await what()):
            await asyncio.sleep(0.1)
    return found


def claim(name: str = "c", size: str = "1Gi", **spec: Any) -> Body:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}},
                 **spec},
    }  # fmt: skip


def volume(name: str = "v", size: str = "1Gi", **spec: Any) -> Body:
    return {
        "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
                 "hostPath": {"path": f"/data/{name}"}, **spec},
    }  # fmt: skip


def pod(name: str = "p", claims: tuple[str, ...] = ("c",), **spec: Any) -> Body:
    volumes = [{"name": f"v{i}", "persistentVolumeClaim": {"claimName": c}}
               for i, c in enumerate(claims)]  # fmt: skip
    mounts = [{"name": v["name"], "mountPath": f"/m/{v['name']}"} for v in volumes]
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i", "volumeMounts": mounts}],
                 "volumes": volumes, "terminationGracePeriodSeconds": 1, **spec},
    }  # fmt: skip


async def made(w: World, resource: str, body: Body) -> Obj:
    return await w.client.create(resource, body, body["metadata"].get("namespace", ""))


async def phase(w: World, resource: str, name: str, namespace: str, wanted: str) -> Obj:
    async def reached() -> Obj | None:
        found = await w.client.get(resource, name, namespace)
        return found if found.status.get("phase") == wanted else None

    found: Obj = await until(reached)
    return found


async def gone(w: World, resource: str, name: str, namespace: str = "") -> None:
    async def is_gone() -> bool:
        try:
            await w.client.get(resource, name, namespace)
        except StatusError as e:
            return e.code == 404
        return False

    await until(is_gone)


async def events(w: World, name: str) -> list[tuple[str, str]]:
    found = (await w.client.list("events")).items
    return [
        (e.body["reason"], e.body["message"])
        for e in found
        if e.body["involvedObject"]["name"] == name
    ]


def test_an_immediate_claim_is_provisioned_for_and_a_deleted_one_takes_its_volume_along():
    async def scenario(w: World) -> None:
        await made(w, CLAIMS, claim(storageClassName="sampan-local-immediate"))
        bound = await phase(w, CLAIMS, "c", "default", "Bound")
        name = bound.spec["volumeName"]
        assert name == f"pvc-{bound.uid}"
        assert bound.status["capacity"] == {"storage": "1Gi"}
        assert bound.annotations["pv.kubernetes.io/bind-completed"] == "yes"
        assert bound.annotations["volume.kubernetes.io/storage-provisioner"] == "sampan.io/local"
        held = await phase(w, VOLUMES, name, "", "Bound")
        assert held.annotations["pv.kubernetes.io/provisioned-by"] == "sampan.io/local"
        assert held.spec["claimRef"]["uid"] == bound.uid
        (term,) = held.spec["nodeAffinity"]["required"]["nodeSelectorTerms"]
        assert term["matchExpressions"][0]["values"] == ["n1"]
        reasons = [r for r, _ in await events(w, "c")]
        assert reasons[:1] == ["ExternalProvisioning"]
        assert {"Provisioning", "ProvisioningSucceeded"} <= set(reasons)
        await w.client.delete(CLAIMS, "c", "default")
        await gone(w, CLAIMS, "c", "default")
        await gone(w, VOLUMES, name)

    run(scenario)


def test_a_claim_that_waits_gets_its_volume_where_its_first_pod_goes():
    async def scenario(w: World) -> None:
        await made(w, CLAIMS, claim())
        await asyncio.sleep(30)
        waiting = await w.client.get(CLAIMS, "c", "default")
        assert waiting.status["phase"] == "Pending"
        assert waiting.spec["storageClassName"] == "sampan-local"
        told = ("WaitForFirstConsumer", "waiting for first consumer to be created before binding")
        assert told in await events(w, "c")
        await made(w, "pods", pod(nodeSelector={"kubernetes.io/hostname": "n2"}))
        running = await phase(w, "pods", "p", "default", "Running")
        assert running.spec["nodeName"] == "n2"
        bound = await w.client.get(CLAIMS, "c", "default")
        assert bound.annotations["volume.kubernetes.io/selected-node"] == "n2"
        # A second pod has to go where the volume is.
        await made(w, "pods", pod("q"))
        running = await phase(w, "pods", "q", "default", "Running")
        assert running.spec["nodeName"] == "n2"
        # And a pod that may not go there is told so.
        await made(w, "pods", pod("r", nodeSelector={"kubernetes.io/hostname": "n1"}))
        await asyncio.sleep(5)
        (message,) = {m for r, m in await events(w, "r") if r == "FailedScheduling"}
        assert "1 node(s) didn't match PersistentVolume's node affinity" in message
        assert "1 node(s) didn't match Pod's node affinity/selector" in message

    run(scenario)


def test_static_volumes_the_smallest_that_fits_and_prebound_in_both_directions():
    async def scenario(w: World) -> None:
        for name, size in (("big", "10Gi"), ("mid", "2Gi"), ("small", "500Mi")):
            await made(w, VOLUMES, volume(name, size))
        await made(w, CLAIMS, claim("a", storageClassName=""))
        assert (await phase(w, CLAIMS, "a", "default", "Bound")).spec["volumeName"] == "mid"
        await made(w, CLAIMS, claim("b", storageClassName="", volumeName="big"))
        assert (await phase(w, CLAIMS, "b", "default", "Bound")).status["capacity"] == {
            "storage": "10Gi"
        }  # fmt: skip
        ref = {"namespace": "default", "name": "d"}
        await made(w, VOLUMES, volume("kept", "5Gi", claimRef=ref))
        await phase(w, VOLUMES, "kept", "", "Available")
        await made(w, CLAIMS, claim("x", storageClassName=""))
        await asyncio.sleep(5)
        assert (await w.client.get(CLAIMS, "x", "default")).status["phase"] == "Pending"
        assert ("FailedBinding", "no persistent volumes available for this claim and no storage "
                "class is set") in await events(w, "x")  # fmt: skip
        await made(w, CLAIMS, claim("d", storageClassName=""))
        assert (await phase(w, CLAIMS, "d", "default", "Bound")).spec["volumeName"] == "kept"
        # A volume that comes later serves who waits.
        await made(w, VOLUMES, volume("late", "1Gi"))
        assert (await phase(w, CLAIMS, "x", "default", "Bound")).spec["volumeName"] == "late"

    run(scenario)


def test_a_retained_volume_is_released_and_a_lost_one_leaves_its_claim_lost():
    async def scenario(w: World) -> None:
        await made(w, VOLUMES, volume())
        await made(w, CLAIMS, claim(storageClassName=""))
        await phase(w, CLAIMS, "c", "default", "Bound")
        await w.client.delete(CLAIMS, "c", "default")
        await gone(w, CLAIMS, "c", "default")
        released = await phase(w, VOLUMES, "v", "", "Released")
        assert released.status["lastPhaseTransitionTime"]
        # It keeps its reference: nobody else gets it before an administrator says so.
        await made(w, CLAIMS, claim("next", storageClassName=""))
        await asyncio.sleep(5)
        assert (await w.client.get(CLAIMS, "next", "default")).status["phase"] == "Pending"
        await w.client.patch(VOLUMES, "v", {"spec": {"claimRef": None}})
        await phase(w, CLAIMS, "next", "default", "Bound")
        await w.client.delete(VOLUMES, "v")
        await asyncio.sleep(5)
        assert (await w.client.get(VOLUMES, "v")).is_deleting  # protected: it is in use
        await w.client.patch(VOLUMES, "v", {"metadata": {"finalizers": None}})
        lost = await phase(w, CLAIMS, "next", "default", "Lost")
        assert "capacity" not in lost.status
        assert "ClaimLost" in [r for r, _ in await events(w, "next")]

    run(scenario)


def test_a_claim_in_use_stays_until_its_pod_is_gone():
    async def scenario(w: World) -> None:
        await made(w, CLAIMS, claim())
        await made(w, "pods", pod())
        await phase(w, "pods", "p", "default", "Running")
        await w.client.delete(CLAIMS, "c", "default")
        await asyncio.sleep(30)
        held = await w.client.get(CLAIMS, "c", "default")
        assert held.is_deleting
        assert held.status["phase"] == "Bound"
        await w.client.delete("pods", "p", "default")
        await gone(w, CLAIMS, "c", "default")
        await gone(w, VOLUMES, held.spec["volumeName"])

    run(scenario)


def test_a_claim_for_one_pod_only():
    async def scenario(w: World) -> None:
        await made(w, CLAIMS, claim(accessModes=["ReadWriteOncePod"]))
        await made(w, "pods", pod())
        await phase(w, "pods", "p", "default", "Running")
        await made(w, "pods", pod("q"))
        await asyncio.sleep(5)
        (message,) = {m for r, m in await events(w, "q") if r == "FailedScheduling"}
        assert "node has pod using PersistentVolumeClaim with the same name and " in message
        await w.client.delete("pods", "p", "default")
        await phase(w, "pods", "q", "default", "Running")

    run(scenario)


def test_pods_wait_for_immediate_claims_and_for_claims_that_are_not_there():
    async def scenario(w: World) -> None:
        await made(w, CLAIMS, claim(storageClassName=""))
        await made(w, "pods", pod())
        await made(w, "pods", pod("q", claims=("none",)))
        await asyncio.sleep(5)
        told = {m for r, m in await events(w, "p") if r == "FailedScheduling"}
        text = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        assert any(m.startswith(text) for m in told), told
        told = {m for r, m in await events(w, "q") if r == "FailedScheduling"}
        text = '0/2 nodes are available: persistentvolumeclaim "none" not found.'
        assert any(m.startswith(text) for m in told), told
        await made(w, VOLUMES, volume())
        await made(w, CLAIMS, claim("none"))
        await phase(w, "pods", "p", "default", "Running")
        await phase(w, "pods", "q", "default", "Running")

    run(scenario)


def test_delayed_claims_find_static_volumes_on_the_node_of_the_pod():
    async def scenario(w: World) -> None:
        kind = {"metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner",
                "volumeBindingMode": "WaitForFirstConsumer"}  # fmt: skip
        await made(w, "storageclasses.storage.k8s.io", kind)
        for name, node in (("on1", "n1"), ("on2", "n2")):
            term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In",
                                          "values": [node]}]}  # fmt: skip
            affinity = {"required": {"nodeSelectorTerms": [term]}}
            body = volume(name, storageClassName="local", nodeAffinity=affinity)
            await made(w, VOLUMES, body)
        for i in (1, 2):
            await made(w, CLAIMS, claim(f"c{i}", storageClassName="local"))
        await made(w, "pods", pod("p", ("c1",), nodeSelector={"kubernetes.io/hostname": "n2"}))
        await phase(w, "pods", "p", "default", "Running")
        assert (await w.client.get(CLAIMS, "c1", "default")).spec["volumeName"] == "on2"
        await made(w, "pods", pod("q", ("c2",)))
        running = await phase(w, "pods", "q", "default", "Running")
        assert running.spec["nodeName"] == "n1"
        await made(w, CLAIMS, claim("c3", storageClassName="local"))
        await made(w, "pods", pod("r", ("c3",)))
        await asyncio.sleep(5)
        (message,) = {m for r, m in await events(w, "r") if r == "FailedScheduling"}
        assert "2 node(s) didn't find available persistent volumes to bind" in message

    run(scenario)


def test_ephemeral_volumes_live_and_die_with_their_pod():
    async def scenario(w: World) -> None:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        template = {"metadata": {"labels": {"of": "p"}}, "spec": spec}
        body = pod("p", ())
        body["spec"]["volumes"] = [
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}
        ]
        await made(w, "pods", body)
        await phase(w, "pods", "p", "default", "Running")
        held = await w.client.get(CLAIMS, "p-scratch", "default")
        assert held.labels == {"of": "p"}
        assert held.controller["kind"] == "Pod"
        name = held.spec["volumeName"]
        await w.client.delete("pods", "p", "default")
        await gone(w, CLAIMS, "p-scratch", "default")
        await gone(w, VOLUMES, name)
        # A claim of that name that is somebody's own is not touched.
        await made(w, CLAIMS, claim("p-scratch"))
        await made(w, "pods", body)
        await asyncio.sleep(5)
        assert ("FailedBinding", "ephemeral volume scratch: PVC default/p-scratch was not created "
                "for pod default/p (pod is not owner)") in await events(w, "p")  # fmt: skip
        assert not (await w.client.get("pods", "p", "default")).spec.get("nodeName")

    run(scenario)


def test_a_claim_grows_in_use():
    async def scenario(w: World) -> None:
        await made(w, CLAIMS, claim())
        await made(w, "pods", pod())
        await phase(w, "pods", "p", "default", "Running")
        bigger = {"spec": {"resources": {"requests": {"storage": "3Gi"}}}}
        await w.client.patch(CLAIMS, "c", bigger, "default")

        async def grown() -> bool:
            held = await w.client.get(CLAIMS, "c", "default")
            return held.status["capacity"] == {"storage": "3Gi"}

        await until(grown)
        held = await w.client.get(CLAIMS, "c", "default")
        assert "conditions" not in held.status
        found = await w.client.get(VOLUMES, held.spec["volumeName"])
        assert found.spec["capacity"] == {"storage": "3Gi"}
        assert {"Resizing", "VolumeResizeSuccessful"} <= {r for r, _ in await events(w, "c")}

    run(scenario)


def test_a_default_class_that_comes_later_serves_claims_that_left_theirs_open():
    async def scenario(w: World) -> None:
        classes = "storageclasses.storage.k8s.io"
        default = "storageclass.kubernetes.io/is-default-class"
        off = {"metadata": {"annotations": {default: "false"}}}
        await w.client.patch(classes, "sampan-local", off)
        await made(w, CLAIMS, claim())
        await asyncio.sleep(5)
        assert "storageClassName" not in (await w.client.get(CLAIMS, "c", "default")).spec
        on = {"metadata": {"annotations": {default: "true"}}}
        await w.client.patch(classes, "sampan-local-immediate", on)
        bound = await phase(w, CLAIMS, "c", "default", "Bound")
        assert bound.spec["storageClassName"] == "sampan-local-immediate"

    run(scenario)


def test_an_idle_cluster_with_bound_claims_writes_nothing():
    async def scenario(w: World) -> None:
        await made(w, CLAIMS, claim())
        await made(w, "pods", pod())
        await phase(w, "pods", "p", "default", "Running")
        await asyncio.sleep(60)
        before = w.store.revision
        await asyncio.sleep(600)
        written = w.writes(before)
        assert not {r for r in written if r.startswith("persistent")}, written

    run(scenario)


def test_pods_with_claims_never_share_the_answers_of_pods_without():
    async def scenario(w: World) -> None:
        await made(w, CLAIMS, claim())
        await made(w, "pods", pod(nodeSelector={"kubernetes.io/hostname": "n2"}))
        await phase(w, "pods", "p", "default", "Running")
        for i in range(6):  # of one shape but for the volumes
            await made(w, "pods", pod(f"without{i}", ()))
            await made(w, "pods", pod(f"with{i}"))
            running = await phase(w, "pods", f"with{i}", "default", "Running")
            assert running.spec["nodeName"] == "n2"
        assert not [r for i in range(6) for r, _ in await events(w, f"with{i}")
                    if r == "FailedScheduling"]  # fmt: skip

    run(scenario)


def test_what_drivers_of_others_write_is_kept():
    """Their parts of the status stay through binding and growth."""

    async def scenario(w: World) -> None:
        await made(w, CLAIMS, claim(storageClassName="sampan-local-immediate"))
        held = await phase(w, CLAIMS, "c", "default", "Bound")
        theirs = {"currentVolumeAttributesClassName": "gold",
                  "modifyVolumeStatus": {"status": "Pending"},
                  "conditions": [{"type": "ModifyingVolume", "status": "True"}]}  # fmt: skip
        await w.client.patch(CLAIMS, "c", {"status": theirs}, "default", subresource="status")
        name = str(held.spec["volumeName"])
        await w.client.patch(VOLUMES, name, {"status": {"reason": "Theirs"}}, subresource="status")
        bigger = {"spec": {"resources": {"requests": {"storage": "3Gi"}}}}
        await w.client.patch(CLAIMS, "c", bigger, "default")

        async def grown() -> bool:
            found = await w.client.get(CLAIMS, "c", "default")
            return found.status["capacity"] == {"storage": "3Gi"}

        await until(grown)
        status = (await w.client.get(CLAIMS, "c", "default")).status
        assert {k: status[k] for k in theirs if k != "conditions"} == {
            k: v for k, v in theirs.items() if k != "conditions"
        }
        assert [c["type"] for c in status["conditions"]] == ["ModifyingVolume"]
        assert status["allocatedResources"] == {"storage": "3Gi"}
        assert "allocatedResourceStatuses" not in status
        assert (await w.client.get(VOLUMES, name)).status["reason"] == "Theirs"

    run(scenario)


def test_volumes_go_though_most_writes_of_the_node_meet_another() -> None:
    async def scenario(w: World) -> None:
        names = [f"c{n}" for n in range(6)]
        for name in names:
            await made(w, CLAIMS, claim(name, storageClassName="sampan-local-immediate"))
        for name in names:
            await phase(w, CLAIMS, name, "default", "Bound")
        w.faults = Faults(conflict=0.8)
        for name in names:
            await w.client.delete(CLAIMS, name, "default")
        await asyncio.sleep(60)
        w.faults = Faults()
        await asyncio.sleep(120)
        assert not (await w.client.list(VOLUMES)).items

    run(scenario)


def test_a_volume_goes_though_the_next_pod_has_a_claim_of_the_same_name() -> None:
    """As with the pods of a StatefulSet that have ephemeral volumes and come again at once."""

    async def scenario(w: World) -> None:
        template = {"spec": {"accessModes": ["ReadWriteOnce"],
                             "storageClassName": "sampan-local-immediate",
                             "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
        body = pod(claims=())
        body["spec"]["volumes"] = [
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}
        ]
        await made(w, "pods", body)
        await phase(w, "pods", "p", "default", "Running")
        old = (await w.client.get(CLAIMS, "p-scratch", "default")).spec["volumeName"]
        body["spec"]["nodeName"] = (await w.client.get("pods", "p", "default")).spec["nodeName"]
        await w.client.delete("pods", "p", "default", grace=0)
        await made(w, "pods", body)
        await phase(w, "pods", "p", "default", "Running")
        assert (await w.client.get(CLAIMS, "p-scratch", "default")).spec["volumeName"] != old
        await gone(w, VOLUMES, old)

    run(scenario, nodes=1)
