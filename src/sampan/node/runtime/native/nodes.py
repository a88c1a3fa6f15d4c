"""Nodes of one host: each a network and a mount namespace, held open by one tiny process that
outlives Sampan, joined by a switch namespace in the middle. The host's own network is not touched.

Which addresses they have is ``lib.addressing``'s. Between nodes and switch IPv6 goes by link-local
addresses: unlike ARP, neighbour discovery answers only for addresses of the link itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sampan.lib.addressing import DEFAULT, IPV4, IPV6, Addresses, Plan
from sampan.lib.datadir import started_at
from sampan.node.runtime.native import kernel
from sampan.node.runtime.native.netlink import netlink

T = TypeVar("T")
_SWITCH_END, _NODE_END = "fe80::1", "fe80::2"  # of the link between them
_IPV6 = Path("/proc/sys/net/ipv6")  # where the kernel speaks it
_THREADS = 6
_SPACES = (("mnt", kernel.CLONE_NEWNS), ("net", kernel.CLONE_NEWNET))


class NetworkFailure(OSError):
    """A node's network cannot be made; the message is for people."""


def cluster_id(root: Path) -> str:
    """Names what a cluster owns outside of its directory: its control groups."""
    return "sampan-" + hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:10]


def _kind(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class Space:
    """A node's namespaces: work given to ``run`` happens inside of them."""

    def __init__(self, name: str, index: int, pid: int) -> None:
        self.name = name
        self.index = index
        self.pid = pid
        self._threads = ThreadPoolExecutor(
            _THREADS, thread_name_prefix=f"node-{name}", initializer=self._enter
        )

    def _enter(self) -> None:
        kernel.unshare(kernel.CLONE_FS)
        kernel.enter(self.pid, _SPACES)
        os.chdir("/")

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """*work* in a thread of the node."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def close(self, *, wait: bool = False) -> None:
        self._threads.shutdown(wait=wait, cancel_futures=True)

    async def listen(self, host: str, port: int) -> socket.socket:
        """A listening socket at an address inside the node; ``::`` is every address of both
        families."""

        def make() -> socket.socket:
            sock = socket.socket(_kind(host), socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(128)
            sock.setblocking(False)
            return sock

        return await self.run(make)

    async def connect(
        self, host: str, port: int, timeout: float, *, inside: int = 0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection from inside the node, or from the network of the process *inside*. Raises
        OSError, TimeoutError."""

        def make() -> socket.socket:
            if not inside:
                return new()
            home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                kernel.enter(inside, (("net", kernel.CLONE_NEWNET),))
                try:
                    return new()
                finally:
                    kernel.setns(home, kernel.CLONE_NEWNET)
            finally:
                os.close(home)

        def new() -> socket.socket:
            sock = socket.socket(_kind(host), socket.SOCK_STREAM)
            sock.setblocking(False)
            return sock

        sock = await self.run(make)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
                return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise


class Nodes:
    """The nodes of a cluster; ``ensure`` finds those that an earlier process left."""

    def __init__(self, root: Path, plan: Plan = DEFAULT) -> None:
        self.root = root
        self.plan = plan
        self.spaces: dict[str, Space] = {}
        self._file = root / "nodes.json"
        self._state: dict[str, Any] = {"holders": {}}
        self._switch: Space | None = None
        self._plugged: set[str] = set()

    async def ensure(self, names: list[str]) -> dict[str, Space]:
        """Nodes by name, in order: the i-th has index i, from 1 on."""
        for index, name in enumerate(names, 1):
            await self.open(name, index, joined=len(names) > 1)
        return self.spaces

    async def open(self, name: str, index: int, *, joined: bool) -> Space:
        """The node *name*, made where it does not run. joined: there are other nodes; those that
        are open already can be reached from then on, too."""
        if not self.spaces:
            self.root.mkdir(parents=True, exist_ok=True)
            self._state = _read(self._file)
        pid, fresh = self._holder(name)
        space = self.spaces[name] = Space(name, index, pid)
        if fresh:
            try:
                await space.run(_prepare_node, self.plan.of, index)
            except NetworkFailure:
                raise
            except OSError as e:
                raise NetworkFailure(f"the network of node {name} cannot be made: {e}") from e
        if joined:
            await self._ensure_switch()
            for each in self.spaces.values():
                if each.name not in self._plugged:
                    await self._plug(each)
        return space

    async def end(self, name: str) -> None:
        """As if the node's power were cut: every process of it is killed at once, and its
        namespaces go with what is mounted there. Files stay, so that ``open`` and an agent bring
        it up again as after a reboot."""
        space = self.spaces.pop(name)
        held = self._state["holders"].pop(name, None)
        _write(self._file, self._state)
        await asyncio.to_thread(_end, self.root, name, held, space)
        self._plugged.discard(name)
        if self._switch is not None:
            await self._switch.run(_unplug_switch, space.index)

    def close(self) -> None:
        for space in self.spaces.values():
            space.close()
        if self._switch is not None:
            self._switch.close()

    def pids(self) -> list[int]:
        return [h["pid"] for h in self._state["holders"].values()]

    async def _ensure_switch(self) -> None:
        if self._switch is not None:
            return
        pid, fresh = self._holder("#switch")
        self._switch = Space("#switch", 0, pid)
        if fresh:
            await self._switch.run(_prepare_switch, self.plan.of)

    async def _plug(self, space: Space) -> None:
        """Join a node to the switch by a veth."""
        assert self._switch is not None
        if not await space.run(_is_plugged):
            await self._switch.run(_plug_switch, self.plan.of, space.index, space.pid)
            await space.run(_plug_node, self.plan.of, space.index)
        self._plugged.add(space.name)

    def _holder(self, name: str) -> tuple[int, bool]:
        """(pid of the process that holds the namespaces, whether it is new)."""
        held = self._state["holders"].get(name)
        if held is not None and started_at(held["pid"]) == held["ticks"]:
            return held["pid"], False
        process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "catatonit", "-P"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd="/", start_new_session=True,
        )  # fmt: skip
        _wait_for_exec(process.pid)
        ticks = started_at(process.pid)
        self._state["holders"][name] = {"pid": process.pid, "ticks": ticks}
        _write(self._file, self._state)
        return process.pid, True


