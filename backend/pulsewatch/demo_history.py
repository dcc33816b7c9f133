"""The demo's history and its future: which events arrive when. Pure, and the same for the same seed and anchor.

Runs are made up by pipeline and UTC day, each day from random numbers of its own: so any stretch of time can be told
without telling what was before, by the loader that fills the past and by the feeder that goes on from there.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

from pulsewatch.demo_cast import Client, Ids, Pipeline, Telling, cast
from pulsewatch.demo_story import (
    LONGEST_DAYS,
    Incident,
    Trouble,
    failure,
    incidents_of_client,
    incidents_of_pipeline,
)
from pulsewatch.events import Parent, RunEvent, Status
from pulsewatch.schedules import NAMED, UNIT_S
from pulsewatch.submissions import CatalogStatement

DAY = timedelta(days=1)
HISTORY_DAYS = 60
# A run ends, and the last of its events has arrived, within so many days of its slot.
REACH_DAYS = 2

MISSING = 0.003
LATE = 0.008
DIED_SILENTLY = 0.0006
CANCELLED = 0.0015
NOTHING_TO_DO = 0.02
SENT_TWICE = 0.012
SENT_LATE = 0.004
RETRY_FAILS = 0.4
LONGEST_S = 12 * 3600.0


class Delivery(NamedTuple):
    """An event and when it reaches PulseWatch, which may be long after it happened."""

    arrives_at: datetime
    event: RunEvent


@dataclass(frozen=True, slots=True)
class History:
    """The story of one demo. `anchor` is the moment of its first start: before it lies the past, after it the feed."""

    seed: int
    anchor: datetime
    pipelines: tuple[Pipeline, ...]
    days: int = HISTORY_DAYS

    @classmethod
    def of(cls, seed: int, anchor: datetime, days: int = HISTORY_DAYS) -> "History":
        return cls(seed, anchor, cast(seed), days)

    @property
    def begins_at(self) -> datetime:
        """The first midnight (UTC) that is told of."""
        return midnight(self.anchor) - self.days * DAY

    def statements(self) -> Iterator[CatalogStatement]:
        """What the clients say about themselves and their pipelines, before the first run."""
        said = {pipeline.client.slug: pipeline.client for pipeline in self.pipelines}
        for client in said.values():
            yield CatalogStatement(client.slug, {"title": client.title}, self.begins_at)
        for pipeline in self.pipelines:
            yield CatalogStatement(pipeline.client.slug, settings_of(pipeline), self.begin_of(pipeline), pipeline.name)

    def begin_of(self, pipeline: Pipeline) -> datetime:
        """The first midnight (UTC) from which on the pipeline runs."""
        if pipeline.young_days is None:
            return self.begins_at
        return max(self.begins_at, midnight(self.anchor) - pipeline.young_days * DAY)

    def deliveries(self, pipelines: tuple[Pipeline, ...], after: datetime, until: datetime) -> list[Delivery]:
        """What arrives of these pipelines in (after, until], in the order of arrival."""
        first = max(midnight(after) - REACH_DAYS * DAY, self.begins_at)
        found = [
            delivery
            for pipeline in pipelines
            for number in range((midnight(until) - first) // DAY + 1)
            for delivery in self.of_day(pipeline, first + number * DAY)
            if after < delivery.arrives_at <= until
        ]
        found.sort(key=_arrival)
        return found

    def of_day(self, pipeline: Pipeline, day: datetime) -> Iterator[Delivery]:
        """All deliveries of the runs whose slots lie on the UTC day."""
        number = (day.date() - self.anchor.date()).days
        if day < self.begin_of(pipeline):
            return
        rng = Random(f"{self.seed}/{pipeline.client.slug}/{pipeline.name}/{number}")  # noqa: S311 - a story
        incidents = self._incidents(pipeline, day)
        for slot_at in slots(pipeline, day):
            around = tuple(incident for incident in incidents if incident.covers(slot_at))
            age = number / self.days  # -1 at the beginning of the history, 0 at the anchor
            yield from _arrivals(_Run(pipeline, slot_at, age, around, rng).events(), around, rng)

    def _incidents(self, pipeline: Pipeline, day: datetime) -> list[Incident]:
        """The incidents that may cover a part of the day: those that begin on it or began shortly before."""
        slug, trade, name = pipeline.client.slug, pipeline.trade.name, pipeline.name
        found: list[Incident] = []
        for back in range(LONGEST_DAYS + 1):
            begun_on = day - back * DAY
            found += incidents_of_client(self.seed, self.anchor, slug, begun_on)
            found += incidents_of_pipeline(self.seed, self.anchor, slug, trade, name, begun_on)
        return found


def _arrival(delivery: Delivery) -> datetime:
    return delivery.arrives_at


def midnight(at: datetime) -> datetime:
    """The beginning of the UTC day."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def settings_of(pipeline: Pipeline) -> dict[str, Any]:
    """What a pipeline event says of it, in the form of `catalog.validate_pipeline_changes`."""
    return {
        "title": pipeline.title,
        "schedule": pipeline.schedule,
        "timezone": pipeline.client.zone,
        "start_grace_s": pipeline.start_grace_s,
        "max_runtime_s": pipeline.trade.max_runtime_s,
        "tags": sorted(pipeline.trade.tags),
        "owner": pipeline.owner,
        "environment": pipeline.environment,
    }


