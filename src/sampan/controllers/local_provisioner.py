"""The built-in provisioner: claims of its classes get directories (or images) on a node.

Only the PersistentVolume is made here; the node makes the place when it is first mounted and takes
it away when the volume is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.obj import Body, Key, Obj
from sampan.control import storage
from sampan.control.facts import NORMAL, WARNING, Event, Facts, Mark
from sampan.control.plan import Action, Caches, Create, Emit, Patch, Trigger, own

_MIB = 1 << 20
_SMALLEST = 8 * _MIB  # of an image: a file system needs some room for itself
_SMALLEST_XFS = 300 * _MIB  # what its tools make
_MODES = ("ReadWriteOnce", "ReadWriteOncePod")

_T = "tests/controllers/test_volume_binder.py::"
_LIFE = (
    "tests/flows/test_storage.py::test_a_claim_that_waits_gets_its_volume_where_its_first_pod_goes"
)
BEGUN = Event(
    NORMAL, "Provisioning", 'External provisioner is provisioning volume for claim "{claim}"', _LIFE
)
DONE = Event(NORMAL, "ProvisioningSucceeded", "Successfully provisioned volume {volume}", _LIFE)
FAILED = Event(
    WARNING, "ProvisioningFailed", 'failed to provision volume with StorageClass "{name}": {why}',
    f"{_T}test_what_a_local_volume_cannot_be_is_refused_in_words",
)  # fmt: skip
FACTS = Facts(
    kind="Provisioning",
    page="PersistentVolumeClaim",
    controller="local-provisioner",
    events=(BEGUN, DONE, FAILED),
    annotations=(
        Mark(storage.PROVISIONED_BY, "PersistentVolume", "who made it", _LIFE),
        Mark(storage.SIZE_ENFORCED, "PersistentVolume", "it is an image and not a directory",
             f"{_T}test_a_class_names_the_file_system"),
    ),
    reads=(
        Mark("parameters[sizeEnforced]", "StorageClass", "true: an image of the size asked for",
             f"{_T}test_a_class_names_the_file_system"),
        Mark("parameters[csi.storage.k8s.io/fstype]", "StorageClass", "ext4 (default) or xfs",
             f"{_T}test_a_class_names_the_file_system"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A claim to serve, its class, the nodes, and how many local volumes each has by name."""

    claim: Body
    storage_class: Body
    nodes: tuple[Obj, ...]
    load: dict[str, int]


def _home(volume: Obj) -> Iterable[str]:
    """Index: the host name of the node that has a volume of ours."""
    if not storage.is_local(volume.body):
        return
    affinity = (volume.spec.get("nodeAffinity") or {}).get("required") or {}
    for term in affinity.get("nodeSelectorTerms") or ():
        for expression in term.get("matchExpressions") or ():
            yield from expression.get("values") or ()