def _wait_for_exec(pid: int) -> None:
    """Until *pid* has become the pause: its namespaces are made by then."""
    deadline = time.monotonic() + 5
    while not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"catatonit"):
        if time.monotonic() > deadline:
            raise OSError("a namespace holder did not start")
        time.sleep(0.0005)


def _forward(of: Sequence[Addresses]) -> None:
    """Packets are passed on. Raises NetworkFailure: the kernel does not speak the family."""
    for a in of:
        if a.family == IPV6:
            if not _IPV6.is_dir():
                raise NetworkFailure("this kernel has no IPv6 (see --ip-families)")
            # Links made from now on have their own addresses at once, too.
            kernel.write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")
            kernel.write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
        else:
            kernel.write("/proc/sys/net/ipv4/ip_forward", "1")


def _prepare_node(of: Sequence[Addresses], index: int) -> None:
    # crun refuses cgroup v1 beside an empty cgroup2; in this mount namespace only v1 is left.
    unified = Path("/sys/fs/cgroup/unified")
    if unified.is_dir() and Path("/sys/fs/cgroup/memory").is_dir():
        kernel.unmount(str(unified))
    _forward(of)
    if any(a.family == IPV4 for a in of):
        # Host ports at 127.0.0.1; the rules keep everybody else's packets out of that network.
        kernel.write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
    with netlink() as link:
        link.up("lo")
        for a in of:
            # The Service of the API is of the primary family only.
            ends = (a.dns, a.dns_end) if a is not of[0] else (a.dns, a.dns_end, a.api, a.api_end)
            for address in (a.node(index), *ends):
                link.address("lo", address)
            if a.family != IPV6:
                link.address("lo", a.gateway)  # in IPv6 each pod's link has it
            # What no pod has is not looked for elsewhere.
            link.route(a.pods_of(index), unreachable=True)
            # A process of the node may send to a Service only if there is a route: rules turn it
            # to an endpoint or refuse it on its way out (sampan.network.ruleset).
            link.route(a.services, device="lo", source=a.node(index))


def route_to_rules(source: str, add: Iterable[str], remove: Iterable[str]) -> None:
    """Let processes of the node of the calling thread send to addresses for which it has no route
    but rules, as to those of Services. source: their own address. Raises OSError."""
    bits = 128 if ":" in source else 32
    with netlink() as link:
        for address in add:
            link.route(f"{address}/{bits}", device="lo", source=source)
        for address in remove:
            link.delete_route(f"{address}/{bits}", device="lo")


