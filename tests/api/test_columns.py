"""Table cells, as ``kubectl get`` and ``kubectl get -o wide`` show them."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.catalogue import builtin
from sampan.lib.clock import parse_rfc3339

REGISTRY = builtin()
BORN = "2026-01-01T00:00:00Z"
NOW = parse_rfc3339(BORN) + 300


def header(resource: str, *, wide: bool = True) -> list[str]:
    columns = REGISTRY.get(resource).columns
    return [c.name for c in columns if wide or not c.priority]


def row(resource: str, body: dict[str, Any], *, wide: bool = True) -> list[Any]:
    columns = REGISTRY.get(resource).columns
    body = {
        **body,
        "metadata": {"name": "n", "creationTimestamp": BORN, **body.get("metadata", {})},
    }
    return [c.cell(body, NOW) for c in columns if wide or not c.priority]


@pytest.mark.parametrize(
    ("resource", "names"),
    [
        ("pods", "Name Ready Status Restarts Age IP Node Nominated_Node Readiness_Gates"),
        ("deployments.apps", "Name Ready Up-to-date Available Age Containers Images Selector"),
        ("replicasets.apps", "Name Desired Current Ready Age Containers Images Selector"),
        ("statefulsets.apps", "Name Ready Age Containers Images"),
        (
            "daemonsets.apps",
            "Name Desired Current Ready Up-to-date Available Node_Selector Age Containers Images "
            "Selector",
        ),
        ("controllerrevisions.apps", "Name Controller Revision Age"),
        ("replicationcontrollers", "Name Desired Current Ready Age Containers Images Selector"),
        ("podtemplates", "Name Containers Images Pod_Labels"),
        ("services", "Name Type Cluster-IP External-IP Port(s) Age Selector"),
        ("endpoints", "Name Endpoints Age"),
        ("endpointslices.discovery.k8s.io", "Name AddressType Ports Endpoints Age"),
        (
            "nodes",
            "Name Status Roles Age Version Internal-IP External-IP OS-Image Kernel-Version "
            "Container-Runtime",
        ),
        ("namespaces", "Name Status Age"),
        ("secrets", "Name Type Data Age"),
        ("configmaps", "Name Data Age"),
        ("serviceaccounts", "Name Age"),
        (
            "events",
            "Last_Seen Type Reason Object Subobject Source Message First_Seen Count Name",
        ),
        ("leases.coordination.k8s.io", "Name Holder Age"),
        ("priorityclasses.scheduling.k8s.io", "Name Value Global-Default Age PreemptionPolicy"),
        ("roles.rbac.authorization.k8s.io", "Name Created_At"),
        ("clusterroles.rbac.authorization.k8s.io", "Name Created_At"),
        ("rolebindings.rbac.authorization.k8s.io", "Name Role Age Users Groups ServiceAccounts"),
        (
            "clusterrolebindings.rbac.authorization.k8s.io",
            "Name Role Age Users Groups ServiceAccounts",
        ),
    ],
)
def test_headers(resource, names):
    assert header(resource) == [n.replace("_", " ") for n in names.split()]


def test_narrow_headers():
    assert header("pods", wide=False) == ["Name", "Ready", "Status", "Restarts", "Age"]
    assert header("events", wide=False) == ["Last Seen", "Type", "Reason", "Object", "Message"]


def running(**more: Any) -> dict[str, Any]:
    return {"name": "c", "ready": True, "restartCount": 0, "state": {"running": {}}, **more}


def waiting(reason: str, **more: Any) -> dict[str, Any]:
    return {"name": "c", "ready": False, "restartCount": 0,
            "state": {"waiting": {"reason": reason}}, **more}  # fmt: skip


def ended(code: int, reason: str = "", **more: Any) -> dict[str, Any]:
    terminated = {"exitCode": code, **({"reason": reason} if reason else {})}
    return {"name": "c", "ready": False, "restartCount": 0, "state": {"terminated": terminated},
            **more}  # fmt: skip


READY = {"type": "Ready", "status": "True"}
INITIALIZED = {"type": "Initialized", "status": "True"}
DELETED = {"deletionTimestamp": BORN}
SIDECAR = {"name": "s", "restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("inits", "status", "meta", "expected"),
    [
        ([], {"phase": "Pending"}, {}, ("0/1", "Pending", "0")),
        (
            [],
            {"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]},
            {},
            ("0/1", "ContainerCreating", "0"),
        ),
        (
            [],
            {"phase": "Running", "containerStatuses": [running()]},
            {},
            ("1/1", "Running", "0"),
        ),
        (
            [],
            {
                "phase": "Running",
                "containerStatuses": [
                    waiting(
                        "CrashLoopBackOff",
                        restartCount=3,
                        lastState={"terminated": {"finishedAt": "2026-01-01T00:03:00Z"}},
                    )
                ],
            },
            {},
            ("0/1", "CrashLoopBackOff", "3 (2m ago)"),
        ),
        (
            [],
            {"phase": "Running", "containerStatuses": [running(restartCount=2)]},
            {},
            ("1/1", "Running", "2"),
        ),
        (
            [],
            {"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]},
            {},
            ("0/1", "Completed", "0"),
        ),
        (
            [],
            {"phase": "Failed", "containerStatuses": [ended(3, "Error")]},
            {},
            ("0/1", "Error", "0"),
        ),
        ([], {"phase": "Failed", "containerStatuses": [ended(7)]}, {}, ("0/1", "ExitCode:7", "0")),
        (
            [],
            {
                "phase": "Failed",
                "containerStatuses": [
                    {"restartCount": 0, "state": {"terminated": {"exitCode": 137, "signal": 9}}}
                ],
            },
            {},
            ("0/1", "Signal:9", "0"),
        ),
        ([], {"phase": "Failed", "reason": "Evicted"}, {}, ("0/1", "Evicted", "0")),
        (
            [],
            {
                "phase": "Running",
                "conditions": [READY],
                "containerStatuses": [ended(0, "Completed"), running()],
            },
            {},
            ("1/1", "Running", "0"),
        ),
        (
            [],
            {
                "phase": "Running",
                "containerStatuses": [ended(0, "Completed"), running()],
            },
            {},
            ("1/1", "NotReady", "0"),
        ),
        (
            [],
            {"phase": "Running", "containerStatuses": [running()]},
            DELETED,
            ("1/1", "Terminating", "0"),
        ),
        (
            [],
            {"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]},
            DELETED,
            ("0/1", "Completed", "0"),
        ),
        (
            [],
            {"phase": "Running", "reason": "NodeLost", "containerStatuses": [running()]},
            DELETED,
            ("1/1", "Unknown", "0"),
        ),
        (
            [],
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
                ],
            },
            {},
            ("0/1", "SchedulingGated", "0"),
        ),
        (
            [{"name": "i"}, {"name": "j"}],
            {
                "phase": "Pending",
                "initContainerStatuses": [
                    ended(0, "Completed", name="i"),
                    {"name": "j", "restartCount": 0, "state": {"running": {}}},
                ],
            },
            {},
            ("0/1", "Init:1/2", "0"),
        ),
        (
            [{"name": "i"}],
            {
                "phase": "Pending",
                "initContainerStatuses": [waiting("CrashLoopBackOff", name="i", restartCount=4)],
            },
            {},
            ("0/1", "Init:CrashLoopBackOff", "4"),
        ),
        (
            [{"name": "i"}],
            {"phase": "Pending", "initContainerStatuses": [ended(1, "Error", name="i")]},
            {},
            ("0/1", "Init:Error", "0"),
        ),
        (
            [{"name": "i"}],
            {"phase": "Pending", "initContainerStatuses": [ended(2, name="i")]},
            {},
            ("0/1", "Init:ExitCode:2", "0"),
        ),
        (
            [{"name": "i"}],
            {
                "phase": "Pending",
                "initContainerStatuses": [ended(0, "Completed", name="i", restartCount=2)],
                "containerStatuses": [waiting("PodInitializing")],
            },
            {},
            ("0/1", "PodInitializing", "0"),
        ),
        (
            [SIDECAR],
            {
                "phase": "Running",
                "conditions": [INITIALIZED],
                "initContainerStatuses": [running(name="s", started=True, restartCount=1)],
                "containerStatuses": [running()],
            },
            {},
            ("2/2", "Running", "1"),
        ),
        (
            [SIDECAR],
            {
                "phase": "Pending",
                "initContainerStatuses": [running(name="s", started=False, ready=False)],
            },
            {},
            ("0/2", "Init:0/1", "0"),
        ),
    ],
)
def test_pods(inits, status, meta, expected):
    spec = {"containers": [{"name": "c"}], "initContainers": inits}
    cells = row("pods", {"metadata": meta, "spec": spec, "status": status}, wide=False)
    assert tuple(cells) == ("n", *expected, "5m")


def test_pods_wide():
    body = {
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "c"}],
            "readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}],
        },
        "status": {
            "podIPs": [{"ip": "10.42.0.2"}],
            "conditions": [{"type": "a", "status": "True"}],
        },
    }
    assert row("pods", body)[5:] == ["10.42.0.2", "node-1", "<none>", "1/2"]
    assert row("pods", {})[5:] == ["<none>", "<none>", "<none>", "<none>"]


WORKLOAD = {
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"b": "1", "a": "2"}},
        "template": {
            "spec": {"containers": [{"name": "x", "image": "i"}, {"name": "y", "image": "j"}]}
        },
    },
    "status": {"replicas": 4, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2},
}  # fmt: skip


@pytest.mark.parametrize(
    ("resource", "body", "expected"),
    [
        ("deployments.apps", WORKLOAD, ["n", "2/3", 1, 2, "5m", "x,y", "i,j", "a=2,b=1"]),
        ("deployments.apps", {}, ["n", "0/0", 0, 0, "5m", "", "", "<none>"]),
        ("replicasets.apps", WORKLOAD, ["n", 3, 4, 2, "5m", "x,y", "i,j", "a=2,b=1"]),
        (
            "services",
            {
                "spec": {
                    "type": "NodePort",
                    "clusterIP": "10.43.0.1",
                    "ports": [
                        {"port": 80, "nodePort": 30080, "protocol": "TCP"},
                        {"port": 53, "protocol": "UDP"},
                    ],
                    "selector": {"app": "a"},
                }
            },
            ["n", "NodePort", "10.43.0.1", "<none>", "80:30080/TCP,53/UDP", "5m", "app=a"],
        ),
        (
            "services",
            {"spec": {"type": "LoadBalancer", "clusterIPs": ["1.2.3.4"]}},
            ["n", "LoadBalancer", "1.2.3.4", "<pending>", "<none>", "5m", "<none>"],
        ),
        (
            "services",
            {
                "spec": {"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]},
                "status": {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}, {"hostname": "x.y"}]}},
            },
            ["n", "LoadBalancer", "<none>", "5.6.7.8,x.y,9.9.9.9", "<none>", "5m", "<none>"],
        ),
        (
            "services",
            {"spec": {"type": "ExternalName", "externalName": "a.b"}},
            ["n", "ExternalName", "<none>", "a.b", "<none>", "5m", "<none>"],
        ),
        ("endpoints", {}, ["n", "<none>", "5m"]),
        (
            "endpoints",
            {
                "subsets": [
                    {
                        "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
                        "ports": [{"port": 80}, {"port": 81}],
                    }
                ]
            },
            ["n", "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...", "5m"],
        ),
        (
            "endpointslices.discovery.k8s.io",
            {
                "addressType": "IPv4",
                "ports": [{"port": 80}, {}],
                "endpoints": [{"addresses": [f"10.0.0.{i}"]} for i in range(5)],
            },
            ["n", "IPv4", "80,*", "10.0.0.0,10.0.0.1,10.0.0.2 + 2 more...", "5m"],
        ),
        (
            "endpointslices.discovery.k8s.io",
            {"addressType": "IPv4"},
            ["n", "IPv4", "<unset>", "<unset>", "5m"],
        ),
        (
            "nodes",
            {
                "metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
                "spec": {"unschedulable": True},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                    "nodeInfo": {
                        "kubeletVersion": "v1.37.0",
                        "osImage": "Debian",
                        "kernelVersion": "6",
                        "containerRuntimeVersion": "sampan://1",
                    },
                },
            },
            ["n", "Ready,SchedulingDisabled", "control-plane", "5m", "v1.37.0", "10.0.0.1",
             "<none>", "Debian", "6", "sampan://1"],
        ),
        (
            "nodes",
            {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
            ["n", "NotReady", "<none>", "5m", "", "<none>", "<none>", "<unknown>", "<unknown>",
             "<unknown>"],
        ),
        ("nodes", {}, ["n", "Unknown", "<none>", "5m", "", "<none>", "<none>", "<unknown>",
                       "<unknown>", "<unknown>"]),
        ("namespaces", {"status": {"phase": "Active"}}, ["n", "Active", "5m"]),
        ("secrets", {"type": "Opaque", "data": {"a": "", "b": ""}}, ["n", "Opaque", 2, "5m"]),
        ("configmaps", {"data": {"a": ""}, "binaryData": {"b": ""}}, ["n", 2, "5m"]),
        ("serviceaccounts", {"secrets": [{}]}, ["n", "5m"]),
        (
            "events",
            {
                "type": "Normal",
                "reason": "Started",
                "message": " Container started\n",
                "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
                "source": {"component": "kubelet", "host": "node-1"},
                "firstTimestamp": BORN,
                "lastTimestamp": "2026-01-01T00:04:00Z",
                "count": 3,
            },
            ["60s", "Normal", "Started", "pod/p", "spec.containers{c}", "kubelet, node-1",
             "Container started", "5m", 3, "n"],
        ),
        (
            "events",
            {
                "eventTime": "2026-01-01T00:01:00.000000Z",
                "reportingComponent": "default-scheduler",
                "series": {"count": 7, "lastObservedTime": "2026-01-01T00:04:50.000000Z"},
            },
            ["10s", "", "", "", "", "default-scheduler", "", "4m", 7, "n"],
        ),
        (
            "leases.coordination.k8s.io",
            {"spec": {"holderIdentity": "me"}},
            ["n", "me", "5m"],
        ),
        (
            "priorityclasses.scheduling.k8s.io",
            {"value": 10, "preemptionPolicy": "Never"},
            ["n", 10, False, "5m", "Never"],
        ),
        ("roles.rbac.authorization.k8s.io", {}, ["n", BORN]),
        (
            "rolebindings.rbac.authorization.k8s.io",
            {
                "roleRef": {"kind": "ClusterRole", "name": "edit"},
                "subjects": [
                    {"kind": "User", "name": "u"},
                    {"kind": "User", "name": "v"},
                    {"kind": "Group", "name": "g"},
                    {"kind": "ServiceAccount", "name": "s", "namespace": "x"},
                ],
            },
            ["n", "ClusterRole/edit", "5m", "u, v", "g", "x/s"],
        ),
    ],
)  # fmt: skip
def test_rows(resource, body, expected):
    assert row(resource, body) == expected


def test_every_cell_copes_with_an_empty_object():
    for t in REGISTRY:
        for column in t.columns:
            column.cell({}, NOW)


TEMPLATE = {
    "metadata": {"labels": {"b": "2", "a": "1"}},
    "spec": {"containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "y"}]},
}


@pytest.mark.parametrize(
    ("resource", "body", "cells"),
    [
        (
            "statefulsets.apps",
            {"spec": {"replicas": 3, "template": TEMPLATE}, "status": {"readyReplicas": 2}},
            ["n", "2/3", "5m", "c,d", "x,y"],
        ),
        (
            "daemonsets.apps",
            {
                "spec": {
                    "selector": {"matchLabels": {"a": "1"}},
                    "template": {"spec": {**TEMPLATE["spec"], "nodeSelector": {"k": "v"}}},
                },
                "status": {
                    "desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberReady": 2,
                    "updatedNumberScheduled": 1,
                },
            },
            ["n", 4, 3, 2, 1, 0, "k=v", "5m", "c,d", "x,y", "a=1"],
        ),
        (
            "controllerrevisions.apps",
            {"revision": 7, "metadata": {"ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "w", "controller": True}
            ]}},
            ["n", "statefulset.apps/w", "7", "5m"],
        ),
        ("controllerrevisions.apps", {}, ["n", "<none>", "0", "5m"]),
        (
            "replicationcontrollers",
            {"spec": {"replicas": 2, "selector": {"b": "2", "a": "1"}, "template": TEMPLATE}},
            ["n", 2, 0, 0, "5m", "c,d", "x,y", "a=1,b=2"],
        ),
        ("podtemplates", {"template": TEMPLATE}, ["n", "c,d", "x,y", "a=1,b=2"]),
        ("podtemplates", {}, ["n", "", "", "<none>"]),
    ],
)  # fmt: skip
def test_workload_cells(resource, body, cells):
    assert row(resource, body) == cells
