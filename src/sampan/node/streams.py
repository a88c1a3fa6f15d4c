"""NodeStreams of one node: logs, exec and attach for its pods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from sampan.api.errors import StatusError, bad_request, not_found
from sampan.api.obj import Body
from sampan.api.streams import ExecSession
from sampan.lib.clock import Clock, parse_rfc3339
from sampan.node import logs
from sampan.node.runtime.base import ContainerState, Runtime, RuntimeFailure
from sampan.node.units import ALIVE, Unit
from sampan.node.worker import PodWorker

_CONNECT = 10.0  # seconds for a port of a pod to answer


class Streams:
    """find: the worker of a pod by namespace and name, or None."""

    def __init__(
        self, runtime: Runtime, *, clock: Clock, find: Callable[[str, str], PodWorker | None]
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._find = find

    async def logs(
        self, namespace: str, pod: str, container: str, options: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        worker, unit = self._unit(namespace, pod, container)
        previous = options.get("previous") == "true"
        state = self._attempt(worker, unit, previous=previous)
        selection = select(options, now=self._clock.now())
        if not state.log_path:
            return
        async for chunk in logs.read(
            state.log_path,
            selection,
            is_running=lambda: unit.id == state.id and unit.stage in ALIVE,
        ):
            yield chunk

    async def exec(
        self, namespace: str, pod: str, container: str, command: list[str],
        *, stdin: bool, stdout: bool, stderr: bool, tty: bool,
    ) -> ExecSession:  # fmt: skip
        running = self._running(namespace, pod, container)
        if not command:
            raise bad_request("you must specify at least 1 command for the container")
        try:
            return await self._runtime.exec(running, command, tty=tty, stdin=stdin)
        except RuntimeFailure as failure:
            raise StatusError(500, "InternalError", failure.message) from failure

    async def attach(
        self, namespace: str, pod: str, container: str,
        *, stdin: bool, stdout: bool, stderr: bool, tty: bool,
    ) -> ExecSession:  # fmt: skip
        running = self._running(namespace, pod, container)
        try:
            return await self._runtime.attach(running, stdin=stdin)
        except RuntimeFailure as failure:
            raise StatusError(500, "InternalError", failure.message) from failure

    async def forward(self, namespace: str, pod: str, port: int) -> tuple[Any, Any]:
        worker = self._find(namespace, pod)
        if worker is None:
            raise not_found("pods", pod)
        sandbox = worker.machine.sandbox
        if sandbox is None or worker.machine.sandbox_stage != "up":
            raise StatusError(
                500, "InternalError", "unable to do port forwarding: pod is not running"
            )
        try:
            stream: tuple[Any, Any] = await self._runtime.forward(sandbox.id, port, _CONNECT)
        except RuntimeFailure as failure:
            raise StatusError(500, "InternalError", failure.message) from failure
        return stream

    def _unit(self, namespace: str, pod: str, container: str) -> tuple[PodWorker, Unit]:
        worker = self._find(namespace, pod)
        if worker is None:
            raise not_found("pods", pod)
        unit = worker.machine.units.get(container)
        if unit is None:
            raise bad_request(f"container {container} is not valid for pod {pod}")
        return worker, unit

    def _attempt(self, worker: PodWorker, unit: Unit, *, previous: bool) -> ContainerState:
        name = worker.pod.name
        if previous:
            # Between an end and the next start, the attempt that ended last is the previous one.
            waits = unit.waiting is not None and unit.stage not in ALIVE
            before = unit.current if waits and unit.current is not None else unit.last
            if before is None:
                raise bad_request(
                    f'previous terminated container "{unit.name}" in pod "{name}" not found'
                )
            return before
        if unit.current is None:
            reason = unit.waiting[0] if unit.waiting else _default_waiting(worker.pod.body)
            if unit.waiting and "Image" in reason:
                text = f"trying and failing to pull image: {unit.waiting[1]}"
                if reason == "ErrImageNeverPull":
                    text = reason
                raise bad_request(
                    f'container "{unit.name}" in pod "{name}" is waiting to start: {text}'
                )
            raise bad_request(
                f'container "{unit.name}" in pod "{name}" is waiting to start: {reason}'
            )
        return unit.current

    def _running(self, namespace: str, pod: str, container: str) -> str:
        _, unit = self._unit(namespace, pod, container)
        if unit.stage not in ALIVE:
            raise StatusError(
                500,
                "InternalError",
                f'unable to upgrade connection: container not found ("{container}")',
            )
        return unit.id


def _default_waiting(pod: Body) -> str:
    return "PodInitializing" if pod["spec"].get("initContainers") else "ContainerCreating"


def select(options: Mapping[str, str], *, now: float) -> logs.Selection:
    """From PodLogOptions by their query names. Raises StatusError 400."""
    since = 0.0
    try:
        if options.get("sinceSeconds"):
            since = now - float(options["sinceSeconds"])
        elif options.get("sinceTime"):
            since = parse_rfc3339(options["sinceTime"])
        return logs.Selection(
            follow=options.get("follow") == "true",
            tail=int(options["tailLines"]) if options.get("tailLines") else None,
            since=since,
            timestamps=options.get("timestamps") == "true",
            limit=int(options["limitBytes"]) if options.get("limitBytes") else None,
            stream=options.get("stream") or "All",
        )
    except ValueError as error:
        raise bad_request(f"invalid log options: {error}") from error
