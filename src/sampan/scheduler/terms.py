"""Terms of pod affinity and anti-affinity: which pods, in which namespaces, by which topology."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sampan.api.obj import Body
from sampan.lib.selectors import Selector, from_label_selector

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
NamespaceLabels: TypeAlias = Callable[[str], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Term:
    """A ``PodAffinityTerm``. A term that names no namespaces means that of its own pod; weight: of
    a preferred term, negative for anti-affinity."""

    key: str
    selector: Selector
    namespaces: frozenset[str]
    namespace_selector: Selector | None
    weight: int = 0

    @staticmethod
    def of(body: Body, namespace: str, weight: int = 0) -> Term:
        names = frozenset(body.get("namespaces") or ())
        wider = body.get("namespaceSelector")
        if not names and wider is None:
            names = frozenset((namespace,))
        return Term(
            body.get("topologyKey", ""), from_label_selector(body.get("labelSelector")), names,
            None if wider is None else from_label_selector(wider), weight,
        )  # fmt: skip

    def matches(
        self, namespace: str, labels: Mapping[str, str], namespace_labels: NamespaceLabels
    ) -> bool:
        """Whether the term chooses a pod of *namespace* with *labels*."""
        if namespace not in self.namespaces:
            wider = self.namespace_selector
            if wider is None or not wider.matches(namespace_labels(namespace)):
                return False
        return self.selector.matches(labels)


@dataclass(frozen=True, slots=True)
class Terms:
    """All terms of one pod; ``preferred`` has those of affinity and anti-affinity."""

    affinity: tuple[Term, ...] = ()
    anti_affinity: tuple[Term, ...] = ()
    preferred: tuple[Term, ...] = ()

    @staticmethod
    def of(affinity: Body, namespace: str) -> Terms:
        """affinity: ``spec.affinity``."""
        near, far = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
        wished = [
            Term.of(w.get("podAffinityTerm") or {}, namespace, sign * int(w.get("weight") or 0))
            for sign, group in ((1, near), (-1, far))
            for w in group.get(_PREFERRED) or ()
        ]
        return Terms(
            tuple(Term.of(t, namespace) for t in near.get(_REQUIRED) or ()),
            tuple(Term.of(t, namespace) for t in far.get(_REQUIRED) or ()),
            tuple(wished),
        )

    def __bool__(self) -> bool:
        return bool(self.affinity or self.anti_affinity or self.preferred)
