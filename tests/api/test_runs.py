"""Runs over HTTP: one run with its events; lists, their filters and their cursors."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pulsewatch.api import run_queries
from pulsewatch.api.answers import encode_cursor
from pulsewatch.events import Flag, Parent, RunEvent, Status, run_id
from pulsewatch.submissions import CatalogStatement
from tests.api.conftest import Api, World, problem

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=3)


def event(client: str, run: str = "r1", minutes: float = 0, status: Status = Status.RUNNING, **said: Any) -> RunEvent:
    words = {"pipeline": "nightly"} | said
    return RunEvent(client=client, run=run, status=status, occurred_at=NOON + timedelta(minutes=minutes), **words)


def at(minutes: float) -> str:
    return (NOON + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def listed(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [run["external_id"] for run in answer.json()["items"]]


def walk(api: Api, path: str, **params: Any) -> list[str]:
    """All pages of a list, one after the other."""
    seen: list[str] = []
    while True:
        answer = api.get(path, **params)
        seen += listed(answer)
        params["cursor"] = answer.json()["next_cursor"]
        if params["cursor"] is None:
            return seen


def test_a_run_shows_what_its_events_say_together(world: World, admin: Api, slug: str) -> None:
    parent = Parent("orchestrator", "o1", "airflow")
    world.store(
        event(
            slug,
            scheduled_at=NOON,
            parent=parent,
            metrics={"rows": 1.0, "files": 2.0},
            attributes={"host": "w1", "n": 12345678901234567890},
            flags=Flag.ASSUMED_UTC,
        ),
        event(
            slug,
            minutes=10,
            status=Status.FAILED,
            message="disk full",
            error_class="OSError",
            url="https://ci.example.com/7",
            metrics={"rows": 5.5},
            event_id="e2",
        ),
    )

    id_ = run_id(slug, "", "nightly", "r1")
    shown = admin.get(f"/v1/runs/{id_}").json()

    events = shown.pop("events")
    assert shown.pop("has_all_events") is True
    assert shown == {
        "id": id_,
        "client": slug,
        "pipeline": "nightly",
        "external_id": "r1",
        "status": "failed",
        "scheduled_at": at(0),
        "started_at": at(0),
        "finished_at": at(10),
        "duration_s": 600.0,
        "attempt": 0,
        "error_class": "OSError",
        "message": "disk full",
        "metrics": {"rows": 5.5, "files": 2.0},
        "attributes": {"host": "w1", "n": 12345678901234567890},
        "url": "https://ci.example.com/7",
        "parent": {"namespace": "airflow", "pipeline": "orchestrator", "run": "o1"},
        "flags": ["assumed_utc"],
        "first_at": at(0),
    }
    assert [(one["status"], one["occurred_at"], one["event_id"], one["flags"]) for one in events] == [
        ("running", at(0), None, ["assumed_utc"]),
        ("failed", at(10), "e2", []),
    ]
    assert events[0]["parent"] == {"namespace": "airflow", "pipeline": "orchestrator", "run": "o1"}
    assert events[1]["metrics"] == {"rows": 5.5}
    assert events[1]["attributes"] == {}


def test_a_bare_run_shows_nulls_and_empty_objects(world: World, admin: Api, slug: str) -> None:
    world.store(event(slug, status=Status.QUEUED))

    shown = admin.get(f"/v1/runs/{run_id(slug, '', 'nightly', 'r1')}").json()

    assert (shown["status"], shown["started_at"], shown["finished_at"], shown["duration_s"]) == (
        "queued",
        None,
        None,
        None,
    )
    assert (shown["metrics"], shown["attributes"], shown["parent"], shown["flags"]) == ({}, {}, None, [])


def test_a_finish_before_the_start_is_flagged_and_has_no_duration(world: World, admin: Api, slug: str) -> None:
    world.store(event(slug, minutes=5), event(slug, minutes=1, status=Status.SUCCEEDED))

    (shown,) = admin.get("/v1/runs", client=slug).json()["items"]

    assert (shown["duration_s"], shown["flags"]) == (None, ["finish_before_start"])


def test_only_a_runs_own_events_are_shown_and_late_ones_too(world: World, admin: Api, slug: str) -> None:
    world.store(
        event(slug, "r1"),
        event(slug, "r2", minutes=1),
        event(slug, "r1", minutes=2, status=Status.SUCCEEDED),
        event(slug, "r1", minutes=600, status=Status.INFO, message="archived"),
        event(slug, "r2", minutes=3000, status=Status.INFO, message="still going"),
    )

    one = admin.get(f"/v1/runs/{run_id(slug, '', 'nightly', 'r1')}").json()
    other = admin.get(f"/v1/runs/{run_id(slug, '', 'nightly', 'r2')}").json()

    assert [told["status"] for told in one["events"]] == ["running", "succeeded", "info"]
    assert [told["status"] for told in other["events"]] == ["running", "info"]


def told(admin: Api, slug: str, run: str = "r1") -> tuple[list[str], bool]:
    """The messages of a run's events, and whether these are said to be all."""
    shown = admin.get(f"/v1/runs/{run_id(slug, '', 'nightly', run)}").json()
    return [event["message"] for event in shown["events"]], shown["has_all_events"]


