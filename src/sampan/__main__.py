"""``python -m sampan`` and the ``sampan`` command."""

from __future__ import annotations

import gc
import sys
from pathlib import Path


def main() -> int:
    """The command line; ``serve`` and ``cleanup`` are for the command itself to call."""
    argv = sys.argv[1:]
    if argv[:1] == ["serve"]:
        gc.disable()  # what a start makes lives on: collected and frozen once it is ready
        from sampan.app.daemon import serve

        return serve(argv[1])
    if argv[:1] == ["cleanup"]:
        from sampan.app.daemon import cleanup

        return cleanup(argv[1])
    from sampan.cli.main import main as command

    return command(argv, simulate=_simulate)


def _simulate(path: Path, output: Path | None, seed: int | None) -> int:
    """``sampan simulate``: worlds lie above the command, so that it is given them from here."""
    from sampan.sim.play import simulate

    return simulate(path, output, seed)


if __name__ == "__main__":
    sys.exit(main())
