"""The Node object, image policies, and patches of status."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sampan.lib.clock import RealClock
from sampan.node import images_policy, register
from sampan.node.runtime.base import Image, RuntimeFailure
from sampan.node.runtime.fake import FakeRuntime
from sampan.node.statuswriter import difference
from sampan.testing.machine_world import START

IDENTITY = register.Identity(
    name="n1",
    addresses=("10.0.0.1",),
    capacity={"cpu": "2", "memory": "1Gi", "pods": "110"},
    allocatable={"cpu": "2", "memory": "1Gi", "pods": "110"},
    pod_cidrs=("10.42.0.0/24",),
    labels={"extra": "x"},
)


def _status(*, ready: tuple[bool, str] = (True, ""), old: Any = None, now: float = START) -> Any:
    return register.node_status(IDENTITY, now=now, ready=ready, images=[], old=old or {})


def test_node_object() -> None:
    body = register.node_body(IDENTITY)
    labels = body["metadata"]["labels"]
    assert labels["kubernetes.io/hostname"] == "n1"
    assert labels["kubernetes.io/os"] == "linux"
    assert labels["kubernetes.io/arch"] == register.architecture()
    assert labels["extra"] == "x"
    assert body["spec"] == {"podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24"]}


def test_conditions_in_the_kubelets_words() -> None:
    status = _status()
    assert [(c["type"], c["status"], c["reason"]) for c in status["conditions"]] == [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ]
    assert status["nodeInfo"]["kubeletVersion"].startswith("v1.37.0+sampan")
    assert status["nodeInfo"]["containerRuntimeVersion"].startswith("sampan://")
    assert {"type": "InternalIP", "address": "10.0.0.1"} in status["addresses"]
    down = _status(ready=(False, "container runtime is down: x"), old=status, now=START + 60)
    ready = down["conditions"][3]
    assert (ready["status"], ready["reason"], ready["message"]) == (
        "False",
        "KubeletNotReady",
        "container runtime is down: x",
    )
    assert ready["lastTransitionTime"] != status["conditions"][3]["lastTransitionTime"]
    assert (
        down["conditions"][0]["lastTransitionTime"] == status["conditions"][0]["lastTransitionTime"]
    )


def test_a_heartbeat_alone_is_no_change() -> None:
    first = _status()
    later = _status(old=first, now=START + 10)
    assert first != later
    assert register.without_heartbeat(first) == register.without_heartbeat(later)


def test_images_are_listed_largest_first() -> None:
    images = [Image(id=f"sha256:{n}", tags=(f"i:{n}",), size=n) for n in range(100)]
    status = register.node_status(IDENTITY, now=START, ready=(True, ""), images=images, old={})
    assert len(status["images"]) == 50
    assert status["images"][0] == {"names": ["i:99"], "sizeBytes": 99}


@pytest.mark.parametrize(
    ("ref", "policy", "reason"),
    [
        ("here:1", "Always", ""),
        ("here:1", "IfNotPresent", ""),
        ("here:1", "Never", ""),
        ("gone:1", "Always", "ErrImagePull"),
        ("gone:1", "IfNotPresent", "ErrImagePull"),
        ("gone:1", "Never", "ErrImageNeverPull"),
        ("x/UPPER", "Always", "InvalidImageName"),
        ("a b", "Always", "InvalidImageName"),
        ("registry.example:5000/team/app_x:v1.2-rc@sha256:" + "a" * 64, "Always", "ErrImagePull"),
    ],
)
def test_pull_policies(ref: str, policy: str, reason: str) -> None:
    async def body() -> None:
        clock = RealClock()
        runtime = FakeRuntime(clock, images=["here:1"])
        await images_policy.ensure(runtime, ref, policy=policy, clock=clock)

    if not reason:
        asyncio.run(body())
        return
    with pytest.raises(RuntimeFailure) as failure:
        asyncio.run(body())
    assert failure.value.reason == reason


def _condition(type_: str, status: str, **more: Any) -> dict[str, Any]:
    return {"type": type_, "status": status, "lastTransitionTime": "t", **more}


def test_a_patch_has_only_what_differs() -> None:
    old = {
        "phase": "Running",
        "reason": "Old",
        "conditions": [
            _condition("Ready", "False", reason="R", message="M"),
            _condition("PodScheduled", "True"),
            _condition("theirs", "True"),
        ],
        "podIPs": [{"ip": "1"}],
        "qosClass": "BestEffort",
    }
    new = {
        "phase": "Running",
        "conditions": [
            _condition("Ready", "True"),
            _condition("PodScheduled", "True"),
            _condition("theirs", "False"),
        ],
        "podIPs": [{"ip": "2"}],
        "qosClass": "BestEffort",
    }
    assert difference(old, new) == {
        "reason": None,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": None,
                "message": None,
                "lastTransitionTime": "t",
            }
        ],
        "podIPs": [{"$patch": "replace"}, {"ip": "2"}],
    }
    assert difference(new, new) == {}


def test_the_size_of_the_disk_is_told(tmp_path: Path) -> None:
    found = register.detect_capacity(tmp_path / "new")
    assert set(found) == {"cpu", "memory", "pods", "ephemeral-storage"}
    assert int(found["ephemeral-storage"].removesuffix("Ki")) > 1
    assert "ephemeral-storage" not in register.detect_capacity()


def test_extended_resources_of_others_are_there_to_be_taken() -> None:
    own = _status()
    told = {**own, "capacity": {**own["capacity"], "example.com/dongle": "5"}}
    found = _status(old=told)
    assert found["capacity"]["example.com/dongle"] == "5"
    assert found["allocatable"]["example.com/dongle"] == "5"
    left = {**found, "capacity": own["capacity"]}
    gone = _status(old=left)
    assert gone["allocatable"]["example.com/dongle"] is None  # deletes it in a patch
    assert "example.com/dongle" not in gone["capacity"]