def _prepare_switch(of: Sequence[Addresses]) -> None:
    _forward(of)
    with netlink() as link:
        link.up("lo")
        for a in of:
            link.address("lo", a.switch)
            link.route(a.pods, unreachable=True)


def _is_plugged() -> bool:
    return any(name == "link0" for _, name in socket.if_nameindex())


def _unplug_switch(index: int) -> None:
    with netlink() as link:
        link.delete(f"node{index}")  # it takes its routes along


def _plug_switch(of: Sequence[Addresses], index: int, pid: int) -> None:
    name = f"node{index}"
    with netlink() as link:
        link.delete(name)  # of a node that went without a word
        link.veth(name, "link0", peer_pid=pid)
        for a in of:
            own, node = a.switch, a.node(index)
            if a.family == IPV6:
                link.address(name, _SWITCH_END, 64)
                for network in (f"{node}/128", a.pods_of(index)):
                    link.route(network, device=name, via=_NODE_END, source=own)
            else:
                link.route(f"{node}/32", device=name, source=own)
                link.route(a.pods_of(index), via=node, source=own)


def _plug_node(of: Sequence[Addresses], index: int) -> None:
    with netlink() as link:
        link.up("link0")
        for a in of:
            own, via, device = a.node(index), a.switch, ""
            if a.family == IPV6:
                link.address("link0", _NODE_END, 64)
                via, device = _SWITCH_END, "link0"
            else:
                link.route(f"{via}/32", device="link0", source=own)
            for network in (a.links, a.pods):
                link.route(network, device=device, via=via, source=own)


def _read(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {"holders": {}}
    return state


def _write(path: Path, state: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(state))
    part.replace(path)


def destroy(root: Path) -> None:
    """End everything a cluster runs and remove its control groups. Mounts, links and addresses go
    with the namespaces. Idempotent; also after a kill -9. Only processes the cluster recorded, or
    that live in its control groups, are ended."""
    from sampan.node.runtime.native import cgroups

    for pid in cgroups.procs(cluster_id(root)):
        _kill(pid)
    holders = _read(root / "nodes.json")["holders"].values()
    recorded = [(h["pid"], h["ticks"]) for h in holders] + _pauses(root.glob("run/*/sandboxes/*"))
    _kill_recorded(recorded)
    _kill_monitors(root)
    _wait_until_gone(recorded)
    cgroups.remove(cluster_id(root))
    for name in ("nodes.json", "run"):
        path = root / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _end(root: Path, name: str, held: dict[str, int] | None, space: Space) -> None:
    """Kill what runs on one node; again after its threads have ended, which may have been about
    to start something."""
    from sampan.node.runtime.native import cgroups

    home = root / "run" / name
    killed: dict[int, int] = {}
    for last in (False, True):
        recorded = _pauses(home.glob("sandboxes/*"))
        if held is not None:
            recorded.append((held["pid"], held["ticks"]))
        for uid in {_sandbox(p).get("spec", {}).get("uid", "") for p in home.glob("sandboxes/*")}:
            for pid in cgroups.procs(f"{cluster_id(root)}/pod{uid}") if uid else ():
                killed[pid] = started_at(pid)
                _kill(pid)
        _kill_recorded(recorded)
        killed |= dict(recorded) | _kill_monitors(home)
        if not last:
            space.close(wait=True)
    _wait_until_gone([*killed.items()])
    for pid in killed:  # those that are our children by now would stay as zombies
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _sandbox(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return state


def _pauses(sandboxes: Iterable[Path]) -> list[tuple[int, int]]:
    found = [_sandbox(p) for p in sandboxes]
    return [(s["pid"], s["ticks"]) for s in found if int(s.get("pid", 0)) > 1]


def _kill_recorded(recorded: Iterable[tuple[int, int]]) -> None:
    for pid, ticks in recorded:
        if started_at(pid) == ticks:
            _kill(pid)


def _wait_until_gone(recorded: Sequence[tuple[int, int]]) -> None:
    deadline = time.monotonic() + 5
    while any(t and started_at(p) == t for p, t in recorded) and time.monotonic() < deadline:
        time.sleep(0.005)


def _kill_monitors(home: Path) -> dict[int, int]:
    """Monitors of containers below *home*: their command line names it. With their start times."""
    killed = {}
    marked = f"{home.resolve()}/".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"conmon" in line.split(b"\0")[0] and marked in line:
                killed[int(entry.name)] = started_at(int(entry.name))
                _kill(int(entry.name))
    return killed


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
