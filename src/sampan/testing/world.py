"""The world of flow tests: ``sampan.sim.world``, and a second control plane over its store."""

from __future__ import annotations

from sampan.app.control_plane import ControlPlane
from sampan.sim.world import World, world

__all__ = ["World", "takeover", "world"]


async def takeover(w: World) -> ControlPlane:
    """Stop the controllers and the scheduler of *w*; those of the plane returned go on."""
    await w.plane.scheduler.stop()
    await w.plane.engine.stop()
    await w.plane.api.stop()
    plane = w.plane = w.new_plane()
    await plane.start_api()
    await plane.start_control()
    return plane
