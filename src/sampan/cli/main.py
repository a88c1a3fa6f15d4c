"""The ``sampan`` command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sampan import __version__
from sampan.cli import lifecycle, nodes, view
from sampan.cli.control import Failed, ask
from sampan.lib.datadir import DataDir

_NAME = "sampan"


class _Parser(argparse.ArgumentParser):
    """One clear line instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise Failed(f"{message} (see '{self.prog} --help')", code=2)


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 250:
        raise argparse.ArgumentTypeError("between 1 and 250")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("between 0 and 65535")
    return value


Simulate = Callable[[Path, Path | None, int | None], int]  # scenario, output, seed -> exit code


def parser(simulate: Simulate | None = None) -> argparse.ArgumentParser:
    root = _Parser(prog="sampan", description="Kubernetes, whole, in one small program.")
    commands = root.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )

    def command(name: str, help: str, run: Callable[[argparse.Namespace], int]) -> _Parser:
        p: _Parser = commands.add_parser(name, help=help, description=help)
        p.set_defaults(run=run)
        _place_options(p)
        return p

    up = command("up", "start a cluster, and return when it is ready", lifecycle.up)
    up.add_argument("--nodes", type=_count, default=None, metavar="N", help="nodes (default 1)")
    up.add_argument("--port", type=_port, default=None, help="of the API (default 6443, 0 any)")
    up.add_argument("--runtime", choices=("native", "fake"), default=None, help="default native")
    up.add_argument(
        "--no-uplink", action="store_true", help="pods get no way out of the host (the only mode)"
    )
    up.add_argument(
        "--ip-families", metavar="F[,F]", help="ipv4, ipv6, or both, the primary one first"
    )
    up.add_argument("--cluster-cidr", metavar="CIDR[,CIDR]", help="of pods, one of each family")
    up.add_argument("--service-cidr", metavar="CIDR[,CIDR]", help="of Services, likewise")
    up.add_argument("--kubeconfig", type=Path, help="write it here; leave the user's own alone")
    up.add_argument(
        "--scheduler-config", type=Path, metavar="FILE",
        help="a KubeSchedulerConfiguration (profiles, plug-ins, scores); kept from then on",
    )  # fmt: skip
    up.add_argument("--foreground", action="store_true", help="stay; Ctrl-C takes it down")
    up.add_argument("--demo", action="store_true", help="load stand-in images, run a demo")
    down = command("down", "stop the cluster and every container", lifecycle.down)
    down.add_argument("--purge", action="store_true", help="remove its data too")
    for name, help, run in (
        ("status", "components, nodes, addresses, processes", _status),
        ("ps", "containers, their pauses, process ids and namespaces", _ps),
    ):
        p = command(name, help, run)
        p.add_argument("-o", "--output", choices=("text", "json"), default="text")

    image = commands.add_parser("image", help="load, list and remove images")
    verbs = image.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    load = verbs.add_parser("load", help="load OCI or docker archives")
    load.add_argument("archive", nargs="+", type=Path)
    load.set_defaults(run=_image_load)
    ls = verbs.add_parser("ls", help="list images")
    ls.add_argument("-o", "--output", choices=("text", "json"), default="text")
    ls.set_defaults(run=_image_ls)
    rm = verbs.add_parser("rm", help="remove images")
    rm.add_argument("image", nargs="+")
    rm.set_defaults(run=_image_rm)
    for p in (load, ls, rm):
        _place_options(p)
    _nodes(commands)
    _snapshots(commands)
    if simulate is not None:
        told = "play a scenario in virtual time, and report what happened"
        sim = commands.add_parser("simulate", help=told, description=told)
        sim.add_argument("scenario", type=Path, metavar="SCENARIO.yaml")
        sim.add_argument("--output", type=Path, metavar="DIR", help="write report.txt, pods.svg")
        sim.add_argument("--seed", type=int, help="instead of the scenario's own")
        sim.set_defaults(run=lambda args: simulate(args.scenario, args.output, args.seed))
    commands.add_parser("version", help="print the version").set_defaults(run=_version)
    return root


