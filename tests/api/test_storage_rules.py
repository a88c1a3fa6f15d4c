"""Volumes, claims and classes: each fault with its exact path and words, and their columns."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sampan.api.catalogue import builtin
from sampan.api.rules.difference import difference, volume_source

REGISTRY = builtin()
CLAIM: dict[str, Any] = {
    "metadata": {"name": "c", "namespace": "default"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
VOLUME: dict[str, Any] = {
    "metadata": {"name": "v"},
    "spec": {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/data"},
    },
}
CLASS: dict[str, Any] = {"metadata": {"name": "s"}, "provisioner": "sampan.io/local"}


def merged(base: Any, change: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(change, dict):
        return copy.deepcopy(change)
    out = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


def problems(resource: str, body: dict[str, Any]) -> list[str]:
    rules = REGISTRY.get(resource).rules
    body = copy.deepcopy(body)
    rules.default(body)
    return [str(c) for c in rules.validate(body)]


def update_problems(resource: str, new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    return [str(c) for c in REGISTRY.get(resource).rules.validate_update(new, old)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"accessModes": []}, ["spec.accessModes: Required value: at least 1 access mode is "
                               "required"]),
        (
            {"accessModes": ["Sometimes"]},
            ['spec.accessModes: Unsupported value: "Sometimes": supported values: '
             '"ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"'],
        ),
        (
            {"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]},
            ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        ),
        ({"resources": None}, ["spec.resources[storage]: Required value"]),
        (
            {"resources": {"requests": {"storage": "0"}}},
            ['spec.resources[storage]: Invalid value: "0": must be greater than zero'],
        ),
        (
            {"volumeMode": "Tape"},
            ['spec.volumeMode: Unsupported value: "Tape": supported values: "Block", '
             '"Filesystem"'],
        ),
        (
            {"dataSource": {"kind": "PersistentVolumeClaim", "name": ""}},
            ["spec.dataSource.name: Required value"],
        ),
        (
            {"dataSource": {"kind": "PersistentVolumeClaim", "name": "a"},
             "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "b"}},
            ['spec: Invalid value: "spec.dataSource": must match dataSourceRef'],
        ),
        ({"storageClassName": ""}, []),
    ],
)  # fmt: skip
def test_claims(change, expected):
    assert problems("persistentvolumeclaims", merged(CLAIM, {"spec": change})) == expected


def test_a_claim_is_defaulted_and_its_amounts_are_canonical():
    body = merged(CLAIM, {"spec": {"resources": {"requests": {"storage": "1024Mi"}}}})
    rules = REGISTRY.get("persistentvolumeclaims").rules
    rules.default(body)
    rules.prepare_create(body)
    assert body["spec"]["volumeMode"] == "Filesystem"
    assert body["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert body["status"] == {"phase": "Pending"}


def test_data_sources_mirror_each_other():
    body = merged(CLAIM, {"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "a"}}})
    REGISTRY.get("persistentvolumeclaims").rules.prepare_create(body)
    assert body["spec"]["dataSourceRef"] == {"kind": "PersistentVolumeClaim", "name": "a"}


@pytest.mark.parametrize(
    ("spec", "source", "ref"),
    [
        ({"dataSource": {"kind": "Book", "name": "a", "apiGroup": "x.org"}}, None, None),
        (
            {"dataSourceRef": {"kind": "Book", "name": "a", "apiGroup": "x.org"}},
            {"kind": "Book", "name": "a", "apiGroup": "x.org"},
            {"kind": "Book", "name": "a", "apiGroup": "x.org"},
        ),
        (
            {"dataSource": {"kind": "VolumeSnapshot", "name": "a",
                            "apiGroup": "snapshot.storage.k8s.io"}},
            {"kind": "VolumeSnapshot", "name": "a", "apiGroup": "snapshot.storage.k8s.io"},
            {"kind": "VolumeSnapshot", "name": "a", "apiGroup": "snapshot.storage.k8s.io"},
        ),
        (
            {"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "a", "namespace": "other"}},
            {"kind": "PersistentVolumeClaim", "name": "a"},
            {"kind": "PersistentVolumeClaim", "name": "a"},
        ),
    ],
)  # fmt: skip
def test_which_data_sources_are_kept(spec: Any, source: Any, ref: Any) -> None:
    body = merged(CLAIM, {"spec": spec})
    REGISTRY.get("persistentvolumeclaims").rules.prepare_create(body)
    assert (body["spec"].get("dataSource"), body["spec"].get("dataSourceRef")) == (source, ref)


BOUND = merged(
    CLAIM,
    {"spec": {"volumeName": "v", "storageClassName": "s"},
     "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}},
)  # fmt: skip
FIXED = (
    "spec: Forbidden: spec is immutable after creation except resources.requests and "
    "volumeAttributesClassName for bound claims"
)


@pytest.mark.parametrize(
    ("old", "change", "expected"),
    [
        (CLAIM, {"spec": {"volumeName": "v"}}, []),
        (CLAIM, {"spec": {"storageClassName": "s"}}, []),
        (CLAIM, {"spec": {"accessModes": ["ReadWriteMany"]}}, [FIXED]),
        (CLAIM, {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}, [FIXED]),
        (BOUND, {"spec": {"volumeName": "w"}}, [FIXED]),
        (BOUND, {"spec": {"storageClassName": "t"}}, [FIXED]),
        (BOUND, {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}, []),
        (
            BOUND,
            {"spec": {"resources": {"requests": {"storage": "500Mi"}}}},
            ["spec.resources.requests.storage: Forbidden: field can not be less than "
             "status.capacity"],
        ),
        (
            BOUND,
            {"spec": {"volumeMode": "Block"}},
            [FIXED, 'volumeMode: Invalid value: "Block": field is immutable'],
        ),
    ],
)  # fmt: skip
def test_claim_updates(old, change, expected):
    found = update_problems("persistentvolumeclaims", merged(old, change), old)
    assert [p.partition("\n")[0] for p in found] == expected


CHANGED_MODE = """@@ -1,6 +1,6 @@
 {
  "AccessModes": [
-  "ReadWriteMany"
+  "ReadWriteOnce"
  ],
  "Selector": null,
  "Resources": {
"""
CHANGED_CLASS = """@@ -10,7 +10,7 @@
   }
  },
  "VolumeName": "v",
