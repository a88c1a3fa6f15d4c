"""``sampan simulate``: read, play, report."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from sampan.sim import report, scenario


def simulate(path: Path, output: Path | None, seed: int | None) -> int:
    """The exit code: 0, 1 when it did not come out as expected, 2 when there is no scenario."""
    logging.getLogger("sampan").setLevel(logging.ERROR)  # what goes wrong here is meant to
    try:
        read = scenario.read(path)
    except (OSError, scenario.BadScenario) as e:
        why = e.strerror if isinstance(e, OSError) else str(e)
        print(f"sampan: {path}: {why}", file=sys.stderr)
        return 2
    run = scenario.play(read, seed=seed)
    told = report.text(run)
    print(told, end="")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "report.txt").write_text(told)
        (output / "pods.svg").write_text(report.svg(run))
    return 1 if run.violations or run.unmet else 0