def _nodes(commands: argparse._SubParsersAction[_Parser]) -> None:
    group = commands.add_parser("node", help="list, add, stop, start and remove nodes")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    ls = verbs.add_parser("ls", help="list nodes")
    ls.add_argument("-o", "--output", choices=("text", "json"), default="text")
    ls.set_defaults(run=nodes.ls)
    add = verbs.add_parser("add", help="one node more")
    add.add_argument("--count", type=_count, default=1, metavar="N", help="or N (default 1)")
    add.set_defaults(run=nodes.add)
    stop = verbs.add_parser("stop", help="as if their power were cut; their volumes stay")
    start = verbs.add_parser("start", help="bring stopped nodes up again")
    rm = verbs.add_parser("rm", help="remove nodes for good")
    rm.add_argument("--purge", action="store_true", help="with the volumes that are on them")
    for p, run in ((stop, nodes.stop), (start, nodes.start), (rm, nodes.remove)):
        p.add_argument("node", nargs="+", metavar="NODE")
        p.set_defaults(run=run)
    for p in (ls, add, stop, start, rm):
        _place_options(p)


def _snapshots(commands: argparse._SubParsersAction[_Parser]) -> None:
    group = commands.add_parser("snapshot", help="save and restore a whole cluster")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    save = verbs.add_parser("save", help="all objects, keys and settings in one file; it may run")
    save.add_argument("file", nargs="?", type=Path, help="default CLUSTER-TIME.snapshot")
    save.add_argument("--volumes", action="store_true", help="local volumes too")
    save.set_defaults(run=_late("save"))
    restore = verbs.add_parser("restore", help="into a new data directory (then: sampan up)")
    restore.add_argument("file", type=Path)
    restore.set_defaults(run=_late("restore"))
    ls = verbs.add_parser("ls", help="what is in snapshots")
    ls.add_argument("path", nargs="*", type=Path, help="files or directories (default .)")
    ls.add_argument("-o", "--output", choices=("text", "json"), default="text")
    ls.set_defaults(run=_late("ls"))
    for p in (save, restore):
        _place_options(p)


def _late(verb: str) -> Callable[[argparse.Namespace], int]:
    """A verb of ``snapshot``: its modules are loaded when it is used."""

    def run(args: argparse.Namespace) -> int:
        from sampan.cli import snapshot

        verbs = {"save": snapshot.save, "restore": snapshot.restore, "ls": snapshot.ls}
        return verbs[verb](args)

    return run


def _place_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--name", help=f"of the cluster (default {_NAME})")
    p.add_argument("--data-dir", type=Path, help="where it keeps everything")


def _place(args: argparse.Namespace) -> DataDir:
    return lifecycle.place(args)


def _running(args: argparse.Namespace) -> DataDir:
    place = _place(args)
    if place.running() is None:
        raise Failed(f"no cluster runs at {place.root} (start one: sampan up)")
    return place


def _status(args: argparse.Namespace) -> int:
    info = ask(_running(args).socket, "status")
    print(json.dumps(info, indent=2) if args.output == "json" else view.status(info))
    return 0 if info["state"] == "Ready" else 1


def _ps(args: argparse.Namespace) -> int:
    rows = ask(_running(args).socket, "ps")
    print(json.dumps(rows, indent=2) if args.output == "json" else view.containers(rows))
    return 0


def _image_load(args: argparse.Namespace) -> int:
    place = _running(args)
    for archive in args.archive:
        if not archive.is_file():
            raise Failed(f"{archive} is not a file")
        for image in ask(place.socket, "image-load", path=str(archive.resolve())):
            print(f"loaded {', '.join(image['tags']) or image['id']}")
    return 0


def _image_ls(args: argparse.Namespace) -> int:
    rows = ask(_running(args).socket, "image-ls")
    print(json.dumps(rows, indent=2) if args.output == "json" else view.images(rows))
    return 0


def _image_rm(args: argparse.Namespace) -> int:
    place = _running(args)
    for image in args.image:
        ask(place.socket, "image-rm", image=image)
        print(f"removed {image}")
    return 0


def _version(_args: argparse.Namespace) -> int:
    print(f"sampan {__version__} (Kubernetes v1.37)")
    return 0


def main(argv: Sequence[str], *, simulate: Simulate | None = None) -> int:
    """Run one command; the exit code. Problems are one line on stderr."""
    try:
        args = parser(simulate).parse_args(argv)
        return int(args.run(args))
    except Failed as e:
        print(f"sampan: {e}", file=sys.stderr)
        return e.code
    except KeyboardInterrupt:
        return 130
