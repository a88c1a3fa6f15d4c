"""The ConfigMap by which other API servers know this one: whose client certificates name users, and
who may name them in headers (kubernetes.io, Configure the Aggregation Layer)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from sampan.api.obj import Body, Key, Obj
from sampan.control.plan import Action, Caches, Create, Trigger, Update

NAME, NAMESPACE = "extension-apiserver-authentication", "kube-system"
_KEY = Key("configmaps", NAMESPACE, NAME)


class AuthenticationTrust:
    """Keeps *data* there; what somebody adds beside it stays."""

    name = "cluster-authentication-trust-controller"
    workers = 1

    def __init__(self, data: Mapping[str, str]) -> None:
        self._data = dict(data)
        self.triggers = (
            Trigger("configmaps", lambda o, _c: (_KEY,) if o.key == _KEY else ()),
            Trigger("namespaces", lambda o, _c: (_KEY,) if o.name == NAMESPACE else ()),
        )
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def observe(self, key: Key, caches: Caches) -> tuple[Body | None] | None:
        if caches["namespaces"].get("", NAMESPACE) is None:
            return None
        held = caches["configmaps"].get(NAMESPACE, NAME)
        return (held.body if held is not None else None,)

    def plan(self, view: tuple[Body | None], now: float) -> Sequence[Action]:
        (held,) = view
        if held is None:
            meta = {"name": NAME, "namespace": NAMESPACE}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": self._data}
            return [Create("configmaps", body)]
        data = {**(held.get("data") or {}), **self._data}
        return [] if data == held.get("data") else [Update("configmaps", {**held, "data": data})]
