"""Resources: what a pod requests must be left on its node."""

from __future__ import annotations

from sampan.scheduler.framework import NodeInfo, PodInfo, Reject, Verdict

_SCORED = ("cpu", "memory")
_DEFAULTS = {"cpu": 100, "memory": 200 << 20}  # what a pod without requests is taken to use


class Fit:
    """The first resource that lacks is told; the pod count first, as upstream."""

    def filter(self, pod: PodInfo, node: NodeInfo) -> Verdict:
        limit = node.allocatable.get("pods")
        if limit is not None and len(node.pods) + 1 > limit:
            return Reject("Too many pods", curable=True)
        for name, wanted in pod.requests.items():
            if wanted <= 0:
                continue
            have = node.allocatable.get(name, 0)
            if node.requested.get(name, 0) + wanted > have:
                return Reject(f"Insufficient {name}", curable=wanted <= have)
        return None


def _shares(pod: PodInfo, node: NodeInfo) -> list[float]:
    """Of CPU and memory, the part that is in use once the pod is there."""
    found = []
    for name in _SCORED:
        have = node.allocatable.get(name, 0)
        if have:
            default = _DEFAULTS[name]
            used = sum(p.requests.get(name) or default for p in node.pods.values())
            found.append(min(1.0, (used + (pod.requests.get(name) or default)) / have))
    return found


class LeastAllocated:
    """Emptier nodes are better."""

    weight = 1

    def score(self, pod: PodInfo, node: NodeInfo) -> float:
        shares = _shares(pod, node)
        return 100.0 * (1 - sum(shares) / len(shares)) if shares else 0.0


class Balanced:
    """Nodes whose resources are used evenly are better."""

    weight = 1

    def score(self, pod: PodInfo, node: NodeInfo) -> float:
        shares = _shares(pod, node)
        return 100.0 * (1 - abs(shares[0] - shares[1]) / 2) if len(shares) == 2 else 100.0
