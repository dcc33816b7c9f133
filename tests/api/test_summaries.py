"""Summaries over HTTP: the stored numbers of hours and days, added up for a window."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pulsewatch.api.summaries import read_window
from pulsewatch.api.summary_schemas import Numbers
from pulsewatch.problems import Problem
from tests.api.conftest import Api, World, problem
from tests.rows import add_row, execute, scalars

DAY = datetime(2026, 3, 1, tzinfo=UTC)
COUNTS = [name for name in Numbers.model_fields if name.endswith("_count")]
NOTHING: dict[str, Any] = dict.fromkeys(Numbers.model_fields) | dict.fromkeys(COUNTS, 0) | {"duration_sum_s": 0}


def clock(hours: float) -> str:
    return (DAY + timedelta(hours=hours)).isoformat().replace("+00:00", "Z")


class History:
    """A client with two pipelines, and what is stored of some hours of theirs."""

    def __init__(self, world: World, slug: str) -> None:
        self.engine = world.engine
        self.slug = slug
        self.admin = world.caller("admin")
        for path in ("", "/pipelines/nightly", "/pipelines/hourly"):
            assert self.admin.put(f"/v1/clients/{slug}{path}", {}).status_code == 201
        (self.client_id,) = scalars(self.engine, "select id from pulsewatch.client where slug = :slug", slug=slug)

    def pipeline_id(self, slug: str) -> int:
        query = "select id from pulsewatch.pipeline where client_id = :client_id and slug = :slug"
        found: int = scalars(self.engine, query, client_id=self.client_id, slug=slug)[0]
        return found

    def add(self, table: str, pipeline: str | None = None, **values: Any) -> None:
        if pipeline is not None:
            values["pipeline_id"] = self.pipeline_id(pipeline)
        at = values.get("hour_at") or values["day_utc"]
        execute(self.engine, "select pulsewatch.ensure_partition(:day)", day=at.date())
        add_row(self.engine, table, client_id=self.client_id, **values)

    def get(self, path: str = "", **params: Any) -> Any:
        answer = self.admin.get(f"/v1/clients/{self.slug}{path}/summary", **params)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def history(world: World, slug: str) -> History:
    return History(world, slug)


# Ten runs of a minute and ten of an hour: buckets 47 and 94 of eight an octave.
TEN_OCLOCK: dict[str, Any] = {
    "hour_at": DAY + timedelta(hours=10),
    "started_count": 21,
    "succeeded_count": 17,
    "failed_count": 2,
    "timed_out_count": 1,
    "retried_count": 5,
    "on_time_count": 6,
    "late_count": 1,
    "missed_count": 1,
    "duration_count": 20,
    "duration_sum_s": 36_600.0,
    "duration_min_s": 60.0,
    "duration_max_s": 3600.0,
    "duration_p50_s": 61.25,
    "duration_p95_s": 3527.5,
    "duration_p99_s": 3527.5,
    "duration_buckets": [47, 94],
    "duration_counts": [10, 10],
    "rows_sum": 1200.5,
}
# Thirty-eight runs of a second; two more were cancelled or skipped at once.
NOON: dict[str, Any] = {
    "hour_at": DAY + timedelta(hours=12),
    "started_count": 38,
    "succeeded_count": 38,
    "cancelled_count": 1,
    "skipped_count": 1,
    "duration_count": 38,
    "duration_sum_s": 38.0,
    "duration_min_s": 1.0,
    "duration_max_s": 1.0,
    "duration_p50_s": 1.0,
    "duration_p95_s": 1.0,
    "duration_p99_s": 1.0,
    "duration_buckets": [0],
    "duration_counts": [38],
    "rows_sum": 1.0,
    "bytes_sum": 512.0,
}


def middle(bucket: int) -> float:
    return float(2 ** ((bucket + 0.5) / 8))


def test_the_numbers_of_a_window_are_those_of_its_hours_together(history: History) -> None:
    for table in ("pipeline_hour", "client_hour"):
        of: dict[str, Any] = {"pipeline": "nightly", "open_count": 0} if table == "pipeline_hour" else {}
        history.add(table, **of, **TEN_OCLOCK)
        history.add(table, **of, **NOON)
        history.add(table, **of, **(NOON | {"hour_at": DAY + timedelta(hours=13)}))
    window = {"from": clock(10), "to": clock(13)}

    expected = {
        "started_count": 59,
        "succeeded_count": 55,
        "failed_count": 2,
        "timed_out_count": 1,
        "cancelled_count": 1,
        "skipped_count": 1,
        "finished_count": 60,
        "retried_count": 5,
        "on_time_count": 6,
        "late_count": 1,
        "missed_count": 1,
        "success_rate": 55 / 58,
        "failure_rate": 3 / 58,
        "retry_rate": 5 / 60,
        "on_time_rate": 6 / 8,
        "duration_count": 58,
        "duration_sum_s": 36_638.0,
        "duration_avg_s": 36_638 / 58,
        "duration_min_s": 1.0,
        "duration_max_s": 3600.0,
        # 38 lie in the first bucket, 48 in the first two: the 29th, the 56th and the 58th.
        "duration_p50_s": pytest.approx(middle(0), rel=1e-12),
        "duration_p95_s": pytest.approx(middle(94), rel=1e-12),
        "duration_p99_s": pytest.approx(middle(94), rel=1e-12),
        "rows_sum": 1201.5,
        "bytes_sum": 512.0,
    }
    for path in ("", "/pipelines/nightly"):
        said = history.get(path, **window)
        assert (said["from"], said["to"]) == (clock(10), clock(13))
        assert said["totals"] == expected
        assert [row["at"] for row in said["series"]] == [clock(10), clock(11), clock(12)]
        assert said["series"][1] == NOTHING | {"at": clock(11)}
        ten = said["series"][0]
        assert (ten["started_count"], ten["success_rate"], ten["duration_avg_s"]) == (21, 17 / 20, 1830.0)
        assert (ten["duration_p50_s"], ten["duration_p95_s"], ten["bytes_sum"]) == (61.25, 3527.5, None)
    assert history.get("/pipelines/hourly", **window)["totals"] == NOTHING


def test_the_window_is_cut_to_whole_hours_outwards(history: History) -> None:
    history.add("client_hour", **TEN_OCLOCK)
    said = history.get(**{"from": clock(10.99), "to": "2026-03-01T13:00:00.000001+02:00"})
    assert (said["from"], said["to"]) == (clock(10), clock(12))
    assert said["totals"]["started_count"] == 21
    assert len(said["series"]) == 2


def test_whole_days_are_read_as_days_and_the_ends_by_hour(history: History) -> None:
    history.add("client_hour", **TEN_OCLOCK)
    history.add("client_hour", hour_at=DAY + timedelta(days=2), started_count=1)
    history.add("client_day", day_utc=DAY, started_count=500)
    history.add("client_day", day_utc=DAY + timedelta(days=1), started_count=1000)
    window = {"from": clock(9), "to": clock(49)}

    by_day = history.get(**window, step="day")
    assert by_day["totals"]["started_count"] == 21 + 1000 + 1
    # Days are shown whole, also at the ends.
    assert [(row["at"], row["started_count"]) for row in by_day["series"]] == [
        (clock(0), 500),
        (clock(24), 1000),
        (clock(48), 0),
    ]
    assert history.get(**window, step="none") == by_day | {"series": []}


def test_a_series_goes_by_hours_up_to_14_days_unless_told_otherwise(history: History) -> None:
    fortnight, more = clock(14 * 24), clock(14 * 24 + 1)
    assert len(history.get(**{"from": clock(0), "to": fortnight})["series"]) == 14 * 24
    assert len(history.get(**{"from": clock(0), "to": more})["series"]) == 15
    assert len(history.get(**{"from": clock(0), "to": more, "step": "hour"})["series"]) == 14 * 24 + 1
    assert len(history.get(**{"from": clock(0), "to": fortnight, "step": "day"})["series"]) == 14
    assert len(history.get(**{"from": clock(0), "to": clock(400 * 24), "step": "day"})["series"]) == 400


def test_without_a_window_it_is_the_last_24_hours() -> None:
    now = datetime(2026, 3, 2, 6, 20, tzinfo=UTC)
    seven = datetime(2026, 3, 2, 7, tzinfo=UTC)
    window = read_window(None, None, None, now)
    assert (window.from_at, window.to_at) == (seven - timedelta(hours=24), seven)
    assert read_window(None, clock(0), None, now).from_at == DAY - timedelta(hours=24)
    assert read_window(clock(0.5), None, None, now).from_at == DAY
    assert read_window(clock(0), clock(400 * 24), None, now).to_at == DAY + timedelta(days=400)


@pytest.mark.parametrize(
    ("from_", "to", "pointer", "code"),
    [
        (clock(1), clock(1), "?to", "out_of_range"),
        (clock(0.5), clock(0.25), "?to", "out_of_range"),
        (clock(1000), None, "?to", "out_of_range"),
        (clock(0), clock(400 * 24 + 1), "?from", "out_of_range"),
        ("0001-01-01T00:00:00Z", None, "?from", "out_of_range"),
        (None, "9999-12-31T23:59:59Z", "?to", "out_of_range"),
        ("2026-03-01T00:00:00", None, "?from", "naive_time"),
        (None, "now", "?to", "wrong_type"),
    ],
)
def test_a_window_that_cannot_be_is_refused(from_: str | None, to: str | None, pointer: str, code: str) -> None:
    with pytest.raises(Problem) as refused:
        read_window(from_, to, None, datetime(2026, 3, 2, tzinfo=UTC))
    assert refused.value.status == 422
    assert [(error.pointer, error.code) for error in refused.value.errors] == [(pointer, code)]


def test_a_series_by_hour_has_an_end(history: History) -> None:
    window = {"from": clock(0), "to": clock(100 * 24 + 1)}
    refused = history.admin.get(f"/v1/clients/{history.slug}/summary", **window, step="hour")
    assert problem(refused) == (422, "invalid", [("?step", "out_of_range")])
    assert refused.json()["errors"][0]["detail"] == (
        "By hour a window has at most 100 days; go by day, or ask for one after the other."
    )
    assert len(history.get(**window, step="day")["series"]) == 101
    assert len(history.get(**{"from": clock(1), "to": clock(100 * 24 + 1), "step": "hour"})["series"]) == 2400


@pytest.mark.parametrize("path", ["/v1/summary", "/v1/clients/{}/summary", "/v1/clients/{}/pipelines/nightly/summary"])
def test_a_step_or_parameter_that_does_not_exist_is_refused(history: History, path: str) -> None:
    address = path.format(history.slug)
    assert problem(history.admin.get(address, step="week")) == (422, "invalid", [("?step", "unknown_value")])
    assert problem(history.admin.get(address, client="x")) == (422, "invalid", [("?client", "unknown_parameter")])
    assert problem(history.admin.get(address, to="x")) == (422, "invalid", [("?to", "wrong_type")])


def test_a_client_or_pipeline_that_does_not_exist_is_not_found(history: History) -> None:
    for path in ("/v1/clients/nobody/summary", f"/v1/clients/{history.slug}/pipelines/nobody/summary"):
        assert problem(history.admin.get(path)) == (404, "not_found", [])


# -- all clients ---------------------------------------------------------------------------------------------

# A year of which no other test stores anything.
LONG_AGO = datetime(2021, 5, 1, 10, tzinfo=UTC)
MORNING = {"from": "2021-05-01T10:00:00Z", "to": "2021-05-01T12:00:00Z"}


def rows_of(said: Any, *slugs: str) -> list[dict[str, Any]]:
    return [row for row in said["clients"] if row["client"] in slugs]


def test_the_fleet_is_told_as_a_whole_and_by_client(world: World, admin: Api) -> None:
    first, second, idle = (History(world, world.slug()) for _ in range(3))
    admin.put(f"/v1/clients/{second.slug}", {"title": "Second"})
    first.add("client_hour", hour_at=LONG_AGO, succeeded_count=3, failed_count=1)
    second.add("client_hour", hour_at=LONG_AGO + timedelta(hours=1), succeeded_count=5)
    add_row(world.engine, "fleet_hour", hour_at=LONG_AGO, succeeded_count=3, failed_count=1)
    add_row(world.engine, "fleet_hour", hour_at=LONG_AGO + timedelta(hours=1), succeeded_count=5)

    said = admin.get("/v1/summary", **MORNING).json()

    totals = NOTHING | {"succeeded_count": 8, "failed_count": 1, "finished_count": 9}
    totals |= {"success_rate": 8 / 9, "failure_rate": 1 / 9, "retry_rate": 0.0}
    assert said["totals"] == totals
    assert [row["finished_count"] for row in said["series"]] == [4, 5]
    found = rows_of(said, first.slug, second.slug, idle.slug)
    assert [(row["client"], row["title"], row["finished_count"], row["success_rate"]) for row in found] == [
        (first.slug, first.slug, 4, 0.75),
        (second.slug, "Second", 5, 1.0),
        (idle.slug, idle.slug, 0, None),
    ]
    assert found[2] == NOTHING | {"client": idle.slug, "title": idle.slug, "is_archived": False}


def test_an_archived_client_is_told_where_something_happened(world: World, admin: Api) -> None:
    busy, idle = (History(world, world.slug()) for _ in range(2))
    busy.add("client_hour", hour_at=LONG_AGO, missed_count=1)
    for slug in (busy.slug, idle.slug):
        admin.delete(f"/v1/clients/{slug}")
    found = rows_of(admin.get("/v1/summary", **MORNING, step="none").json(), busy.slug, idle.slug)
    assert [(row["client"], row["is_archived"], row["missed_count"]) for row in found] == [(busy.slug, True, 1)]


def test_a_bound_key_is_told_of_its_own_client_alone(world: World, history: History) -> None:
    other = History(world, world.slug())
    history.add("client_hour", hour_at=LONG_AGO, succeeded_count=2)
    other.add("client_hour", hour_at=LONG_AGO, succeeded_count=7)
    reader = world.caller("read", history.slug)

    said = reader.get("/v1/summary", **MORNING).json()

    own = reader.get(f"/v1/clients/{history.slug}/summary", **MORNING).json()
    assert own["totals"]["succeeded_count"] == 2
    named = {"client": history.slug, "title": history.slug, "is_archived": False}
    assert said == own | {"clients": [own["totals"] | named]}
    assert problem(reader.get(f"/v1/clients/{other.slug}/summary")) == (404, "not_found", [])
    assert problem(world.caller("ingest", history.slug).get("/v1/summary"))[:2] == (403, "forbidden")