class LocalProvisioner:
    """Provisioner ``sampan.io/local``."""

    name = "local-provisioner"
    workers = 2

    def __init__(self) -> None:
        self.triggers: tuple[Trigger, ...] = (
            own(storage.CLAIMS),
            Trigger("nodes", self._waiting),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {
            storage.CLAIMS: {"unserved": _unserved},
            storage.VOLUMES: {"home": _home},
        }

    @staticmethod
    def _waiting(_node: Obj, caches: Caches) -> Iterable[Key]:
        return [c.key for c in caches[storage.CLAIMS].by("unserved", "")]

    def observe(self, key: Key, caches: Caches) -> View | None:
        claim = caches[storage.CLAIMS].get(key.namespace, key.name)
        if claim is None or not [*_unserved(claim)]:
            return None
        chosen = caches[storage.CLASSES].get("", storage.class_of(claim.body))
        if chosen is None or chosen.body.get("provisioner") != storage.PROVISIONER:
            return None
        if caches[storage.VOLUMES].get("", volume_name(claim.body)) is not None:
            return None
        nodes = tuple(sorted(caches["nodes"].list(), key=lambda n: n.name))
        volumes = caches[storage.VOLUMES]
        load = {n.name: len(volumes.by("home", hostname(n))) for n in nodes}
        return View(claim=claim.body, storage_class=chosen.body, nodes=nodes, load=load)

    def plan(self, view: View, now: float) -> Sequence[Action]:
        claim, chosen = view.claim, view.storage_class
        selected = storage.notes_of(claim).get(storage.SELECTED_NODE, "")
        if not selected and storage.waits_for_consumer(chosen):
            return []
        problem = _refusal(claim) or _wrong_parameters(claim, chosen)
        if problem:
            return [_failure(claim, chosen, problem)]
        if selected:
            node = next((n for n in view.nodes if n.name == selected), None)
            if node is None:
                # The scheduler has to choose again: the node it chose is gone.
                gone = {"metadata": {"annotations": {storage.SELECTED_NODE: None}}}
                meta = claim["metadata"]
                key = Key(storage.CLAIMS, meta["namespace"], meta["name"])
                return [
                    _failure(claim, chosen, f'node "{selected}" not found'), Patch(key, gone)
                ]  # fmt: skip
        else:
            node = _choose(view)
            if node is None:
                return [_failure(claim, chosen, "no node is ready and in the class's topology")]
        name = volume_name(claim)
        path = f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
        return [
            BEGUN.about(claim, claim=path),
            Create(
                storage.VOLUMES,
                volume_for(claim, chosen, node),
                failed=lambda why: [_failure(claim, chosen, why)],
                done=lambda _made: [DONE.about(claim, volume=name)],
            ),
        ]  # fmt: skip


def _unserved(claim: Obj) -> Iterable[str]:
    """Index: claims that wait for this provisioner."""
    notes = claim.annotations
    asked = notes.get(storage.STORAGE_PROVISIONER) or notes.get(storage.BETA_STORAGE_PROVISIONER)
    if asked == storage.PROVISIONER and not claim.spec.get("volumeName") and not claim.is_deleting:
        yield ""


def hostname(node: Obj) -> str:
    return node.labels.get("kubernetes.io/hostname", node.name)


def volume_name(claim: Body) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def _failure(claim: Body, storage_class: Body, why: str) -> Emit:
    return FAILED.about(claim, name=storage_class["metadata"]["name"], why=why)


def _refusal(claim: Body) -> str:
    """Why the claim asks for what a local volume cannot be, '' when it does not."""
    spec = claim["spec"]
    other = [m for m in spec.get("accessModes") or () if m not in _MODES]
    if other:
        return f"access mode {other[0]} is not possible: a local volume is on one node"
    if spec.get("selector"):
        return "claim Selector is not supported"
    if spec.get("dataSource") or spec.get("dataSourceRef"):
        return "claim data source is not supported"
    if spec.get("volumeAttributesClassName"):
        return "volume attributes classes are not supported"
    return ""


def _wrong_parameters(claim: Body, storage_class: Body) -> str:
    """Why a class asks for what cannot be made, '' when it does not."""
    kind = storage.file_system(storage_class)
    if kind and kind not in storage.FILE_SYSTEMS:
        known = ", ".join(storage.FILE_SYSTEMS)
        return f'file system "{kind}" is not supported (there are {known})'
    if kind == "xfs" and storage.asked(claim) < _SMALLEST_XFS:
        return f"a volume of xfs has at least {_SMALLEST_XFS // _MIB}Mi"
    return ""


def in_topology(storage_class: Body, node: Obj) -> bool:
    """Whether the class lets volumes be on the node."""
    terms = storage_class.get("allowedTopologies") or ()
    return not terms or any(
        all(node.labels.get(e["key"]) in (e.get("values") or ())
            for e in term.get("matchLabelExpressions") or ())
        for term in terms
    )  # fmt: skip


def _choose(view: View) -> Obj | None:
    """Of the nodes that are ready and open the one with the fewest volumes of ours."""
    fitting = [
        n
        for n in view.nodes
        if not n.spec.get("unschedulable")
        and any(
            c.get("type") == "Ready" and c.get("status") == "True"
            for c in n.status.get("conditions") or ()
        )
        and in_topology(view.storage_class, n)
    ]
    return min(fitting, key=lambda n: (view.load.get(n.name, 0), n.name), default=None)


def volume_for(claim: Body, storage_class: Body, node: Obj) -> Body:
    """The PersistentVolume that serves *claim* on *node*."""
    meta, spec = claim["metadata"], claim["spec"]
    name, block = volume_name(claim), storage.mode_of(claim) == "Block"
    enforced = block or (storage_class.get("parameters") or {}).get("sizeEnforced") == "true"
    notes = {storage.PROVISIONED_BY: storage.PROVISIONER}
    if enforced:
        notes[storage.SIZE_ENFORCED] = "true"
    expression = {
        "key": "kubernetes.io/hostname", "operator": "In", "values": [hostname(node)],
    }  # fmt: skip
    body: Body = {
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "namespace": "", "annotations": notes,
                     "finalizers": [storage.DELETION_FINALIZER]},
        "spec": {
            "capacity": {"storage": amount(claim, enforced=enforced)},
            "accessModes": list(spec.get("accessModes") or ()),
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                         "namespace": meta["namespace"], "name": meta["name"],
                         "uid": meta["uid"],
                         "resourceVersion": meta.get("resourceVersion", "")},
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "storageClassName": storage_class["metadata"]["name"],
            "volumeMode": storage.mode_of(claim),
            "local": {"path": f"{storage.LOCAL_ROOT}/{name}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [expression]}]}},
        },
    }  # fmt: skip
    if enforced and not block and storage.file_system(storage_class):
        body["spec"]["local"]["fsType"] = storage.file_system(storage_class)
    if storage_class.get("mountOptions"):
        body["spec"]["mountOptions"] = list(storage_class["mountOptions"])
    return body


def amount(claim: Body, *, enforced: bool) -> str:
    """The size of a claim's volume: what was asked for in whole bytes; of an image whole MiB."""
    return rounded(str(claim["spec"]["resources"]["requests"]["storage"]), enforced=enforced)


def rounded(given: str, *, enforced: bool) -> str:
    wanted = storage.size({"storage": given})
    if enforced:
        wanted = max(_SMALLEST, -(-wanted // _MIB) * _MIB)
    return str(given) if storage.size({"storage": given}) == wanted and _whole(given) else str(
        wanted
    )  # fmt: skip


def _whole(text: str) -> bool:
    return not str(text).endswith(("m", "u", "n"))
