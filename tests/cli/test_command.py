"""The command's answers to wrong input: one clear line, a code, nothing left."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sampan.cli import lifecycle, view
from sampan.cli import main as command
from sampan.lib.datadir import DataDir, started_at


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["up", "--bogus"], "unrecognized arguments: --bogus"),
        (["up", "--nodes", "0"], "between 1 and 250"),
        (["up", "--port", "70000"], "between 0 and 65535"),
        (["up", "--runtime", "docker"], "invalid choice: 'docker'"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_options_are_one_line(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(argv) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["status"],
        ["ps"],
        ["image", "ls"],
        ["image", "load", "x.tar"],
        ["node", "ls"],
        ["node", "add"],
        ["node", "stop", "x-1"],
    ],
)
def test_without_a_cluster_they_say_so(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*argv, "--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"sampan: no cluster runs at {tmp_path}")


def test_down_without_a_cluster_succeeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["down", "--data-dir", str(tmp_path / "none")]) == 0
    assert "no cluster" in capsys.readouterr().out


def test_purge_touches_no_foreign_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert command.main(["down", "--purge", "--data-dir", str(tmp_path)]) == 1
    assert "nothing was removed" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()


def test_a_missing_tool_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lifecycle.shutil, "which", lambda tool: None if tool == "conmon" else "/x")
    monkeypatch.setattr(lifecycle.os, "geteuid", lambda: 0)
    assert command.main(["up", "--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "sampan: missing: apt-get install conmon\n"


@pytest.mark.parametrize(
    ("before", "wanted", "members"),
    [
        ({}, None, [1]),
        ({}, 3, [1, 2, 3]),
        ({"nodes": 2}, None, [1, 2]),  # of a version that did not list them
        ({"nodes": 2, "members": [1, 3]}, None, [1, 3]),
        ({"nodes": 2, "members": [1, 3]}, 3, [1, 2, 3]),
        ({"nodes": 2, "members": [2, 5]}, 4, [1, 2, 3, 5]),
        ({"nodes": 3, "members": [1, 3, 4]}, 2, [1, 3]),
    ],
)
def test_which_nodes_start(before: dict[str, Any], wanted: int | None, members: list[int]) -> None:
    assert lifecycle._members(before, wanted) == members


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--ip-families", "ipv5"], "--ip-families must be ipv4, ipv6, or both"),
        (["--cluster-cidr", "10.0.0.0/24"], "has no room for 1 node(s)"),
        (["--ip-families", "ipv6", "--service-cidr", "10.0.0.0/16"], "one range of each of IPv6"),
    ],
)
def test_ranges_that_do_not_do_are_one_line(
    argv: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["up", "--runtime", "fake", "--data-dir", str(tmp_path / "new")]
    assert command.main([*where, *argv]) == 1
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("argv", "keeps"),
    [
        ([], True),
        (["--ip-families", "ipv6,ipv4"], True),
        (["--cluster-cidr", "fd01::/48,10.7.0.0/16"], True),
        (["--ip-families", "ipv4"], False),
        (["--ip-families", "ipv4,ipv6"], False),
        (["--cluster-cidr", "fd01::/48,10.8.0.0/16"], False),
        (["--service-cidr", "fd02::/112,10.9.0.0/16"], False),
    ],
)
def test_a_cluster_keeps_its_ranges(
    argv: list[str], keeps: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it is asked for is compared with what it has: one that runs, too."""
    state = {
        "name": "x", "nodes": 1, "pid": os.getpid(), "startTicks": started_at(os.getpid()),
        "server": "https://127.1.1.1:6443", "context": "x", "merge": True,
        "clusterCIDR": "fd01::/48,10.7.0.0/16", "serviceCIDR": "fd00:43::/112,10.43.0.0/16",
    }  # fmt: skip
    DataDir(tmp_path).state.write_text(json.dumps(state))
    code = command.main(["up", "--data-dir", str(tmp_path), *argv])
    out = capsys.readouterr()
    assert (code == 0) is keeps, out.err
    assert ("and keeps them" in out.err) is not keeps


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["version"]) == 0
    assert "Kubernetes v1.37" in capsys.readouterr().out


def test_a_daemon_is_known_by_pid_and_start_time(tmp_path: Path) -> None:
    place = DataDir(tmp_path)
    state = {"pid": os.getpid(), "startTicks": started_at(os.getpid())}
    place.state.write_text(json.dumps(state))
    assert place.running() == state
    place.state.write_text(json.dumps({**state, "startTicks": 1}))  # another process since
    assert place.running() is None
    place.state.write_text("{")
    assert place.running() is None


def test_addresses_of_clusters_differ(tmp_path: Path) -> None:
    addresses = {DataDir(tmp_path / str(i)).address for i in range(200)}
    assert len(addresses) > 198
    assert all(a.startswith("127.") and a != "127.0.0.1" for a in addresses)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (125, "2m"), (7300, "2h"), (200000, "2d")]
)
def test_age(seconds: float, text: str) -> None:
    assert view.age(seconds) == text


def test_table_aligns_columns() -> None:
    assert view.table([["A", "BB"], ["ccc", "d"]]) == "A     BB\nccc   d"
