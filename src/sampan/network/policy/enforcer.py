"""Keeps every node's kernel by the NetworkPolicies.

What it writes stays when the process goes; the next one makes its own of it in one transaction, so
that there is no moment without rules.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from sampan.api.obj import Obj
from sampan.client.base import Client
from sampan.client.cache import Informer
from sampan.network.nft import Nft, NftError
from sampan.network.policy import model, rules
from sampan.network.policy.model import Pod, Policy, View
from sampan.network.policy.rules import Facts, State

T = TypeVar("T")
Place = tuple[str, str]  # namespace, name
_RETRY_FIRST, _RETRY_LIMIT = 0.2, 30.0
_PATIENCE = 5.0  # seconds a new pod waits for its rules
_KNOWN = 1.0  # seconds until a pod the node runs must be known here as well
log = logging.getLogger(__name__)


class Space(Protocol):
    """A node's namespaces: work given to ``run`` happens inside of them."""

    name: str

    async def run(self, work: Callable[..., T], *args: Any) -> T: ...


@dataclass(frozen=True, slots=True)
class _Claim:
    """An address a node has given to a pod, ahead of the pod's status."""

    place: Place
    uid: str


class NodePolicies:
    """One node's kernel: what it holds."""

    def __init__(self, space: Space, facts: Facts) -> None:
        self.space = space
        self.facts = facts
        self._nft: Nft | None = None
        self._held: State | None = None  # None: not known

    async def sync(self, view: View) -> None:
        """The kernel holds what *view* asks for. Raises NftError, OSError; then what it holds is
        read again before the next try."""
        wanted = rules.compile_(view, self.facts)
        if self._nft is None:
            self._nft = await self.space.run(Nft)
        if self._held is None:
            commands = rules.begin(self.facts, await self.space.run(self._list), wanted)
        else:
            commands = rules.difference(self._held, wanted)
        if not commands:
            return
        self._held = None
        await self.space.run(self._nft.run, commands)
        self._held = wanted

    def _list(self) -> str:
        """What the kernel holds, or ''."""
        assert self._nft is not None
        try:
            return self._nft.run(f"list table inet {rules.TABLE}")
        except NftError:
            return ""

    def close(self) -> None:
        if self._nft is not None:
            self._nft.close()
            self._nft = None


