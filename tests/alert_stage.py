"""A database in which alert rules are evaluated as in use, at times of the test's own choosing.

Events are stored by ingestion; the time at which they were received is then set to the test's, and what the worker
does next is done: rollups, slots, marks. So a test may play weeks in a second, and everything commits.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Row, text

from pulsewatch import alerting, ingest, resolve, rollups, rulebook, slots
from pulsewatch.rules.spec import RuleSpec
from pulsewatch.settings import Settings
from pulsewatch.submissions import Item, Submission

# A whole hour some days back, so that nothing is too old or yet to come.
BEGIN = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=5)
RECEIVED = (
    ("run_event", "received_at"),
    ("run", "received_at"),
    ("run", "first_received_at"),
    ("dirty", "marked_at"),
)


def at(minutes: float) -> datetime:
    """So many minutes after the test begins."""
    return BEGIN + timedelta(minutes=minutes)


@dataclass
class Stage:
    """The database and what is known of it."""

    engine: Engine
    settings: Settings
    known: resolve.Names = field(default_factory=resolve.Names)

    def receive(self, minutes: float, *items: Item) -> None:
        """Store events as if they had come at that time."""
        submission = Submission("native", list(items), list(range(len(items))))
        (receipt,) = ingest.store(
            self.engine.begin, [submission], self.known, max_pipelines=10_000, received_at=at(minutes)
        )
        assert not receipt.rejected
        with self.engine.begin() as connection:
            connection.execute(text("set local session_replication_role = replica"))
            for table, column in RECEIVED:
                change = f"update pulsewatch.{table} set {column} = :at where {column} > :future"
                # What was received after the test's times was received just now.
                connection.execute(text(change), {"at": at(minutes), "future": BEGIN + timedelta(days=4)})

    def work(self, minutes: float) -> None:
        """What the worker does before rules are evaluated."""
        while True:
            done = rollups.refresh(self.engine, self.settings, at(minutes))
            slots.tick(self.engine, self.settings, at(minutes))
            with self.engine.begin() as connection:
                # Slots that are judged leave marks now; in the test that is at this time.
                late = "update pulsewatch.dirty set marked_at = :at where marked_at > :future"
                connection.execute(text(late), {"at": at(minutes), "future": BEGIN + timedelta(days=4)})
                waiting = connection.execute(text("select count(*) from pulsewatch.dirty")).scalar_one()
            if not done and not waiting:
                return

    def tick(self, minutes: float) -> alerting.Ticked | None:
        """Everything that the worker does at a time."""
        self.work(minutes)
        return alerting.tick(self.engine, at(minutes))

    def rule(self, minutes: float, key: str = "rule", client: str | None = None, **said: Any) -> None:
        """Save a rule."""
        spec = RuleSpec.model_validate({"kind": "consecutive_failures", "levels": {"warning": 2}} | said)
        with self.engine.begin() as connection:
            query = text("select id from pulsewatch.client where slug = :slug")
            client_id = connection.execute(query, {"slug": client}).scalar_one() if client else None
            rulebook.save(connection, client_id, key, spec, rulebook.Said("test", None, at(minutes)))

    def rows(self, query: str, **values: object) -> list[Row[Any]]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(query), values))

    def events(self) -> list[tuple[Any, ...]]:
        """All events of alerts, as (minutes, pipeline, kind, level), in order of time."""
        query = (
            "select event.as_of, coalesce(pipeline.slug, '-'), event.kind, event.level"
            " from pulsewatch.alert_event as event left join pulsewatch.pipeline"
            " on pipeline.client_id = event.client_id and pipeline.id = event.pipeline_id"
            " order by event.as_of, 2, event.alert_id, event.seq"
        )
        return [((row[0] - BEGIN) / timedelta(minutes=1), *row[1:]) for row in self.rows(query)]


def plain(events: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Events without their pipelines."""
    return [(minutes, kind, level) for minutes, _, kind, level in events]
