"""Validation of pods: each fault alone, with its exact path, reason and words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sampan.api.catalogue import builtin

RULES = builtin().get("pods").rules
GOOD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "default"},
    "spec": {
        "containers": [{"name": "c", "image": "nginx:1.14.1"}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    },
}


def good() -> dict[str, Any]:
    body = copy.deepcopy(GOOD)
    RULES.default(body)
    return body


def problems(spec: dict[str, Any] | None = None, **container: Any) -> list[str]:
    body = copy.deepcopy(GOOD)
    body["spec"].update(copy.deepcopy(spec or {}))
    if container:
        body["spec"]["containers"][0].update(copy.deepcopy(container))
    RULES.default(body)
    return [str(c) for c in RULES.validate(body)]


LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
C = "spec.containers[0]"
ONE = "may not have more than one field specified at a time"


def test_a_plain_pod_is_valid():
    assert problems() == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": ""}, [f"{C}.name: Required value"]),
        ({"name": "A"}, [f'{C}.name: Invalid value: "A": {LABEL}']),
        ({"name": "a.b"}, [f'{C}.name: Invalid value: "a.b": must not contain dots']),
        ({"image": ""}, [f"{C}.image: Required value"]),
        (
            {"image": " x"},
            [f'{C}.image: Invalid value: " x": must not have leading or trailing whitespace'],
        ),
        (
            {"imagePullPolicy": "Often"},
            [
                f'{C}.imagePullPolicy: Unsupported value: "Often": supported values: "Always", '
                '"IfNotPresent", "Never"'
            ],
        ),
        (
            {"terminationMessagePolicy": "X"},
            [
                f"{C}.terminationMessagePolicy: Invalid value: \"X\": must be 'File' or "
                "'FallbackToLogsOnError'"
            ],
        ),
        # ports
        ({"ports": [{}]}, [f"{C}.ports[0].containerPort: Required value"]),
        (
            {"ports": [{"containerPort": 70000}]},
            [
                f"{C}.ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, "
                "inclusive"
            ],
        ),
        (
            {"ports": [{"containerPort": 80, "protocol": "tcp"}]},
            [
                f'{C}.ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", '
                '"TCP", "UDP"'
            ],
        ),
        (
            {"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]},
            [f'{C}.ports[1].name: Duplicate value: "a"'],
        ),
        (
            {"ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]},
            [f'{C}.ports[1].hostPort: Duplicate value: "TCP//9"'],
        ),
        # environment
        ({"env": [{"value": "x"}]}, [f"{C}.env[0].name: Required value"]),
        (
            {"env": [{"name": "A", "valueFrom": {}}]},
            [
                f'{C}.env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, '
                "`resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
            ],
        ),
        (
            {
                "env": [
                    {
                        "name": "A",
                        "value": "x",
                        "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
                    }
                ]
            },
            [
                f'{C}.env[0].valueFrom: Invalid value: "": may not be specified when `value` is '
                "not empty"
            ],
        ),
        (
            {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {
                            "configMapKeyRef": {"name": "a", "key": "b"},
                            "secretKeyRef": {"name": "a", "key": "b"},
                        },
                    }
                ]
            },
            [f'{C}.env[0].valueFrom: Invalid value: "": {ONE}'],
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a"}}}]},
            [f"{C}.env[0].valueFrom.secretKeyRef.key: Required value"],
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}]},
            [
                f'{C}.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels": '
                'supported values: "metadata.name", "metadata.namespace", "metadata.uid", '
                '"spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", '
                '"status.podIP", "status.podIPs"'
            ],
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.x"}}}]},
            [
                f'{C}.env[0].valueFrom.fieldRef.fieldPath: Invalid value: "metadata.x": error '
                "converting fieldPath: field label not supported: metadata.x"
            ],
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.x"}}}]},
            [
                f'{C}.env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.x": '
                'supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", '
                '"requests.cpu", "requests.ephemeral-storage", "requests.memory"'
            ],
        ),
        (
            {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {
                            "resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}
                        },
                    }
                ]
            },
            [
                f'{C}.env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": '
                "only divisor's values 1m and 1 are supported with the cpu resource"
            ],
        ),
        (
            {"envFrom": [{}]},
            [f'{C}.envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`'],
        ),
        (
            {"envFrom": [{"configMapRef": {"name": "a"}, "secretRef": {"name": "a"}}]},
            [f'{C}.envFrom: Invalid value: "": {ONE}'],
        ),
        ({"envFrom": [{"secretRef": {}}]}, [f"{C}.envFrom[0].secretRef.name: Required value"]),
        # mounts
        (
            {"volumeMounts": [{"name": "w", "mountPath": "/w"}]},
            [f'{C}.volumeMounts[0].name: Not found: "w"'],
        ),
        ({"volumeMounts": [{"name": "v"}]}, [f"{C}.volumeMounts[0].mountPath: Required value"]),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]},
            [f'{C}.volumeMounts[1].mountPath: Invalid value: "/a": must be unique'],
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "/x/../y"}]},
            [
                f'{C}.volumeMounts.subPath: Invalid value: "/x/../y": must be a relative path',
                f"{C}.volumeMounts.subPath: Invalid value: \"/x/../y\": must not contain '..'",
            ],
        ),
        (
            {
                "volumeMounts": [
                    {"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}
                ]
            },
            [
                f"{C}.volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation "
                "is available only to privileged containers"
            ],
        ),
        (
            {"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]},
            [
                f'{C}.volumeDevices[0].name: Invalid value: "v": can only use volume source type '
                "of PersistentVolumeClaim or Ephemeral for block mode"
            ],
        ),
        # probes and hooks
        (
            {"livenessProbe": {}},
            [f"{C}.livenessProbe: Required value: must specify a handler type"],
        ),
        (
            {"livenessProbe": {"exec": {}}},
            [f"{C}.livenessProbe.exec.command: Required value"],
        ),
        (
            {"readinessProbe": {"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}},
            [f"{C}.readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
        ),
        (
            {"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}},
            [f"{C}.livenessProbe.successThreshold: Invalid value: 2: must be 1"],
        ),
        (
            {"startupProbe": {"tcpSocket": {"port": 1}, "periodSeconds": -1}},
            [
                f"{C}.startupProbe.periodSeconds: Invalid value: -1: must be greater than or "
                "equal to 0"
            ],
        ),
        (
            {"readinessProbe": {"httpGet": {"port": 0, "scheme": "FTP"}}},
            [
                f"{C}.readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, "
                "inclusive",
                f'{C}.readinessProbe.httpGet.scheme: Unsupported value: "FTP": supported values: '
                '"HTTP", "HTTPS"',
            ],
        ),
        (
            {"readinessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 1}},
            [
                f"{C}.readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be "
                "set for readinessProbes"
            ],
        ),
        (
            {"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}},
            [
                f"{C}.lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less "
                "than terminationGracePeriodSeconds (30)"
            ],
        ),
        # resources
        (
            {"resources": {"limits": {"cpu": "100m"}, "requests": {"cpu": "200m"}}},
            [
                f'{C}.resources.requests: Invalid value: "200m": must be less than or equal to '
                "cpu limit of 100m"
            ],
        ),
        (
            {"resources": {"requests": {"memory": "-1"}}},
            [
                f'{C}.resources.requests[memory]: Invalid value: "-1": must be greater than or '
                "equal to 0"
            ],
        ),
        (
            {"resources": {"requests": {"gpu": "1"}}},
            [
                f'{C}.resources.requests[gpu]: Invalid value: "gpu": must be a standard resource '
                f"{end}"
                for end in ("type or fully qualified", "for containers")
            ],
        ),
        (
            {"resources": {"requests": {"example.com/gpu": "1"}}},
            [
                f"{C}.resources.limits: Required value: Limit must be set for non overcommitable "
                "resources"
            ],
        ),
        (
            {"resources": {"limits": {"example.com/gpu": "500m"}}},
            [
                f'{C}.resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer',
                f'{C}.resources.requests[example.com/gpu]: Invalid value: "500m": must be an '
                "integer",
            ],
        ),
        (
            {
                "resources": {
                    "limits": {"example.com/gpu": "2"},
                    "requests": {"example.com/gpu": "1"},
                }
            },
            [
                f'{C}.resources.requests: Invalid value: "1": must be equal to example.com/gpu '
                "limit of 2"
            ],
        ),
        # security
        (
            {"securityContext": {"runAsUser": -1}},
            [
                f"{C}.securityContext.runAsUser: Invalid value: -1: must be between 0 and "
                "2147483647, inclusive"
            ],
        ),
        (
            {"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}},
            [
                f'{C}.securityContext: Invalid value: {{"privileged":true,'
                '"allowPrivilegeEscalation":false}: cannot set `allowPrivilegeEscalation` to false '
                "and `privileged` to true"
            ],
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "Localhost"}}},
            [
                f"{C}.securityContext.seccompProfile.localhostProfile: Required value: must be "
                "set when seccomp type is Localhost"
            ],
        ),
    ],
)
def test_containers(fields, expected):
    assert problems(**fields) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"containers": []}, ["spec.containers: Required value"]),
        (
            {"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "x"}]},
            ['spec.containers[1].name: Duplicate value: "a"'],
        ),
        (
            {"initContainers": [{"name": "c", "image": "x"}]},
            ['spec.initContainers[0].name: Duplicate value: "c"'],
        ),
        (
            {
                "initContainers": [
                    {"name": "i", "image": "x", "livenessProbe": {"tcpSocket": {"port": 1}}}
                ]
            },
            [
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init "
                "containers without restartPolicy=Always"
            ],
        ),
        (
            {
                "initContainers": [
                    {
                        "name": "i",
                        "image": "x",
                        "restartPolicy": "Always",
                        "livenessProbe": {"tcpSocket": {"port": 1}},
                    }
                ]
            },
            [],
        ),
        (
            {"restartPolicy": "Sometimes"},
            [
                'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", '
                '"OnFailure", "Never"'
            ],
        ),
        (
            {"dnsPolicy": "X"},
            [
                'spec.dnsPolicy: Unsupported value: "X": supported values: '
                '"ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"'
            ],
        ),
        (
            {"dnsPolicy": "None"},
            ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        ),
        (
            {"dnsConfig": {"nameservers": ["x"]}},
            [
                'spec.dnsConfig.nameservers[0]: Invalid value: "x": must be a valid IP address, '
                "(e.g. 10.9.8.7 or 2001:db8::ffff)"
            ],
        ),
        (
            {"activeDeadlineSeconds": 0},
            [
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, "
                "inclusive"
            ],
        ),
        ({"hostname": "A"}, [f'spec.hostname: Invalid value: "A": {LABEL}']),
        (
            {"hostNetwork": True, "containers": [
                {"name": "c", "image": "x", "ports": [{"containerPort": 1, "hostPort": 2}]}
            ]},
            [
                "spec.containers[0].ports[0].hostPort: Invalid value: 2: must match "
                "`containerPort` when `hostNetwork` is true"
            ],
        ),
        (
            {"shareProcessNamespace": True, "hostPID": True},
            [
                "spec.securityContext.shareProcessNamespace: Invalid value: true: "
                "ShareProcessNamespace and HostPID cannot both be enabled"
            ],
        ),
        (
            {"tolerations": [{"value": "x"}]},
            [
                'spec.tolerations[0].operator: Invalid value: "": operator must be Exists when '
                '`key` is empty, which means "match all values and all keys"'
            ],
        ),
        (
            {"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]},
            [
                "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when "
                "`tolerationSeconds` is set"
            ],
        ),
        (
            {"tolerations": [{"key": "a", "operator": "Is", "effect": "Go"}]},
            [
                'spec.tolerations[0].operator: Unsupported value: "Is": supported values: "Equal", '
                '"Exists"',
                'spec.tolerations[0].effect: Unsupported value: "Go": supported values: '
                '"NoSchedule", "PreferNoSchedule", "NoExecute"',
            ],
        ),
        (
            {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "zone", "labelSelector": {"matchExpressions": [
                    {"key": "a", "operator": "In"}
                ]}}
            ]}}},
            [
                "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]"
                ".labelSelector.matchExpressions[0].values: Required value: must be specified when "
                "`operator` is 'In' or 'NotIn'"
            ],
        ),
        (
            {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}},
            [
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
                ".nodeSelectorTerms: Required value: must have at least one node selector term"
            ],
        ),
        (
            {"topologySpreadConstraints": [
                {"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "Maybe"}
            ]},
            [
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than "
                "zero",
                'spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Maybe": '
                'supported values: "DoNotSchedule", "ScheduleAnyway"',
            ],
        ),
        (
            {"schedulingGates": [{"name": "g"}, {"name": "g"}]},
            ['spec.schedulingGates[1]: Duplicate value: "g"'],
        ),
        # volumes
        (
            {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]},
            ['spec.volumes[1].name: Duplicate value: "v"'],
        ),
        (
            {"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]},
            ["spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            {"volumes": [{"name": "v", "hostPath": {"path": "/a/../b", "type": "Thing"}}]},
            [
                "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                'spec.volumes[0].hostPath.type: Unsupported value: "Thing": supported values: "", '
                '"BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", '
                '"FileOrCreate", "Socket"',
            ],
        ),
        (
            {"volumes": [{"name": "v", "secret": {"defaultMode": 0o1000}}]},
            [
                "spec.volumes[0].secret.secretName: Required value",
                "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between "
                "0 and 0777 (octal), both inclusive",
            ],
        ),
        (
            {"volumes": [{"name": "v", "configMap": {"name": "c", "items": [
                {"key": "k", "path": "../x"}
            ]}}]},
            [
                'spec.volumes[0].configMap.items[0].path: Invalid value: "../x": must not contain '
                "'..'"
            ],
        ),
        (
            {"volumes": [{"name": "v", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t", "expirationSeconds": 1}},
                {"configMap": {"name": "c", "items": [{"key": "k", "path": "t"}]}},
            ]}}]},
            [
                "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: "
                "Invalid value: 1: may not specify a duration less than 10 minutes",
                'spec.volumes[0].projected: Invalid value: "t": conflicting duplicate paths',
            ],
        ),
        (
            {"volumes": [{"name": "v", "downwardAPI": {"items": [{"path": "p"}]}}]},
            [
                "spec.volumes[0].downwardAPI.items[0]: Required value: one of fieldRef and "
                "resourceFieldRef is required"
            ],
        ),
        (
            {"volumes": [{"name": "v", "persistentVolumeClaim": {}}]},
            ["spec.volumes[0].persistentVolumeClaim.claimName: Required value"],
        ),
    ],
)  # fmt: skip
def test_specs(spec, expected):
    assert problems(spec) == expected


def changed(edit) -> list[str]:
    old = good()
    new = copy.deepcopy(old)
    edit(new["spec"])
    return [str(c) for c in RULES.validate_update(new, old)]


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s["containers"][0].update(image="nginx:1.16.1"),
        lambda s: s.update(activeDeadlineSeconds=5),
        lambda s: s.update(tolerations=[{"key": "a", "operator": "Exists"}]),
        lambda s: s.update(nodeSelector={}),
        lambda s: None,
    ],
)
def test_what_an_update_may_change(edit):
    assert changed(edit) == []


MAY_CHANGE = (
    "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)\n"
)


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s.update(hostname="x"),
        lambda s: s.update(terminationGracePeriodSeconds=1),
        lambda s: s["containers"][0].update(command=["x"]),
        lambda s: s.update(nodeSelector={"a": "b"}),
        lambda s: s.update(volumes=[]),
    ],
)
def test_what_an_update_may_not_change(edit):
    (problem,) = changed(edit)
    assert problem.startswith(MAY_CHANGE)


def test_the_refusal_shows_the_difference():
    (problem,) = changed(lambda s: s.update(hostname="x"))
    assert problem == MAY_CHANGE + '  + hostname: "x"'


def test_containers_are_neither_added_nor_removed():
    assert changed(lambda s: s["containers"].append({"name": "d", "image": "x"})) == [
        "spec.containers: Forbidden: pod updates may not add or remove containers"
    ]


def test_tolerations_are_only_added():
    old = good()
    old["spec"]["tolerations"] = [
        {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    ]
    new = copy.deepcopy(old)
    new["spec"]["tolerations"][0]["tolerationSeconds"] = 9
    assert RULES.validate_update(new, old) == []
    new["spec"]["tolerations"] = []
    assert [str(c) for c in RULES.validate_update(new, old)] == [
        "spec.tolerations: Forbidden: existing toleration can not be modified except its "
        "tolerationSeconds"
    ]


def test_deadlines_only_shrink():
    old, new = good(), good()
    old["spec"]["activeDeadlineSeconds"] = 5
    new["spec"]["activeDeadlineSeconds"] = 6
    (cause,) = RULES.validate_update(new, old)
    assert cause.message == "Invalid value: 6: must be less than or equal to previous value"
    del new["spec"]["activeDeadlineSeconds"]
    (cause,) = RULES.validate_update(new, old)
    assert cause.message.startswith("Invalid value: null: must not update from a positive integer")


def test_gates_are_only_removed():
    old, new = good(), good()
    old["spec"]["schedulingGates"] = [{"name": "a"}]
    assert RULES.validate_update(new, old) == []
    (cause,) = RULES.validate_update(old, new)
    assert cause.message == (
        "Forbidden: only deletion is allowed, but found new scheduling gate 'a'"
    )


def test_a_container_that_ended_for_good_stays_ended():
    old, new = good(), good()
    old["spec"]["restartPolicy"] = "Never"
    old["status"] = {"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 0}}}]}
    new["status"] = {"containerStatuses": [{"name": "c", "state": {"running": {}}}]}
    assert [str(c) for c in RULES.validate_status(new, old)] == [
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated "
        "state"
    ]
    old["spec"]["containers"][0]["restartPolicy"] = "Always"
    assert RULES.validate_status(new, old) == []
    del old["spec"]["containers"][0]["restartPolicy"]
    old["spec"]["restartPolicy"] = "Always"
    assert RULES.validate_status(new, old) == []


def test_causes_carry_the_reason_clients_match_on():
    body = good()
    body["spec"]["containers"][0]["image"] = ""
    (cause,) = RULES.validate(body)
    assert (cause.field, cause.reason, cause.message) == (
        "spec.containers[0].image",
        "FieldValueRequired",
        "Required value",
    )


def ephemeral_problems(*containers: dict[str, Any], before: tuple[Any, ...] = ()) -> list[str]:
    old, new = copy.deepcopy(GOOD), copy.deepcopy(GOOD)
    RULES.default(old)
    old["spec"]["ephemeralContainers"] = [*before]
    part = RULES.parts["ephemeralcontainers"]
    part.take({"spec": {"ephemeralContainers": [*containers]}}, new)
    RULES.default(new)
    return [str(c) for c in part.validate(new, old)]


def debugger(name: str = "d", **fields: Any) -> dict[str, Any]:
    found = {"name": name, "image": "x", **fields}
    body = {"spec": {"containers": [], "ephemeralContainers": [found]}}
    RULES.default(body)
    return found


def test_ephemeral_containers_come_by_their_own_subresource():
    body = good()
    body["spec"]["ephemeralContainers"] = [debugger()]
    assert [str(c) for c in RULES.validate_create(body)] == [
        "spec.ephemeralContainers: Forbidden: cannot be set on create"
    ]
    assert RULES.validate(body) == []  # a pod that has some can still be updated
    assert ephemeral_problems(debugger()) == []
    assert ephemeral_problems(debugger(), debugger("e"), before=(debugger(),)) == []


@pytest.mark.parametrize(
    ("container", "problem"),
    [
        ({"name": "A"}, "[0].name: Invalid value"),
        ({"name": "main"}, '[0].name: Duplicate value: "main"'),
        ({"image": ""}, "[0].image: Required value"),
        ({"targetContainerName": "zz"}, '[0].targetContainerName: Not found: "zz"'),
        ({"ports": [{"containerPort": 1, "protocol": "TCP"}]},
         "[0].ports: Forbidden: cannot be set for an Ephemeral Container"),
        ({"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}},
         "[0].lifecycle: Forbidden: cannot be set for an Ephemeral Container"),
        ({"resources": {"limits": {"cpu": "1"}}},
         "[0].resources: Forbidden: cannot be set for an Ephemeral Container"),
        ({"restartPolicy": "Always"},
         "[0].restartPolicy: Forbidden: may not be set for non-init containers"),
    ],
)  # fmt: skip
def test_what_an_ephemeral_container_may_not_have(container, problem):
    main = GOOD["spec"]["containers"][0]["name"]
    value = {k: main if v == "main" else v for k, v in container.items()}
    (found,) = ephemeral_problems(debugger(**value))
    assert found.startswith("spec.ephemeralContainers" + problem.replace('"main"', f'"{main}"'))


def test_ephemeral_containers_stay_as_they_are():
    (gone,) = ephemeral_problems(before=(debugger(),))
    assert gone == (
        'spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be '
        "removed\n"
    )
    (changed,) = ephemeral_problems(debugger(image="y"), before=(debugger(),))
    assert 'existing ephemeral containers "d" may not be changed\n' in changed
