"""The transport of components that live in the API server's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson

from sampan.api.call import Call, Endpoint, User
from sampan.api.obj import Event, Obj, Page

_AGENTS = (
    ("system:kube-scheduler", "kube-scheduler"), ("system:kube-proxy", "kube-proxy"),
    ("system:node:", "kubelet"), ("system:kube-controller-manager", "kube-controller-manager"),
    ("system:serviceaccount:kube-system:", "kube-controller-manager"),
    ("system:apiserver", "kube-apiserver"),
)  # fmt: skip


def _agent(user: str) -> str:
    """The program that acts as *user* in other clusters: managers of fields are called so."""
    return next((agent for start, agent in _AGENTS if user.startswith(start)), "sampan")


class LocalTransport:
    """Calls an endpoint as *user*: authorized and admitted like any other, encoded by nobody.

    Events and objects are passed by reference. Bodies are copied on the way in, since the API
    server edits what it is given and callers build bodies from shared ones.
    """

    def __init__(self, endpoint: Endpoint, user: User, *, user_agent: str = "") -> None:
        self._endpoint = endpoint
        self._user = user
        self._agent = user_agent or _agent(user.name)

    async def call(self, call: Call) -> Obj | Page:
        call.user_agent = self._agent
        if call.body is not None:
            call.body = orjson.loads(orjson.dumps(call.body))
        return await self._endpoint.handle(self._user, call)

    def watch(self, call: Call) -> AsyncIterator[Event]:
        call.user_agent = self._agent
        return self._endpoint.watch(self._user, call)

    async def close(self) -> None:
        """Nothing to let go of."""