def slots(pipeline: Pipeline, day: datetime) -> Iterator[datetime]:
    """The starts that the schedule expects on the UTC day, in UTC."""
    if pipeline.schedule.startswith("every"):
        number, unit = pipeline.schedule[6:-1], pipeline.schedule[-1]
        step = timedelta(seconds=int(number) * UNIT_S[unit])
        at = day
        while at < day + DAY:
            yield at
            at += step
        return
    cron = NAMED.get(pipeline.schedule, pipeline.schedule)
    for local in CronSim(cron, (day - timedelta(minutes=1)).astimezone(ZoneInfo(pipeline.client.zone))):
        at = local.astimezone(UTC)
        if at >= day + DAY:
            return
        yield at


@lru_cache(maxsize=50_000)
def busyness(client: Client, slot_at: datetime) -> float:
    """How much there is to do, 1 on average on a weekday: less or more on weekends, and by the hour of the day."""
    local = slot_at.astimezone(ZoneInfo(client.zone))
    of_day = 1 + 0.45 * math.sin((local.hour + local.minute / 60 - 8) * math.pi / 12)
    return of_day * (client.weekend if local.weekday() >= 5 else 1)


def external_id(client: Client, pipeline: str, slot_at: datetime) -> str:
    """What the client's scheduler calls the run of this slot."""
    if client.ids is Ids.AIRFLOW:
        return f"scheduled__{slot_at.isoformat()}"
    if client.ids is Ids.COUNTER:
        return f"{pipeline}#{int(slot_at.timestamp()) // 60 - 28_000_000}"
    digest = blake2b(f"{client.slug}/{pipeline}/{slot_at}".encode(), digest_size=10).hexdigest()
    ms = f"{int(slot_at.timestamp() * 1000):012x}"
    return f"{ms[:8]}-{ms[8:]}-7{digest[:3]}-8{digest[4:7]}-{digest[8:20]}"


def _arrivals(events: Iterator[RunEvent], around: tuple[Incident, ...], rng: Random) -> Iterator[Delivery]:
    """When the events arrive: mostly within seconds, some late or twice, and all at its end after an offline time."""
    back_online_at = max((one.ends_at for one in around if one.trouble is Trouble.OFFLINE), default=None)
    random = rng.random
    for event in events:
        arrives_at = event.occurred_at + _seconds(random() * 2)
        if back_online_at is not None and arrives_at < back_online_at:
            arrives_at = back_online_at + _seconds(random() * 90)
        elif random() < SENT_LATE:
            arrives_at += _seconds(60 + random() * 2400)
        yield Delivery(arrives_at, event)
        if random() < SENT_TWICE:
            yield Delivery(arrives_at + _seconds(5 + random() * 60), event)


def _seconds(seconds: float) -> timedelta:
    """To the millisecond, as schedulers write times."""
    return timedelta(0, 0, 0, int(seconds * 1000))


