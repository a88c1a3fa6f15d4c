"""Every active namespace has its ``default`` service account."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sampan.api.obj import Key, Obj
from sampan.control.plan import Action, Caches, Create, Trigger, own

_NAME = "default"


def namespace_of(obj: Obj, _caches: Caches) -> Iterable[Key]:
    """Wakes the namespace an object lives in."""
    yield Key("namespaces", "", obj.namespace)


def is_active(namespace: Obj | None) -> bool:
    return namespace is not None and not namespace.is_deleting


class ServiceAccountController:
    """Makes the account where it is missing."""

    name = "service-account-controller"
    workers = 1

    def __init__(self) -> None:
        self.triggers = (own("namespaces"), Trigger("serviceaccounts", namespace_of))
        self.indexes: dict[str, dict[str, Callable[[Obj], Iterable[str]]]] = {}

    def observe(self, key: Key, caches: Caches) -> str | None:
        """The namespace's name where the account is missing."""
        if not is_active(caches["namespaces"].get("", key.name)):
            return None
        return None if caches["serviceaccounts"].get(key.name, _NAME) else key.name

    def plan(self, view: str, now: float) -> Sequence[Action]:
        meta = {"name": _NAME, "namespace": view}
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
        return [Create("serviceaccounts", body)]
