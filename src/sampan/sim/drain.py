"""Draining a node as ``kubectl drain --ignore-daemonsets`` does, by somebody who is patient."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.client.base import Client, Unknown

RETRY_SECONDS, _LOOK_SECONDS = 5.0, 1.0


async def cordon(client: Client, node: str, *, on: bool = True) -> None:
    """No more pods for *node*; or again, with *on* False."""
    await client.patch("nodes", node, {"spec": {"unschedulable": on or None}})


async def evict(client: Client, pod: Obj) -> None:
    """Ask for one pod to go. Raises StatusError: 429 where its budget forbids it."""
    meta = {"name": pod.name, "namespace": pod.namespace}
    body: Body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
    await client.create("pods", body, pod.namespace, name=pod.name, subresource="eviction")


async def drain(client: Client, node: str, *, timeout: float) -> bool:
    """Cordon *node* and evict its pods, all at the same time and each until it is gone; whether all
    were within *timeout* seconds. Refusals by budgets, lost answers and an API that does not answer
    are met by trying again."""
    try:
        async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
            await _insist(lambda: cordon(client, node))
            pods: list[Obj] = []

            async def look() -> None:
                found = (await client.list("pods", fields=f"spec.nodeName={node}")).items
                pods[:] = [p for p in found if (p.controller or {}).get("kind") != "DaemonSet"]

            await _insist(look)
            for pod in pods:
                group.create_task(_until_gone(client, pod))
    except TimeoutError:
        return False
    return True


async def _until_gone(client: Client, pod: Obj) -> None:
    asked = False
    while True:
        try:
            found = await client.get("pods", pod.name, pod.namespace)
            if found.uid != pod.uid:
                return
            if not asked:
                await evict(client, found)
                asked = True
        except StatusError as e:
            if e.code == 404:
                return
            await asyncio.sleep(RETRY_SECONDS)
        except Unknown:
            await asyncio.sleep(RETRY_SECONDS)
        else:
            await asyncio.sleep(_LOOK_SECONDS)


async def _insist(step: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await step()
        except (StatusError, Unknown):
            await asyncio.sleep(RETRY_SECONDS)
