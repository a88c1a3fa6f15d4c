"""Transport protocols that the machine's kernel may lack: SCTP often is a module that is not there.

The rules of Services and policies are written for it all the same, and hold between pods as soon as
the kernel speaks it; whoever asks for such a port on a kernel that does not is told.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterator

from sampan.api.obj import Body

REASON = "ProtocolNotSupported"
_LACKING = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


def lacking() -> frozenset[str]:
    """Names, as the API has them, of the protocols this kernel does not speak."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError as e:
        if e.errno in _LACKING:
            return frozenset(("SCTP",))
    return frozenset()


def unspoken(pod: Body, lacking: Collection[str]) -> Iterator[str]:
    """What is told of the ports of *pod* that nothing can listen at. Pure."""
    spec = pod["spec"]
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        for port in container.get("ports") or ():
            if port.get("protocol") in lacking:
                yield (
                    f"container {container['name']}: the kernel of this node has no "
                    f"{port['protocol']}, nothing can listen at port {port['containerPort']}"
                )
