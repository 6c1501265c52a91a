"""Histories as syncs leave them: schedules, weekdays, trends, failures and retries; with an anomaly, or with none."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import attrs

from jobhistory import JobStatus, SyncJob
from jobhistory.health import WINDOW
from jobhistory.signals import SignalKind
from tests.workers import CONNECTION

HOUR, DAY = 3600.0, 86400.0
BEGUN = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday


@attrs.frozen(kw_only=True)
class Sync:
    """How a connection is synced; seconds, and standard deviations of logarithms."""

    schedule: str
    gap: float
    jitter: float
    seconds: float
    seconds_vary: float
    inserted: float
    inserted_vary: float
    weekend: float
    monday: float
    trend: float
    failing: float
    retries: bool
    reports: str
    nightly: float

    @classmethod
    def drawn(cls, dice: random.Random, kind: SignalKind | None) -> Sync:
        """One of those that the anomaly can befall."""
        regular = {"hourly": HOUR, "quarterly": 6 * HOUR, "daily": DAY, "weekdays": DAY, "weekly": 7 * DAY}
        others = {"office hours": HOUR, "at random": 4 * HOUR}
        schedules = regular if kind is SignalKind.OVERDUE else regular | others
        schedule = dice.choice(list(schedules))
        gap = schedules[schedule]
        idle = kind is not SignalKind.FEW and dice.random() < 0.2
        return cls(
            schedule=schedule,
            gap=gap,
            jitter=0 if schedule == "at random" else dice.uniform(0, 0.05) * gap,
            seconds=10 ** dice.uniform(0.7, math.log10(min(gap / 10, 2 * HOUR))),
            seconds_vary=dice.uniform(0.1, 0.4),
            inserted=0.3 if idle else 10 ** dice.uniform(2 if kind is SignalKind.FEW else 0, 4.5),
            inserted_vary=dice.uniform(0.15, 0.5),
            weekend=dice.choice([1, dice.uniform(0.2, 1)]),
            monday=dice.choice([1, dice.uniform(1, 3)]),
            trend=dice.uniform(-0.002, 0.008),
            failing=dice.choice([0, dice.uniform(0, 0.1)]),
            retries=dice.random() < 0.5,
            reports="on" if kind is SignalKind.STALLED else dice.choice(["on", "on", "at the end", "never"]),
            nightly=dice.uniform(5, 20) if schedule == "hourly" and dice.random() < 0.2 else 1,
        )

    def run(self, at: float, n: int, dice: random.Random) -> Run:
        """Its n-th run."""
        day = at % (7 * DAY) // DAY
        scale = (1 + self.trend) ** n * (self.weekend if day >= 5 else self.monday if day == 0 else 1)
        if n == 0:
            scale *= dice.uniform(3, 30)  # the first one takes all there is
        if at % DAY < HOUR:
            scale *= self.nightly
        return Run(
            at,
            self.seconds * scale * math.exp(dice.gauss(0, self.seconds_vary)),
            round(self.inserted * scale * math.exp(dice.gauss(0, self.inserted_vary))),
            succeeds=True,
            quiet_end=dice.uniform(0, 0.2),
        )

    def following(self, at: float, dice: random.Random) -> float:
        """When it is due after the run that was due then, in seconds since BEGUN."""
        if self.schedule == "at random":
            return at + dice.expovariate(1 / self.gap)
        at += self.gap
        if self.schedule == "office hours" and at % DAY > 17 * HOUR:
            at += 15 * HOUR
        if self.schedule in ("office hours", "weekdays") and at % (7 * DAY) >= 5 * DAY:
            at += 2 * DAY
        return at


@attrs.define
class Run:
    """A run as it will have been; seconds since BEGUN."""

    at: float
    seconds: float
    inserted: int
    succeeds: bool
    quiet_end: float
    """For how much of it, at its end, the counters stand still."""

    @property
    def ends(self) -> float:
        return self.at + 1 + self.seconds

    def seen(self, now: float, sync: Sync) -> SyncJob:
        """Its job, as it stands at that time."""
        started, ended = self.at + 1, self.ends
        seen_at = min(ended, now)
        progress = ended - self.seconds * self.quiet_end if sync.reports == "on" else ended
        running = ended > now
        ending = JobStatus.COMPLETED if self.succeeds else JobStatus.FAILED
        return SyncJob(
            id=UUID(int=round(self.at * 1000)),
            source_connection_id=CONNECTION,
            status=JobStatus.RUNNING if running else ending,
            created_at=_moment(self.at),
            started_at=_moment(started),
            completed_at=None if running else _moment(ended),
            duration_seconds=None if running else self.seconds,
            entities_inserted=self.inserted,
            error=None if running or self.succeeds else "TimeoutError: the source did not answer",
            heartbeat_at=_moment(max(started, seen_at - 10)),
            progress_at=None
            if sync.reports == "never" or (running and sync.reports != "on")
            else _moment(min(progress, seen_at)),
        )


@attrs.frozen
class Generated:
    """A connection's jobs, newest first, the time at which they are looked at, and what was planted."""

    jobs: list[SyncJob]
    now: datetime
    kind: SignalKind | None
    sync: Sync


def generated(seed: str, kind: SignalKind | None) -> Generated:
    """A history with an anomaly of that kind in the end, or with none."""
    dice = random.Random(seed)  # noqa: S311  a history is drawn from its seed
    sync = Sync.drawn(dice, kind)
    count = dice.randrange(25 if kind else 1, 100)
    due = 8 * HOUR + dice.uniform(0, HOUR)
    runs: list[Run] = []
    while True:
        run = sync.run(due + dice.uniform(0, sync.jitter), len(runs), dice)
        last = len(runs) >= count
        run.succeeds = last or dice.random() >= sync.failing
        runs.append(run)
        if not run.succeeds and sync.retries:
            runs.append(sync.run(run.ends + dice.uniform(60, 600), len(runs), dice))
        following = sync.following(due, dice)
        if last:
            break
        if dice.random() < 0.01:  # it was odd before
            run.seconds *= dice.uniform(3, 8)
            run.inserted = round(run.inserted * dice.random())
            following += sync.gap * dice.randrange(3)
        due = following
    now = dice.uniform(run.at, max(following, run.at + 1))
    match kind:
        case SignalKind.SLOW:
            run.seconds *= dice.uniform(4, 8)
            now = run.ends + dice.uniform(-0.05, 0.5) * run.seconds
        case SignalKind.FEW:
            run.inserted = round(run.inserted * dice.uniform(0, 0.1))
            now = run.ends + 60
        case SignalKind.OVERDUE:
            now = following + sync.gap * dice.uniform(1, 4)
        case SignalKind.STALLED:
            moved, quiet = run.seconds * dice.random(), max(600, run.seconds * dice.uniform(3, 8))
            run.seconds, run.quiet_end = moved + quiet, quiet / (moved + quiet)
            now = run.ends - 1
    jobs = [each.seen(now, sync) for each in reversed(runs)]
    return Generated(jobs[:WINDOW], _moment(now), kind, sync)


def _moment(seconds: float) -> datetime:
    return BEGUN + timedelta(seconds=seconds)
