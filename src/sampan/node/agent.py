"""Agent: serves one node. It registers the node, keeps it alive, and runs the pods bound to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from sampan.api.errors import StatusError
from sampan.api.obj import Body, Obj
from sampan.api.usage import Counters
from sampan.client.base import Client, Unknown
from sampan.client.cache import Informer
from sampan.control.events import Recorder
from sampan.lib.addressing import DEFAULT
from sampan.lib.clock import Clock, rfc3339_micro
from sampan.lib.ids import Ids
from sampan.node import admission, protocols, register, resizing, usage
from sampan.node import stimuli as st
from sampan.node.claims import Claims
from sampan.node.disks import Disks
from sampan.node.events import EventSink, node_body
from sampan.node.local_volumes import LocalVolumes
from sampan.node.logs import drop_stale_logs
from sampan.node.runtime.base import Runtime, RuntimeFailure, SandboxState
from sampan.node.streams import Streams
from sampan.node.volumes import DirectoryVolumes, SimulatedVolumes, TmpfsSeam, Volumes
from sampan.node.worker import PodWorker, Surroundings

log = logging.getLogger("sampan.node")
RESYNC = 60.0  # seconds between looks at all sandboxes, should an exit have gone unnoticed
HEALTH_TIMEOUT = 10.0


class Agent:
    """The agent of one node.

    data_dir: where volumes and logs are kept; None keeps nothing on disk (virtual worlds).
    capacity: cpu, memory and pods; what this machine has when not given. tmpfs: mounts for
    emptyDir volumes in memory. disks: the node's local volumes; view: see DirectoryVolumes;
    provisioner: as whom local volumes are deleted. The runtime is started and let go with the
    agent; its containers outlive both. pace: how many times longer than usual it waits between
    signs of life.
    """

    def __init__(
        self,
        client: Client,
        *,
        runtime: Runtime,
        node_name: str,
        data_dir: Path | None,
        clock: Clock,
        ids: Ids | None = None,
        pod_cidrs: Sequence[str] = (),
        addresses: Sequence[str] = (),
        capacity: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Body] = (),
        tmpfs: TmpfsSeam | None = None,
        disks: Disks | None = None,
        view: Callable[[str], str] = str,
        provisioner: Client | None = None,
        events: EventSink | None = None,
        cluster_dns: Sequence[str] = (DEFAULT.primary.dns,),
        pace: float = 1.0,
    ) -> None:
        self._pace = pace
        sizes = dict(capacity or register.detect_capacity(data_dir))
        self.identity = register.Identity(
            name=node_name,
            addresses=tuple(addresses),
            capacity=sizes,
            allocatable=sizes,
            pod_cidrs=tuple(pod_cidrs),
            labels=labels or {},
            taints=taints,
        )
        self.workers: dict[str, PodWorker] = {}
        self._client = client
        self._runtime = runtime
        self._clock = clock
        self._recorder = Recorder(client, "kubelet", clock=clock, host=node_name)
        self._events: EventSink = events or self._recorder
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[str, list[SandboxState]] = {}
        self._ready: tuple[bool, str] = (False, "the agent is starting")
        self._node_status: Body = {}
        self._node: Obj | None = None  # as it was last read: its labels and taints
        self._looked_at: dict[str, Obj] = {}  # pods that may have to be refused, by uid
        self._reported = 0.0
        self._images_seen: tuple[str, ...] = ()
        self._pods = Informer(client, "pods", fields=f"spec.nodeName={node_name}")
        self._services = Informer(client, "services")
        sources = ApiSources(client, clock)
        claims = Claims(sources, node=node_name, others=self._pod_bodies, disks=disks)
        self._local = LocalVolumes(
            client, provisioner, node=node_name, claims=claims, disks=disks, events=self._events,
            labels=register.node_labels(self.identity), clock=clock, spawn=self._spawn,
        )  # fmt: skip
        volumes: Volumes = SimulatedVolumes(claims, self._local.has_grown)
        if data_dir is not None:
            volumes = DirectoryVolumes(
                data_dir, sources, clock=clock, node_name=node_name, tmpfs=tmpfs, claims=claims,
                grown=self._local.has_grown, view=view,
            )  # fmt: skip
        self._around = Surroundings(
            client=client,
            runtime=runtime,
            clock=clock,
            volumes=volumes,
            sources=sources,
            events=self._events,
            node_name=node_name,
            host_ips=tuple(addresses),
            allocatable=sizes,
            services=lambda: tuple(o.body for o in self._services.list()),
            spawn=self._spawn,
            released=self._released,
            freed=self._room_changed,
            room=self._room,
            log_root=data_dir / "logs" if data_dir is not None else None,
            host_hosts=_text("/etc/hosts") if data_dir is not None else "",
            host_resolv=_text("/etc/resolv.conf") if data_dir is not None else "",
            cluster_dns=tuple(cluster_dns),
            lacking=protocols.lacking() if data_dir is not None else frozenset(),
        )
        self.streams = Streams(runtime, clock=clock, find=self._find)

    async def usage(self) -> Sequence[Counters]:
        """What its running containers use (for metrics.k8s.io). Raises OSError."""
        try:
            return await usage.read(self._runtime)
        except RuntimeFailure as e:
            raise OSError(e.message) from e

    # ---- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when the node is registered (Ready, if the runtime answers), its pods are known
        and what was running before has been taken over."""
        await self._runtime.start()
        await self._check_runtime()
        await self._register()
        self._keep(self._keep_alive)
        self._services.start()
        await self._services.synced()
        for box in await self._runtime.sandboxes():
            self._held.setdefault(box.uid, []).append(box)
        self._keep(self._watch_exits)
        self._keep(self._resync)
        self._pods.add_handler(self._pod_changed)
        self._pods.start()
        await self._pods.synced()
        for uid, boxes in self._held.items():
            self._spawn(self._remove_orphan(uid, boxes))
        self._held = {}
        await self._local.start()
        self._drop_stale_directories()
        self._events.emit(node_body(self.identity.name), "Normal", "Starting", "Starting kubelet.")

    async def stop(self) -> None:
        """Let go: pods keep running and a later agent takes them over."""
        for worker in [*self.workers.values()]:
            worker.close()
        await asyncio.gather(self._pods.stop(), self._services.stop(), self._local.stop())
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.workers.clear()
        await self._recorder.close()
        await self._runtime.close()

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _keep(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *work* as long as the agent lives: without it the node would be lost, or deaf."""

        async def on() -> None:
            while True:
                try:
                    return await work()
                except Exception:
                    log.exception("node %s: begun again", self.identity.name)
                await asyncio.sleep(1.0)

        self._spawn(on())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of node %s failed", self.identity.name, exc_info=task.exception())

    # ---- pods ----------------------------------------------------------------------------------

    def _pod_changed(self, _: str, old: Obj | None, new: Obj | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._pod_gone(old)
        if new is not None:
            self._pod_seen(new)

    def _pod_seen(self, pod: Obj) -> None:
        worker = self.workers.get(pod.uid)
        if worker is not None:
            worker.seen(pod)
        elif pod.uid in self._looked_at:
            self._looked_at[pod.uid] = pod
        elif pod.uid in self._held or pod.status.get("startTime") or pod.is_deleting:
            self._take(pod, None)
        elif self._node is not None and admission.unwanted(pod.spec, self._node):
            self._looked_at[pod.uid] = pod
            self._spawn(self._look_again(pod.uid))
        else:
            self._admit(pod)

    def _admit(self, pod: Obj) -> None:
        held = [w.machine.needs for w in self.workers.values() if w.machine.holds_resources]
        needs = admission.Needs.of(pod.spec)
        self._take(pod, admission.lacking(needs, held, self.identity.allocatable))

    async def _look_again(self, uid: str) -> None:
        """What is known of the node's labels and taints may be old: ask before a pod is refused."""
        with contextlib.suppress(StatusError, Unknown, OSError):
            self._node = await self._client.get("nodes", self.identity.name)
        pod = self._looked_at.pop(uid, None)
        if pod is None:
            return
        refused = admission.unwanted(pod.spec, self._node) if self._node is not None else None
        if refused is None:
            self._admit(pod)
        else:
            self._take(pod, refused)

    def _take(self, pod: Obj, refused: tuple[str, str] | None) -> None:
        worker = self.workers[pod.uid] = PodWorker(self._around, pod)
        boxes = self._held.pop(pod.uid, [])
        worker.tell(st.Adopted(tuple(worker.explained_all(b) for b in boxes)))
        if refused is not None:
            worker.tell(st.Refused(*refused))
        worker.seen(pod)

    def _pod_gone(self, pod: Obj) -> None:
        self._looked_at.pop(pod.uid, None)
        worker = self.workers.get(pod.uid)
        if worker is not None:
            worker.tell(st.PodGone())

    def _released(self, worker: PodWorker) -> None:
        self.workers.pop(worker.machine.uid, None)
        self._local.pod_released()
        self._room_changed()

    def _room(self, worker: PodWorker) -> tuple[str, str]:
        """Whether what a pod asks for now fits beside what the others are allocated."""
        machine = worker.machine
        others = [
            w.machine.needs
            for w in self.workers.values()
            if w is not worker and w.machine.holds_resources
        ]
        wanted = admission.Needs.of(machine.pod["spec"])
        answer = resizing.verdict(wanted, others, self.identity.allocatable)
        if not answer[0] and resizing.shrinks(wanted, machine.needs):
            asyncio.get_running_loop().call_soon(self._room_changed)  # it shrinks
        return answer

    def _room_changed(self) -> None:
        """What waits for room is judged anew, the most important first."""
        waiting = [w for w in self.workers.values() if w.machine.pending is not None]
        for worker in sorted(waiting, key=lambda w: resizing.urgency(w.machine)):
            worker.tell(st.RoomChanged())

    def _pod_bodies(self) -> list[Body]:
        return [w.pod.body for w in self.workers.values()]

    def _find(self, namespace: str, name: str) -> PodWorker | None:
        found = [
            w for w in self.workers.values() if w.pod.namespace == namespace and w.pod.name == name
        ]
        return max(found, key=lambda w: w.pod.revision, default=None)

    async def _remove_orphan(self, uid: str, boxes: list[SandboxState]) -> None:
        for box in boxes:
            try:
                await self._runtime.stop_sandbox(box.id)
                await self._runtime.remove_sandbox(box.id)
            except RuntimeFailure as failure:
                log.warning("removing sandbox %s left by %s: %s", box.id, uid, failure.message)
        await self._around.volumes.unmount(uid, remove=True)

    def _drop_stale_directories(self) -> None:
        volumes = self._around.volumes
        if isinstance(volumes, DirectoryVolumes):
            for uid in volumes.known():
                if uid not in self.workers:
                    self._spawn(volumes.unmount(uid, remove=True))
        if self._around.log_root is not None:
            drop_stale_logs(self._around.log_root, set(self.workers))

    # ---- the runtime ---------------------------------------------------------------------------

    async def _watch_exits(self) -> None:
        changed: set[str] = set()
        more = asyncio.Event()

        async def look() -> None:
            while True:
                await more.wait()
                more.clear()
                ids = {*changed}
                changed.clear()
                await self._observe(ids)

        self._keep(look)
        while True:
            try:
                async for sandbox_id in self._runtime.exits():
                    changed.add(sandbox_id)
                    more.set()
            except RuntimeFailure as failure:
                log.warning("watching exits: %s", failure.message)
            await asyncio.sleep(1.0)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC * self._pace)
            await self._observe(None)

    async def _observe(self, ids: set[str] | None) -> None:
        """Tell the workers how their sandboxes are (None: all of them)."""
        try:
            boxes = await self._runtime.sandboxes()
        except RuntimeFailure as failure:
            log.warning("looking at sandboxes: %s", failure.message)
            return
        for box in boxes:
            worker = self.workers.get(box.uid)
            if worker is not None and (ids is None or box.id in ids):
                worker.observed(box)

    async def _check_runtime(self) -> None:
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT):
                await self._runtime.sandboxes()
        except (RuntimeFailure, TimeoutError) as failure:
            self._ready = (False, f"container runtime is down: {failure or 'no answer'}")
        else:
            self._ready = (True, "")

    # ---- the node object -----------------------------------------------------------------------

    async def _register(self) -> None:
        delay = 0.2
        while True:
            try:
                await self._create_node()
                await self._report()
                await self._renew()
                return
            except (StatusError, Unknown, OSError) as error:
                log.warning("registering node %s: %s", self.identity.name, error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 7.0)

    async def _create_node(self) -> None:
        name = self.identity.name
        try:
            node = await self._client.create("nodes", register.node_body(self.identity))
        except StatusError as error:
            if error.code != 409:
                raise
            node = await self._client.get("nodes", name)
            labels = register.node_labels(self.identity)
            change: Body = {}
            if any(node.labels.get(k) != v for k, v in labels.items()):
                change["metadata"] = {"labels": labels}
            if self.identity.pod_cidrs and not node.spec.get("podCIDR"):
                change["spec"] = register.pod_cidrs(self.identity)
            if change:
                node = await self._client.patch("nodes", name, change)
        self._node_status = node.status
        self._uid = node.uid

    async def _report(self) -> None:
        """Write the node's status if it has changed or the last report is old. It is compared with
        what the API holds: the node may have been called lost meanwhile."""
        now = self._clock.now()
        self._node = await self._client.get("nodes", self.identity.name)
        self._node_status = self._node.status
        images = await self._images()
        status = register.node_status(
            self.identity, now=now, ready=self._ready, images=images, old=self._node_status
        )
        same = register.without_heartbeat(status) == register.without_heartbeat(
            {k: self._node_status.get(k) for k in status}
        )
        if same and now - self._reported < register.REPORT:
            return
        ours = {c["type"] for c in status["conditions"]}
        others = [c for c in self._node_status.get("conditions") or () if c["type"] not in ours]
        body = {"status": {**status, "conditions": [*status["conditions"], *others]}}
        node = await self._client.patch("nodes", self.identity.name, body, subresource="status")
        before = {c["type"]: c["status"] for c in self._node_status.get("conditions") or ()}
        self._node_status, self._reported = node.status, now
        if before.get("Ready") != ("True" if self._ready[0] else "False"):
            reason = "NodeReady" if self._ready[0] else "NodeNotReady"
            self._events.emit(
                node_body(self.identity.name),
                "Normal",
                reason,
                f"Node {self.identity.name} status is now: {reason}",
            )

    async def _images(self) -> Sequence[Any]:
        try:
            return await self._runtime.images()
        except RuntimeFailure:
            return ()

    async def _renew(self) -> None:
        name, now = self.identity.name, rfc3339_micro(self._clock.now())
        resource, namespace = "leases.coordination.k8s.io", "kube-node-lease"
        try:
            await self._client.patch(
                resource, name, {"spec": {"renewTime": now, "holderIdentity": name}}, namespace
            )
        except StatusError as error:
            if error.code != 404:
                raise
            body = register.lease_body(name, uid=self._uid, now=now, pace=self._pace)
            await self._client.create(resource, body, namespace)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(register.RENEW * self._pace)
            await self._check_runtime()
            with contextlib.suppress(Unknown, OSError):
                try:
                    await self._renew()
                    await self._report()
                except StatusError as error:
                    log.warning("node %s: %s", self.identity.name, error.message)


