"""ImageLocality: nodes that have a pod's images already, by size, less for what few nodes have."""

from __future__ import annotations

from typing import ClassVar

from sampan.api.obj import Body, Obj
from sampan.scheduler.framework import SKIP, NodeInfo, PodInfo, Scoring, Skip, View

_MB = 1 << 20
_LEAST, _MOST_EACH = 23 * _MB, 1000 * _MB


def normal_name(image: str) -> str:
    """With the tag a runtime would take."""
    return image if image.rfind(":") > image.rfind("/") else f"{image}:latest"


def sizes(node: Obj) -> dict[str, int]:
    return {
        name: int(image.get("sizeBytes") or 0)
        for image in node.status.get("images") or ()
        for name in image.get("names") or ()
    }


class ImageLocality:
    name: ClassVar[str] = "ImageLocality"
    weight: ClassVar[int] = 1

    def prepare_score(self, pod: PodInfo, view: View) -> Scoring | Skip:
        spec = pod.spec
        containers: list[Body] = [
            *(spec.get("initContainers") or ()), *(spec.get("containers") or ()),
        ]  # fmt: skip
        wanted = [normal_name(c.get("image") or "") for c in containers]
        if not wanted:
            return SKIP
        limit = _MOST_EACH * len(wanted)
        spread = _spread(wanted, view)

        def score(node: NodeInfo) -> int:
            if not spread:
                return 0
            held = sizes(node.obj)
            total = sum(int(held[w] * spread[w]) for w in wanted if w in held and w in spread)
            total = min(max(total, _LEAST), limit)
            return 100 * (total - _LEAST) // (limit - _LEAST)

        return Scoring(score, static=True, current=lambda: _spread(wanted, view) == spread)


def _spread(wanted: list[str], view: View) -> dict[str, float]:
    """The part of all nodes that has each image; images nobody has are left out."""
    nodes = len(view.nodes)
    return {w: view.images[w] / nodes for w in wanted if w in view.images}
