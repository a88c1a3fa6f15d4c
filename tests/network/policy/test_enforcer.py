"""The part that follows the API: when kernels are told, what a new pod waits for, what fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.api.call import User
from sampan.api.obj import Body
from sampan.client.base import Client
from sampan.network.nft import Nft, NftError
from sampan.network.policy.enforcer import Enforcer, NodePolicies
from sampan.network.policy.rules import Facts
from sampan.testing.api import api_server, client_of

GROUPS = ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")
USER = User("system:serviceaccount:kube-system:network-policy-controller", GROUPS)
POLICIES = "networkpolicies.networking.k8s.io"


class Kernel:
    """Stands in for a node and its nftables: notes what it is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.told: list[str] = []
        self.fails = 0
        self.blocked: asyncio.Event | None = None

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        if work is Nft:
            return Handle()
        if not args:
            return work()
        (commands,) = args
        if self.blocked is not None:
            await self.blocked.wait()
        if self.fails:
            self.fails -= 1
            raise NftError("no")
        self.told.append(commands)
        return ""


class Handle:
    """Knows of no table."""

    def run(self, commands: str) -> str:
        raise NftError("No such file or directory")

    def close(self) -> None:
        """As the real one."""


class Setting:
    def __init__(self, admin: Client, enforcer: Enforcer, kernels: list[Kernel]) -> None:
        self.admin, self.enforcer, self.kernels = admin, enforcer, kernels

    async def until(self, check: Callable[[], Any], seconds: float = 20.0) -> float:
        """How long it took, in turns of a millisecond: others on the machine do not count. (What
        real packets meet, in real time: tests/network/test_how_soon.py.)"""
        turns = 0
        async with asyncio.timeout(seconds):
            while not check():
                await asyncio.sleep(0.001)
                turns += 1
        return turns * 0.001

    def said(self, node: int, words: str) -> bool:
        return any(words in text for text in self.kernels[node].told)

    async def pod(self, name: str, node: str, ip: str = "", **meta: Any) -> str:
        body: Body = {
            "metadata": {"name": name, **meta},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
        }
        made = await self.admin.create("pods", body, "default")
        if ip:
            status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}
            await self.admin.patch("pods", name, {"status": status}, "default",
                                   subresource="status")  # fmt: skip
        return made.uid

    async def deny(self, name: str = "deny", **spec: Any) -> None:
        body = {"metadata": {"name": name}, "spec": {"podSelector": {}, **spec}}
        await self.admin.create(POLICIES, body, "default")
        await self.until(lambda: any(p.name == name for p in self.enforcer.view().policies))


def run(scenario: Callable[[Setting], Awaitable[None]]) -> None:
    async def main() -> None:
        api = await api_server()
        admin = client_of(api)
        await admin.create("serviceaccounts", {"metadata": {"name": "default"}}, "default")
        kernels = [Kernel("n1"), Kernel("n2")]
        nodes = [NodePolicies(k, Facts(k.name, ("10.44.0.2",))) for k in kernels]
        enforcer = Enforcer(client_of(api, USER), nodes)
        await enforcer.start()
        try:
            await scenario(Setting(admin, enforcer, kernels))
        finally:
            await enforcer.stop()

    asyncio.run(main())


def test_every_node_begins_with_a_table() -> None:
    async def scenario(s: Setting) -> None:
        assert [len(k.told) for k in s.kernels] == [1, 1]
        assert s.said(0, "hook forward priority 0") and s.said(1, "hook input")
        await s.pod("p", "n1", "10.42.1.2")
        await asyncio.sleep(0.05)
        assert [len(k.told) for k in s.kernels] == [1, 1]  # without policies there is nothing to do

    run(scenario)


def test_a_node_that_comes_later_and_goes() -> None:
    async def scenario(s: Setting) -> None:
        await s.pod("p", "n3", "10.42.3.2")
        await s.deny()
        late = Kernel("n3")
        await s.enforcer.add(NodePolicies(late, Facts("n3", ("10.44.0.4",))))
        assert "10.42.3.2" in late.told[0] and not s.said(0, "10.42.3.2")
        await s.pod("q", "n3", "10.42.3.9")
        await s.until(lambda: "10.42.3.9" in late.told[-1])
        s.enforcer.remove("n3")
        told = len(late.told)
        await s.pod("r", "n3", "10.42.3.10")
        await s.pod("o", "n1", "10.42.1.10")
        await s.until(lambda: s.said(0, "10.42.1.10"))
        assert len(late.told) == told

    run(scenario)


