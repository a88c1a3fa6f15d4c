"""The rules as callers meet them: through the API server's pipeline."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.api.call import STRATEGIC_PATCH, Call
from sampan.api.errors import StatusError
from sampan.client.base import Client
from sampan.testing.api import api_server, client_of

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "default"},
    "spec": {"containers": [{"name": "c", "image": "nginx:1.14.1"}]},
}
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d", "namespace": "default"},
    "spec": {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": POD["spec"]},
    },
}


def with_server(scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        client = client_of(await api_server())
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "default"},
        }
        await client.create("serviceaccounts", account, "default")
        await scenario(client)

    asyncio.run(run())


def test_a_pod_comes_out_defaulted_and_pending():
    async def scenario(client: Client) -> None:
        pod = (await client.create("pods", copy.deepcopy(POD), "default")).body
        assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
        assert pod["spec"]["serviceAccount"] == pod["spec"]["serviceAccountName"] == "default"
        assert pod["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
        assert pod["spec"]["enableServiceLinks"] is True
        assert pod["metadata"]["generation"] == 1

    with_server(scenario)


def test_all_problems_come_at_once_in_kubernetes_words():
    async def scenario(client: Client) -> None:
        bad = copy.deepcopy(POD)
        bad["metadata"]["name"] = "P"
        bad["spec"]["restartPolicy"] = "Sometimes"
        with pytest.raises(StatusError) as caught:
            await client.create("pods", bad, "default")
        status = caught.value.status()
        assert (status["code"], status["reason"]) == (422, "Invalid")
        assert status["message"].startswith('Pod "P" is invalid: [metadata.name: Invalid value')
        assert [(c["field"], c["reason"]) for c in status["details"]["causes"]] == [
            ("metadata.name", "FieldValueInvalid"),
            ("spec.restartPolicy", "FieldValueNotSupported"),
        ]

    with_server(scenario)


def test_of_a_pod_only_little_may_change():
    async def scenario(client: Client) -> None:
        pod = (await client.create("pods", copy.deepcopy(POD), "default")).body
        image = {"spec": {"containers": [{"name": "c", "image": "nginx:1.16.1"}]}}
        changed = await client.patch("pods", "p", image, "default", kind="strategic")
        assert changed.body["spec"]["containers"][0]["image"] == "nginx:1.16.1"
        assert changed.meta["generation"] == 2
        with pytest.raises(StatusError) as caught:
            await client.patch("pods", "p", {"spec": {"hostname": "x"}}, "default")
        assert caught.value.code == 422
        assert "pod updates may not change fields other than" in caught.value.message
        # What came out may go in again.
        stored = copy.deepcopy(changed.body)
        assert (await client.update("pods", stored)).revision == changed.revision
        assert pod["metadata"]["uid"] == changed.uid

    with_server(scenario)


def test_fields_nobody_acts_on_are_told():
    async def scenario(client: Client) -> None:
        body = copy.deepcopy(POD)
        body["spec"]["imagePullSecrets"] = [{"name": "s"}]
        call = Call(verb="create", resource="pods", namespace="default", body=body)
        await client.transport.call(call)
        assert call.warnings == [
            "spec.imagePullSecrets: accepted and stored, but not fully acted on yet"
        ]

    with_server(scenario)


def test_a_deployment_keeps_its_selector():
    async def scenario(client: Client) -> None:
        made = await client.create("deployments.apps", copy.deepcopy(DEPLOYMENT), "default")
        assert made.spec["strategy"]["rollingUpdate"] == {
            "maxSurge": "25%",
            "maxUnavailable": "25%",
        }
        call = Call(
            verb="patch", resource="deployments.apps", namespace="default", name="d",
            body={"spec": {"selector": {"matchLabels": {"app": "b"}}}},
            content_type=STRATEGIC_PATCH,
        )  # fmt: skip
        with pytest.raises(StatusError) as caught:
            await client.transport.call(call)
        assert caught.value.message == (
            'Deployment.apps "d" is invalid: [spec.template.metadata.labels: Invalid value: '
            '{"app":"a"}: `selector` does not match template `labels`, spec.selector: Invalid '
            'value: {"matchLabels":{"app":"b"}}: field is immutable]'
        )

    with_server(scenario)


def test_string_data_of_secrets_becomes_data():
    async def scenario(client: Client) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s", "namespace": "default"},
            "stringData": {"a": "x"},
        }
        made = (await client.create("secrets", body, "default")).body
        assert made["data"] == {"a": "eA=="}
        assert made["type"] == "Opaque" and "stringData" not in made
        patched = await client.patch("secrets", "s", {"stringData": {"b": "y"}}, "default")
        assert patched.body["data"] == {"a": "eA==", "b": "eQ=="}

    with_server(scenario)


def test_the_status_is_not_for_the_main_resource():
    async def scenario(client: Client) -> None:
        made = await client.create("pods", copy.deepcopy(POD), "default")
        body = copy.deepcopy(made.body)
        body["status"] = {"phase": "Running"}
        body["metadata"]["labels"] = {"a": "b"}
        updated = await client.update("pods", body)
        assert updated.status["phase"] == "Pending" and updated.labels == {"a": "b"}

    with_server(scenario)


def test_namespaces_carry_their_guard_and_their_name():
    async def scenario(client: Client) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
        made = (await client.create("namespaces", body)).body
        assert made["spec"] == {"finalizers": ["kubernetes"]}
        assert made["status"] == {"phase": "Active"}
        assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "n"}

    with_server(scenario)


def test_services_get_addresses_and_keep_them():
    async def scenario(client: Client) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "1st", "namespace": "default"},
            "spec": {"type": "NodePort", "ports": [{"port": 80}]},
        }
        made = await client.create("services", body, "default")
        assert made.spec["clusterIPs"] == [made.spec["clusterIP"]]
        assert made.spec["ipFamilies"] == ["IPv4"]
        again = copy.deepcopy(body)
        again["spec"]["selector"] = {"app": "a"}
        again["metadata"]["resourceVersion"] = str(made.revision)
        updated = await client.update("services", again)
        assert updated.spec["clusterIP"] == made.spec["clusterIP"]
        assert updated.spec["ports"] == made.spec["ports"]

    with_server(scenario)


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("status.phase=Pending", ["p"]),
        ("status.phase!=Pending", []),
        ("spec.nodeName=", ["p"]),
        ("spec.hostNetwork=false,metadata.name=p", ["p"]),
        ("metadata.name!=p", []),
    ],
)
def test_field_selectors(selector, found):
    async def scenario(client: Client) -> None:
        await client.create("pods", copy.deepcopy(POD), "default")
        page = await client.list("pods", "default", fields=selector)
        assert [o.name for o in page.items] == found

    with_server(scenario)
