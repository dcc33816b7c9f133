"""What a kind of rule sees, on real PostgreSQL: runs in minutes from a fixed time, asked about at such minutes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from pulsewatch import rollups, slots
from pulsewatch.events import RunEvent, Status, run_id
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Kind, Levels, Observation, Verdict, judge
from pulsewatch.rules.known_runs import PARAMS
from pulsewatch.settings import Settings
from pulsewatch.slot_plans import plan
from pulsewatch.submissions import Item
from tests.test_ingest import put

# A whole hour some days back, so that nothing is too old or yet to come.
BEGIN = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=5)
MINUTE = timedelta(minutes=1)
SETTINGS = Settings()
ALL_KNOWN = "infinity"


def at(minutes: float) -> datetime:
    return BEGIN + minutes * MINUTE


def said(
    run: str, minutes: float, status: Status = Status.SUCCEEDED, *, pipeline: str = "nightly", **fields: Any
) -> RunEvent:
    words = {"client": "acme"} | fields
    return RunEvent(pipeline=pipeline, run=run, status=status, occurred_at=at(minutes), **words)


def went(
    run: str,
    minutes: float,
    until: float,
    status: Status = Status.SUCCEEDED,
    *,
    pipeline: str = "nightly",
    **fields: Any,
) -> RunEvent:
    """A run that is told of when it ends."""
    return said(run, until, status, pipeline=pipeline, started_at=at(minutes), **fields)


def id_of(run: str, pipeline: str = "nightly", client: str = "acme") -> UUID:
    return UUID(str(run_id(client, "", pipeline, run)))


ASKED = f"""
asked as (
    select
        asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of, asked.known_at, asked.params,
        rule.*, asked.target_since, asked.is_settled,
        array(select jsonb_array_elements_text(asked.thresholds)::double precision) as thresholds,
        state.last_outcome, state.last_outcome_run_id, state.last_finished_at, state.last_duration_s,
        state.last_success_at, state.last_failure_hour_at, state.consecutive_failures
    from jsonb_to_recordset(:asked) as asked (
        rule_id bigint, client_id bigint, pipeline_id bigint, as_of timestamptz, known_at timestamptz, params jsonb,
        target_since timestamptz, thresholds jsonb, is_settled boolean
    )
    cross join lateral (select {PARAMS} from (select asked.params) as rule) as rule
    left join pulsewatch.pipeline_state as state
        on asked.client_id = state.client_id
        and asked.pipeline_id = state.pipeline_id
        and asked.is_settled
        and asked.known_at < 'infinity'
        and state.last_finished_at <= asked.as_of
        and state.last_run_first_at <= asked.as_of
)
"""
SPAN = """
span as (
    select
        span.rule_id, span.client_id, span.pipeline_id, span.params, span.target_since, span.from_at, span.to_at,
        span.known_at, array(select jsonb_array_elements_text(span.thresholds)::double precision) as thresholds
    from jsonb_to_recordset(:spans) as span (
        rule_id bigint, client_id bigint, pipeline_id bigint, params jsonb, target_since timestamptz,
        from_at timestamptz, to_at timestamptz, known_at timestamptz, thresholds jsonb
    )
)
"""
TARGET = """
select client.id, pipeline.id
from pulsewatch.client
inner join pulsewatch.pipeline on client.id = pipeline.client_id
where client.slug = :client and pipeline.slug = :pipeline
"""


@dataclass
class World:
    """A database within a test's transaction, and one rule of a kind that watches one target."""

    connection: Connection
    kind: Kind = KINDS["consecutive_failures"]
    params: dict[str, Any] = field(default_factory=dict)
    levels: Levels = field(default_factory=lambda: Levels(warning=1))
    pipeline: str = "nightly"
    client: str = "acme"
    target_since: float = 0

    def put(self, *items: Item) -> None:
        assert not put(self.connection, *items).rejected

    def receive(self, minutes: float, *items: Item) -> None:
        """Store events as if they had come at that time."""
        self.put(*items)
        self.connection.execute(text("set local session_replication_role = replica"))
        for table, column in (("run_event", "received_at"), ("run", "received_at"), ("run", "first_received_at")):
            change = f"update pulsewatch.{table} set {column} = :at where {column} = now()"
            self.connection.execute(text(change), {"at": at(minutes)})
        self.connection.execute(text("set local session_replication_role = origin"))

    def refresh(self, minutes: float | None = None) -> None:
        """The worker's ticks, again and again until nothing is left to do: rollups and slots up to that time."""
        as_of = datetime.now(UTC) if minutes is None else at(minutes)
        is_full = True
        while is_full:
            rollups.refresh_chunk(self.connection, SETTINGS, as_of)
            _, is_plan_full = plan(self.connection, as_of, keep_runs_days=SETTINGS.keep_runs_days)
            judged, is_judge_full = slots.judge(self.connection, as_of)
            is_full = is_plan_full or is_judge_full or judged > 0
        rollups.refresh_chunk(self.connection, SETTINGS, as_of)

    def target(self) -> tuple[int, int]:
        if self.kind.target == "fleet":
            return 0, 0
        found = self.connection.execute(text(TARGET), {"client": self.client, "pipeline": self.pipeline}).one()
        return found[0], found[1] if self.kind.target == "pipeline" else 0

    def see(self, minutes: float, known: float | None = None) -> Observation:
        """What is seen at that minute, by what was known at a minute; None: by all that is known now."""
        (seen,) = self.see_all([at(minutes)], None if known is None else at(known))
        return seen

    def value(self, minutes: float, known: float | None = None) -> float | None:
        return self.see(minutes, known).value

    def see_all(
        self, times: Sequence[datetime], known_at: datetime | None = None, *, is_settled: bool = False
    ) -> list[Observation]:
        """What is seen at these times; settled: nothing was received since, and all is worked out."""
        when = {"known_at": _iso(known_at), "is_settled": is_settled or known_at is None}
        asked = [self._asked() | when | {"as_of": _iso(as_of)} for as_of in times]
        # As the rules are evaluated: compiling takes longer than running.
        self.connection.execute(text("set local jit = off"))
        rows = self.connection.exec_driver_sql(
            _named(f"with {ASKED}, observed as ({self.kind.observe}) select * from observed order by as_of"),
            {"asked": json.dumps(asked)},
        ).all()
        assert len(rows) == len(times)
        assert {(row.rule_id, row.client_id, row.pipeline_id) for row in rows} <= {(7, *self.target())}
        return [
            Observation(
                row.rule_id, row.client_id, row.pipeline_id, row.as_of, row.value, row.sample_at, row.next_at,
                tuple(row.run_ids), row.evidence,
            )
            for row in rows
        ]  # fmt: skip

    def told(self, minutes: float) -> tuple[float | None, datetime | None] | None:
        """Value and next_at as the pipeline's state tells them at that minute, when all is known; None: it does not."""
        if self.kind.told is None:
            return None
        asked = self._asked() | {"known_at": _iso(at(minutes)), "is_settled": True, "as_of": _iso(at(minutes))}
        told = self.kind.told
        row = self.connection.exec_driver_sql(
            _named(
                f"with {ASKED} select {told.value} as value, {told.next_at} as next_at from asked"
                f" where {told.condition}"
            ),
            {"asked": json.dumps([asked])},
        ).one_or_none()
        return None if row is None else (row.value, row.next_at)

    def judged(self, times: Sequence[datetime], known_at: datetime | None = None) -> list[Verdict]:
        direction = self.kind.direction(self._parsed())
        return [judge(seen.value, self.levels, direction) for seen in self.see_all(times, known_at)]

    def instants(self, from_at: datetime, to_at: datetime) -> list[datetime]:
        span = self._asked() | {"from_at": _iso(from_at), "to_at": _iso(to_at), "known_at": ALL_KNOWN}
        rows = self.connection.exec_driver_sql(
            _named(f"with {SPAN}, instant as ({self.kind.instants}) select distinct * from instant order by as_of"),
            {"spans": json.dumps([span])},
        ).all()
        assert {(row.rule_id, row.client_id, row.pipeline_id) for row in rows} <= {(7, *self.target())}
        return [row.as_of for row in rows]

    def _parsed(self) -> Any:
        return self.kind.params.model_validate(self.params)

    def _asked(self) -> dict[str, Any]:
        client_id, pipeline_id = self.target()
        thresholds = [level for level in (self.levels.warning, self.levels.critical) if level is not None]
        return {
            "rule_id": 7,
            "client_id": client_id,
            "pipeline_id": pipeline_id,
            "params": self._parsed().model_dump(mode="json"),
            "target_since": _iso(at(self.target_since)),
            "thresholds": thresholds,
        }


