"""ResourceQuota and LimitRange: defaults, validation, columns."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api import amounts
from sampan.api.catalogue import builtin
from sampan.api.obj import Body
from sampan.api.rules import quota as rules


def problems(**spec: Any) -> list[str]:
    return [str(c) for c in rules.resource_quota({"spec": spec})]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"hard": {"cpu": "1", "count/widgets.example.com": "3", "requests.example.com/gpu": "1",
                   "gold.storageclass.storage.k8s.io/requests.storage": "1Gi",
                   "requests.hugepages-2Mi": "4Mi"}}, []),
        ({"hard": {"gpus": "1"}},
         ['spec.hard[gpus]: Invalid value: "gpus": must be a standard resource for quota']),
        ({"hard": {"pods": "-1"}},
         ['spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0']),
        ({"hard": {"pods": "1500m"}},
         ["spec.hard[pods]: Invalid value: 1500m: must be an integer"]),
        ({"hard": {"pods": "1"}, "scopes": ["Sometimes"]},
         ['spec.scopes: Invalid value: ["Sometimes"]: unsupported scope']),
        ({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]},
         ['spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource']),
        ({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]},
         ['spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes']),
        ({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In"}]}},
         ["spec.scopeSelector.matchExpressions.values: Required value: must be at least one value "
          "when `operator` is 'In' or 'NotIn' for scope selector"]),
        ({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "Like"}]}},
         ['spec.scopeSelector.matchExpressions.operator: Invalid value: "Like": not a valid '
          "selector operator"]),
    ],
)  # fmt: skip
def test_quotas(spec: Body, expected: list[str]):
    found = problems(**spec)
    assert [p for p in found if p in expected] == expected
    assert bool(found) == bool(expected)


def test_scopes_are_there_to_stay():
    new, old = {"spec": {"scopes": ["BestEffort"]}}, {"spec": {}}
    assert [str(c) for c in rules.resource_quota_update(new, old)] == [
        'spec.scopes: Invalid value: ["BestEffort"]: field is immutable'
    ]
    assert rules.resource_quota_update(new, new) == []


def test_a_container_s_defaults_come_from_its_bounds():
    item: Body = {
        "type": "Container", "max": {"cpu": "2", "memory": "1Gi"}, "min": {"cpu": "100m", "x": "1"},
        "default": {"cpu": "1"}, "defaultRequest": {},
    }  # fmt: skip
    body = {"spec": {"limits": [item, {"type": "Pod", "max": {"cpu": "3"}}]}}
    rules.default_limit_range(body)
    assert item["default"] == {"cpu": "1", "memory": "1Gi"}
    assert item["defaultRequest"] == {"cpu": "1", "memory": "1Gi", "x": "1"}
    assert body["spec"]["limits"][1] == {"type": "Pod", "max": {"cpu": "3"}}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"type": "Container", "max": {"cpu": "1"}}, []),
        ({"type": "Odd"}, ['spec.limits[0].type: Invalid value: "Odd": must be a standard limit '
                           "type or fully qualified"]),
        ({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}},
         ['spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1']),
        ({"type": "Container", "default": {"cpu": "2"}, "max": {"cpu": "1"}},
         ['spec.limits[0].default[cpu]: Invalid value: "1": default value 2 is greater than max '
          "value 1"]),
        ({"type": "Container", "defaultRequest": {"cpu": "2"}, "default": {"cpu": "1"}},
         ['spec.limits[0].defaultRequest[cpu]: Invalid value: "2": default request value 2 is '
          "greater than default limit value 1"]),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "800m"}},
         ['spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "800m": ratio 800m is less '
          "than 1"]),
        ({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"},
          "maxLimitRequestRatio": {"cpu": "10"}},
         ['spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "10": ratio 10 is greater than '
          "max/min = 2.000000"]),
        ({"type": "Pod", "default": {"cpu": "1"}},
         ["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"]),
        ({"type": "PersistentVolumeClaim"},
         ["spec.limits[0].limits: Required value: either minimum or maximum storage value is "
          "required, but neither was provided"]),
        ({"type": "Container", "defaultRequest": {"a.io/g": "1"}, "default": {"a.io/g": "2"}},
         ['spec.limits[0].defaultRequest[a.io/g]: Invalid value: "1": default value 2 must equal '
          "to defaultRequest value 1 in a.io/g"]),
    ],
)  # fmt: skip
def test_limit_ranges(item: Body, expected: list[str]):
    assert [str(c) for c in rules.limit_range({"spec": {"limits": [item]}})] == expected


def test_each_type_once():
    item = {"type": "Pod", "max": {"cpu": "1"}}
    found = rules.limit_range({"spec": {"limits": [item, item]}})
    assert [str(c) for c in found] == ['spec.limits[1].type: Duplicate value: "Pod"']


def test_columns_of_a_quota():
    t = builtin().get("resourcequotas")
    assert t is not None
    status = {"hard": {"pods": "5", "limits.cpu": "2", "cpu": "1"},
              "used": {"pods": "1", "limits.cpu": "0", "cpu": "500m"}}  # fmt: skip
    body = {"metadata": {"name": "q"}, "status": status}
    cells = [(c.name, c.cell(body, 0.0)) for c in t.columns]
    assert cells[:3] == [
        ("Name", "q"), ("Request", "cpu: 500m/1, pods: 1/5"), ("Limit", "limits.cpu: 0/2"),
    ]  # fmt: skip
    assert [n for n, _ in cells][3:] == ["Age"]


def test_what_a_pod_asks_for():
    def c(cpu: str, **more: Any) -> Body:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "initContainers": [c("500m"), c("100m", restartPolicy="Always"), c("900m")],
        "containers": [c("300m"), c("200m")], "overhead": {"cpu": "10m"},
    }  # fmt: skip
    assert str(amounts.of_pod(spec, "requests")["cpu"]) == "1010m"
    assert amounts.of_pod(spec, "limits") == {}
    spec["resources"] = {"requests": {"cpu": "2"}}
    assert str(amounts.of_pod(spec, "requests")["cpu"]) == "2010m"