class ApiSources:
    """Config maps, secrets and tokens, from the API."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._read: dict[tuple[str, str, str], tuple[float, Body | None]] = {}
        self._under_way: dict[tuple[str, str, str], asyncio.Task[Body | None]] = {}

    async def config(
        self, resource: str, namespace: str, name: str, *, max_age: float = 0.0
    ) -> Body | None:
        """Reads of one object that overlap are one call."""
        key = (resource, namespace, name)
        if max_age:
            now = self._clock.now()
            self._read = {k: v for k, v in self._read.items() if v[0] > now - max_age}
            if key in self._read:
                return self._read[key][1]
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._get(*key))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        body = await asyncio.shield(task)
        if max_age:
            self._read[key] = (self._clock.now(), body)
        return body

    async def _get(self, resource: str, namespace: str, name: str) -> Body | None:
        try:
            return (await self._client.get(resource, name, namespace)).body
        except StatusError as error:
            if error.code == 404:
                return None
            raise

    async def read(self, resource: str, namespace: str, name: str) -> Body | None:
        """An object as it is now; None when there is none."""
        return await self._get(resource, namespace, name)

    async def token(
        self, namespace: str, account: str, *, pod: Body, audience: str, seconds: int
    ) -> Body:
        meta = pod["metadata"]
        spec: Body = {
            "expirationSeconds": seconds,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": meta["name"],
                "uid": meta.get("uid", ""),
            },
        }
        if audience:
            spec["audiences"] = [audience]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self._client.create(
            "serviceaccounts", body, namespace, name=account, subresource="token"
        )
        return answer.body


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