- "StorageClassName": "s",
+ "StorageClassName": "t",
  "VolumeMode": "Filesystem",
  "DataSource": null,
  "DataSourceRef": null,
"""


def test_what_differs_is_told() -> None:
    """Letter by letter as an API server of v1.34 says it; what may change is not in it."""
    old = merged(BOUND, {"spec": {"accessModes": ["ReadWriteMany"]}})
    change = {"spec": {"resources": {"requests": {"storage": "5Gi"}}}}
    new = merged(BOUND, {"spec": {"accessModes": ["ReadWriteOnce"], **change["spec"]}})
    assert update_problems("persistentvolumeclaims", new, old) == [f"{FIXED}\n{CHANGED_MODE}"]
    old = merged(BOUND, {"spec": {"volumeMode": "Filesystem"}})
    new = merged(old, {"spec": {"storageClassName": "t", "volumeAttributesClassName": "gold"}})
    assert update_problems("persistentvolumeclaims", new, old) == [f"{FIXED}\n{CHANGED_CLASS}"]


def test_a_class_of_attributes_is_not_given_back() -> None:
    old = merged(BOUND, {"spec": {"volumeAttributesClassName": "gold"}})
    why = "spec.volumeAttributesClassName: Forbidden: update from non-nil value to"
    assert update_problems("persistentvolumeclaims", BOUND, old) == [f"{why} nil is forbidden"]
    new = merged(old, {"spec": {"volumeAttributesClassName": ""}})
    assert update_problems("persistentvolumeclaims", new, old) == [
        f"{why} an empty string is forbidden"
    ]
    new = merged(old, {"spec": {"volumeAttributesClassName": "silver"}})
    assert update_problems("persistentvolumeclaims", new, old) == []


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"allocatedResourceStatuses": {"storage": "NodeResizePending"}}, []),
        ({"allocatedResources": {"storage": "1Gi", "example.com/x": "1"}}, []),
        (
            {"allocatedResourceStatuses": {"storage": "Growing"}},
            ['status.allocatedResourceStatus: Unsupported value: "storage": supported values: '
             '"ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", '
             '"NodeResizeInfeasible", "NodeResizePending"'],
        ),
        (
            {"allocatedResources": {"memory": "1Gi"}},
            ['status.allocatedResources: Unsupported value: "memory": supported values: "storage"'],
        ),
        (
            {"allocatedResources": {"storage": "-1"}},
            ["status.allocatedResources[storage]: Invalid value: -1: must be a valid resource "
             "quantity"],
        ),
    ],
)  # fmt: skip
def test_how_far_growth_is(status: Any, expected: list[str]) -> None:
    rules = REGISTRY.get("persistentvolumeclaims").rules
    new = merged(BOUND, {"status": status})
    assert [str(c.field) + ": " + c.message for c in rules.validate_status(new, BOUND)] == expected


def test_an_expansion_that_failed_may_be_taken_back_to_more_than_there_is():
    old = merged(BOUND, {"spec": {"resources": {"requests": {"storage": "10Gi"}}}})
    new = merged(old, {"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    assert update_problems("persistentvolumeclaims", new, old) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"accessModes": []}, ["spec.accessModes: Required value"]),
        (
            {"capacity": None},
            ["spec.capacity: Required value",
             'spec.capacity: Unsupported value: {}: supported values: "storage"'],
        ),
        (
            {"capacity": {"storage": "0"}},
            ['spec.capacity[storage]: Invalid value: "0": must be greater than zero'],
        ),
        (
            {"persistentVolumeReclaimPolicy": "Burn"},
            ['spec.persistentVolumeReclaimPolicy: Unsupported value: "Burn": supported values: '
             '"Delete", "Recycle", "Retain"'],
        ),
        ({"hostPath": None}, ["spec: Required value: must specify a volume type"]),
        (
            {"nfs": {"server": "s", "path": "/x"}},
            ["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            {"hostPath": None, "local": {"path": "/x"}},
            ["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
        (
            {"hostPath": None, "local": {"path": "/x/../y"}, "nodeAffinity": {}},
            ["spec.nodeAffinity.required: Required value: must specify required node constraints",
             'spec.local.path: Invalid value: "/x/../y": must not contain \'..\''],
        ),
        (
            {"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"},
            ["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath "
             "mount of '/'"],
        ),
        (
            {"hostPath": None, "csi": {"driver": "d"}},
            ["spec.csi.volumeHandle: Required value"],
        ),
        (
            {"volumeAttributesClassName": "a"},
            ["spec.csi: Required value: has to be specified when using "
             "volumeAttributesClassName"],
        ),
    ],
)  # fmt: skip
def test_volumes(change, expected):
    assert problems("persistentvolumes", merged(VOLUME, {"spec": change})) == expected


def test_a_volume_is_defaulted():
    body = copy.deepcopy(VOLUME)
    REGISTRY.get("persistentvolumes").rules.default(body)
    assert body["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert body["spec"]["volumeMode"] == "Filesystem"
    assert body["spec"]["hostPath"]["type"] == ""


def test_a_volumes_source_and_mode_never_change():
    new = merged(VOLUME, {"spec": {"hostPath": {"path": "/other"}, "volumeMode": "Block"}})
    old = merged(VOLUME, {"spec": {"volumeMode": "Filesystem"}})
    assert update_problems("persistentvolumes", new, old) == [
        "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after "
        f"creation\n{CHANGED_SOURCE}",
        'volumeMode: Invalid value: "Block": field is immutable',
    ]


CHANGED_SOURCE = """@@ -2,7 +2,7 @@
  "GCEPersistentDisk": null,
  "AWSElasticBlockStore": null,
  "HostPath": {
-  "Path": "/data",
+  "Path": "/other",
   "Type": null
  },
  "Glusterfs": null,
