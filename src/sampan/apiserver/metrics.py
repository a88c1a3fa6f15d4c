"""Counters, gauges and histograms, and their text in Prometheus' exposition format."""

from __future__ import annotations

import os
import resource
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

_SECONDS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30,
    45, 60,
)  # fmt: skip


class Counter:
    """A number that only grows, one for each combination of label values."""

    kind = "counter"

    def __init__(self, name: str, about: str, labels: Sequence[str] = ()) -> None:
        self.name, self.about, self.labels = name, about, tuple(labels)
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + by

    def lines(self) -> list[str]:
        return [
            f"{self.name}{_labels(self.labels, values)} {_number(v)}"
            for values, v in sorted(self.values.items())
        ]


class Gauge:
    """Numbers read when they are asked for. read: label values -> number."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        about: str,
        read: Callable[[], Mapping[tuple[str, ...], float]],
        labels: Sequence[str] = (),
        kind: str = "gauge",
    ) -> None:
        self.name, self.about, self.labels, self.kind = name, about, tuple(labels), kind
        self._read = read

    def lines(self) -> list[str]:
        return [
            f"{self.name}{_labels(self.labels, values)} {_number(v)}"
            for values, v in sorted(self._read().items())
        ]


class Histogram:
    """How often values fell below each bound, with their sum and count."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        about: str,
        labels: Sequence[str] = (),
        bounds: Sequence[float] = _SECONDS,
    ) -> None:
        self.name, self.about, self.labels = name, about, tuple(labels)
        self.bounds = tuple(bounds)
        self.values: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def observe(self, value: float, *labels: str) -> None:
        found = self.values.get(labels)
        if found is None:
            found = self.values[labels] = ([0] * (len(self.bounds) + 1), [0.0])
        found[0][bisect_left(self.bounds, value)] += 1
        found[1][0] += value

    def lines(self) -> list[str]:
        out: list[str] = []
        names = (*self.labels, "le")
        for values, (counts, total) in sorted(self.values.items()):
            seen = 0
            for bound, count in zip((*self.bounds, float("inf")), counts, strict=True):
                seen += count
                le = "+Inf" if bound == float("inf") else _number(bound)
                out.append(f"{self.name}_bucket{_labels(names, (*values, le))} {seen}")
            plain = _labels(self.labels, values)
            out.append(f"{self.name}_sum{plain} {_number(total[0])}")
            out.append(f"{self.name}_count{plain} {seen}")
        return out


M = TypeVar("M", Counter, Gauge, Histogram)


class Metrics:
    """The server's own numbers; ``add`` takes more from elsewhere."""

    def __init__(self, *, started: float = 0.0) -> None:
        self._all: list[Counter | Gauge | Histogram] = []
        self.requests = self.add(
            Counter(
                "apiserver_request_total",
                "Requests by verb, resource and answer.",
                (
                    "verb", "dry_run", "group", "version", "resource", "subresource", "scope",
                    "component", "code",
                ),
            )
        )  # fmt: skip
        self.seconds = self.add(
            Histogram(
                "apiserver_request_duration_seconds",
                "How long requests other than watches took.",
                ("verb", "group", "version", "resource", "subresource", "scope", "component"),
            )
        )
        self.watches = 0
        self.add(
            Gauge(
                "apiserver_longrunning_requests",
                "Watches, logs and sessions open now.",
                lambda: {(): float(self.watches)},
            )
        )
        for name, about, kind, read in (
            ("process_cpu_seconds_total", "User and system time spent.", "counter", _cpu),
            ("process_resident_memory_bytes", "Memory held.", "gauge", _memory),
            ("process_open_fds", "Open file descriptors.", "gauge", _descriptors),
            ("process_start_time_seconds", "When it started.", "gauge", lambda: started),
        ):
            self.add(Gauge(name, about, _single(read), kind=kind))

    def add(self, metric: M) -> M:
        self._all.append(metric)
        return metric

    def render(self) -> bytes:
        out: list[str] = []
        for metric in self._all:
            lines = metric.lines()
            if lines:
                out.append(f"# HELP {metric.name} {metric.about}")
                out.append(f"# TYPE {metric.name} {metric.kind}")
                out += lines
        return ("\n".join(out) + "\n").encode()


def _single(read: Callable[[], float]) -> Callable[[], Mapping[tuple[str, ...], float]]:
    return lambda: {(): read()}


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = (f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _memory() -> float:
    try:
        return float(
            int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        )
    except (OSError, IndexError, ValueError):
        return 0.0


def _descriptors() -> float:
    try:
        return float(len(os.listdir("/proc/self/fd")))
    except OSError:
        return 0.0
