"""The binder: golden pairs of what is there and what is done, and what holds whatever happens."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.obj import Body, Key
from sampan.control import storage
from sampan.control.plan import Emit, SetStatus, Update
from sampan.controllers.local_provisioner import LocalProvisioner, amount
from sampan.controllers.volume_binder import (
    ClaimView,
    VolumeBinder,
    VolumeView,
    plan_bound,
    plan_unbound,
    plan_volume,
)
from sampan.controllers.volume_protection import ClaimProtection
from sampan.testing.plans import PlanWorld

BIND, OURS = storage.BIND_COMPLETED, storage.BOUND_BY_CONTROLLER


def claim(name: str = "c", size: str = "1Gi", *, notes: Body | None = None, phase: str = "Pending",
          **spec: Any) -> Body:  # fmt: skip
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}",
                     **({"annotations": notes} if notes else {})},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}},
                 "storageClassName": "", **spec},
        "status": {"phase": phase},
    }  # fmt: skip


def volume(name: str = "v", size: str = "1Gi", *, notes: Body | None = None,
           phase: str = "Available", labels: Body | None = None, **spec: Any) -> Body:  # fmt: skip
    meta: Body = {"name": name, "namespace": "", "uid": f"uid-{name}"}
    if notes:
        meta["annotations"] = notes
    if labels:
        meta["labels"] = labels
    return {
        "metadata": meta,
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
                 "persistentVolumeReclaimPolicy": "Retain", **spec},
        "status": {"phase": phase},
    }  # fmt: skip


def ref(name: str = "c", *, uid: str | None = None) -> Body:
    found = {"namespace": "default", "name": name}
    return {**found, "uid": f"uid-{name}"} if uid is None else {**found, "uid": uid} if uid else (
        found
    )  # fmt: skip


BOUND_CLAIM = claim(volumeName="v", notes={BIND: "yes", OURS: "yes"}, phase="Bound")
BOUND_CLAIM["status"] |= {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}
BOUND_VOLUME = volume(claimRef=ref(), notes={OURS: "yes"}, phase="Bound")


def told(actions: Any) -> list[str]:
    """Actions in short: events by type and reason, writes by resource and what they change."""
    found = []
    for action in actions:
        if isinstance(action, Emit):
            found.append(f"{action.type} {action.reason}: {action.message}")
        elif isinstance(action, SetStatus):
            found.append(f"{action.resource} {action.body['status']['phase']}")
        elif isinstance(action, Update):
            spec = action.body["spec"]
            found.append(f"{action.resource} -> {spec.get('volumeName') or spec.get('claimRef')}")
    return found


NO_CLASS = "no persistent volumes available for this claim and no storage class is set"
LATER = {"metadata": {"name": "later"}, "provisioner": "x.io/y",
         "volumeBindingMode": "WaitForFirstConsumer"}  # fmt: skip
AT_ONCE = {"metadata": {"name": "now"}, "provisioner": "x.io/y", "volumeBindingMode": "Immediate"}
EXTERNAL = (
    "Normal ExternalProvisioning: Waiting for a volume to be created either by the external "
    "provisioner 'x.io/y' or manually by the system administrator. If volume creation is delayed, "
    "please verify that the provisioner is running and correctly registered."
)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (ClaimView(claim=claim()), [f"Normal FailedBinding: {NO_CLASS}"]),
        # The smallest that fits, and of those the one with no modes to spare.
        (
            ClaimView(claim=claim(), candidates=(volume("a", "5Gi"), volume("b", "2Gi"))),
            ["persistentvolumes -> " + str(
                {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default",
                 "name": "c", "uid": "uid-c", "resourceVersion": ""})],
        ),
        # Too small, another mode, another class, wrong labels, not free, on its way out: none.
        (
            ClaimView(
                claim=claim(selector={"matchLabels": {"a": "b"}}),
                candidates=(
                    volume("a", "500Mi", labels={"a": "b"}),
                    volume("b", volumeMode="Block", labels={"a": "b"}),
                    volume("c", storageClassName="x", labels={"a": "b"}),
                    volume("d"),
                    volume("e", phase="Released", labels={"a": "b"}),
                    volume("f", claimRef=ref("other"), labels={"a": "b"}),
                    volume("g", accessModes=["ReadOnlyMany"], labels={"a": "b"}),
                ),
            ),
            [f"Normal FailedBinding: {NO_CLASS}"],
        ),
        (
            ClaimView(claim=claim(storageClassName="later"), storage_class=LATER,
                      candidates=(volume(storageClassName="later"),)),
            ["Normal WaitForFirstConsumer: waiting for first consumer to be created before "
             "binding"],
        ),
        (
            ClaimView(claim=claim(storageClassName="later"), storage_class=LATER,
                      waiting=("p", "q")),
            ["Normal WaitForPodScheduled: waiting for pods p,q to be scheduled"],
        ),
        (
            ClaimView(claim=claim(storageClassName="now"), storage_class=AT_ONCE),
            ["persistentvolumeclaims -> None", EXTERNAL],
        ),
        (
            ClaimView(claim=claim(storageClassName="gone")),
            ['Warning ProvisioningFailed: storageclass.storage.k8s.io "gone" not found'],
        ),
        (
            ClaimView(claim=claim(storageClassName="s"), storage_class={
                "metadata": {"name": "s"}, "provisioner": "kubernetes.io/no-provisioner"}),
            ["Warning ProvisioningFailed: no volume plugin matched name: "
             "kubernetes.io/no-provisioner"],
        ),
        # A volume it asks for by name.
        (ClaimView(claim=claim(volumeName="v")), []),
        (
            ClaimView(claim=claim(volumeName="v"), volume=volume(size="1Mi")),
            ['Warning VolumeMismatch: Cannot bind to requested volume "v": requested PV is too '
             "small"],
        ),
        (
            ClaimView(claim=claim(volumeName="v"), volume=volume(storageClassName="x")),
            ['Warning VolumeMismatch: Cannot bind to requested volume "v": storageClassName does '
             "not match"],
        ),
        (
            ClaimView(claim=claim(volumeName="v"), volume=volume(volumeMode="Block")),
            ['Warning VolumeMismatch: Cannot bind to requested volume "v": incompatible '
             "volumeMode"],
        ),
        (
            ClaimView(claim=claim(volumeName="v"), volume=volume(accessModes=["ReadOnlyMany"])),
            ['Warning VolumeMismatch: Cannot bind to requested volume "v": incompatible '
             "accessMode"],
        ),
        (
            ClaimView(claim=claim(volumeName="v"), volume=volume(claimRef=ref("other"))),
            ['Warning FailedBinding: volume "v" already bound to a different claim.'],
        ),
        # Half way: the volume has it, the claim not yet.
        (
            ClaimView(claim=claim(), candidates=(volume(claimRef=ref()),)),
            ["persistentvolumes Bound", "persistentvolumeclaims -> v"],
        ),
    ],
)  # fmt: skip
def test_claims_without_a_volume(view: ClaimView, expected: list[str]) -> None:
    assert told(plan_unbound(view)) == expected


def test_the_smallest_volume_is_taken_and_marked_as_the_binders_choice() -> None:
    choice = (volume("a", "5Gi"), volume("b", "2Gi"),
              volume("c", "2Gi", accessModes=["ReadWriteOnce", "ReadWriteMany"]))  # fmt: skip
    (action,) = plan_unbound(ClaimView(claim=claim(), candidates=choice))
    assert isinstance(action, Update)
    assert action.body["metadata"]["name"] == "b"
    assert action.body["metadata"]["annotations"] == {OURS: "yes"}
    # One that was promised to the claim comes first, however large; it is not the binder's choice.
    kept = volume("d", "9Gi", claimRef=ref(uid=""))
    (action,) = plan_unbound(ClaimView(claim=claim(), candidates=(*choice, kept)))
    assert isinstance(action, Update)
    assert action.body["metadata"]["name"] == "d"
    assert "annotations" not in action.body["metadata"]


def test_a_class_left_open_is_filled_in() -> None:
    open_claim = claim()
    del open_claim["spec"]["storageClassName"]
    (action,) = plan_unbound(ClaimView(claim=open_claim, default_class="std"))
    assert isinstance(action, Update)
    assert action.body["spec"]["storageClassName"] == "std"


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (ClaimView(claim=BOUND_CLAIM, volume=BOUND_VOLUME), []),
        (
            ClaimView(claim=BOUND_CLAIM),
            ["persistentvolumeclaims Lost", "Warning ClaimLost: Bound claim has lost its "
             "PersistentVolume. Data on the volume is lost!"],
        ),
        (
            ClaimView(claim=claim(notes={BIND: "yes"}, phase="Bound")),
            ["persistentvolumeclaims Lost", "Warning ClaimLost: Bound claim has lost reference to "
             "PersistentVolume. Data on the volume is lost!"],
        ),
        (
            ClaimView(claim=BOUND_CLAIM, volume=volume(claimRef=ref("other"))),
            ["persistentvolumeclaims Lost", "Warning ClaimMisbound: Two claims are bound to the "
             "same volume, this one is bound incorrectly"],
        ),
        (
            ClaimView(claim=claim(volumeName="v", notes={BIND: "yes"}), volume=BOUND_VOLUME),
            ["persistentvolumeclaims Bound"],
        ),
    ],
)  # fmt: skip
def test_claims_with_a_volume(view: ClaimView, expected: list[str]) -> None:
    assert told(plan_bound(view)) == expected


MADE = {storage.PROVISIONED_BY: storage.PROVISIONER}


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (VolumeView(volume=volume(phase="Pending")), ["persistentvolumes Available"]),
        (VolumeView(volume=volume()), []),
        (VolumeView(volume=volume(claimRef=ref(uid=""))), []),
        (VolumeView(volume=BOUND_VOLUME, claim=BOUND_CLAIM), []),
        # What somebody else says in a status of the right phase stays.
        (
            VolumeView(volume={**BOUND_VOLUME, "status": {"phase": "Bound", "message": "x",
                                                          "reason": "y"}}, claim=BOUND_CLAIM),
            [],
        ),
        (VolumeView(volume=volume(claimRef=ref()), claim=claim()), []),
        # The claim is gone, or another one has its name.
        (VolumeView(volume=BOUND_VOLUME), ["persistentvolumes Released"]),
        (
            VolumeView(volume=volume(claimRef=ref(uid="older"), phase="Bound"), claim=BOUND_CLAIM),
            ["persistentvolumes Released"],
        ),
        (VolumeView(volume=volume(claimRef=ref(), phase="Released")), []),
        (
            VolumeView(volume=volume(claimRef=ref(), phase="Released", notes=MADE,
                                     persistentVolumeReclaimPolicy="Delete")),
            [],  # whoever made it deletes it
        ),
        (
            VolumeView(volume=volume(claimRef=ref(), phase="Released",
                                     persistentVolumeReclaimPolicy="Delete")),
            ["persistentvolumes Failed", "Warning VolumeFailedDelete: error getting deleter volume "
             'plugin for volume "v": no deletable volume plugin matched'],
        ),
        (
            VolumeView(volume=volume(claimRef=ref(), phase="Released",
                                     persistentVolumeReclaimPolicy="Recycle")),
            ["persistentvolumes Failed", "Warning VolumeFailedRecycle: No recycler plugin found "
             "for the volume!"],
        ),
        (
            VolumeView(volume=volume(claimRef=ref(), phase="Failed",
                                     persistentVolumeReclaimPolicy="Recycle")),
            [],
        ),
        # The claim got another one.
        (
            VolumeView(volume=volume(claimRef=ref(), notes={OURS: "yes"}),
                       claim=claim(volumeName="w")),
            ["persistentvolumes -> None"],
        ),
        (
            VolumeView(volume=volume(claimRef=ref()), claim=claim(volumeName="w")),
            [f"persistentvolumes -> {ref(uid='')}"],
        ),
        (
            VolumeView(volume=volume(claimRef=ref(), notes=MADE,
                                     persistentVolumeReclaimPolicy="Delete"),
                       claim=claim(volumeName="w")),
            ["persistentvolumes Released"],
        ),
        (
            VolumeView(volume=volume(claimRef=ref(), volumeMode="Block"), claim=claim()),
            ["Warning VolumeMismatch: Cannot bind PersistentVolume to requested "
             'PersistentVolumeClaim "c" due to incompatible volumeMode.',
             'Warning VolumeMismatch: Cannot bind PersistentVolume "v" to requested '
             "PersistentVolumeClaim due to incompatible volumeMode."],
        ),
    ],
)  # fmt: skip
def test_volumes(view: VolumeView, expected: list[str]) -> None:
    assert told(plan_volume(view)) == expected


@pytest.mark.parametrize(
    ("asked", "enforced", "size"),
    [
        ("1Gi", False, "1Gi"),
        ("1500m", False, "2"),
        ("1G", False, "1G"),
        ("1G", True, str(954 << 20)),
        ("1Gi", True, "1Gi"),
        ("1", True, str(8 << 20)),
    ],
)
def test_sizes_are_rounded_up(asked: str, enforced: bool, size: str) -> None:
    assert amount(claim(size=asked), enforced=enforced) == size


# -- whatever happens ------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")
SIZES = ("1Gi", "2Gi", "4Gi")
MODES = (["ReadWriteOnce"], ["ReadWriteMany"], ["ReadWriteOnce", "ReadWriteMany"])
steps = st.one_of(
    st.tuples(st.just("claim"), st.sampled_from(NAMES), st.sampled_from(SIZES),
              st.sampled_from(MODES), st.sampled_from(("", "", "va", "vb"))),
    st.tuples(st.just("volume"), st.sampled_from(NAMES), st.sampled_from(SIZES),
              st.sampled_from(MODES), st.sampled_from(("", "", "a", "b"))),
    st.tuples(st.just("delete-claim"), st.sampled_from(NAMES)),
    st.tuples(st.just("delete-volume"), st.sampled_from(NAMES)),
    st.tuples(st.just("plan"), st.integers(0, 20)),
    st.tuples(st.just("plan"), st.integers(0, 20)),
)  # fmt: skip


class _World(PlanWorld):
    """A world in which releases are remembered: what was somebody's data."""

    def all_keys(self) -> list[Key]:
        return sorted(k for k in self.objects if k.resource in (storage.CLAIMS, storage.VOLUMES))

    def check(self) -> None:
        holders: dict[str, str] = {}
        for key, body in self.objects.items():
            if key.resource != storage.CLAIMS or body["status"]["phase"] != "Bound":
                continue
            name = body["spec"]["volumeName"]
            held = self.objects.get(Key(storage.VOLUMES, "", name))
            if held is None:
                continue  # deleted under it: the next plan finds out
            if held["spec"].get("claimRef", {}).get("uid") != body["metadata"]["uid"]:
                continue  # another volume of that name
            assert name not in holders, f"{name} is bound to {holders[name]} and {key.name}"
            holders[name] = key.name
            assert storage.capacity(held) >= storage.asked(body)
            assert storage.has_modes(held, body)

    def act(self, binder: VolumeBinder, step: tuple[Any, ...]) -> None:
        match step:
            case ("claim", name, size, modes, wanted):
                key = Key(storage.CLAIMS, "default", name)
                if key not in self.objects:
                    body = claim(name, size, accessModes=modes)
                    if wanted:
                        body["spec"]["volumeName"] = wanted
                    self.add(storage.CLAIMS, body)
            case ("volume", name, size, modes, wanted):
                key = Key(storage.VOLUMES, "", f"v{name}")
                if key not in self.objects:
                    body = volume(f"v{name}", size, accessModes=modes, phase="Pending")
                    if wanted:
                        body["spec"]["claimRef"] = ref(wanted, uid="")
                    self.add(storage.VOLUMES, body)
            case ("delete-claim", name):
                self.objects.pop(Key(storage.CLAIMS, "default", name), None)
            case ("delete-volume", name):
                self.objects.pop(Key(storage.VOLUMES, "", f"v{name}"), None)
            case ("plan", index):
                keys = self.all_keys()
                if keys:
                    self.step(binder, keys[index % len(keys)])


