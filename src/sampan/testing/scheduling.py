"""A plain scheduler to check the fast one against: every rule asked of every node, nothing kept.

Each function reads the API's words as they stand, over plain objects: ``nodes``, and ``placed``
pods with their ``spec.nodeName``. No code is shared with ``sampan.scheduler`` but the reading of
quantities, selectors, tolerations and node affinity, which have tests of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sampan.api.obj import Body, Obj
from sampan.control.placement import covered, repels, selects, term_test
from sampan.lib.quantity import quantity
from sampan.lib.selectors import from_label_selector

HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_CORDON = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class PlainCluster:
    """namespaces: labels by name."""

    nodes: Sequence[Obj]
    placed: Sequence[Obj]
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def on(self, node: Obj) -> list[Obj]:
        return [p for p in self.placed if p.spec.get("nodeName") == node.name]

    def beside(self, node: Obj, key: str) -> list[Obj]:
        """Pods in the node's domain of *key*."""
        names = {n.name for n in self.nodes if n.labels.get(key, 0) == node.labels.get(key, 1)}
        return [p for p in self.placed if p.spec.get("nodeName") in names]


# -- requests ----------------------------------------------------------------------------------


def _amount(name: str, value: Any) -> int:
    return quantity(value).millis if name == "cpu" else quantity(value).whole


def needs(pod: Obj, name: str, missing: int = 0) -> int:
    """What a pod requests of one resource; missing: for a container that says nothing."""

    def of(container: Body) -> int:
        given = (container.get("resources") or {}).get("requests") or {}
        return _amount(name, given[name]) if name in given else missing

    spec = pod.spec
    running = sum(of(c) for c in spec.get("containers") or ())
    sidecars, peak = 0, 0
    for c in spec.get("initContainers") or ():
        if c.get("restartPolicy") == "Always":
            sidecars += of(c)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + of(c))
    total = max(running + sidecars, peak)
    whole = (spec.get("resources") or {}).get("requests") or {}
    if name in whole and name in ("cpu", "memory"):
        total = _amount(name, whole[name])
    over = spec.get("overhead") or {}
    return total + (_amount(name, over[name]) if name in over else 0)


def has(node: Obj, name: str) -> int:
    given = node.status.get("allocatable") or {}
    return _amount(name, given[name]) if name in given else 0


def _resources(pod: Obj, node: Obj, cluster: PlainCluster) -> tuple[str, ...]:
    there = cluster.on(node)
    found = []
    if len(there) + 1 > has(node, "pods"):
        found.append("Too many pods")
    named: dict[str, None] = {}
    for c in (*(pod.spec.get("containers") or ()), *(pod.spec.get("initContainers") or ())):
        named |= dict.fromkeys((c.get("resources") or {}).get("requests") or {})
    named |= dict.fromkeys(pod.spec.get("overhead") or {})
    named |= dict.fromkeys((pod.spec.get("resources") or {}).get("requests") or {})
    for name in named:
        wanted = needs(pod, name)
        if wanted and wanted + sum(needs(p, name) for p in there) > has(node, name):
            found.append(f"Insufficient {name}")
    return tuple(found)


# -- other pods --------------------------------------------------------------------------------


def chooses(term: Body, of: Obj, other: Obj, cluster: PlainCluster) -> bool:
    """Whether an affinity term of pod *of* chooses pod *other*."""
    names = list(term.get("namespaces") or ())
    wider = term.get("namespaceSelector")
    if not names and wider is None:
        names = [of.namespace]
    labels = cluster.namespaces.get(other.namespace, {})
    if other.namespace not in names and not (
        wider is not None and from_label_selector(wider).matches(labels)
    ):
        return False
    return from_label_selector(term.get("labelSelector")).matches(other.labels)


def terms(pod: Obj, kind: str, strength: str = _REQUIRED) -> list[Body]:
    """kind: podAffinity or podAntiAffinity."""
    found: list[Body] = ((pod.spec.get("affinity") or {}).get(kind) or {}).get(strength) or []
    return found


def _affinity(pod: Obj, node: Obj, cluster: PlainCluster) -> str:
    wanted = terms(pod, "podAffinity")

    def kin(other: Obj) -> bool:
        return all(chooses(t, pod, other, cluster) for t in wanted)

    if wanted:
        if any(t["topologyKey"] not in node.labels for t in wanted):
            return "node(s) didn't match pod affinity rules"
        is_met = all(any(kin(p) for p in cluster.beside(node, t["topologyKey"])) for t in wanted)
        exists = any(
            kin(p) for n in cluster.nodes for t in wanted if t["topologyKey"] in n.labels
            for p in cluster.on(n)
        )  # fmt: skip
        if not is_met and (exists or not kin(pod)):
            return "node(s) didn't match pod affinity rules"
    for term in terms(pod, "podAntiAffinity"):
        others = cluster.beside(node, term["topologyKey"])
        if any(chooses(term, pod, p, cluster) for p in others):
            return "node(s) didn't match pod anti-affinity rules"
    for other in cluster.placed:
        for term in terms(other, "podAntiAffinity"):
            if other in cluster.beside(node, term["topologyKey"]):
                if chooses(term, other, pod, cluster):
                    return "node(s) didn't satisfy existing pods anti-affinity rules"
    return ""


