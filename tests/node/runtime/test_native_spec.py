"""What an OCI configuration says of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.node.runtime.base import ContainerSpec
from sampan.node.runtime.native import spec as native


@pytest.mark.parametrize(
    ("held", "asked", "given"),
    [
        ({"CAP_SYS_RESOURCE"}, -997, -997),
        ({"CAP_SYS_RESOURCE"}, 1000, 1000),
        (set(), 1000, 1000),
        (set(), -997, None),
    ],
)
def test_a_host_that_may_not_protect_from_its_oom_killer_still_runs_pods(
    held: set[str], asked: int, given: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: what this process itself has."""
    monkeypatch.setattr(native, "host_capabilities", lambda: frozenset(held))
    native.least_oom_score.cache_clear()
    try:
        made = native.process(
            ContainerSpec(id="c", name="c", image="i", oom_score_adj=asked), {},
            native.Identity(uid=0, gid=0, groups=()), "h", ["true"], tty=False,
        )  # fmt: skip
    finally:
        native.least_oom_score.cache_clear()
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert made["oomScoreAdj"] == (own if given is None else given)


PASSWD = "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1000:\nextra:x:50000:app\n"


@pytest.mark.parametrize(("strict", "groups"), [(False, (50000, 4000)), (True, (4000,))])
def test_a_strict_policy_takes_no_groups_of_the_image(
    strict: bool, groups: tuple[int, ...]
) -> None:
    spec = ContainerSpec(
        id="c", name="c", image="i", uid=1000, gid=3000, groups=(4000,), strict_groups=strict
    )
    found = native.identify(spec, "", PASSWD, GROUP)
    assert (found.uid, found.gid, found.groups) == (1000, 3000, groups)
