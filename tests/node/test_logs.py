"""Reading CRI logs: tails, times, limits, pieces, following, rotation."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as hs

from sampan.api.errors import StatusError
from sampan.lib.clock import parse_rfc3339
from sampan.node import logs
from sampan.node.logs import Selection
from sampan.node.streams import select

T = "2026-01-02T03:04:{:02d}.5Z"
STAMP = "2026-01-02T03:04:{:02d}.500000000Z"


def _line(second: int, text: str, *, stream: str = "stdout", tag: str = "F") -> str:
    return f"{STAMP.format(second)} {stream} {tag} {text}\n"


def _read(path: Path, selection: Selection) -> str:
    async def body() -> bytes:
        return b"".join(
            [c async for c in logs.read(str(path), selection, is_running=lambda: False)]
        )

    return asyncio.run(body()).decode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_text(
        _line(1, "one")
        + _line(2, "bad", stream="stderr")
        + _line(3, "lo", tag="P")
        + _line(3, "ng", tag="F")
        + _line(4, "")
        + _line(5, "last")
    )
    return path


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(), "one\nbad\nlong\n\nlast\n"),
        (Selection(tail=2), "\nlast\n"),
        (Selection(tail=3), "long\n\nlast\n"),
        (Selection(tail=0), ""),
        (Selection(tail=100), "one\nbad\nlong\n\nlast\n"),
        (Selection(limit=5), "one\nb"),
        (Selection(stream="Stderr"), "bad\n"),
        (Selection(stream="Stdout", tail=1), "last\n"),
        (Selection(since=parse_rfc3339("2026-01-02T03:04:04Z") + 0.5), "\nlast\n"),
        (Selection(since=parse_rfc3339("2026-01-02T03:04:05Z") + 0.6), ""),
        (Selection(timestamps=True, tail=1), f"{STAMP.format(5)} last\n"),
    ],
)
def test_selections(log: Path, selection: Selection, wanted: str) -> None:
    assert _read(log, selection) == wanted


def test_pieces_of_a_line_have_one_time(log: Path) -> None:
    assert f"{STAMP.format(3)} long\n" in _read(log, Selection(timestamps=True))


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert _read(tmp_path / "none", Selection()) == ""


@given(hs.lists(hs.text("ab \r\t", max_size=200_000 // 8), max_size=12), hs.integers(0, 14))
def test_tail_is_the_end_of_the_whole(texts: list[str], tail: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log"
        path.write_bytes("".join(_line(1, t * 8) for t in texts).encode())
        lines = [t * 8 for t in texts][-tail:] if tail else []
        assert _read(path, Selection(tail=tail)) == "".join(f"{t}\n" for t in lines)


def test_following_sees_what_is_added_and_rotation_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    running = True

    async def body() -> str:
        nonlocal running
        got: list[bytes] = []

        async def take() -> None:
            async for chunk in logs.read(
                str(path), Selection(follow=True), is_running=lambda: running
            ):
                got.append(chunk)

        async def until(text: bytes) -> None:
            while text not in b"".join(got):
                await asyncio.sleep(0.01)

        async with asyncio.timeout(20):
            task = asyncio.create_task(take())
            await asyncio.sleep(0.05)
            path.write_text(_line(1, "first"))
            await until(b"first\n")
            with path.open("a") as file:
                file.write(_line(2, "second"))
            await until(b"second\n")
            path.rename(tmp_path / "0.log.1")
            path.write_text(_line(3, "third"))
            await until(b"third\n")
            with path.open("a") as file:
                file.write(_line(4, "fourth"))
            running = False
            await task
        return b"".join(got).decode()

    assert asyncio.run(body()) == "first\nsecond\nthird\nfourth\n"


def test_the_end_of_a_log_as_termination_message(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(_line(1, f"line {n}") for n in range(200)))
    text = logs.tail_for_message(str(path))
    assert text.startswith("line 120\n")
    assert text.endswith("line 199\n")
    assert logs.tail_for_message(str(tmp_path / "none")) == ""
    path.write_text(_line(1, "x" * 5000))
    assert len(logs.tail_for_message(str(path))) == 2048


def test_options_by_their_query_names() -> None:
    assert select({}, now=100.0) == Selection()
    assert select(
        {
            "follow": "true",
            "tailLines": "5",
            "sinceSeconds": "10",
            "timestamps": "true",
            "limitBytes": "7",
            "stream": "Stdout",
        },
        now=100.0,
    ) == Selection(follow=True, tail=5, since=90.0, timestamps=True, limit=7, stream="Stdout")
    assert select({"sinceTime": "1970-01-01T00:00:50Z"}, now=100.0).since == 50.0
    with pytest.raises(StatusError) as error:
        select({"tailLines": "x"}, now=0.0)
    assert error.value.code == 400


def test_stale_logs_are_dropped(tmp_path: Path) -> None:
    for uid in ("u1", "u2"):
        (tmp_path / f"ns_pod_{uid}").mkdir()
    logs.drop_stale_logs(tmp_path, {"u2"})
    assert [p.name for p in tmp_path.iterdir()] == ["ns_pod_u2"]
    logs.drop_stale_logs(tmp_path / "none", set())