"""


def test_other_sources_have_the_names_of_their_type() -> None:
    """Every kind of source: its members as Go calls them."""
    nfs = {"nfs": {"server": "a", "path": "/x"}}
    assert difference(
        volume_source(nfs), volume_source({"nfs": {"server": "a", "path": "/y"}})
    ) == (
        '@@ -5,7 +5,7 @@\n  "Glusterfs": null,\n  "NFS": {\n   "Server": "a",\n-  "Path": "/x",\n'
        '+  "Path": "/y",\n   "ReadOnly": false\n  },\n  "RBD": null,\n'
    )
    csi = {"csi": {"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": {"name": "s"}}}
    assert volume_source(csi)["CSI"]["NodeStageSecretRef"] == {"Name": "s", "Namespace": ""}
    assert [*volume_source({})][-3:] == ["Local", "StorageOS", "CSI"]
    assert difference(volume_source(csi), volume_source(csi)) == ""


def test_a_secret_for_growth_may_come_later() -> None:
    csi = {"hostPath": None, "csi": {"driver": "d", "volumeHandle": "h"}}
    old = merged(VOLUME, {"spec": csi})
    ref = {"name": "s", "namespace": "n"}
    new = merged(old, {"spec": {"csi": {"controllerExpandSecretRef": ref}}})
    assert update_problems("persistentvolumes", new, old) == []
    (problem,) = update_problems("persistentvolumes", old, new)
    assert '-   "Name": "s",' in problem


def test_a_volumes_affinity_is_set_once():
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    affinity = {"required": {"nodeSelectorTerms": [term]}}
    with_it = merged(VOLUME, {"spec": {"nodeAffinity": affinity}})
    assert update_problems("persistentvolumes", with_it, VOLUME) == []
    (problem,) = update_problems("persistentvolumes", VOLUME, with_it)
    assert problem == (
        "nodeAffinity: Invalid value: null: field is immutable, except for updating from beta "
        "label to GA"
    )


@pytest.mark.parametrize(
    ("old", "new", "fine"),
    [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone", True),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch", True),
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/region", False),
        ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone", False),
        ("disk", "disk", True),
    ],
)
def test_labels_of_a_volumes_affinity_may_grow_up(old: str, new: str, fine: bool) -> None:
    def with_key(key: str, value: str = "a") -> dict[str, Any]:
        expression = {"key": key, "operator": "In", "values": [value]}
        terms = [{"matchExpressions": [expression]}]
        return merged(
            VOLUME, {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}
        )

    assert (update_problems("persistentvolumes", with_key(new), with_key(old)) == []) == fine
    assert update_problems("persistentvolumes", with_key(new, "b"), with_key(old)) != []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"provisioner": None}, ["provisioner: Required value"]),
        (
            {"reclaimPolicy": "Recycle"},
            ['reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"'],
        ),
        (
            {"volumeBindingMode": "Later"},
            ['volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", '
             '"WaitForFirstConsumer"'],
        ),
        ({"parameters": {"": "x"}}, ['parameters: Invalid value: "": field can not be empty.']),
        (
            {"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": []}]}]},
            ["allowedTopologies[0].matchLabelExpressions[0].values: Required value"],
        ),
    ],
)  # fmt: skip
def test_classes(change, expected):
    assert problems("storageclasses.storage.k8s.io", merged(CLASS, change)) == expected


def test_a_class_is_defaulted_and_never_changes():
    body = copy.deepcopy(CLASS)
    REGISTRY.get("storageclasses.storage.k8s.io").rules.default(body)
    assert (body["reclaimPolicy"], body["volumeBindingMode"]) == ("Delete", "Immediate")
    new = merged(body, {"provisioner": "x", "volumeBindingMode": "WaitForFirstConsumer",
                        "parameters": {"a": "b"}, "reclaimPolicy": "Retain"})  # fmt: skip
    assert update_problems("storageclasses.storage.k8s.io", new, body) == [
        "parameters: Forbidden: updates to parameters are forbidden.",
        "provisioner: Forbidden: updates to provisioner are forbidden.",
        "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
        'volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable',
    ]
    assert update_problems(
        "storageclasses.storage.k8s.io", merged(body, {"allowVolumeExpansion": True}), body
    ) == []  # fmt: skip


def test_csi_drivers_and_nodes():
    driver = {"metadata": {"name": "d.example.com"}, "spec": {}}
    REGISTRY.get("csidrivers.storage.k8s.io").rules.default(driver)
    assert driver["spec"] == {
        "attachRequired": True, "podInfoOnMount": False, "storageCapacity": False,
        "fsGroupPolicy": "ReadWriteOnceWithFSType", "requiresRepublish": False,
        "seLinuxMount": False, "volumeLifecycleModes": ["Persistent"],
    }  # fmt: skip
    changed = merged(driver, {"spec": {"attachRequired": False}})
    assert update_problems("csidrivers.storage.k8s.io", changed, driver) == [
        "spec.attachedRequired: Invalid value: false: field is immutable"
    ]
    node = {"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d"}]}}
    assert problems("csinodes.storage.k8s.io", node) == [
        "spec.drivers[0].nodeID: Required value"
    ]  # fmt: skip
    one = {"spec": {"drivers": [{"name": "d", "nodeID": "a"}]}}
    two = {"spec": {"drivers": [{"name": "d", "nodeID": "b"}]}}
    (problem,) = update_problems("csinodes.storage.k8s.io", two, one)
    assert problem.startswith("CSINodeDriver: Invalid value")


def test_attachments_capacities_and_attributes():
    assert problems("volumeattachments.storage.k8s.io", {"spec": {"attacher": "a"}}) == [
        "spec.source: Required value: must specify exactly one of inlineVolumeSpec and "
        "persistentVolumeName",
        "spec.nodeName: Required value",
    ]
    assert problems("csistoragecapacities.storage.k8s.io", {"capacity": "-1"}) == [
        "storageClassName: Required value",
        'capacity: Invalid value: "-1": must be greater than or equal to 0',
    ]
    assert problems("volumeattributesclasses.storage.k8s.io", {"driverName": "d"}) == [
        "parameters: Required value: must contain at least one key/value pair"
    ]
    old = {"driverName": "d", "parameters": {"a": "b"}}
    new = {"driverName": "d", "parameters": {"a": "c"}}
    assert update_problems("volumeattributesclasses.storage.k8s.io", new, old) == [
        "parameters: Forbidden: updates to parameters are forbidden."
    ]


def test_warnings_of_volumes_and_claims():
    volume = merged(VOLUME, {"spec": {"persistentVolumeReclaimPolicy": "Recycle"}})
    assert REGISTRY.get("persistentvolumes").rules.warn(volume) == [
        "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, "
        "the recommended approach is to use dynamic provisioning."
    ]
    claim = merged(CLAIM, {"spec": {"resources": {"requests": {"storage": "1500m"}}}})
    assert REGISTRY.get("persistentvolumeclaims").rules.warn(claim) == [
        'spec.resources.requests[storage]: fractional byte value "1500m" is invalid, must be an '
        "integer"
    ]


def test_templates_of_ephemeral_volumes():
    template = {"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"accessModes": []}}
    pod = {
        "metadata": {"name": "p" * 250},
        "spec": {
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "data", "ephemeral": {"volumeClaimTemplate": template}}],
        },
    }
    found = problems("pods", pod)
    at = "spec.volumes[0].ephemeral.volumeClaimTemplate"
    assert f"{at}.metadata.name: Forbidden: cannot be set" in found
    assert f"{at}.spec.accessModes: Required value: at least 1 access mode is required" in found
    assert f"{at}.spec.resources[storage]: Required value" in found
    assert any(f.startswith('spec.volumes[0].name: Invalid value: "data": PVC name') for f in found)


def row(resource: str, body: dict[str, Any]) -> dict[str, Any]:
    columns = REGISTRY.get(resource).columns
    return {c.name: c.cell(body, 1e9) for c in columns if c.name != "Age"}


def test_rows():
    volume = merged(
        VOLUME,
        {"spec": {"accessModes": ["ReadWriteMany", "ReadWriteOnce"], "storageClassName": "s",
                  "persistentVolumeReclaimPolicy": "Delete", "volumeMode": "Filesystem",
                  "claimRef": {"namespace": "default", "name": "c"}},
         "status": {"phase": "Bound"}},
    )  # fmt: skip
    assert row("persistentvolumes", volume) == {
        "Name": "v", "Capacity": "1Gi", "Access Modes": "RWO,RWX", "Reclaim Policy": "Delete",
        "Status": "Bound", "Claim": "default/c", "StorageClass": "s",
        "VolumeAttributesClass": "<unset>", "Reason": "", "VolumeMode": "Filesystem",
    }  # fmt: skip
    waiting = merged(CLAIM, {"status": {"phase": "Pending"}})
    assert row("persistentvolumeclaims", waiting) == {
        "Name": "c", "Status": "Pending", "Volume": "", "Capacity": "", "Access Modes": "",
        "StorageClass": "", "VolumeAttributesClass": "<unset>", "VolumeMode": "<unset>",
    }  # fmt: skip
    going = merged(BOUND, {"metadata": {"deletionTimestamp": "x"},
                           "status": {"accessModes": ["ReadWriteOncePod"]}})  # fmt: skip
    found = row("persistentvolumeclaims", going)
    assert (found["Status"], found["Capacity"]) == ("Terminating", "1Gi")
    assert found["Access Modes"] == "RWOP"
    note = {"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}
    found = row("storageclasses.storage.k8s.io", merged(CLASS, note))
    assert found["Name"] == "s (default)"
    assert found["AllowVolumeExpansion"] is False
    driver = {"metadata": {"name": "d"}, "spec": {"volumeLifecycleModes": ["Persistent"]}}
    assert row("csidrivers.storage.k8s.io", driver)["TokenRequests"] == "<unset>"


@pytest.mark.parametrize(
    ("resource", "names"),
    [
        ("persistentvolumes", "Name Capacity Access_Modes Reclaim_Policy Status Claim StorageClass "
         "VolumeAttributesClass Reason Age VolumeMode"),
        ("persistentvolumeclaims", "Name Status Volume Capacity Access_Modes StorageClass "
         "VolumeAttributesClass Age VolumeMode"),
        ("storageclasses.storage.k8s.io", "Name Provisioner ReclaimPolicy VolumeBindingMode "
         "AllowVolumeExpansion Age"),
        ("csidrivers.storage.k8s.io", "Name AttachRequired PodInfoOnMount StorageCapacity "
         "TokenRequests RequiresRepublish Modes Age"),
        ("csinodes.storage.k8s.io", "Name Drivers Age"),
        ("volumeattachments.storage.k8s.io", "Name Attacher PV Node Attached Age"),
        ("csistoragecapacities.storage.k8s.io", "Name StorageClassName Capacity"),
        ("volumeattributesclasses.storage.k8s.io", "Name DriverName Age"),
    ],
)  # fmt: skip
def test_headers(resource, names):
    assert [c.name for c in REGISTRY.get(resource).columns] == [
        n.replace("_", " ") for n in names.split()
    ]