# -- spreading ---------------------------------------------------------------------------------


def constraints(pod: Obj, action: str) -> list[Body]:
    return [
        c for c in pod.spec.get("topologySpreadConstraints") or ()
        if c["whenUnsatisfiable"] == action
    ]  # fmt: skip


def _is_counted(pod: Obj, node: Obj, constraint: Body, needed: Sequence[str]) -> bool:
    if any(key not in node.labels for key in needed):
        return False
    if constraint.get("nodeAffinityPolicy", "Honor") == "Honor" and not selects(pod.spec, node):
        return False
    honours = constraint.get("nodeTaintsPolicy", "Ignore") == "Honor"
    return not (honours and repels(pod.spec.get("tolerations") or (), node))


def is_selected(pod: Obj, constraint: Body, other: Obj) -> bool:
    """Whether *other* counts for a spread constraint of *pod*."""
    same = all(
        other.labels.get(k) == pod.labels[k]
        for k in constraint.get("matchLabelKeys") or ()
        if k in pod.labels
    )
    selector = from_label_selector(constraint.get("labelSelector"))
    return (
        same and other.namespace == pod.namespace and not other.is_deleting
        and selector.matches(other.labels)
    )  # fmt: skip


def figures(
    pod: Obj, constraint: Body, cluster: PlainCluster, needed: Sequence[str]
) -> dict[str, int]:
    """Pods a constraint counts, by domain."""
    found: dict[str, int] = {}
    key = constraint["topologyKey"]
    for node in cluster.nodes:
        if key in node.labels and _is_counted(pod, node, constraint, needed):
            count = sum(is_selected(pod, constraint, p) for p in cluster.on(node))
            found[node.labels[key]] = found.get(node.labels[key], 0) + count
    return found


def _spread(pod: Obj, node: Obj, cluster: PlainCluster) -> str:
    text = "node(s) didn't match pod topology spread constraints"
    rules = constraints(pod, "DoNotSchedule")
    needed = [c["topologyKey"] for c in rules]
    for rule in rules:
        if rule["topologyKey"] not in node.labels:
            return f"{text} (missing required label)"
        found = figures(pod, rule, cluster, needed)
        least = 0 if len(found) < rule.get("minDomains", 1) else min(found.values())
        count = found.get(node.labels[rule["topologyKey"]], 0)
        itself = Obj.of(pod.key, {**pod.body, "spec": pod.spec})
        own = int(is_selected(pod, {**rule}, itself)) if not pod.is_deleting else 0
        if count + own - least > rule["maxSkew"]:
            return text
    return ""


# -- all filters -------------------------------------------------------------------------------


def reasons(pod: Obj, node: Obj, cluster: PlainCluster) -> tuple[str, ...]:
    """Why *pod* does not fit on *node*: the words of the first plug-in that says no."""
    spec, tolerations = pod.spec, pod.spec.get("tolerations") or ()
    if node.spec.get("unschedulable") and not covered(tolerations, _CORDON):
        return ("node(s) were unschedulable",)
    if repels(tolerations, node):
        return ("node(s) had untolerated taint(s)",)
    if not selects(spec, node):
        return ("node(s) didn't match Pod's node affinity/selector",)
    mine = _ports(pod)
    for other in cluster.on(node):
        for a in mine:
            for b in _ports(other):
                if a[1:] == b[1:] and ("0.0.0.0" in (a[0], b[0]) or a[0] == b[0]):
                    return ("node(s) didn't have free ports for the requested pod ports",)
    lacking = _resources(pod, node, cluster)
    if lacking:
        return lacking
    told = _spread(pod, node, cluster) or _affinity(pod, node, cluster)
    return (told,) if told else ()


def _ports(pod: Obj) -> list[tuple[str, str, int]]:
    return [
        (p.get("hostIP") or "0.0.0.0", p.get("protocol", "TCP"), p["hostPort"])
        for c in (*(pod.spec.get("containers") or ()), *(
            c for c in pod.spec.get("initContainers") or () if c.get("restartPolicy") == "Always"
        ))
        for p in c.get("ports") or () if p.get("hostPort")
    ]  # fmt: skip


# -- all scores --------------------------------------------------------------------------------


