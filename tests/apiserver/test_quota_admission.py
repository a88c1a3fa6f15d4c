"""Quotas and limit ranges through the API server: what is charged, and what is refused."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.api.amounts import read
from sampan.api.call import Call
from sampan.api.errors import StatusError
from sampan.api.obj import Body
from sampan.client.base import Client
from sampan.controllers.resourcequota import ResourceQuotaController
from sampan.testing.api import api_server, client_of

Q = "resourcequotas"


def pod(name: str = "p", *, requests: Any = None, limits: Any = None, **spec: Any) -> Body:
    resources = {k: v for k, v in (("requests", requests), ("limits", limits)) if v}
    container = {"name": "c", "image": "i", "resources": resources}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


async def quota(client: Client, name: str = "q", used: Any = None, **spec: Any) -> None:
    """A quota as it is once it was counted."""
    made = (await client.create(Q, {"metadata": {"name": name}, "spec": spec}, "default")).body
    zero = dict.fromkeys(spec["hard"], "0")
    status = {"hard": spec["hard"], "used": {**zero, **(used or {})}}
    await client.update(Q, {**made, "status": status}, subresource="status")


def run(scenario: Any) -> Any:
    async def go() -> Any:
        client = client_of(await api_server())
        account = {"metadata": {"name": "default"}}
        await client.create("serviceaccounts", account, "default")
        return await scenario(client)

    return asyncio.run(go())


async def used(client: Client, name: str = "q") -> Body:
    body: Body = (await client.get(Q, name, "default")).status["used"]
    return body


async def refusal(client: Client, resource: str, body: Body) -> str:
    with pytest.raises(StatusError) as caught:
        await client.create(resource, body, "default")
    assert caught.value.code == 403
    return caught.value.message


def test_a_pod_is_charged_and_what_exceeds_is_refused():
    async def scenario(client: Client) -> None:
        await quota(client, hard={"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi"})
        ask = {"requests": {"cpu": "600m"}, "limits": {"memory": "512Mi"}}
        await client.create("pods", pod(**ask), "default")
        assert await used(client) == {"limits.memory": "512Mi", "pods": "1", "requests.cpu": "600m"}
        assert await refusal(client, "pods", pod("b", **ask)) == (
            'pods "b" is forbidden: exceeded quota: q, requested: requests.cpu=600m, '
            "used: requests.cpu=600m, limited: requests.cpu=1"
        )
        assert await refusal(client, "pods", pod("c")) == (
            'pods "c" is forbidden: failed quota: q: must specify limits.memory for: c; '
            "requests.cpu for: c"
        )
        assert (await used(client))["pods"] == "1"

    run(scenario)


def test_a_quota_whose_use_is_unknown_lets_nothing_in():
    async def scenario(client: Client) -> None:
        await quota(client, hard={"pods": "2"})
        held = (await client.get(Q, "q", "default")).body
        status = {"hard": {"pods": "2"}, "used": {}}
        await client.update(Q, {**held, "status": status}, subresource="status")
        text = 'pods "p" is forbidden: status unknown for quota: q, resources: pods'
        assert await refusal(client, "pods", pod()) == text

    run(scenario)


@pytest.mark.parametrize(
    ("scopes", "spec", "counts"),
    [
        (["BestEffort"], {}, True),
        (["NotBestEffort"], {}, False),
        (["Terminating"], {"activeDeadlineSeconds": 5}, True),
        (["Terminating"], {}, False),
        (["NotTerminating"], {}, True),
        (["BestEffort", "Terminating"], {}, False),
        (["PriorityClass"], {}, False),
        (["PriorityClass"], {"priorityClassName": "system-node-critical"}, True),
    ],
)
def test_scopes(scopes: list[str], spec: Body, counts: bool):
    async def scenario(client: Client) -> None:
        await quota(client, hard={"pods": "5"}, scopes=scopes)
        await client.create("pods", pod(**spec), "default")
        assert (await used(client))["pods"] == str(int(counts))

    run(scenario)


def test_a_scope_selector_names_classes():
    async def scenario(client: Client) -> None:
        term = {"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}
        await quota(client, hard={"pods": "0"}, scopeSelector={"matchExpressions": [term]})
        await client.create("pods", pod(), "default")
        chosen = pod("x", priorityClassName="system-node-critical")
        assert "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0" in (
            await refusal(client, "pods", chosen)
        )

    run(scenario)


def test_services_are_counted_by_what_they_take():
    async def scenario(client: Client) -> None:
        hard = {"services": "3", "services.nodeports": "3", "services.loadbalancers": "1"}
        await quota(client, hard=hard)
        ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
        service = {"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": ports}}
        made = (await client.create("services", service, "default")).body
        assert (await used(client))["services.nodeports"] == "2"
        balanced = {"metadata": {"name": "t"}, "spec": {"type": "LoadBalancer", "ports": ports}}
        text = await refusal(client, "services", balanced)
        assert "requested: services.nodeports=2, used: services.nodeports=2, limited: serv" in text
        balanced["spec"]["allocateLoadBalancerNodePorts"] = False
        await client.create("services", balanced, "default")
        ports = [*made["spec"]["ports"], {"name": "c", "port": 82}]
        await client.update("services", {**made, "spec": {**made["spec"], "ports": ports}})
        assert await used(client) == {
            "services": "2", "services.loadbalancers": "1", "services.nodeports": "3"
        }  # fmt: skip

    run(scenario)


def test_claims_are_counted_by_size_and_class():
    async def scenario(client: Client) -> None:
        gold = "gold.storageclass.storage.k8s.io"
        await quota(client, hard={
            "persistentvolumeclaims": "5", "requests.storage": "10Gi",
            f"{gold}/requests.storage": "3Gi", f"{gold}/persistentvolumeclaims": "1",
        })  # fmt: skip

        def claim(name: str, size: str, kind: str) -> Body:
            spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": kind,
                    "resources": {"requests": {"storage": size}}}  # fmt: skip
            return {"metadata": {"name": name}, "spec": spec}

        await client.create("persistentvolumeclaims", claim("a", "2Gi", "gold"), "default")
        await client.create("persistentvolumeclaims", claim("b", "4Gi", "tin"), "default")
        assert await used(client) == {
            f"{gold}/persistentvolumeclaims": "1", f"{gold}/requests.storage": "2Gi",
            "persistentvolumeclaims": "2", "requests.storage": "6Gi",
        }  # fmt: skip
        text = await refusal(client, "persistentvolumeclaims", claim("c", "2Gi", "gold"))
        assert text.endswith(
            f"exceeded quota: q, requested: {gold}/persistentvolumeclaims=1,"
            f"{gold}/requests.storage=2Gi, used: {gold}/persistentvolumeclaims=1,"
            f"{gold}/requests.storage=2Gi, limited: {gold}/persistentvolumeclaims=1,"
            f"{gold}/requests.storage=3Gi"
        )

    run(scenario)


def test_objects_are_counted_by_resource():
    async def scenario(client: Client) -> None:
        await quota(client, hard={"count/deployments.apps": "0", "configmaps": "1"})
        await client.create("configmaps", {"metadata": {"name": "a"}}, "default")
        assert "requested: configmaps=1" in await refusal(
            client, "configmaps", {"metadata": {"name": "b"}}
        )
        labels = {"app": "x"}
        deployment = {
            "metadata": {"name": "d"},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": [
                    {"name": "c", "image": "i"}]}}},
        }  # fmt: skip
        text = await refusal(client, "deployments.apps", deployment)
        assert text == (
            'deployments.apps "d" is forbidden: exceeded quota: q, requested: '
            "count/deployments.apps=1, used: count/deployments.apps=0, "
            "limited: count/deployments.apps=0"
        )

    run(scenario)


def test_a_dry_run_is_refused_as_a_real_one_and_charges_nothing():
    async def scenario(client: Client) -> None:
        await quota(client, hard={"pods": "1"})

        async def dry(name: str) -> None:
            await client.transport.call(Call(
                verb="create", resource="pods", namespace="default", body=pod(name),
                options={"dryRun": "All"},
            ))  # fmt: skip

        await dry("a")
        assert (await used(client))["pods"] == "0"
        await client.create("pods", pod("b"), "default")
        with pytest.raises(StatusError, match="exceeded quota"):
            await dry("c")

    run(scenario)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(50, 900), min_size=1, max_size=30), st.integers(0, 2**16))
def test_a_quota_is_never_exceeded_and_never_left_unused(sizes: list[int], seed: int):
    """Property: of writers at the same time as many get in as fit; the count is what is stored."""

    async def scenario(client: Client) -> None:
        await quota(client, hard={"requests.cpu": "1", "pods": "7"})
        rng = random.Random(seed)

        async def create(i: int, size: int) -> int:
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            try:
                body = pod(f"p{i}", requests={"cpu": f"{size}m"})
                await client.create("pods", body, "default")
            except StatusError as e:
                assert e.code == 403 and "exceeded quota" in e.message
                return 0
            return size

        done = await asyncio.gather(*(create(i, s) for i, s in enumerate(sizes)))
        stored = (await client.list("pods", "default")).items
        held = read(await used(client))
        assert held["pods"].whole == len(stored) == sum(1 for d in done if d) <= 7
        assert held["requests.cpu"].millis == sum(done) <= 1000
        refused = [s for s, d in zip(sizes, done, strict=True) if not d]
        if len(stored) < 7 and refused:
            assert sum(done) + min(refused) > 1000

    run(scenario)


def test_three_hundred_at_once_get_in_without_a_lost_count():
    async def scenario(client: Client) -> None:
        await quota(client, hard={"count/configmaps": "250"})

        async def create(i: int) -> bool:
            try:
                await client.create("configmaps", {"metadata": {"name": f"c{i}"}}, "default")
            except StatusError as e:
                assert e.code == 403, e.message
                return False
            return True

        assert sum(await asyncio.gather(*(create(i) for i in range(300)))) == 250
        assert (await used(client))["count/configmaps"] == "250"

    run(scenario)


def test_what_is_stored_while_a_new_quota_is_counted_lets_the_count_fail():
    """Else an object that came between the count and its status would never be charged."""

    async def scenario(client: Client) -> None:
        body = {"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "5"}}}
        made = await client.create(Q, body, "default")
        await client.create("configmaps", {"metadata": {"name": "a"}}, "default")
        status = {"hard": {"configmaps": "5"}, "used": {"configmaps": "0"}}
        with pytest.raises(StatusError) as caught:
            await client.update(Q, {**made.body, "status": status}, subresource="status")
        assert caught.value.code == 409

    run(scenario)


# -- limit ranges ------------------------------------------------------------------------------


async def ranges(client: Client, *items: Body) -> None:
    body = {"metadata": {"name": "r"}, "spec": {"limits": list(items)}}
    await client.create("limitranges", body, "default")


def test_defaults_are_filled_in_and_told():
    async def scenario(client: Client) -> None:
        await ranges(client, {
            "type": "Container", "default": {"cpu": "500m", "memory": "64Mi"},
            "defaultRequest": {"cpu": "100m"},
        })  # fmt: skip
        body = pod(limits={"memory": "32Mi"})
        body["spec"]["initContainers"] = [{"name": "i", "image": "i"}]
        made = (await client.create("pods", body, "default")).body
        assert made["spec"]["containers"][0]["resources"] == {
            "limits": {"cpu": "500m", "memory": "32Mi"},
            "requests": {"cpu": "100m", "memory": "32Mi"},
        }
        assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
            "LimitRanger plugin set: cpu request for container c; cpu limit for container c; "
            "cpu, memory request for init container i; cpu, memory limit for init container i"
        )

    run(scenario)


@pytest.mark.parametrize(
    ("item", "given_", "message"),
    [
        ({"type": "Container", "max": {"cpu": "1"}}, {"limits": {"cpu": "2"}},
         "maximum cpu usage per Container is 1, but limit is 2"),
        ({"type": "Container", "min": {"cpu": "1"}}, {"requests": {"cpu": "500m"}},
         "minimum cpu usage per Container is 1, but request is 500m"),
        ({"type": "Container", "min": {"cpu": "1"}, "max": {"memory": "1Gi"}},
         {"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}},
         "[minimum cpu usage per Container is 1, but request is 500m, "
         "maximum memory usage per Container is 1Gi, but limit is 2Gi]"),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},
         {"requests": {"cpu": "100m"}, "limits": {"cpu": "250m"}},
         "cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000"),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}, {},
         "cpu max limit to request ratio per Container is 2, but no request is specified or "
         "request is 0"),
        ({"type": "Pod", "max": {"memory": "1Gi"}}, {},
         "maximum memory usage per Pod is 1Gi.  No limit is specified"),
        ({"type": "Pod", "min": {"memory": "1Gi"}}, {},
         "minimum memory usage per Pod is 1Gi.  No request is specified"),
    ],
)  # fmt: skip
def test_pods_out_of_bounds_are_refused(item: Body, given_: Body, message: str):
    async def scenario(client: Client) -> None:
        await ranges(client, item)
        text = await refusal(client, "pods", pod(**given_))
        assert text == f'pods "p" is forbidden: {message}'

    run(scenario)


def test_claims_out_of_bounds_are_refused():
    async def scenario(client: Client) -> None:
        bounds = {"min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}
        await ranges(client, {"type": "PersistentVolumeClaim", **bounds})
        for size, problem in (
            ("3Gi", "maximum storage usage per PersistentVolumeClaim is 2Gi"),
            ("1Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi"),
        ):
            spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
            text = await refusal(
                client, "persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": spec}
            )
            assert text.endswith(f"{problem}, but request is {size}")

    run(scenario)


def test_the_controller_counts_nothing_of_events():
    assert "events" not in ResourceQuotaController(["events", "pods"]).resources


def test_what_a_pod_grows_by_is_charged_and_bounded():
    async def scenario(client: Client) -> None:
        await quota(client, hard={"requests.cpu": "2", "limits.cpu": "3"})
        await client.create(
            "limitranges",
            {"metadata": {"name": "l"}, "spec": {"limits": [
                {"type": "Container", "max": {"cpu": "2500m"}}]}},
            "default",
        )  # fmt: skip
        await client.create("pods", pod(requests={"cpu": "1"}, limits={"cpu": "2"}), "default")

        async def resize(cpu: str, limit: str = "2") -> None:
            change = {"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": limit}}}
            body = {"spec": {"containers": [{"name": "c", **change}]}}
            await client.patch("pods", "p", body, "default", kind="strategic", subresource="resize")

        await resize("1500m")
        assert await used(client) == {"limits.cpu": "2", "requests.cpu": "1500m"}
        for cpu, limit, message in (
            ("2100m", "2200m", "exceeded quota: q, requested: requests.cpu=600m, "
             "used: requests.cpu=1500m, limited: requests.cpu=2"),
            ("1600m", "3", "maximum cpu usage per Container is 2500m, but limit is 3"),
        ):  # fmt: skip
            with pytest.raises(StatusError) as caught:
                await resize(cpu, limit)
            assert caught.value.code == 403 and message in caught.value.message

    run(scenario)