class _Run:
    """One slot of a pipeline and what came of it. Times within it are seconds after the slot."""

    def __init__(
        self, pipeline: Pipeline, slot_at: datetime, age: float, around: tuple[Incident, ...], rng: Random
    ) -> None:
        self.pipeline, self.slot_at, self.rng = pipeline, slot_at, rng
        client = pipeline.client
        self.troubles = {incident.trouble: incident for incident in around}
        self.id = external_id(client, pipeline.name, slot_at)
        self.parent = None
        if pipeline.parent is not None:
            self.parent = Parent(pipeline.parent, external_id(client, pipeline.parent, slot_at))
        self.busyness = busyness(client, slot_at)
        self.pace = (1 + pipeline.drift * (1 + age)) * (0.7 + 0.3 * self.busyness)
        if Trouble.SLOW in self.troubles:
            self.pace *= 2.6
        self.attempt = 0

    def events(self) -> Iterator[RunEvent]:
        """The events in the order in which they happen; none where the run does not take place."""
        random = self.rng.random
        is_down = Trouble.OUTAGE in self.troubles
        if Trouble.SILENT in self.troubles or random() < (0.7 if is_down else MISSING):
            return
        start_s = self._delay()
        if self.pipeline.trade.errors == "files" and random() < NOTHING_TO_DO:
            yield self._event(Status.SKIPPED, start_s, message="no new files")
            return
        if self.pipeline.telling is Telling.QUEUED_TOO:
            yield self._event(Status.QUEUED, start_s * random())
        retries = self.pipeline.trade.retries
        while True:
            chance = RETRY_FAILS if self.attempt else self.pipeline.fail_rate
            is_failure = is_down or Trouble.BROKEN in self.troubles or random() < chance
            end_s = start_s + self._length(is_failure=is_failure)
            yield from self._attempt(start_s, end_s, is_failure=is_failure)
            if not is_failure or self.attempt >= retries:
                return
            self.attempt += 1
            start_s = end_s + 30 * 2**self.attempt + random() * 5

    def _delay(self) -> float:
        """How long after its slot the run starts."""
        random, pipeline = self.rng.random, self.pipeline
        delay_s = 0.4 + random() * random() * 12
        if pipeline.parent is not None:
            delay_s += pipeline.duration_s * (0.4 + random() * 0.2)
        if Trouble.SLOW in self.troubles:
            delay_s += (0.3 + random() * 1.3) * pipeline.start_grace_s
        elif random() < LATE:
            delay_s += (1.1 + random() * 2) * pipeline.start_grace_s
        return delay_s

    def _length(self, *, is_failure: bool) -> float:
        seconds = self.pipeline.duration_s * self.pace * math.exp(self.rng.gauss(0, 0.14))
        return min(seconds, LONGEST_S) * (0.05 + self.rng.random() * 0.85 if is_failure else 1)

    def _attempt(self, start_s: float, end_s: float, *, is_failure: bool) -> Iterator[RunEvent]:
        rng, telling = self.rng, self.pipeline.telling
        if telling is not Telling.END_ONLY:
            yield self._event(Status.RUNNING, start_s, attributes=self._surroundings())
        if end_s - start_s > 1200 and rng.random() < 0.5:
            progress = {"progress": 0.5}
            yield self._event(Status.INFO, (start_s + end_s) / 2, message="half of it is done", metrics=progress)
        if rng.random() < DIED_SILENTLY:
            return
        duration_s = round(end_s - start_s, 3) if telling is Telling.END_ONLY else None
        if is_failure:
            incident = self.troubles.get(Trouble.OUTAGE) or self.troubles.get(Trouble.BROKEN)
            error_class, message = failure(self.pipeline, rng, incident)
            said = {"error_class": error_class, "message": message, "url": self._url()}
            yield self._event(Status.FAILED, end_s, duration_s=duration_s, **said)
        elif rng.random() < CANCELLED:
            yield self._event(Status.CANCELLED, end_s, message="cancelled by an operator", duration_s=duration_s)
        else:
            yield self._event(Status.SUCCEEDED, end_s, metrics=self._metrics(), duration_s=duration_s)

    def _event(self, status: Status, after_s: float, **said: Any) -> RunEvent:
        pipeline, client = self.pipeline, self.pipeline.client
        return RunEvent(
            client=client.slug,
            pipeline=pipeline.name,
            run=self.id,
            status=status,
            occurred_at=self.slot_at + _seconds(after_s),
            event_id=f"{self.id}/{self.attempt}/{status}" if client.sends_event_ids else None,
            attempt=self.attempt if pipeline.trade.retries else None,
            # A scheduler that only counts its runs does not say what each was for.
            scheduled_at=None if client.ids is Ids.COUNTER else self.slot_at,
            parent=self.parent,
            **said,
        )

    def _metrics(self) -> dict[str, float] | None:
        if self.pipeline.trade.errors == "quality":
            return {"checks": float(20 + len(self.pipeline.name)), "checks_failed": 0.0}
        if not self.pipeline.rows:
            return None
        rows = int(self.pipeline.rows * self.busyness * (0.85 + self.rng.random() * 0.3))
        return {"rows": float(rows), "bytes": float(rows * 148)}

    def _surroundings(self) -> dict[str, Any]:
        year, week, _ = self.slot_at.isocalendar()
        return {"worker": f"worker-{int(self.rng.random() * 6) + 1}", "version": f"{year}.{week}"}

    def _url(self) -> str | None:
        client = self.pipeline.client
        if client.ids is not Ids.AIRFLOW:
            return None
        run = self.id.replace("+", "%2B")
        return f"https://airflow.{client.slug}.example/dags/{self.pipeline.name}/grid?dag_run_id={run}"