def points(pod: Obj, fitting: Sequence[Obj], cluster: PlainCluster) -> dict[str, int]:
    """Of every node that fits, by Kubernetes' default scores and weights."""
    total = dict.fromkeys((n.name for n in fitting), 0)
    spread = _spread_points(pod, fitting, cluster)
    soft = [_soft_taints(pod, n) for n in fitting]
    liked = [_liked(pod, n) for n in fitting]
    near = [_near(pod, n, cluster) for n in fitting]
    for i, node in enumerate(fitting):
        total[node.name] += 3 * (100 - 100 * soft[i] // max(soft) if max(soft) else 100)
        total[node.name] += 2 * (100 * liked[i] // max(liked) if max(liked) else 0)
        width = max(near) - min(near)
        total[node.name] += 2 * (int(100 * (near[i] - min(near)) / width) if width else 0)
        total[node.name] += 2 * spread[i]
        total[node.name] += _emptiness(pod, node, cluster) + _balance(pod, node, cluster)
        total[node.name] += _images(pod, node, cluster)
    return total


def _held_images(node: Obj) -> dict[str, int]:
    return {n: i["sizeBytes"] for i in node.status.get("images") or () for n in i["names"]}


def _images(pod: Obj, node: Obj, cluster: PlainCluster) -> int:
    """Images that are there already, by size and by how many nodes have them."""
    megabyte = 1024 * 1024
    wanted = [
        c["image"] if ":" in c["image"].split("/")[-1] else c["image"] + ":latest"
        for c in (*(pod.spec.get("initContainers") or ()), *pod.spec["containers"])
    ]
    total = 0
    for image in wanted:
        having = sum(image in _held_images(n) for n in cluster.nodes)
        if image in _held_images(node):
            total += int(_held_images(node)[image] * (having / len(cluster.nodes)))
    least, most = 23 * megabyte, 1000 * megabyte * len(wanted)
    return 100 * (min(max(total, least), most) - least) // (most - least)


def _soft_taints(pod: Obj, node: Obj) -> int:
    return sum(
        t.get("effect") == "PreferNoSchedule" and not covered(pod.spec.get("tolerations") or (), t)
        for t in node.spec.get("taints") or ()
    )


def _liked(pod: Obj, node: Obj) -> int:
    affinity = (pod.spec.get("affinity") or {}).get("nodeAffinity") or {}
    return sum(
        p["weight"] for p in affinity.get(_PREFERRED) or () if term_test(p["preference"])(node)
    )


def _near(pod: Obj, node: Obj, cluster: PlainCluster) -> int:
    total = 0

    def wishes(of: Obj) -> list[tuple[int, Body]]:
        return [
            (sign * w["weight"], w["podAffinityTerm"])
            for sign, kind in ((1, "podAffinity"), (-1, "podAntiAffinity"))
            for w in terms(of, kind, _PREFERRED)
        ]

    for weight, term in wishes(pod):
        for other in cluster.beside(node, term["topologyKey"]):
            total += weight * chooses(term, pod, other, cluster)
    for other in cluster.placed:
        asked = [*wishes(other), *((1, t) for t in terms(other, "podAffinity"))]
        for weight, term in asked:
            if other in cluster.beside(node, term["topologyKey"]):
                total += weight * chooses(term, other, pod, cluster)
    return total


def _spread_points(pod: Obj, fitting: Sequence[Obj], cluster: PlainCluster) -> list[int]:
    wishes = constraints(pod, "ScheduleAnyway")
    if not wishes:
        return [0] * len(fitting)
    needed = [c["topologyKey"] for c in wishes]
    told = [n for n in fitting if all(k in n.labels for k in needed)]
    raw: dict[str, int] = {}
    for node in told:
        total = 0.0
        for wish in wishes:
            key = wish["topologyKey"]
            if key == HOSTNAME:
                size = len(told)
                count = sum(is_selected(pod, wish, p) for p in cluster.beside(node, key))
            else:
                size = len({n.labels[key] for n in told})
                count = figures(pod, wish, cluster, needed).get(node.labels[key], 0)
            total += count * math.log(size + 2) + wish["maxSkew"] - 1
        raw[node.name] = int(total + 0.5)
    least, most = min(raw.values(), default=0), max(raw.values(), default=0)
    return [
        0 if n.name not in raw else (100 * (most + least - raw[n.name]) // most if most else 100)
        for n in fitting
    ]


def _emptiness(pod: Obj, node: Obj, cluster: PlainCluster) -> int:
    parts = []
    for name, missing in (("cpu", 100), ("memory", 200 << 20)):
        have = has(node, name)
        if have:
            used = sum(needs(p, name, missing) for p in (*cluster.on(node), pod))
            parts.append(max(0, have - used) * 100 // have)
    return sum(parts) // len(parts) if parts else 0


def _balance(pod: Obj, node: Obj, cluster: PlainCluster) -> int:
    if not any(needs(pod, name) for name in ("cpu", "memory")):
        return 0

    def even(pods: Sequence[Obj]) -> int:
        parts = [
            min(1.0, sum(needs(p, name) for p in pods) / has(node, name))
            for name in ("cpu", "memory") if has(node, name)
        ]  # fmt: skip
        return int((1 - abs(parts[0] - parts[1]) / 2) * 100) if len(parts) == 2 else 100

    there = cluster.on(node)
    return 50 + int((50 + even([*there, pod]) - even(there)) / 2)
