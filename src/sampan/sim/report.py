"""What a scenario came to: a text for the terminal, a plot for a page. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from xml.sax.saxutils import escape

from sampan.sim.scenario import PHASES, Run

_COLOURS = {
    "Pending": "#f2c14e", "Running": "#4d9078", "Succeeded": "#5b8e7d55", "Failed": "#c0392b",
    "Terminating": "#8d99ae",
}  # fmt: skip
_WIDTH, _HEIGHT, _LEFT, _TOP, _FOOT = 900, 320, 48, 40, 70
_ROWS = 24


def clock(seconds: float) -> str:
    """``1:02:03``."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def text(run: Run) -> str:
    """The whole report, ending in a newline."""
    scenario = run.scenario
    lines = [
        f"{scenario.name}: {clock(scenario.duration)} on {len(scenario.nodes)} node(s), "
        f"{run.deaths} death(s) of processes, history {run.digest[:12]}",
        "",
        *_table(run),
        "",
        "EVENTS",
    ]
    for (kind, regarding, reason), count in sorted(run.events.items(), key=lambda e: (-e[1], e[0])):
        lines.append(f"  {count:6d}  {kind:8s} {regarding:20s} {reason}")
    lines += ["", "WRITES"]
    for resource, count in sorted(run.writes.items(), key=lambda w: (-w[1], w[0])):
        lines.append(f"  {count:6d}  {resource}")
    for title, found in (("BROKEN PROPERTIES", run.violations), ("NOT AS EXPECTED", run.unmet)):
        if found:
            lines += ["", title, *(f"  {line}" for line in found)]
    return "\n".join(lines) + "\n"


def _table(run: Run) -> Iterator[str]:
    """Pods by phase over time, with what was done; long runs are thinned out."""
    yield "    TIME  " + "  ".join(f"{p:>11s}" for p in PHASES)
    step = run.scenario.duration / _ROWS
    rows: list[tuple[float, str]] = [(at, f"  {clock(at):>6s}  {what}") for at, what in run.told]
    last = None
    for i in range(_ROWS + 1):
        at = i * step
        counts = counts_at(run, at)
        if counts != last:
            shown = "  ".join(f"{counts[p]:11d}" for p in PHASES)
            rows.append((at + 1e-9, f"  {clock(at):>6s}  {shown}"))
        last = counts
    yield from (line for _, line in sorted(rows, key=lambda r: r[0]))


def counts_at(run: Run, at: float) -> dict[str, int]:
    """Pods by phase at one moment."""
    counts = dict.fromkeys(PHASES, 0)
    for when, found in run.phases:
        if when > at:
            break
        counts = found
    return counts


def svg(run: Run) -> str:
    """Pods by phase over time, stacked; a line for each step of the scenario."""
    end = run.scenario.duration
    points = [(0.0, dict.fromkeys(PHASES, 0)), *run.phases]
    points.append((end, points[-1][1]))
    most = max(1, max(sum(c.values()) for _, c in points))
    width, height = _WIDTH - _LEFT - 10, _HEIGHT - _TOP - _FOOT

    def x(at: float) -> float:
        return _LEFT + width * min(at, end) / end if end else _LEFT

    def y(count: float) -> float:
        return _TOP + height * (1 - count / most)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{escape(run.scenario.name)}</text>',
    ]
    below = [0] * len(points)
    for phase in PHASES:
        above = [b + counts[phase] for b, (_, counts) in zip(below, points, strict=True)]
        if any(counts[phase] for _, counts in points):
            parts.append(_area(points, below, above, x, y, _COLOURS[phase]))
        below = above
    for i in range(5):
        count = most * i / 4
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y(count) + 4:.1f}" text-anchor="end">{count:g}</text>'
            f'<line x1="{_LEFT}" x2="{_LEFT + width}" y1="{y(count):.1f}" y2="{y(count):.1f}" '
            'stroke="#0002"/>'
        )
        at = end * i / 4
        parts.append(
            f'<text x="{x(at):.1f}" y="{_HEIGHT - _FOOT + 16}" text-anchor="middle">'
            f"{clock(at)}</text>"
        )
    for at, what in run.told:
        parts.append(
            f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{_TOP}" y2="{_TOP + height}" '
            f'stroke="#333" stroke-dasharray="3 3"><title>{clock(at)} {escape(what)}</title></line>'
        )
    for i, phase in enumerate(PHASES):
        left = _LEFT + 130 * i
        parts.append(
            f'<rect x="{left}" y="{_HEIGHT - 26}" width="12" height="12" fill="{_COLOURS[phase]}"/>'
            f'<text x="{left + 18}" y="{_HEIGHT - 16}">{phase}</text>'
        )
    return "\n".join((*parts, "</svg>\n"))


def _area(
    points: Sequence[tuple[float, object]], below: Sequence[int], above: Sequence[int],
    x: Callable[[float], float], y: Callable[[float], float], colour: str,
) -> str:  # fmt: skip
    """A band of steps: a count holds until the next one."""
    top: list[str] = []
    bottom: list[str] = []
    for i, (at, _) in enumerate(points):
        if i:
            top.append(f"{x(at):.1f},{y(above[i - 1]):.1f}")
            bottom.append(f"{x(at):.1f},{y(below[i - 1]):.1f}")
        top.append(f"{x(at):.1f},{y(above[i]):.1f}")
        bottom.append(f"{x(at):.1f},{y(below[i]):.1f}")
    return f'<polygon points="{" ".join([*top, *reversed(bottom)])}" fill="{colour}"/>'
