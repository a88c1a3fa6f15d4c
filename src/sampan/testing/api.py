"""An API server in memory, for tests and virtual worlds."""

from __future__ import annotations

import random

from sampan.api.call import User
from sampan.api.catalogue import builtin
from sampan.apiserver import admission
from sampan.apiserver.authz import RbacAuthorizer
from sampan.apiserver.endpoint import ApiServer
from sampan.client.base import Client
from sampan.client.local import LocalTransport
from sampan.lib.clock import Clock, RealClock
from sampan.lib.ids import Ids
from sampan.schema.walk import Schemas
from sampan.store.base import Store
from sampan.store.memory import MemoryStore

ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))


async def api_server(
    clock: Clock | None = None, *, seed: int = 0, store: Store | None = None
) -> ApiServer:
    """A bootstrapped API server with every admission plug-in, over a memory store unless given
    another."""
    authorizer = RbacAuthorizer()
    store = store or MemoryStore()
    api = ApiServer(
        registry=builtin(), schemas=Schemas.load(), store=store, clock=clock or RealClock(),
        ids=Ids(random.Random(seed)), authorizer=authorizer, admission=admission.builtin(),
    )  # fmt: skip
    await api.bootstrap()
    await authorizer.start(store)
    return api


def client_of(api: ApiServer, user: User = ADMIN) -> Client:
    """A client of *api* as *user*."""
    return Client(LocalTransport(api, user))