def test_a_start_long_before_the_first_event_hides_no_event(
    world: World, admin: Api, slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_queries, "MAX_EVENTS_EXAMINED", 3)
    others = [event(slug, f"o{number}", minutes=number) for number in range(10)]
    day_before = NOON - timedelta(days=1)
    world.store(*others, event(slug, minutes=20, status=Status.SUCCEEDED, started_at=day_before, message="end"))

    assert told(admin, slug) == (["end"], True)


@pytest.mark.parametrize(
    ("examined", "expected"),
    [
        (9, (["begin", "middle", "end"], True)),
        (5, (["begin", "middle", "end"], True)),
        (4, (["begin", "end"], False)),
        (1, (["begin", "end"], False)),
    ],
)
def test_among_many_events_of_others_a_runs_first_and_last_are_found(
    world: World,
    admin: Api,
    slug: str,
    monkeypatch: pytest.MonkeyPatch,
    examined: int,
    expected: tuple[list[str], bool],
) -> None:
    monkeypatch.setattr(run_queries, "MAX_EVENTS_EXAMINED", examined)
    others = [event(slug, "other", minutes=minutes) for minutes in (1, 2, 3, 5, 6, 7)]
    own = {0: "begin", 4: "middle", 8: "end"}
    world.store(*others, *(event(slug, minutes=minutes, message=message) for minutes, message in own.items()))

    assert told(admin, slug) == expected


@pytest.mark.parametrize(
    ("most", "expected"),
    [(6, (list("abcdef"), True)), (4, (list("abef"), False)), (2, (list("af"), False))],
)
def test_of_more_events_than_are_shown_the_first_and_the_last_are(
    world: World, admin: Api, slug: str, monkeypatch: pytest.MonkeyPatch, most: int, expected: tuple[list[str], bool]
) -> None:
    monkeypatch.setattr(run_queries, "MAX_EVENTS", most)
    world.store(*(event(slug, minutes=minutes, message=message) for minutes, message in enumerate("abcdef")))

    assert told(admin, slug) == expected


@pytest.mark.parametrize("id_", ["x", "00000000-0000-0000-0000-000000000000", "{0}", "a%00b", "0" * 32])
def test_a_run_that_does_not_exist_is_not_found(admin: Api, id_: str) -> None:
    assert problem(admin.get(f"/v1/runs/{id_}")) == (404, "not_found", [])


