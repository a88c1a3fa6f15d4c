"""How ``sampan`` prints what the daemon tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[Sequence[object]]) -> str:
    """Columns aligned as kubectl does, three spaces apart."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in texts) for i in range(len(texts[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in texts
    )


def age(seconds: float) -> str:
    """Roughly how long, as in kubectl's AGE."""
    s = max(0, int(seconds))
    if s < 120:
        return f"{s}s"
    if s < 7200:
        return f"{s // 60}m"
    return f"{s // 3600}h" if s < 172800 else f"{s // 86400}d"


def size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f}{unit}" if unit == "B" else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f}GB"


def status(info: dict[str, Any]) -> str:
    head = [
        ("cluster", info["name"]),
        ("state", info["state"]),
        ("server", info["server"]),
        ("kubeconfig", info["kubeconfig"]),
        ("data", info["dataDir"]),
        ("runtime", info["runtime"]),
        ("age", age(info["age"])),
    ]
    lines = [f"{k + ':':<12}{v}" for k, v in head]
    components = [["COMPONENT", "STATE", "AGE", "MESSAGE"]]
    for c in info["components"]:
        components.append([c["name"], c["state"], age(c["age"]), c.get("message", "")])
    return "\n".join([*lines, "", table(components), "", nodes(info["nodes"])])


def nodes(found: list[dict[str, Any]]) -> str:
    rows: list[list[object]] = [["NODE", "STATE", "ADDRESS", "PODS", "PID"]]
    for n in found:
        rows.append([n["name"], n["state"], n["address"], n["podCIDR"], n["pid"] or "-"])
    return table(rows)


def containers(rows: list[dict[str, Any]]) -> str:
    kinds = ("net", "ipc", "pid", "mnt", "uts")
    out: list[list[object]] = [
        ["NODE", "NAMESPACE", "POD", "CONTAINER", "STATE", "PID", *(k.upper() for k in kinds)]
    ]
    for r in rows:
        spaces = [r["namespaces"].get(k, "-") for k in kinds]
        out.append([r["node"], r["namespace"], r["pod"], r["container"], r["state"],
                    r["pid"] or "-", *spaces])  # fmt: skip
    return table(out)


def images(rows: list[dict[str, Any]]) -> str:
    out: list[list[object]] = [["IMAGE", "ID", "SIZE"]]
    for r in rows:
        for tag in r["tags"] or ["<none>"]:
            out.append([tag, r["id"].removeprefix("sha256:")[:12], size(r["size"])])
    return table(out)
