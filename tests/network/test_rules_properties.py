"""However Services change, the commands turn the elements of before into those wanted."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from sampan.lib.addressing import IPV4, IPV6
from sampan.network.claims import Vip
from sampan.network.rules import PROTOCOLS, Entry, Pick, row
from sampan.network.ruleset import Table, chains

IPS = {IPV4: ("10.43.0.5", "10.44.0.2"), IPV6: ("fd00:43::5", "fd00:44::2")}
PLACES = {IPV4: "10.42.1.{}", IPV6: "fd00:42:0:1::{}"}
NETWORKS = {IPV4: ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1/32", "0.0.0.0/0"],
            IPV6: ["fd00::/8", "fd00:42::/56", "2001:db8::1/128", "::/0"]}  # fmt: skip


def _steps(family: str) -> st.SearchStrategy[list[dict[Vip, Entry | None]]]:
    vips = [(ip, p, port) for ip in IPS[family] for p in PROTOCOLS for port in (1, 2)]
    addresses = st.sampled_from([PLACES[family].format(i) for i in range(8)])
    places = st.lists(
        st.tuples(addresses, st.sampled_from([80, 81])), unique=True, min_size=1, max_size=8
    ).map(tuple)
    picks = st.builds(Pick, places, st.booleans(), st.sampled_from([0, 0, 9, 60]))
    networks = st.lists(st.sampled_from(NETWORKS[family]), max_size=3).map(tuple)
    entries = st.builds(
        Entry, st.integers(0, 4), st.none() | picks, st.none() | picks,
        st.sampled_from(["", "drop", "reject"]), networks,
    )  # fmt: skip
    return st.lists(
        st.dictionaries(st.sampled_from(vips), st.none() | entries, min_size=1),
        min_size=1, max_size=6,
    )  # fmt: skip


cases = st.sampled_from([IPV4, IPV6]).flatmap(lambda f: st.tuples(st.just(f), _steps(f)))


class Kernel:
    """The maps and chains, as strict as the real ones."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[str, str]] = {}
        self.chains: set[str] = set()
        self.memories: set[str] = set()  # maps of one Service's clients

    def run(self, text: str) -> None:
        for kind, name in re.findall(r"^    (chain|map) (\S+) \{", text, re.M):
            held = self.chains if kind == "chain" else self.memories
            assert name not in held
            held.add(name)
        for line in text.splitlines():
            words = line.split(" ", 5)
            if words[:2] == ["delete", "chain"]:
                self.chains.remove(words[4])
            if words[:2] == ["delete", "map"]:
                self.memories.remove(words[4])
                memory = words[4].partition("-")[2]
                assert not any(f"-{memory}-" in c for c in self.chains)
            if len(words) == 6 and words[1] == "element":
                held = self.maps.setdefault(words[4], {})
                for element in words[5].strip("{} ").split(", "):
                    key, _, value = element.partition(" : ")
                    if words[0] == "add":
                        assert key not in held, f"{words[4]}: {key} is there"
                        if value.startswith("goto ") and value != "goto refuse":
                            assert value[5:] in self.chains
                        held[key] = value
                    else:
                        del held[key]
        for name, held in self.maps.items():
            for value in held.values():
                if value.startswith("goto ") and value != "goto refuse":
                    assert value[5:] in self.chains, f"{name} goes to {value}, which is gone"

    def elements(self) -> dict[str, dict[str, str]]:
        return {name: held for name, held in self.maps.items() if held}


@given(cases)
def test_steps_lead_to_the_same_as_one(
    case: tuple[str, list[dict[Vip, Entry | None]]],
) -> None:
    family, changes = case
    kernel, table, wanted = Kernel(), Table(family=family), dict[Vip, Entry]()
    for step in changes:
        rows = {
            v: row(e, table.rows.get(v), table.memory(v)) if e else None for v, e in step.items()
        }
        kernel.run(table.command(rows))
        table.put(rows)
        for vip, entry in step.items():
            if entry is None:
                wanted.pop(vip, None)
            else:
                wanted[vip] = entry
    # The same rows put into an empty kernel at once: nothing is left over, nothing is missing.
    fresh, other = Kernel(), Table(family=family)
    fresh.run(other.command(table.rows))
    assert kernel.elements() == fresh.elements()
    needed = {c for r in table.rows.values() for c in chains(r)}
    memories = {c.partition("-")[2] for c in needed if c.startswith("clients-")}
    assert kernel.chains == fresh.chains == {c for c in needed if not c.startswith("clients-")}
    assert kernel.memories == fresh.memories
    assert kernel.memories == {f"{kind}-{m}" for m in memories for kind in ("clients", "ports")}
    assert {*table.rows} == {*wanted}
    assert (Table(table.rows).uses, Table(table.rows).ips) == (table.uses, table.ips)
    for vip, entry in wanted.items():
        _holds(kernel, vip, entry)


def _holds(kernel: Kernel, vip: Vip, entry: Entry) -> None:
    """The packet's path through the maps leads where *entry* says."""
    key = f"{vip[0]} . {PROTOCOLS[vip[1]]} . {vip[2]}"
    for pick, verdicts, targets in (
        (entry.pick, "services", "endpoints"), (entry.inside, "inside", "inside-endpoints"),
    ):  # fmt: skip
        verdict = kernel.maps.get(verdicts, {}).get(key)
        assert (verdict is None) == (pick is None)
        if pick is None or verdict is None:
            continue
        n = int(verdict.rsplit("-", 1)[1])
        slot = f"{PROTOCOLS[vip[1]]} . {vip[0]} . {vip[2]}"
        reached = [kernel.maps[targets][f"{slot} . {i}"] for i in range(n)]
        assert sorted(reached) == sorted(f"{a} . {p}" for a, p in pick.endpoints)
        assert f"{slot} . {n}" not in kernel.maps[targets]
        affine = "affine-" in verdict or "sticky-" in verdict
        assert ("masq-" in verdict, affine) == (pick.masquerade, bool(pick.affinity))
    refused = kernel.maps.get("refused", {}).get(key)
    assert refused == {"": None, "drop": "drop", "reject": "goto refuse"}[entry.refuse]
    assert (key in kernel.maps.get("restricted", {})) == bool(entry.sources)
    assert (vip[0] in kernel.maps.get("cluster-ips", {})) or entry.rank != 0
