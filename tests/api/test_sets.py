"""StatefulSets, DaemonSets, ReplicationControllers, ControllerRevisions, PodTemplates: defaults,
validation in upstream's words, and what an update may change."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sampan.api.catalogue import builtin

REGISTRY = builtin()
Body = dict[str, Any]
TEMPLATE: Body = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {"containers": [{"name": "c", "image": "x:1"}]},
}
SET: Body = {
    "metadata": {"name": "w"},
    "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": TEMPLATE},
}
CLAIM: Body = {
    "metadata": {"name": "d"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def merged(base: Any, change: Any) -> Any:
    """*change* laid over *base*; None removes a member."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return copy.deepcopy(change)
    out = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


def defaulted(resource: str, body: Body) -> Body:
    body = copy.deepcopy(body)
    REGISTRY.get(resource).rules.default(body)
    once = copy.deepcopy(body)
    REGISTRY.get(resource).rules.default(body)
    assert body == once, "defaulting is idempotent"
    return body


def problems(resource: str, body: Body) -> list[str]:
    return [str(c) for c in REGISTRY.get(resource).rules.validate(defaulted(resource, body))]


def without_template(body: Body) -> Body:
    return {k: v for k, v in body["spec"].items() if k != "template"}


def test_stateful_set_defaults():
    body = defaulted("statefulsets.apps", SET)
    assert without_template(body) == {
        "selector": {"matchLabels": {"app": "a"}}, "podManagementPolicy": "OrderedReady",
        "replicas": 1, "revisionHistoryLimit": 10,
        "updateStrategy": {
            "type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1},
        },
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    }  # fmt: skip
    assert body["spec"]["template"]["spec"]["restartPolicy"] == "Always"


def test_stateful_set_strategies_and_claims_are_completed():
    change = {"updateStrategy": {"type": "RollingUpdate"}}
    body = defaulted("statefulsets.apps", merged(SET, {"spec": change}))
    assert body["spec"]["updateStrategy"] == {"type": "RollingUpdate"}
    claim = {"metadata": {"name": "d"}, "spec": {"resources": {"requests": {"storage": "1024Mi"}}}}
    change = {"updateStrategy": {"type": "OnDelete"}, "volumeClaimTemplates": [claim]}
    body = defaulted("statefulsets.apps", merged(SET, {"spec": change}))
    assert body["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert body["spec"]["volumeClaimTemplates"] == [{
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "d"},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Filesystem"},
        "status": {"phase": "Pending"},
    }]  # fmt: skip


def test_daemon_set_defaults():
    assert without_template(defaulted("daemonsets.apps", SET)) == {
        "selector": {"matchLabels": {"app": "a"}}, "revisionHistoryLimit": 10,
        "updateStrategy": {
            "type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
        },
    }  # fmt: skip
    change = {"updateStrategy": {"type": "OnDelete"}}
    body = defaulted("daemonsets.apps", merged(SET, {"spec": change}))
    assert body["spec"]["updateStrategy"] == {"type": "OnDelete"}


