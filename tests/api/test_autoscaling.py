"""HorizontalPodAutoscaler: defaults, validation, columns, and its two shapes."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest

from sampan.api.call import Call
from sampan.api.catalogue import builtin
from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.api.rules import autoscaling as rules
from sampan.api.rules import autoscaling_v1 as v1
from sampan.testing.api import ADMIN, api_server, client_of

HPA = "horizontalpodautoscalers.autoscaling"
REF = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
CPU = {"type": "Resource", "resource": {
    "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}  # fmt: skip
PODS = {"type": "Pods", "pods": {
    "metric": {"name": "hits", "selector": {"matchLabels": {"a": "b"}}},
    "target": {"type": "AverageValue", "averageValue": "10"}}}  # fmt: skip
OBJECT = {"type": "Object", "object": {
    "describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "rate"},
    "target": {"type": "Value", "value": "5"}}}  # fmt: skip
_THREE = {"type": "AverageValue", "averageValue": "3"}
EXTERNAL = {"type": "External", "external": {"metric": {"name": "queue"}, "target": _THREE}}
CONTAINER = {"type": "ContainerResource", "containerResource": {
    "name": "memory", "container": "c",
    "target": {"type": "AverageValue", "averageValue": "1Gi"}}}  # fmt: skip


def hpa(**spec: Any) -> Body:
    given = {"scaleTargetRef": dict(REF), "maxReplicas": 5, **copy.deepcopy(spec)}
    return {"metadata": {"name": "h", "namespace": "default"}, "spec": given}


def test_defaults():
    body = hpa(behavior={"scaleDown": {"stabilizationWindowSeconds": 5}})
    rules.default(body)
    assert body["spec"]["minReplicas"] == 1 and body["spec"]["metrics"] == [CPU]
    assert body["spec"]["behavior"] == {
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 5, "selectPolicy": "Max", "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15}]},
    }  # fmt: skip
    again = copy.deepcopy(body)
    rules.default(again)
    assert again == body
    plain = hpa()
    rules.default(plain)
    assert "behavior" not in plain["spec"]


def problems(**spec: Any) -> list[tuple[str, str]]:
    body = hpa(**spec)
    rules.default(body)
    found = [*rules.validate(body), *rules.validate_create(body)]
    return [(c.field, c.message) for c in found]


_NONE = {"type": "Utilization"}
BAD = [
    ({"maxReplicas": 0, "minReplicas": None}, "spec.maxReplicas", "must be greater than 0"),
    ({"minReplicas": 6}, "spec.maxReplicas", "must be greater than or equal to `minReplicas`"),
    ({"minReplicas": 0}, "spec.metrics", "must specify at least one Object or External metric"),
    ({"minReplicas": -1}, "spec.minReplicas", "must be greater than or equal to 1"),
    ({"minReplicas": 0, "metrics": [EXTERNAL]}, "spec.minReplicas",
     "must be greater than or equal to 1"),
    ({"scaleTargetRef": {"kind": "Deployment"}}, "spec.scaleTargetRef.name", "Required value"),
    ({"scaleTargetRef": {"name": "a/b", "kind": "X"}}, "spec.scaleTargetRef.name", "'/'"),
    ({"metrics": [{"type": "Resource"}]}, "spec.metrics[0].resource",
     "must populate information for the given metric source"),
    ({"metrics": [{**CPU, **PODS, "type": "Resource"}]}, "spec.metrics[0].pods",
     "must populate the given metric source only"),
    ({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": _NONE}}]},
     "spec.metrics[0].resource.target.averageUtilization",
     "must set either a target raw value or a target utilization"),
    ({"metrics": [{"type": "Nope"}]}, "spec.metrics[0].type", "Unsupported value"),
    ({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601}}},
     "spec.behavior.scaleUp.stabilizationWindowSeconds", "must be less than or equal to 3600"),
    ({"behavior": {"scaleDown": {"selectPolicy": "Odd"}}}, "spec.behavior.scaleDown.selectPolicy",
     "Unsupported value"),
    ({"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1}]}}},
     "spec.behavior.scaleUp.policies[0].value", "must be greater than zero"),
    ({"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}}},
     "spec.behavior.scaleUp.policies[0].periodSeconds", "must be less than or equal to 1800"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "field", "text"), BAD)
def test_what_is_refused(spec: Body, field: str, text: str):
    found = problems(**spec)
    assert [m for f, m in found if f == field and text in m], found


def test_what_is_taken():
    assert problems(metrics=[CPU, PODS, OBJECT, EXTERNAL, CONTAINER]) == []
    assert problems(behavior={"scaleUp": {"tolerance": "0.05"}}) == []


def test_zero_is_off_but_stays_where_it_was():
    """The feature HPAScaleToZero is off by default, in v1.37 too."""
    zero, one = hpa(minReplicas=0, metrics=[EXTERNAL]), hpa(minReplicas=1, metrics=[EXTERNAL])
    assert rules.validate_update(zero, zero) == [] == rules.validate_update(one, zero)
    (refused,) = rules.validate_update(zero, one)
    assert str(refused) == (
        "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"
    )
    below = hpa(minReplicas=-1, metrics=[EXTERNAL])
    assert "equal to 0" in str(rules.validate_update(below, zero)[0])


def row(body: Body) -> dict[str, object]:
    t = builtin().get(HPA)
    assert t is not None
    return {c.name: c.cell(body, 0.0) for c in t.columns}


def test_columns():
    body = hpa(minReplicas=2, metrics=[CPU])
    shown = row(body)
    assert shown["Reference"] == "Deployment/d" and shown["Targets"] == "cpu: <unknown>/80%"
    assert (shown["MinPods"], shown["MaxPods"], shown["Replicas"]) == ("2", 5, 0)
    current = {"name": "cpu", "current": {"averageUtilization": 12, "averageValue": "12m"}}
    body["status"] = {"currentMetrics": [{"type": "Resource", "resource": current}]}
    assert row(body)["Targets"] == "cpu: 12%/80%"
    many = hpa(metrics=[PODS, EXTERNAL, OBJECT, CONTAINER])
    assert row(many)["Targets"] == "<unknown>/10, <unknown>/3 (avg) + 2 more..."
    assert row(hpa(metrics=[OBJECT, CONTAINER]))["Targets"] == (
        "<unknown>/5, memory: <unknown>/1Gi"
    )


def test_both_shapes_hold_the_same():
    behavior = {"scaleUp": {"stabilizationWindowSeconds": 3}}
    body = hpa(minReplicas=1, metrics=[PODS, OBJECT, EXTERNAL, CONTAINER, CPU], behavior=behavior)
    body["apiVersion"], body["kind"] = "autoscaling/v2", "HorizontalPodAutoscaler"
    rules.default(body)
    current = {"averageUtilization": 12, "averageValue": "12m"}
    body["status"] = {
        "currentReplicas": 1, "desiredReplicas": 2,
        "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": current}}],
        "conditions": [{"type": "AbleToScale", "status": "True"}],
    }  # fmt: skip
    old = v1.shown(body)
    assert old["spec"] == {"scaleTargetRef": REF, "minReplicas": 1, "maxReplicas": 5,
                           "targetCPUUtilizationPercentage": 80}  # fmt: skip
    assert old["status"]["currentCPUUtilizationPercentage"] == 12
    notes = old["metadata"]["annotations"]
    metrics = json.loads(notes["autoscaling.alpha.kubernetes.io/metrics"])
    assert metrics[0] == {"type": "Pods", "pods": {
        "metricName": "hits", "selector": {"matchLabels": {"a": "b"}},
        "targetAverageValue": "10"}}  # fmt: skip
    assert v1.stored(old) == body


def test_the_api_serves_both():
    async def main() -> None:
        api = await api_server()
        client = client_of(api)

        async def old(verb: str, sub: str = "", body: Body | None = None) -> Obj:
            name = "" if verb == "create" else "h"
            call = Call(verb=verb, resource=HPA, version="v1", namespace="default", name=name,
                        subresource=sub, body=body)  # fmt: skip
            found = await api.handle(ADMIN, call)
            assert isinstance(found, Obj)
            return found

        body = hpa(targetCPUUtilizationPercentage=50)
        made = await old("create", "", {**body, "apiVersion": "autoscaling/v1",
                                        "kind": "HorizontalPodAutoscaler"})  # fmt: skip
        assert made.body["apiVersion"] == "autoscaling/v1"
        assert made.status == {"currentReplicas": 0, "desiredReplicas": 0}
        new = await client.get(HPA, "h", "default")
        assert new.body["apiVersion"] == "autoscaling/v2"
        assert new.spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
        assert new.meta["generation"] == 1
        told = {**made.body, "spec": {**made.body["spec"], "maxReplicas": 99},
                "status": {"currentReplicas": 2, "desiredReplicas": 3}}  # fmt: skip
        await old("update", "status", told)
        seen = await client.get(HPA, "h", "default")
        assert seen.status["desiredReplicas"] == 3 and seen.spec == new.spec
        assert (await old("get", "status")).status["desiredReplicas"] == 3
        with pytest.raises(StatusError) as refused:
            await old("get", "scale")
        assert refused.value.code == 405
        changed = copy.deepcopy((await old("get")).body)
        changed["spec"]["maxReplicas"] = 7
        await old("update", "", changed)
        seen = await client.get(HPA, "h", "default")
        assert seen.spec["maxReplicas"] == 7 and seen.status["desiredReplicas"] == 3
        assert seen.meta["generation"] == 2
        await api.authorizer.stop()

    asyncio.run(main())
