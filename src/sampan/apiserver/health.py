"""/healthz, /livez and /readyz: named checks, one line each when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sampan.apiserver.connection import Response

Check = tuple[str, bool, str]  # name, whether it holds, why not
Checks = Callable[[], Sequence[Check]]
_PLAIN = "text/plain; charset=utf-8"
_PING: Check = ("ping", True, "")
PATHS = ("healthz", "livez", "readyz")


def health(
    path: str, ready: Checks, *, is_verbose: bool = False, exclude: Sequence[str] = ()
) -> Response | None:
    """The answer to *path* (``/readyz`` or ``/readyz/<check>``); None when there is no such one.

    ``/livez`` only says that the server answers; the others also ask *ready*.
    """
    which, _, single = path.strip("/").partition("/")
    if which not in PATHS:
        return None
    checks = [_PING] if which == "livez" else [_PING, *ready()]
    if single:
        found = [c for c in checks if c[0] == single]
        if not found:
            return None
        checks = found
    lines: list[str] = []
    holds = True
    for name, ok, why in checks:
        if name in exclude:
            lines.append(f"[+]{name} excluded: ok")
        elif ok:
            lines.append(f"[+]{name} ok")
        else:
            holds = False
            lines.append(f"[-]{name} failed: {why or 'reason withheld'}")
    unknown = [name for name in exclude if name not in {c[0] for c in checks}]
    if unknown:
        quoted = ", ".join(f'"{name}"' for name in unknown)
        lines.append(f"warn: some health checks cannot be excluded: no matches for {quoted}")
    if not holds:
        lines.append(f"{which} check failed")
        return Response(500, _text(lines), _PLAIN)
    if is_verbose:
        lines.append(f"{which} check passed")
        return Response(200, _text(lines), _PLAIN)
    return Response(200, b"ok", _PLAIN)


def _text(lines: Sequence[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