def test_replication_controller_takes_selector_and_labels_of_its_template():
    body = defaulted("replicationcontrollers", {"spec": {"template": TEMPLATE}})
    assert body["metadata"]["labels"] == body["spec"]["selector"] == {"app": "a"}
    assert body["spec"]["replicas"] == 1
    given = {"metadata": {"labels": {"x": "y"}}, "spec": {"selector": {"app": "a", "b": "c"},
             "template": TEMPLATE, "replicas": 0}}  # fmt: skip
    body = defaulted("replicationcontrollers", given)
    assert body["metadata"]["labels"] == {"x": "y"}
    assert body["spec"]["selector"] == {"app": "a", "b": "c"} and body["spec"]["replicas"] == 0


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        (
            {"podManagementPolicy": "X"},
            [
                'spec.podManagementPolicy: Invalid value: "X": must be \'OrderedReady\' or '
                "'Parallel'"
            ],
        ),
        (
            {"updateStrategy": {"type": "X"}},
            [
                'spec.updateStrategy: Invalid value: {"type":"X"}: must be \'RollingUpdate\' or '
                "'OnDelete'"
            ],
        ),
        (
            {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}},
            [
                'spec.updateStrategy.rollingUpdate: Invalid value: {"partition":1}: only allowed '
                "for updateStrategy 'RollingUpdate'"
            ],
        ),
        (
            {"updateStrategy": {"rollingUpdate": {"partition": -1, "maxUnavailable": 0}}},
            [
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater "
                "than or equal to 0",
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
            ],
        ),
        (
            {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "101%"}}},
            [
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 101%: must not "
                "be greater than 100%"
            ],
        ),
        (
            {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Keep"}},
            [
                "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "
                '"Keep": supported values: "Retain", "Delete"'
            ],
        ),
        (
            {"replicas": -1, "minReadySeconds": -2, "ordinals": {"start": -3}},
            [
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.minReadySeconds: Invalid value: -2: must be greater than or equal to 0",
                "spec.ordinals.start: Invalid value: -3: must be greater than or equal to 0",
            ],
        ),
        (
            {"selector": {"matchLabels": None}},
            ["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
        ),
        (
            {"template": {"metadata": {"labels": {"app": "b"}}}},
            [
                'spec.template.metadata.labels: Invalid value: {"app":"b"}: `selector` does not '
                "match template `labels`"
            ],
        ),
        (
            {"template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 5}}},
            [
                'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: '
                '"Always"',
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in "
                "StatefulSet is not Supported",
            ],
        ),
        (
            {"template": {"spec": {"containers": [
                {"name": "c", "image": "x", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}
            ]}}},
            ['spec.template.spec.containers[0].volumeMounts[0].name: Not found: "d"'],
        ),
        (
            {
                "volumeClaimTemplates": [CLAIM],
                "template": {"spec": {"containers": [
                    {"name": "c", "image": "x", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}
                ]}},
            },
            [],
        ),
    ],
)  # fmt: skip
def test_stateful_set(spec, expected):
    assert problems("statefulsets.apps", merged(SET, {"spec": spec})) == expected


def test_claim_templates_are_validated():
    found = problems("statefulsets.apps", merged(SET, {"spec": {"volumeClaimTemplates": [{}]}}))
    assert found[:2] == [
        "spec.volumeClaimTemplates[0].metadata.name: Required value",
        "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is "
        "required",
    ]


def test_stateful_set_service_name_is_a_label():
    found = problems("statefulsets.apps", merged(SET, {"spec": {"serviceName": "a.b"}}))
    assert found == ['spec.serviceName: Invalid value: "a.b": must not contain dots']


FROZEN = (
    "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', "
    "'template', 'updateStrategy', 'revisionHistoryLimit', "
    "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"replicas": 9, "minReadySeconds": 3, "ordinals": {"start": 2}}, []),
        ({"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}, []),
        ({"revisionHistoryLimit": 1, "template": {"metadata": {"annotations": {"a": "b"}}}}, []),
        ({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}, []),
        ({"serviceName": "other"}, [FROZEN]),
        ({"podManagementPolicy": "Parallel"}, [FROZEN]),
        ({"volumeClaimTemplates": [{"metadata": {"name": "d"}}]}, [FROZEN]),
        ({"selector": {"matchLabels": {"app": "a", "b": "c"}}}, [FROZEN]),
    ],
)
def test_what_of_a_stateful_set_may_change(spec, expected):
    old = defaulted("statefulsets.apps", SET)
    new = merged(old, {"spec": spec})
    rules = REGISTRY.get("statefulsets.apps").rules
    assert [str(c) for c in rules.validate_update(new, old)] == expected


def test_stateful_set_status():
    rules = REGISTRY.get("statefulsets.apps").rules
    new = {"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3}}
    old = {"status": {"collisionCount": 1}}
    assert [str(c) for c in rules.validate_status(new, old)] == [
        "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
        "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
        "status.availableReplicas: Invalid value: 3: cannot be greater than status.readyReplicas",
        "status.collisionCount: Invalid value: 0: cannot be decremented",
    ]


def test_a_history_without_limit_earns_a_warning():
    body = defaulted("statefulsets.apps", merged(SET, {"spec": {"revisionHistoryLimit": -1}}))
    assert problems("statefulsets.apps", body) == []
    assert REGISTRY.get("statefulsets.apps").rules.warn(body) == [
        "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value "
        ">= 0 is recommended"
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}, []),
        (
            {"updateStrategy": {"rollingUpdate": {"maxSurge": "10%", "maxUnavailable": 1}}},
            [
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 10%: may not be set "
                "when maxUnavailable is non-zero"
            ],
        ),
        (
            {"updateStrategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
            [
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 "
                "when maxSurge is 0"
            ],
        ),
        (
            {"updateStrategy": {"type": "X"}},
            [
                'spec.updateStrategy: Unsupported value: {"type":"X"}: supported values: '
                '"RollingUpdate", "OnDelete"'
            ],
        ),
        (
            {"selector": {"matchLabels": None}},
            ["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
        ),
        (
            {"revisionHistoryLimit": -1},
            ["spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            {"template": {"spec": {"activeDeadlineSeconds": 5}}},
            [
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in "
                "DaemonSet is not Supported"
            ],
        ),
    ],
)
def test_daemon_set(spec, expected):
    assert problems("daemonsets.apps", merged(SET, {"spec": spec})) == expected


def test_the_template_generation_of_a_daemon_set_follows_its_template():
    rules, note = REGISTRY.get("daemonsets.apps").rules, "deprecated.daemonset.template.generation"
    old = copy.deepcopy(SET)
    rules.prepare_create(old)
    assert old["metadata"]["annotations"] == {note: "1"}
    assert old["status"]["desiredNumberScheduled"] == 0
    same = merged(old, {"spec": {"minReadySeconds": 3}, "metadata": {"annotations": {note: "7"}}})
    rules.prepare_update(same, old)
    assert same["metadata"]["annotations"][note] == "1"
    image = {"containers": [{"name": "c", "image": "x:2"}]}
    new = merged(old, {"spec": {"template": {"spec": image}}})
    rules.prepare_update(new, old)
    assert new["metadata"]["annotations"][note] == "2"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"selector": {"app": "a"}}, []),
        (
            {"selector": {"app": "b"}},
            [
                'spec.template.metadata.labels: Invalid value: {"app":"a"}: `selector` does not '
                "match template `labels`"
            ],
        ),
        ({"template": None}, ["spec.selector: Required value", "spec.template: Required value"]),
        (
            {"template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 1}}},
            [
                'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: '
                '"Always"',
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in "
                "ReplicationController is not Supported",
            ],
        ),
    ],
)
def test_replication_controller(spec, expected):
    body = merged({"spec": {"template": TEMPLATE}}, {"spec": spec})
    assert problems("replicationcontrollers", body) == expected


def test_controller_revision():
    rules = REGISTRY.get("controllerrevisions.apps").rules
    found = rules.validate({"revision": -1})
    assert [str(c) for c in found] == [
        "data: Required value: data is mandatory",
        "revision: Invalid value: -1: must be greater than or equal to 0",
    ]
    old = {"data": {"a": 1}, "revision": 1}
    assert rules.validate_update({**old, "revision": 2}, old) == []
    (cause,) = rules.validate_update({**old, "data": {"a": 2}}, old)
    assert str(cause) == 'data: Invalid value: {"a":2}: field is immutable'


def test_pod_template():
    body = defaulted("podtemplates", {"template": TEMPLATE})
    assert body["template"]["spec"]["restartPolicy"] == "Always"
    assert problems("podtemplates", {}) == ["template: Required value"]
    spec = {"template": {"spec": {"schedulingGates": [{"name": "x"}]}}}
    warned = REGISTRY.get("podtemplates").rules.warn(spec)
    assert all(w.startswith("template.spec.") for w in warned)
