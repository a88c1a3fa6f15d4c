"""Every PodSpec field is either acted on or warned about: silence is forbidden."""

from __future__ import annotations

import pytest

from sampan.api.rules.honoured import HONOURED, NOT_YET, WARNING, unhonoured
from sampan.schema.walk import Schemas

POD_SPEC = "io.k8s.api.core.v1.PodSpec"


def unknown_fields(schemas: Schemas, path: str = "") -> list[str]:
    """Fields at *path* of a PodSpec, and below those told apart further, in neither list."""
    found = []
    for field, schema in schemas.at(POD_SPEC, path.replace("[]", "")).get("properties", {}).items():
        inner = f"{path}.{field}" if path else field
        if inner in NOT_YET:
            continue
        if inner not in HONOURED:
            found.append(inner)
            continue
        below = f"{inner}[]" if schema.get("type") == "array" else inner
        if any(h.startswith(f"{below}.") for h in HONOURED):
            found += unknown_fields(schemas, below)
    return found


def test_every_field_of_the_schema_is_in_one_list_or_the_other():
    assert unknown_fields(Schemas.load()) == []


@pytest.mark.parametrize("pattern", [*NOT_YET, *HONOURED])
def test_every_line_names_a_field_of_the_schema(pattern):
    assert Schemas.load().at(POD_SPEC, pattern.replace("[]", ""))


def test_no_field_is_in_both_lists():
    assert set(HONOURED) & set(NOT_YET) == set()


def test_a_plain_pod_has_no_warning():
    spec = {
        "containers": [{"name": "a", "image": "b", "resources": {"limits": {"cpu": "1"}}}],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "preemptionPolicy": "PreemptLowerPriority",
        "securityContext": {},
        "enableServiceLinks": True,
        "hostUsers": True,
    }
    assert unhonoured(spec, "spec") == []


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ({"hostUsers": False}, ["spec.hostUsers"]),
        (
            {
                "affinity": {"nodeAffinity": {}},
                "preemptionPolicy": "Never",
                "overhead": {"cpu": "1"},
                "schedulingGates": [{"name": "g"}],
                "topologySpreadConstraints": [{}],
            },
            [],
        ),
        (
            {"volumes": [{"name": "a", "emptyDir": {"sizeLimit": "1Gi"}}, {"nfs": {"path": "/"}}]},
            ["spec.volumes[1].nfs"],
        ),
        ({"volumes": [{"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]}, []),
        (
            {
                "initContainers": [{"securityContext": {"seLinuxOptions": {"level": "s0"}}}],
                "containers": [{}, {"volumeMounts": [{"recursiveReadOnly": "Enabled"}]}],
            },
            [
                "spec.containers[1].volumeMounts[0].recursiveReadOnly",
                "spec.initContainers[0].securityContext.seLinuxOptions",
            ],
        ),
        (
            {"containers": [{"resources": {"limits": {"ephemeral-storage": "1", "cpu": "1"}}}]},
            ["spec.containers[0].resources[ephemeral-storage]"],
        ),
        ({"containers": [{"ports": [{"hostPort": 80, "hostIP": "10.1.2.3"}]}]}, []),
        ({"containers": [{"ports": [{"hostPort": 80, "hostIP": "fd00:44::2"}]}]}, []),
        (
            {"containers": [{"ports": [{"hostPort": 80, "hostIP": "::1"}]}]},
            ["spec.containers[0].ports[0].hostIP"],
        ),
        (
            {"containers": [{"ports": [{"hostPort": 80, "hostIP": "127.0.0.1"}]}]},
            ["spec.containers[0].ports[0].hostIP"],
        ),
    ],
)
def test_warns_by_path(spec, paths):
    assert sorted(unhonoured(spec, "spec")) == [f"{p}: {WARNING}" for p in paths]
