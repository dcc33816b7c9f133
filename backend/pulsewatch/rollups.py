"""The numbers of hours and days, how pipelines are doing, and when they failed: worked out from runs and slots.

Whoever changes a run or a slot leaves marks in `dirty`, in the same transaction. `refresh` takes marks and works out
anew what they touch; nothing is ever added to a stored number. So it does no harm to do it twice, a late event changes
the hour it belongs to, and a crash leaves either the marks or the numbers (docs/rollups.md).

No mark is lost: marks are deleted in one statement and what they touch is read in later ones. A change that commits in
between is read already, and its marks are still there for the next time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine

from pulsewatch.db import fetch
from pulsewatch.rollup_sql import (
    CELLS_SQL,
    DELETE_SQL,
    HOUR_SQL,
    PIPELINE_HOUR,
    PLANNING,
    SUM_SQL,
    SUMMED,
    TAKE_SQL,
    Level,
    stored_sql,
)
from pulsewatch.rollup_state_sql import (
    DELETE_SPANS_SQL,
    DELETE_STATES_SQL,
    SPAN_KEY,
    SPAN_SQL,
    STATE_KEY,
    STATE_SQL,
)
from pulsewatch.settings import Settings

HOUR = timedelta(hours=1)
# Producers' clocks may be ahead by minutes; what lies further ahead is no hour that anything happened in.
AHEAD = timedelta(days=1)
CHUNK_MARKS = 20_000
# Where many marks wait, most of them touch the same hours, which then are worked out once for all of these.
MANY_MARKS = 500_000
CHUNK_CELLS = 5_000
# A tick comes to an end under any load; the next one goes on.
CHUNKS_PER_TICK = 20

IS_MINE = "select pg_try_advisory_xact_lock(hashtext('pulsewatch.rollup'))"
WAIT_FOR_TURN = "select pg_advisory_xact_lock(hashtext('pulsewatch.rollup'))"
MISSING_MONTHS = """
select month
from unnest(%(months)s::date[]) as month
where to_regclass('pulsewatch.pipeline_hour_' || to_char(month, 'YYYY_MM')) is null
"""
LAG = """
select count(*) as mark_count, coalesce(greatest(extract(epoch from now() - min(marked_at)), 0), 0)::float8 as lag_s
from pulsewatch.dirty
"""


# A few events are worked out as they come; so many in two seconds are cheaper together.
POURING_MARKS = 1000
POURING_IN = """
select count(*) = %(marks)s
from (
    select from pulsewatch.dirty where marked_at > now() - make_interval(secs => %(within_s)s) limit %(marks)s
) as recent
"""


class Cell(NamedTuple):
    """An hour of a pipeline; its runs that have changed have their first_at within these (None: none has).

    There may be a hundred thousand of them: cells are tuples, which make, sort and hash themselves fastest.
    """

    client_id: int
    pipeline_id: int
    hour_at: datetime
    from_at: datetime | None
    until_at: datetime | None


Key = tuple[Any, ...]


@dataclass(slots=True)
class Pace:
    """How many marks are taken at once: as many as touch some CHUNK_MARKS hours, as far as the last ones tell.

    A few do not tell much: the next ones are four times as many at most.
    """

    marks: int = CHUNK_MARKS

    def adapt(self, marks: int, cells: int) -> None:
        self.marks = max(CHUNK_MARKS, min(MANY_MARKS, 4 * marks, CHUNK_MARKS * marks // max(cells, 1)))


def refresh(
    engine: Engine,
    settings: Settings,
    as_of: datetime,
    pace: Pace | None = None,
    *,
    may_go_on: Callable[[], bool] = lambda: True,
) -> int:
    """Work out what marks touch; returns how many marks are done with. Does nothing while another one does it.

    Who calls it again and again keeps the pace. After each chunk it is asked whether there may be another one.
    """
    pace = pace or Pace()
    done = 0
    for _ in range(CHUNKS_PER_TICK):
        limit = pace.marks
        with engine.begin() as connection:
            marks, cells = refresh_chunk(connection, settings, as_of, limit=limit)
        done += marks
        pace.adapt(marks, cells)
        if marks < limit or not may_go_on():
            break
    return done


def refresh_chunk(
    connection: Connection, settings: Settings, as_of: datetime, *, limit: int = CHUNK_MARKS
) -> tuple[int, int]:
    """Take so many marks at most and work out what they touch, within the caller's transaction.

    Returns how many marks there were, and how many hours of pipelines they touched.
    """
    if not connection.exec_driver_sql(IS_MINE).scalar_one():
        return 0, 0
    connection.exec_driver_sql(PLANNING)
    rows = fetch(connection, TAKE_SQL, {"limit": limit})
    if rows:
        _work_out(connection, (Cell(*cell) for *cell, _ in rows), frozen_before(settings, as_of), as_of)
    return sum(mark_count for *_, mark_count in rows), len(rows)


def frozen_before(settings: Settings, as_of: datetime) -> datetime:
    """The time before which hours keep their numbers: the runs they were worked out from may be gone."""
    kept_since = (as_of - timedelta(days=settings.keep_runs_days)).astimezone(UTC)
    hour_at = kept_since.replace(minute=0, second=0, microsecond=0)
    return hour_at if hour_at == kept_since else hour_at + HOUR


def lag(connection: Connection) -> tuple[int, float]:
    """How many marks wait, and for how many seconds the oldest one has; zeros where there is none."""
    mark_count, lag_s = connection.exec_driver_sql(LAG).one()
    return mark_count, lag_s


def is_pouring_in(connection: Connection, within_s: float = 2) -> bool:
    """Whether a thousand marks were left in the last seconds."""
    values = {"marks": POURING_MARKS, "within_s": within_s}
    poured: bool = connection.exec_driver_sql(POURING_IN, values).scalar_one()
    return poured


def rebuild(
    engine: Engine,
    settings: Settings,
    from_at: datetime | None,
    until_at: datetime | None,
    on_progress: Callable[[float, int], None],
    *,
    as_of: datetime | None = None,
) -> int:
    """Work out everything in a window anew, whether it is marked or not; returns how many hours of pipelines.

    None: from the first hour that is not frozen; to the last one. It goes client by client, beside a running worker,
    and may be interrupted and repeated. `on_progress` is told after each chunk how many clients are done, in
    fractions, and how many there are.
    """
    as_of = as_of or datetime.now(UTC)
    from_at = max(from_at or datetime.min.replace(tzinfo=UTC), frozen_before(settings, as_of))
    window = {"from_at": from_at, "until_at": min(until_at or as_of + AHEAD, as_of + AHEAD)}
    with engine.connect() as connection:
        client_ids = connection.exec_driver_sql("select id from pulsewatch.client order by id").scalars().all()
    count = 0
    for done, client_id in enumerate(client_ids):
        began_at = None
        pipelines: set[Key] = set()
        for cells in _days(engine, {"client_id": client_id} | window):
            began_at = began_at or cells[0].hour_at
            with _turn(engine) as connection:
                _work_out_numbers(connection, cells)
            count += len(cells)
            pipelines |= {(cell.client_id, cell.pipeline_id) for cell in cells}
            part = (cells[-1].hour_at - began_at) / (window["until_at"] - began_at)
            on_progress(done + part, len(client_ids))
        _sum_stored(engine, {"client_id": client_id} | window, is_fleet=False)
        # Spans and states once a pipeline, not once a chunk.
        for some in _parts(sorted(pipelines)):
            with _turn(engine) as connection:
                _work_out_spans(connection, [(*pipeline, from_at, window["until_at"]) for pipeline in some])
                _work_out_states(connection, some, as_of)
        on_progress(done + 1, len(client_ids))
    _sum_stored(engine, window, is_fleet=True)
    return count


@contextmanager
def _turn(engine: Engine) -> Iterator[Connection]:
    """A transaction that nobody else works out numbers beside."""
    with engine.begin() as connection:
        connection.exec_driver_sql(WAIT_FOR_TURN)
        connection.exec_driver_sql(PLANNING)
        yield connection


def _days(engine: Engine, window: Mapping[str, Any]) -> Iterator[list[Cell]]:
    """The hours of a client's pipelines in a window, in order of time, some days at a time or a large part of one.

    A server's cursor holds them meanwhile.
    """
    cells: list[Cell] = []
    with engine.connect().execution_options(stream_results=True) as connection:
        for row in connection.exec_driver_sql(CELLS_SQL, window):
            cell = Cell(*row)
            is_new_day = bool(cells) and cells[-1].hour_at.date() != cell.hour_at.date()
            if len(cells) >= (CHUNK_CELLS if is_new_day else CHUNK_MARKS):
                yield cells
                cells = []
            cells.append(cell)
    if cells:
        yield cells


def _parts(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    for start in range(0, len(keys), CHUNK_CELLS):
        yield keys[start : start + CHUNK_CELLS]


def _sum_stored(engine: Engine, window: Mapping[str, Any], *, is_fleet: bool) -> None:
    """Sum up again what is stored of a client or of the fleet, also where no pipeline has anything."""
    for level in SUMMED:
        if ("client_id" not in level.key) is is_fleet:
            with engine.connect() as connection:
                keys = [tuple(row) for row in connection.exec_driver_sql(stored_sql(level), window)]
            for some in _parts(keys):
                with _turn(engine) as connection:
                    _sum(connection, level, some)


def _work_out(connection: Connection, cells: Iterable[Cell], frozen: datetime, as_of: datetime) -> None:
    """Work out what marks touch. Hours before `frozen` stay as they are."""
    cells = sorted(cells)
    live = [cell for cell in cells if frozen <= cell.hour_at < as_of + AHEAD]
    if live:
        # Spans are worked out after the hours: where runs were that have moved since is known from these.
        found_until = _work_out_numbers(connection, live)
        _work_out_spans(connection, _touched(live, found_until))
    _work_out_states(connection, sorted({(cell.client_id, cell.pipeline_id) for cell in cells}), as_of)


def _work_out_numbers(connection: Connection, cells: Sequence[Cell]) -> dict[Key, datetime]:
    """Work out hours of pipelines and all that sums them up.

    Returns for each the last first_at among the runs that it had or has.
    """
    _make_room(connection, cells)
    key = PIPELINE_HOUR.key
    rows = fetch(connection, HOUR_SQL, _arrays(Cell._fields, cells))
    _delete(connection, DELETE_SQL[PIPELINE_HOUR.table], key, [hour for *hour, _, is_gone in rows if is_gone])
    columns = dict(zip(Cell._fields, zip(*cells, strict=True), strict=True))
    days = {hour_at: hour_at.replace(hour=0) for hour_at in set(columns["hour_at"])}
    columns["day_utc"] = tuple(days[hour_at] for hour_at in columns["hour_at"])
    for level in SUMMED:
        _sum(connection, level, sorted(set(zip(*(columns[name] for name in level.key), strict=True))))
    return {tuple(hour): until_at for *hour, until_at, _ in rows if until_at is not None}


def _make_room(connection: Connection, cells: Sequence[Cell]) -> None:
    """Make the months that are missing: a run that says it took a year began before any of those made ahead."""
    months = sorted({cell.hour_at.date().replace(day=1) for cell in cells})
    for month in connection.exec_driver_sql(MISSING_MONTHS, {"months": months}).scalars().all():
        connection.exec_driver_sql("select pulsewatch.ensure_partition(%s)", (month,))


def _sum(connection: Connection, level: Level, keys: Sequence[Key]) -> None:
    gone = fetch(connection, SUM_SQL[level.table], _arrays(level.key, keys))
    _delete(connection, DELETE_SQL[level.table], level.key, gone)


def _touched(cells: Sequence[Cell], found_until: Mapping[Key, datetime]) -> list[Key]:
    """Pipelines whose runs have changed, and between which first_at.

    A run's first_at only ever becomes earlier. So it is, and was, between the earliest one that a mark tells and the
    latest one that its hours had before.
    """
    bounds: dict[tuple[int, int], tuple[datetime, datetime]] = {}
    for cell in cells:
        if cell.from_at is not None:
            pipeline = (cell.client_id, cell.pipeline_id)
            until_at = found_until[*pipeline, cell.hour_at]
            earlier, later = bounds.get(pipeline, (cell.from_at, until_at))
            bounds[pipeline] = (min(earlier, cell.from_at), max(later, until_at))
    return [(*pipeline, *bound) for pipeline, bound in bounds.items()]


def _work_out_spans(connection: Connection, touched: Sequence[Key]) -> None:
    gone = fetch(connection, SPAN_SQL, _arrays((*STATE_KEY, "from_at", "until_at"), touched))
    _delete(connection, DELETE_SPANS_SQL, SPAN_KEY, gone)


def _work_out_states(connection: Connection, pipelines: Sequence[Key], as_of: datetime) -> None:
    gone = fetch(connection, STATE_SQL, {"as_of": as_of} | _arrays(STATE_KEY, pipelines))
    _delete(connection, DELETE_STATES_SQL, STATE_KEY, gone)


def _arrays(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, str]:
    """Rows as one array a column, written as PostgreSQL reads it: the driver would look at each number by itself."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return {name: _array(column) for name, column in zip(names, columns, strict=True)}


def _array(values: Iterable[Any]) -> str:
    """Numbers, ids, times and nothing: none of these needs quotes."""
    return "{" + ",".join(["null" if value is None else str(value) for value in values]) + "}"


def _delete(connection: Connection, statement: str, key: Sequence[str], gone: Sequence[Sequence[Any]]) -> None:
    if gone:
        fetch(connection, statement, _arrays(key, sorted(map(tuple, gone))))