def _named(statement: str) -> str:
    """For the driver itself, whose parameters look otherwise; the kinds' own statements have none."""
    return statement.replace("%", "%%").replace(":asked)", "%(asked)s::jsonb)").replace(":spans)", "%(spans)s::jsonb)")


def _iso(moment: datetime | None) -> str:
    return ALL_KNOWN if moment is None else moment.isoformat()


def assert_instants_tell_all(world: World, minutes: int, step_s: int = 30) -> None:
    """Between two instants the verdict never changes, and next_at is never too late: held against a dense grid."""
    from_at, to_at = at(0), at(minutes)
    grid = [from_at + timedelta(seconds=second) for second in range(0, minutes * 60, step_s)]
    instants = world.instants(from_at, to_at)
    assert all(from_at <= instant < to_at for instant in instants)
    times = sorted({*grid, *instants})
    seen = world.see_all(times)
    verdicts = dict(zip(times, world.judged(times), strict=True))
    marks = {from_at, *instants}
    last: Verdict | None = None
    for time in times:
        verdict = verdicts[time]
        if time not in marks and last is not None:
            assert _core(verdict) == _core(last), f"changed at {time} between instants"
        last = verdict
    assert len(set(map(_core, verdicts.values()))) > 1, "nothing happened in this test"
    for one in seen:
        assert one.next_at is None or one.next_at > one.as_of


def _core(verdict: Verdict) -> tuple[Any, ...]:
    return verdict.level, verdict.lack


def assert_looked_at_in_time(world: World, minutes: int, until: int, step_s: int = 30) -> None:
    """From a minute on after which nothing arrives: whoever looks again at next_at alone sees each change at once."""
    times = [at(minutes) + timedelta(seconds=second) for second in range(0, (until - minutes) * 60, step_s)]
    seen, verdicts = world.see_all(times), world.judged(times)
    held, looked = verdicts[0], seen[0]
    looks = 0
    for time, verdict, one in zip(times, verdicts, seen, strict=True):
        if looked.next_at is not None and time >= looked.next_at:
            held, looked = verdict, one
            looks += 1
        assert _core(verdict) == _core(held), f"changed at {time}, to be looked at again {looked.next_at}"
    assert looks