@given(st.lists(steps, max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_volume_is_bound_twice_and_everything_comes_to_rest(history: list[Any]) -> None:
    binder = VolumeBinder()
    w = _World(binder)
    released: dict[str, str] = {}  # uid of a volume -> uid of the claim whose data it has
    for step in history:
        w.act(binder, step)
        w.check()
        for key, body in w.objects.items():
            if key.resource == storage.VOLUMES and body["status"]["phase"] == "Released":
                owner = body["spec"]["claimRef"]["uid"]
                # What was released keeps its owner: nobody else ever gets that data.
                assert released.setdefault(body["metadata"]["uid"], owner) == owner
    for _ in range(20):
        before = copy.deepcopy(w.objects)
        for key in w.all_keys():
            w.step(binder, key)
            w.check()
        if w.objects == before:
            break
    else:
        raise AssertionError("it never comes to rest")
    free = [b for k, b in w.objects.items() if k.resource == storage.VOLUMES
            and b["status"]["phase"] == "Available" and not b["spec"].get("claimRef")]  # fmt: skip
    for key, body in w.objects.items():
        if key.resource == storage.CLAIMS and not body["spec"].get("volumeName"):
            assert storage.best_match(body, free) is None, f"{key.name} waits in vain"


pods = st.lists(
    st.fixed_dictionaries({
        "claim": st.sampled_from(("c", "other")), "node": st.sampled_from(("", "n")),
        "phase": st.sampled_from(("Pending", "Running", "Succeeded")),
    }), max_size=5,
)  # fmt: skip


@given(pods)
def test_a_claim_that_a_pod_uses_is_never_let_go(given_pods: list[Any]) -> None:
    controller = ClaimProtection()
    w = PlanWorld(controller)
    body = claim()
    body["metadata"] |= {"deletionTimestamp": "x", "finalizers": ["kubernetes.io/pvc-protection"]}
    w.add(storage.CLAIMS, body)
    for i, p in enumerate(given_pods):
        w.add("pods", {
            "metadata": {"name": f"p{i}"}, "status": {"phase": p["phase"]},
            "spec": {"nodeName": p["node"], "volumes": [
                {"name": "v", "persistentVolumeClaim": {"claimName": p["claim"]}}]},
        })  # fmt: skip
    key = Key(storage.CLAIMS, "default", "c")
    w.step(controller, key)
    used = any(p["claim"] == "c" and p["node"] for p in given_pods)
    assert bool(w.objects[key]["metadata"]["finalizers"]) == used


def _node(name: str, **labels: str) -> Body:
    return {
        "metadata": {"name": name, "namespace": "",
                     "labels": {"kubernetes.io/hostname": name, **labels}},
        "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


def provisioning(*nodes: Body, notes: Body | None = None, kind: Body | None = None,
                 **spec: Any) -> PlanWorld:  # fmt: skip
    controller = LocalProvisioner()
    w = PlanWorld(controller)
    asked = {storage.STORAGE_PROVISIONER: storage.PROVISIONER, **(notes or {})}
    w.add(storage.CLAIMS, claim(notes=asked, storageClassName="s", **spec))
    made = {"metadata": {"name": "s", "namespace": ""}, "provisioner": storage.PROVISIONER,
            "volumeBindingMode": "Immediate", **(kind or {})}  # fmt: skip
    w.add(storage.CLASSES, made)
    for node in nodes:
        w.add("nodes", node)
    w.step(controller, Key(storage.CLAIMS, "default", "c"))
    return w


def made_by(w: PlanWorld) -> list[Body]:
    return [b for k, b in w.objects.items() if k.resource == storage.VOLUMES]


def home(body: Body) -> str:
    (term,) = body["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    return str(term["matchExpressions"][0]["values"][0])


def test_a_volume_is_made_on_the_node_that_was_chosen() -> None:
    (made,) = made_by(provisioning(_node("n1"), _node("n2"), notes={storage.SELECTED_NODE: "n2"}))
    assert home(made) == "n2"
    assert made["spec"]["local"]["path"] == f"{storage.LOCAL_ROOT}/{made['metadata']['name']}"


def test_topology_and_readiness_narrow_the_choice() -> None:
    down = _node("n1", zone="a")
    down["status"]["conditions"][0]["status"] = "False"
    topology = [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]
    nodes = (down, _node("n2", zone="b"), _node("n3", zone="a"))
    (made,) = made_by(provisioning(*nodes, kind={"allowedTopologies": topology}))
    assert home(made) == "n3"


def test_a_node_that_is_gone_is_chosen_again() -> None:
    w = provisioning(_node("n1"), notes={storage.SELECTED_NODE: "gone"})
    assert made_by(w) == []
    assert [r for r, _ in w.events] == ["ProvisioningFailed"]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"accessModes": ["ReadWriteMany"]}, "access mode ReadWriteMany is not possible"),
        ({"selector": {"matchLabels": {"a": "b"}}}, "claim Selector is not supported"),
        ({"dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}}, "data source"),
    ],
)
def test_what_a_local_volume_cannot_be_is_refused_in_words(spec: Body, why: str) -> None:
    w = provisioning(_node("n1"), **spec)
    assert made_by(w) == []
    ((reason, message),) = w.events
    assert reason == "ProvisioningFailed"
    assert message.startswith('failed to provision volume with StorageClass "s": ')
    assert why in message


@pytest.mark.parametrize(
    ("parameters", "mode", "enforced", "kind"),
    [
        ({}, "Filesystem", False, None),
        ({"sizeEnforced": "true"}, "Filesystem", True, None),
        ({"sizeEnforced": "true", "csi.storage.k8s.io/fstype": "ext4"}, "Filesystem", True, "ext4"),
        ({"sizeEnforced": "true", "csi.storage.k8s.io/fstype": "xfs"}, "Filesystem", True, "xfs"),
        ({"sizeEnforced": "true", "csi.storage.k8s.io/fstype": "xfs"}, "Block", True, None),
        ({"csi.storage.k8s.io/fstype": "xfs"}, "Filesystem", False, None),
    ],
)
def test_a_class_names_the_file_system(
    parameters: Body, mode: str, enforced: bool, kind: str | None
) -> None:
    w = provisioning(_node("n1"), kind={"parameters": parameters}, volumeMode=mode)
    (made,) = made_by(w)
    assert (storage.notes_of(made).get(storage.SIZE_ENFORCED) == "true") == enforced
    assert made["spec"]["local"].get("fsType") == kind


@pytest.mark.parametrize(
    ("kind", "size", "why"),
    [
        ("btrfs", "1Gi", 'file system "btrfs" is not supported (there are ext4, xfs)'),
        ("xfs", "299Mi", "a volume of xfs has at least 300Mi"),
    ],
)
def test_a_file_system_that_cannot_be_made_is_refused(kind: str, size: str, why: str) -> None:
    parameters = {"sizeEnforced": "true", "csi.storage.k8s.io/fstype": kind}
    asked = {"requests": {"storage": size}}
    w = provisioning(_node("n1"), kind={"parameters": parameters}, resources=asked)
    assert made_by(w) == []
    ((reason, text),) = w.events
    assert reason == "ProvisioningFailed" and text.endswith(f": {why}")