def test_lists_go_from_the_newest_to_the_oldest_by_first_at(world: World, admin: Api, slug: str) -> None:
    world.store(
        event(slug, "old", minutes=1),
        event(slug, "new", minutes=3),
        # It is told of last, but it started first.
        event(slug, "early", minutes=9, started_at=NOON - timedelta(minutes=5)),
        event(slug, "other", minutes=2, pipeline="hourly"),
    )

    assert listed(admin.get("/v1/runs", client=slug)) == ["new", "other", "old", "early"]
    assert listed(admin.get(f"/v1/clients/{slug}/pipelines/nightly/runs")) == ["new", "old", "early"]
    assert listed(admin.get("/v1/runs", client=slug, pipeline="hourly")) == ["other"]
    assert listed(world.caller("read", slug).get("/v1/runs", pipeline="hourly")) == ["other"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_join_without_gap_or_repetition_even_among_equal_times(
    world: World, admin: Api, slug: str, limit: int
) -> None:
    world.store(*(event(slug, f"r{number}", minutes=number // 4) for number in range(10)))
    path = f"/v1/clients/{slug}/pipelines/nightly/runs"

    whole = listed(admin.get("/v1/runs", client=slug))

    assert sorted(whole) == sorted(f"r{number}" for number in range(10))
    assert walk(admin, "/v1/runs", client=slug, limit=limit) == whole
    assert walk(admin, path, limit=limit) == whole


def test_the_last_page_has_no_cursor(world: World, admin: Api, slug: str) -> None:
    world.store(*(event(slug, f"r{number}", minutes=number) for number in range(2)))
    assert admin.get("/v1/runs", client=slug, limit=2).json()["next_cursor"] is None
    assert admin.get("/v1/runs", client=slug, limit=1).json()["next_cursor"] is not None


@pytest.mark.parametrize("limit", [1, 3, 5, 100])
def test_runs_of_all_clients_are_merged_newest_first(world: World, admin: Api, limit: int) -> None:
    # Unequal clients: one has all the newest runs, one only old ones.
    slugs = [world.slug() for _ in range(4)]
    start = -24 * 60 * (30 + limit)  # a day of the test's own, in minutes
    expected = []
    for place, slug in enumerate(slugs):
        for number in range((place + 1) * 3):
            minutes = start + place * 100 + number * (place + 1)
            name = f"{slug}-{number}"
            world.store(event(slug, name, minutes=minutes))
            expected.append((-minutes, run_id(slug, "", "nightly", name), name))
    bounds = {"from": at(start), "to": at(start + 1000)}

    assert walk(admin, "/v1/runs", limit=limit, **bounds) == [name for _, _, name in sorted(expected)]


def test_lists_are_filtered_by_status_and_time(world: World, admin: Api, slug: str) -> None:
    for minutes, status in enumerate((Status.SUCCEEDED, Status.FAILED, Status.RUNNING, Status.SUCCEEDED)):
        world.store(event(slug, f"r{minutes}", minutes=minutes, status=status))
    path = f"/v1/clients/{slug}/pipelines/nightly/runs"

    for where, base in (("/v1/runs", {"client": slug}), (path, {})):
        assert listed(admin.get(where, **base, status="succeeded")) == ["r3", "r0"]
        assert listed(admin.get(where, **base, status=["failed", "running"])) == ["r2", "r1"]
        assert listed(admin.get(where, **base, **{"from": at(1), "to": at(3)})) == ["r2", "r1"]
        # A '+' in an offset is often sent as it is and arrives as a space.
        assert listed(admin.get(where, **base, **{"from": at(2).replace("Z", " 00:00")})) == ["r3", "r2"]


def test_lists_are_filtered_by_tag_owner_and_environment(world: World, admin: Api) -> None:
    slugs = [world.slug(), world.slug()]
    tag = f"tag-{slugs[0]}"
    for slug in slugs:
        for place, name in enumerate(("a", "b", "c")):
            world.store(event(slug, f"{slug}-{name}", minutes=place, pipeline=name))
            said = {
                "tags": [tag, "even"] if place % 2 == 0 else [tag],
                "owner": f"{name}-{slug}",
                "environment": "prod",
            }
            world.store(CatalogStatement(slug, said, NOON, name))
    one, two = slugs

    assert listed(admin.get("/v1/runs", tag=[tag, "even"], client=one)) == [f"{one}-c", f"{one}-a"]
    assert set(listed(admin.get("/v1/runs", tag=tag))) == {f"{slug}-{name}" for slug in slugs for name in "abc"}
    assert walk(admin, "/v1/runs", tag=tag, limit=2) == listed(admin.get("/v1/runs", tag=tag))
    assert listed(admin.get("/v1/runs", owner=f"b-{two}")) == [f"{two}-b"]
    assert listed(admin.get("/v1/runs", client=two, environment="prod", pipeline="c")) == [f"{two}-c"]
    assert listed(admin.get("/v1/runs", client=two, environment="staging")) == []


def test_a_filter_that_many_pipelines_pass_finds_the_same(world: World, admin: Api) -> None:
    slugs = [world.slug(), world.slug()]
    tag = f"tag-{slugs[0]}"
    for slug in slugs:
        events = [event(slug, f"{slug}-{n}", minutes=n / 10, pipeline=f"p{n}") for n in range(70)]
        said = [CatalogStatement(slug, {"tags": [tag]}, NOON, f"p{number}") for number in range(60)]
        world.store(*events, *said)

    assert len(walk(admin, "/v1/runs", tag=tag, limit=50)) == 120
    assert len(set(walk(admin, "/v1/runs", tag=tag, limit=7))) == 120
    with world.begin() as connection:
        client_id = connection.exec_driver_sql("select id from pulsewatch.client where slug = %s", (slugs[1],)).scalar()
        connection.exec_driver_sql("update pulsewatch.pipeline set tags = '{}' where client_id = %s", (client_id,))
    world.store(CatalogStatement(slugs[0], {"tags": [tag]}, NOON, "p60"))
    assert len(walk(admin, "/v1/runs", client=slugs[0], tag=tag, limit=50)) == 61


def test_runs_of_archived_clients_and_pipelines_stay_readable(world: World, admin: Api, slug: str) -> None:
    world.store(event(slug))
    admin.delete(f"/v1/clients/{slug}/pipelines/nightly")
    admin.delete(f"/v1/clients/{slug}")

    assert listed(admin.get("/v1/runs", client=slug)) == ["r1"]
    assert listed(admin.get(f"/v1/clients/{slug}/pipelines/nightly/runs")) == ["r1"]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"pipeline": "nightly"}, (422, "invalid", [("?pipeline", "client_required")])),
        ({"client": "nobody"}, (404, "not_found", [])),
        ({"status": "done"}, (422, "invalid", [("?status", "unknown_value")])),
        ({"limit": 0}, (422, "invalid", [("?limit", "out_of_range")])),
        ({"limit": 501}, (422, "invalid", [("?limit", "out_of_range")])),
        ({"limit": "ten"}, (422, "invalid", [("?limit", "wrong_type")])),
        ({"from": "yesterday"}, (422, "invalid", [("?from", "wrong_type")])),
        ({"from": "2026-01-01T00:00:00"}, (422, "invalid", [("?from", "naive_time")])),
        ({"from": "0001-01-01T00:00:00+14:00"}, (422, "invalid", [("?from", "wrong_type")])),
        ({"stauts": "failed"}, (422, "invalid", [("?stauts", "unknown_parameter")])),
        ({"owner": "a\0b"}, (422, "invalid", [("?owner", "nul_character")])),
        ({"cursor": "nonsense"}, (400, "bad_cursor", [("?cursor", "bad_cursor")])),
        ({"cursor": ""}, (400, "bad_cursor", [("?cursor", "bad_cursor")])),
    ],
)
def test_parameters_that_are_not_valid_are_named(admin: Api, params: dict[str, Any], expected: Any) -> None:
    assert problem(admin.get("/v1/runs", **params)) == expected


def test_an_unknown_parameter_names_the_nearest_known_one(admin: Api) -> None:
    assert "Did you mean 'status'?" in admin.get("/v1/runs", stauts="failed").json()["detail"]


def test_a_cursor_of_another_list_or_with_impossible_values_is_refused(admin: Api) -> None:
    id_ = "00000000-0000-0000-0000-000000000000"
    for cursor in (
        encode_cursor("clients", "a"),
        encode_cursor("runs", 1),
        encode_cursor("runs", 10**18, id_),
        encode_cursor("runs", 10**30, id_),
        encode_cursor("runs", "1", id_),
        encode_cursor("runs", 1, "x"),
    ):
        assert problem(admin.get("/v1/runs", cursor=cursor)) == (400, "bad_cursor", [("?cursor", "bad_cursor")])
    for path, cursor in (
        ("/v1/clients", encode_cursor("clients", "a\0")),
        ("/v1/rejects", encode_cursor("rejects", 2**70)),
        ("/v1/rejects", encode_cursor("rejects", -1)),
        ("/v1/keys", encode_cursor("keys", 10**18, id_)),
    ):
        assert problem(admin.get(path, cursor=cursor))[:2] == (400, "bad_cursor")
