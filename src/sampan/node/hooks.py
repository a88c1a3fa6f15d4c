"""Lifecycle hooks: postStart and preStop, by exec, httpGet or sleep."""

from __future__ import annotations

import asyncio

from sampan.api.obj import Body
from sampan.node.dial import DialFailure, http_get
from sampan.node.runtime.base import Runtime, RuntimeFailure

_FOREVER = 365 * 24 * 3600.0


async def run(
    runtime: Runtime,
    container: Body,
    hook: Body,
    *,
    sandbox_id: str,
    container_id: str,
    ip: str,
    timeout: float | None,
) -> str:
    """'' when it succeeded, else why not. timeout: None lets it take as long as it likes."""
    limit = _FOREVER if timeout is None else timeout
    try:
        async with asyncio.timeout(limit):
            if hook.get("exec"):
                command = hook["exec"].get("command") or []
                code, output = await runtime.exec_sync(container_id, command, limit)
                if code:
                    said = output.decode("utf-8", "replace").strip()
                    return f"command {command} exited with {code}: {said}"
            elif hook.get("httpGet"):
                await http_get(
                    runtime, sandbox_id, container, hook["httpGet"], ip=ip, timeout=min(limit, 30.0)
                )
            elif hook.get("sleep"):
                await asyncio.sleep(float(hook["sleep"].get("seconds") or 0))
            elif hook.get("tcpSocket"):
                return ""  # a field of the API that has never done anything
    except TimeoutError:
        return f"not done within {limit:g}s"
    except (DialFailure, RuntimeFailure, OSError) as failure:
        return str(failure)
    return ""
