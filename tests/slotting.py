"""A pipeline with a schedule, its runs and what the worker makes of them, in minutes from a fixed time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from pulsewatch import rollups, slots
from pulsewatch.events import RunEvent, Status
from pulsewatch.settings import Settings
from pulsewatch.slot_plans import plan
from pulsewatch.submissions import CatalogStatement, Item
from tests.test_ingest import put

# The schedule is said then, and tests count minutes from there.
BEGIN = datetime(2026, 11, 10, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SETTINGS = Settings()
HOURLY = "0 * * * *"


def at(minutes: float) -> datetime:
    return BEGIN + minutes * MINUTE


def said(minutes: float = 0, pipeline: str = "nightly", **changes: Any) -> CatalogStatement:
    return CatalogStatement("acme", changes, at(minutes), pipeline)


def run(
    name: str, minutes: float, status: Status = Status.RUNNING, pipeline: str = "nightly", **fields: Any
) -> RunEvent:
    return RunEvent(client="acme", pipeline=pipeline, run=name, status=status, occurred_at=at(minutes), **fields)


SLOTS = """
select
    extract(epoch from slot.slot_at - :begin)::float8 / 60 as minutes,
    slot.status,
    run.external_id,
    extract(epoch from slot.started_at - :begin)::float8 / 60 as started
from pulsewatch.slot
left join pulsewatch.run on slot.client_id = run.client_id and slot.run_id = run.id
inner join pulsewatch.pipeline on slot.client_id = pipeline.client_id and slot.pipeline_id = pipeline.id
where pipeline.slug = :pipeline
order by slot.slot_at
"""
Shown = tuple[float, str, str | None, float | None]


@dataclass
class World:
    """A database within a test's transaction, and what the worker would do in it."""

    connection: Connection

    def put(self, *items: Item) -> None:
        assert not put(self.connection, *items).rejected

    def settle(self, minutes: float) -> None:
        """The worker's ticks at that time, again and again until nothing is left to do."""
        as_of = at(minutes)
        is_full = True
        while is_full:
            rollups.refresh_chunk(self.connection, SETTINGS, as_of)
            _, is_plan_full = plan(self.connection, as_of, keep_runs_days=SETTINGS.keep_runs_days)
            _, is_judge_full = slots.judge(self.connection, as_of)
            is_full = is_plan_full or is_judge_full

    def slots(self, *, until: float = 1e9, pipeline: str = "nightly") -> list[Shown]:
        """(minutes, status, run, start in minutes) of each slot up to a time, in order."""
        rows = self.connection.execute(text(SLOTS), {"begin": BEGIN, "pipeline": pipeline})
        return [(row[0], row[1], row[2], row[3]) for row in rows if row[0] <= until]

    def statuses(self, *, until: float = 1e9, pipeline: str = "nightly") -> list[str]:
        return [status for _, status, _, _ in self.slots(until=until, pipeline=pipeline)]

    def query(self, query: str) -> list[Any]:
        return list(self.connection.execute(text(query)).scalars())
