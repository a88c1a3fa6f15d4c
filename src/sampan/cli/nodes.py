"""``sampan node ls|add|stop|start|rm``: nodes that come and go while the cluster runs."""

from __future__ import annotations

import argparse
import json

from sampan.cli import view
from sampan.cli.control import Failed, ask
from sampan.cli.lifecycle import place
from sampan.lib.datadir import DataDir


def _running(args: argparse.Namespace) -> DataDir:
    where = place(args)
    if where.running() is None:
        raise Failed(f"no cluster runs at {where.root} (start one: sampan up)")
    return where


def ls(args: argparse.Namespace) -> int:
    found = ask(_running(args).socket, "status")["nodes"]
    print(json.dumps(found, indent=2) if args.output == "json" else view.nodes(found))
    return 0


def add(args: argparse.Namespace) -> int:
    for name in ask(_running(args).socket, "node", verb="add", count=args.count):
        print(f"node {name} added")
    return 0


def stop(args: argparse.Namespace) -> int:
    return _each(args, "stop", "stopped")


def start(args: argparse.Namespace) -> int:
    return _each(args, "start", "started")


def remove(args: argparse.Namespace) -> int:
    return _each(args, "rm", "removed", purge=args.purge)


def _each(args: argparse.Namespace, verb: str, done: str, **more: bool) -> int:
    where = _running(args)
    for name in args.node:
        ask(where.socket, "node", verb=verb, name=name, **more)
        print(f"node {name} {done}")
    return 0