def test_a_change_is_there_within_a_tenth_of_a_second() -> None:
    async def scenario(s: Setting) -> None:
        await s.pod("p", "n1", "10.42.1.2")
        await s.deny(ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "x"}}}]}])
        assert await s.until(lambda: s.said(0, "ingress { 10.42.1.2 : goto c-")) < 0.1
        assert not s.said(1, "10.42.1.2")
        await s.pod("q", "n2", "10.42.2.7", labels={"app": "x"})
        assert await s.until(lambda: "10.42.2.7 }" in s.kernels[0].told[-1]) < 0.1
        await s.admin.patch("pods", "q", {"metadata": {"labels": {"app": "y"}}}, "default")
        await s.until(lambda: s.kernels[0].told[-1].startswith("delete element"))
        await s.admin.delete(POLICIES, "deny", "default")
        await s.until(lambda: "delete chain" in s.kernels[0].told[-1])

    run(scenario)


def test_a_new_pod_waits_for_its_rules() -> None:
    """Known by the address its node gave it, before any status tells it."""

    async def scenario(s: Setting) -> None:
        await s.deny()
        uid = await s.pod("p", "n1")
        kernel = s.kernels[0]
        kernel.blocked = asyncio.Event()
        guarded = asyncio.create_task(s.enforcer.guard("default", "p", uid, ["10.42.1.9"]))
        await asyncio.sleep(0.05)
        assert not guarded.done()
        kernel.blocked.set()
        await guarded
        assert s.said(0, "ingress { 10.42.1.9 : goto c-")

    run(scenario)


def test_a_pod_that_is_not_known_yet_is_waited_for() -> None:
    async def scenario(s: Setting) -> None:
        await s.deny()
        uid = await s.pod("late", "n1")
        await s.enforcer.guard("default", "late", uid, ["10.42.1.9"])
        assert s.said(0, "10.42.1.9 : goto")

    run(scenario)


def test_where_no_policy_is_nobody_waits() -> None:
    async def scenario(s: Setting) -> None:
        for kernel in s.kernels:
            kernel.blocked = asyncio.Event()  # who waits, waits for ever
        async with asyncio.timeout(0.9):  # a pod that must be known would be waited for for longer
            await s.enforcer.guard("default", "unknown", "u", ["10.42.1.9"])
        for kernel in s.kernels:
            kernel.blocked.set()

    run(scenario)


def test_an_address_given_anew_is_the_new_pods() -> None:
    async def scenario(s: Setting) -> None:
        old = await s.pod("old", "n1", "10.42.1.9", labels={"app": "x"})
        uid = await s.pod("new", "n1")
        await s.deny()
        await s.until(lambda: len(s.enforcer.view().pods) == 2)
        await s.enforcer.guard("default", "new", uid, ["10.42.1.9"])
        ips = {p.name: p.ips for p in s.enforcer.view().pods}
        assert ips == {"old": (), "new": ("10.42.1.9",)}
        # A second sandbox of the same pod has another address.
        await s.enforcer.guard("default", "new", uid, ["10.42.1.10", "fd00::10"])
        ips = {p.name: p.ips for p in s.enforcer.view().pods}
        assert ips["new"] == ("10.42.1.10", "fd00::10")
        await s.admin.delete("pods", "new", "default", grace=0)
        await s.until(lambda: not s.enforcer._claims)
        assert old

    run(scenario)


def test_a_kernel_that_refuses_is_told_everything_again() -> None:
    async def scenario(s: Setting) -> None:
        await s.pod("p", "n1", "10.42.1.2")
        s.kernels[0].fails = 2
        await s.deny()
        await s.until(lambda: s.said(0, "10.42.1.2 : goto"))
        assert "delete table inet sampan-policy" in s.kernels[0].told[-1]

    run(scenario)


def test_a_pod_whose_rules_cannot_be_set_is_not_let_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampan.network.policy.enforcer._PATIENCE", 0.1)

    async def scenario(s: Setting) -> None:
        await s.deny()
        uid = await s.pod("p", "n1")
        s.kernels[0].fails = 1000
        with pytest.raises(TimeoutError):
            await s.enforcer.guard("default", "p", uid, ["10.42.1.9"])

    run(scenario)
