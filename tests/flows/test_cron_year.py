"""A year of CronJobs in a whole cluster, in virtual time and in seconds: every job of it runs its
pod on a node, and what was due by the clocks of its zone is what was made."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from sampan.api.obj import Body
from sampan.apiserver.pages import obj_of
from sampan.controllers.cronjob import SCHEDULED
from sampan.lib import cron
from sampan.lib.loop import START, run_virtual
from sampan.store.base import Change
from sampan.testing.world import World, world

JOBS, CRONS = "jobs.batch", "cronjobs.batch"
YEAR = 366 * 86400.0
PACE = 6 * 360.0  # a sign of life of a node every six hours
KEPT = ("nightly", "30 2 * * *", "Europe/Berlin"), ("weekly", "@weekly", "Australia/Lord_Howe")


def cron_job(name: str, schedule: str, zone: str, **spec: Any) -> Body:
    container = {"name": "c", "image": "v1", "env": [{"name": "SAMPAN_FAKE", "value": "run=20"}]}
    pod = {"restartPolicy": "Never", "containers": [container]}
    template = {"spec": {"template": {"spec": pod}}}
    when = {"schedule": schedule, "timeZone": zone}
    return {"metadata": {"name": name}, "spec": {**when, "jobTemplate": template, **spec}}


class Ledger:
    """What became of the jobs, by the store's changes: few are there at a time."""

    def __init__(self, w: World) -> None:
        self.due: dict[str, list[str]] = {}  # CronJob -> local times, as they were made
        self.complete: dict[str, set[str]] = {}
        self.most = 0
        self._there: set[str] = set()
        w.store.observers.append(self._see)

    def _see(self, changes: Any) -> None:
        for change in changes:
            if change.key.startswith(f"{JOBS}/"):
                self._job(change)

    def _job(self, change: Change) -> None:
        if change.record is None:
            self._there.discard(change.key)
            return
        job = obj_of(change.record)
        owner = job.name.rsplit("-", 1)[0]
        if change.previous is None:
            self.due.setdefault(owner, []).append(job.annotations[SCHEDULED])
        self._there.add(change.key)
        self.most = max(self.most, len(self._there))
        if int(job.status.get("succeeded") or 0) == 1:
            self.complete.setdefault(owner, set()).add(job.name)


@pytest.mark.deep
def test_a_year_of_hours() -> None:
    async def main() -> Ledger:
        async with world(nodes=1, pace=PACE) as w:
            ledger = Ledger(w)
            await w.client.create(
                CRONS, cron_job("hourly", "@hourly", "Australia/Sydney"), "default"
            )
            await asyncio.sleep(YEAR)
            return ledger

    ledger = run_virtual(main())
    assert len(ledger.due["hourly"]) == len(ledger.complete["hourly"]) == 366 * 24
    assert len(set(ledger.due["hourly"])) == 366 * 24


def test_a_year_of_nights_and_weeks_in_zones_that_change_their_clocks() -> None:
    async def main() -> Ledger:
        async with world(nodes=1, pace=PACE) as w:
            ledger = Ledger(w)
            for kept in KEPT:
                body = cron_job(*kept, successfulJobsHistoryLimit=2)
                await w.client.create(CRONS, body, "default")
            await asyncio.sleep(YEAR)
            node = await w.client.get("nodes", "n1")
            ready = {c["type"]: c["status"] for c in node.status["conditions"]}["Ready"]
            assert ready == "True" and not node.spec.get("taints")
            return ledger

    ledger = run_virtual(main())
    for name, schedule, zone in KEPT:
        wanted = [
            datetime.fromtimestamp(t, cron.zone(zone)).isoformat()
            for t in cron.times(cron.parse(schedule, zone), START, START + YEAR)
        ]
        assert ledger.due[name] == wanted
        assert len(ledger.complete[name]) == len(wanted)
    nights = [t[:10] for t in ledger.due["nightly"]]
    assert len(nights) == 366 and "2024-03-31" not in nights
    assert [n for n in nights if nights.count(n) == 2] == ["2024-10-27"] * 2
    # As upstream counts days, two weeks have none: see the table of tests/lib/test_cron_year.py.
    assert len(ledger.due["weekly"]) == 50
    assert ledger.most <= 6  # the history limits are kept all year