class Enforcer:
    """A ``Part`` of ``NodeNetwork``. client: of its own identity. served: pods that are none,
    such as the address of cluster DNS, which policies may name by labels."""

    def __init__(
        self, client: Client, nodes: Sequence[NodePolicies], *, served: Iterable[Pod] = ()
    ) -> None:
        self._nodes = tuple(nodes)
        self._served = tuple(served)
        self._policies: dict[Place, Policy] = {}
        self._pods: dict[Place, tuple[str, Pod]] = {}  # with their uid
        self._namespaces: dict[str, dict[str, str]] = {}
        self._claims: dict[str, _Claim] = {}
        self._informers = {
            resource: Informer(client, resource)
            for resource in ("networkpolicies.networking.k8s.io", "namespaces", "pods")
        }
        self._informers["networkpolicies.networking.k8s.io"].add_handler(self._policy_changed)
        self._informers["namespaces"].add_handler(self._namespace_changed)
        self._informers["pods"].add_handler(self._pod_changed)
        self._version = self._applied = 0
        self._wake = asyncio.Event()
        self._done = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns once every node holds what it must. Raises NftError, OSError."""
        for informer in self._informers.values():
            informer.start()
        await asyncio.gather(*(i.synced() for i in self._informers.values()))
        view = self.view()
        self._wake.clear()
        await asyncio.gather(*(n.sync(view) for n in self._nodes))
        self._applied = self._version
        self._task = asyncio.create_task(self._work(), name="network policies")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*(i.stop() for i in self._informers.values()))
        for node in self._nodes:
            node.close()

    async def add(self, node: NodePolicies) -> None:
        """One node more; returns once it holds what it must. Raises NftError, OSError."""
        await node.sync(self.view())
        self._nodes = (*self._nodes, node)
        self._touch()  # what changed meanwhile

    def remove(self, name: str) -> None:
        """A node that is gone."""
        for node in [n for n in self._nodes if n.space.name == name]:
            self._nodes = tuple(n for n in self._nodes if n is not node)
            node.close()

    async def guard(self, namespace: str, name: str, uid: str, ips: Sequence[str]) -> None:
        """Returns once the pod that gets the addresses *ips* is treated as the policies of its
        namespace ask: call it before anything of the pod runs. Raises TimeoutError: it could not
        be done."""
        place = (namespace, name)
        for held in [i for i, c in self._claims.items() if c.place == place]:
            del self._claims[held]
        self._claims.update(dict.fromkeys(ips, _Claim(place, uid)))
        self._touch()
        if not any(p.namespace == namespace for p in self._policies.values()):
            return
        try:
            async with asyncio.timeout(_KNOWN):
                await self._informers["pods"].until(lambda: self._is_known(place, uid))
        except TimeoutError:
            log.info("pod %s/%s is not known to its policies", namespace, name)
        version = self._version
        async with asyncio.timeout(_PATIENCE), self._done:
            await self._done.wait_for(lambda: self._applied >= version)

    def _is_known(self, place: Place, uid: str) -> bool:
        held = self._pods.get(place)
        return held is not None and held[0] == uid

    # -- what changes

    def view(self) -> View:
        """The cluster as the policies see it, in an order that depends on nothing else."""
        given: dict[Place, list[str]] = {}
        for ip, claim in self._claims.items():
            if self._is_known(claim.place, claim.uid):
                given.setdefault(claim.place, []).append(ip)
        pods = []
        for place in sorted(self._pods):
            pod = self._pods[place][1]
            others = [i for i in pod.ips if self._is_free(i, place)]
            mine = given.get(place, ()) if pod.takes_part else ()
            pods.append(replace(pod, ips=tuple(dict.fromkeys((*mine, *others)))))
        policies = tuple(self._policies[p] for p in sorted(self._policies))
        return View(policies, (*pods, *self._served), dict(self._namespaces))

    def _is_free(self, ip: str, place: Place) -> bool:
        claim = self._claims.get(ip)
        return claim is None or claim.place == place

    def _touch(self) -> None:
        self._version += 1
        self._wake.set()

    def _policy_changed(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        for obj in (old, new):
            if obj is not None:
                self._policies.pop((obj.namespace, obj.name), None)
        if new is not None:
            self._policies[(new.namespace, new.name)] = model.policy(new.body)
        self._touch()

    def _namespace_changed(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        assert obj is not None
        before = self._namespaces.pop(obj.name, None)
        if new is not None:
            self._namespaces[obj.name] = {**new.labels}
        if before != self._namespaces.get(obj.name):
            self._touch()

    def _pod_changed(self, _kind: str, old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        assert obj is not None
        place = (obj.namespace, obj.name)
        before = self._pods.pop(place, None)
        if new is not None:
            self._pods[place] = (new.uid, model.pod(new.body))
        if before is not None and (new is None or new.uid != before[0]):
            for ip in [i for i, c in self._claims.items() if c == _Claim(place, before[0])]:
                del self._claims[ip]
        if before != self._pods.get(place):
            self._touch()

    # -- what is done about it

    async def _work(self) -> None:
        delay = _RETRY_FIRST
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            version, view, nodes = self._version, self.view(), self._nodes
            results = await asyncio.gather(*(n.sync(view) for n in nodes), return_exceptions=True)
            failed = False
            for node, result in zip(nodes, results, strict=True):
                if node not in self._nodes:
                    continue  # it went meanwhile
                if isinstance(result, NftError | OSError):
                    log.error("policies of node %s: %s", node.space.name, result)
                    failed = True
                elif isinstance(result, BaseException):
                    raise result
            if failed:
                loop.call_later(delay, self._wake.set)
                delay = min(delay * 2, _RETRY_LIMIT)
                continue
            delay = _RETRY_FIRST
            async with self._done:
                self._applied = version
                self._done.notify_all()
