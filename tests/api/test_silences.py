"""Silences over HTTP: made, changed, ended, and what they are about."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.api.alerting_rows import NOW, fire
from tests.api.conftest import Api, World, problem

MATCHERS = {"pipelines": ["load-*"], "levels": ["warning"]}
SAID: dict[str, Any] = {"matchers": MATCHERS, "for_s": 3600, "comment": "the warehouse moves"}


@pytest.fixture
def client(admin: Api, slug: str) -> str:
    """A client that exists."""
    assert admin.put(f"/v1/clients/{slug}", {}).status_code == 201
    return slug


def make(api: Api, client: str, **said: Any) -> Any:
    return api.post(f"/v1/silences?client={client}", SAID | said)


def path_of(answer: Any) -> str:
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def begin(world: World, path: str, seconds_ago: float, lasts_s: float) -> None:
    """Move a silence in time."""
    with world.begin() as connection:
        connection.execute(
            text("update pulsewatch.silence set starts_at = :starts_at, ends_at = :ends_at where id = :id"),
            {
                "id": path.rsplit("/", 1)[1],
                "starts_at": NOW - timedelta(seconds=seconds_ago),
                "ends_at": NOW - timedelta(seconds=seconds_ago - lasts_s),
            },
        )


def time(written: str) -> datetime:
    return datetime.fromisoformat(written)


def comments(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["comment"] for item in answer.json()["items"]]


def test_a_silence_is_made_and_found_where_location_says(world: World, client: str) -> None:
    writer = world.caller("write", client)
    made = make(writer, client, matchers={"tags": ["dwh"], "levels": []})

    item = made.json()
    assert item | {"starts_at": "", "ends_at": "", "created_at": "", "updated_at": ""} == {
        "id": path_of(made).rsplit("/", 1)[1],
        "client": client,
        "matchers": {"tags": ["dwh"]},
        "state": "active",
        "starts_at": "",
        "ends_at": "",
        "comment": "the warehouse moves",
        "author": None,
        "created_at": "",
        "updated_at": "",
    }
    assert time(item["ends_at"]) - time(item["starts_at"]) == timedelta(hours=1)
    got = writer.get(path_of(made))
    assert (got.json(), got.headers["etag"]) == (item, made.headers["etag"])
    assert writer.get("/v1/silences").json() == {"items": [item], "next_cursor": None}


def test_a_start_that_is_past_is_now_and_one_ahead_waits(admin: Api, client: str) -> None:
    before = datetime.now(UTC)
    past = make(admin, client, starts_at="2026-01-01T00:00:00Z").json()
    assert before <= time(past["starts_at"]) <= datetime.now(UTC)
    starts_at, ends_at = (before + timedelta(hours=hours) for hours in (1, 2))
    ahead = {"matchers": MATCHERS, "comment": "x", "starts_at": starts_at.isoformat(), "ends_at": ends_at.isoformat()}
    item = admin.post(f"/v1/silences?client={client}", ahead).json()
    assert (item["state"], time(item["starts_at"]), time(item["ends_at"])) == ("pending", starts_at, ends_at)


def test_the_list_is_filtered_by_state_and_those_that_end_last_come_first(
    world: World, admin: Api, client: str
) -> None:
    for name, seconds_ago, lasts_s in (("over", 200, 100), ("active", 100, 100_000), ("pending", -50_000, 100_000)):
        begin(world, path_of(make(admin, client, comment=name)), seconds_ago, lasts_s)
    # Ended before it began.
    begin(world, path_of(make(admin, client, comment="never")), -60_000, 0)

    assert comments(admin.get("/v1/silences", client=client)) == ["pending", "active", "never", "over"]
    first = admin.get("/v1/silences", client=client, limit=3)
    rest = admin.get("/v1/silences", client=client, limit=3, cursor=first.json()["next_cursor"])
    assert comments(first) + comments(rest) == ["pending", "active", "never", "over"]
    for state, found in (("active", ["active"]), ("pending", ["pending"]), ("expired", ["never", "over"])):
        assert comments(admin.get("/v1/silences", client=client, state=state)) == found
    assert problem(admin.get("/v1/silences", cursor="x")) == (400, "bad_cursor", [("?cursor", "bad_cursor")])


def test_one_that_has_not_begun_can_be_changed_whole(admin: Api, client: str) -> None:
    path = path_of(make(admin, client, starts_at=(NOW + timedelta(hours=1)).isoformat()))
    starts_at, ends_at = NOW + timedelta(hours=2), NOW + timedelta(hours=3)
    said = {
        "matchers": {"rules": ["*"]},
        "starts_at": starts_at.isoformat(),
        "ends_at": ends_at.isoformat(),
        "comment": "later",
    }
    item = admin.put(path, said).json()
    assert (item["matchers"], time(item["starts_at"]), time(item["ends_at"]), item["comment"]) == (
        {"rules": ["*"]},
        starts_at,
        ends_at,
        "later",
    )
    # The same again is no change.
    assert admin.put(path, said).json() == item


def test_one_that_has_begun_keeps_its_start_and_matchers(world: World, admin: Api, client: str) -> None:
    path = path_of(make(admin, client))
    begin(world, path, 100, 1000)
    before = admin.get(path).json()

    longer = admin.put(path, SAID | {"for_s": 7200, "comment": "takes longer"}).json()
    assert (longer["starts_at"], longer["comment"]) == (before["starts_at"], "takes longer")
    assert time(longer["ends_at"]) > time(before["ends_at"])

    for change in ({"matchers": {"rules": ["*"]}}, {"starts_at": (NOW + timedelta(hours=1)).isoformat()}):
        assert problem(admin.put(path, SAID | change)) == (409, "silence_started", [])
    assert admin.get(path).json() == longer
    assert admin.put(path, SAID | {"starts_at": before["starts_at"]}).status_code == 200


def test_a_silence_that_is_deleted_ends_now_and_stays_in_the_list(world: World, admin: Api, client: str) -> None:
    path = path_of(make(admin, client))
    begin(world, path, 100, 1000)
    before = datetime.now(UTC)

    assert admin.delete(path).status_code == 204

    item = admin.get(path).json()
    assert (item["state"], time(item["starts_at"])) == ("expired", NOW - timedelta(seconds=100))
    assert before <= time(item["ends_at"]) <= datetime.now(UTC)
    assert admin.delete(path).status_code == 204
    assert admin.get(path).json() == item
    assert problem(admin.put(path, SAID)) == (409, "silence_over", [])


def test_one_that_is_deleted_before_it_begins_never_holds(admin: Api, client: str) -> None:
    starts_at = NOW + timedelta(hours=1)
    path = path_of(make(admin, client, starts_at=starts_at.isoformat()))
    assert admin.delete(path).status_code == 204
    item = admin.get(path).json()
    assert (item["state"], time(item["starts_at"]), time(item["ends_at"])) == ("expired", starts_at, starts_at)


def test_if_match_guards_a_silence_and_time_alone_does_not_change_its_tag(admin: Api, client: str) -> None:
    made = make(admin, client)
    path, tag = path_of(made), made.headers["etag"]
    assert admin.put(path, SAID | {"comment": "other"}, If_Match=tag).status_code == 200
    assert problem(admin.put(path, SAID, If_Match=tag)) == (412, "precondition_failed", [])
    assert problem(admin.delete(path, If_Match=tag)) == (412, "precondition_failed", [])


@pytest.mark.parametrize(
    ("change", "errors"),
    [
        ({"matchers": None}, [("/matchers", "wrong_type")]),
        ({"matchers": {}}, [("/matchers", "invalid_value")]),
        ({"matchers": {"rules": []}}, [("/matchers", "invalid_value")]),
        ({"matchers": {"pipeline": ["x"]}}, [("/matchers/pipeline", "unknown_field")]),
        ({"matchers": {"pipelines": "x"}}, [("/matchers/pipelines", "wrong_type")]),
        ({"matchers": {"pipelines": ["x", ""]}}, [("/matchers/pipelines/1", "too_short")]),
        ({"matchers": {"pipelines": ["x" * 201]}}, [("/matchers/pipelines/0", "too_long")]),
        ({"matchers": {"levels": ["fatal"]}}, [("/matchers/levels/0", "unknown_value")]),
        ({"comment": None}, [("/comment", "wrong_type")]),
        ({"comment": " "}, [("/comment", "invalid_value")]),
        ({"comment": "x" * 2001}, [("/comment", "too_long")]),
        ({"for_s": None}, [("", "invalid_value")]),
        ({"ends_at": "2099-01-01T00:00:00Z"}, [("", "invalid_value")]),
        ({"for_s": None, "ends_at": "2099-01-01T00:00:00Z"}, [("/ends_at", "out_of_range")]),
        ({"for_s": None, "ends_at": "2020-01-01T00:00:00Z"}, [("/ends_at", "out_of_range")]),
        ({"for_s": 401 * 86_400}, [("/for_s", "out_of_range")]),
        ({"starts_at": "2099-01-01T00:00:00Z"}, [("/starts_at", "out_of_range")]),
        ({"starts_at": "9999-12-31T23:59:59-14:00"}, [("/starts_at", "out_of_range")]),
        ({"for_s": None, "ends_at": "0001-01-01T00:00:00+14:00"}, [("/ends_at", "out_of_range")]),
        ({"for_s": 400 * 86_400, "starts_at": (NOW + timedelta(days=9)).isoformat()}, [("/for_s", "out_of_range")]),
        ({"starts_at": "2026-01-01T00:00:00"}, [("/starts_at", "naive_time")]),
        ({"until": "2026-01-01T00:00:00Z"}, [("/until", "unknown_field")]),
    ],
)
def test_what_is_not_valid_is_named_and_nothing_is_written(
    admin: Api, client: str, change: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    assert problem(make(admin, client, **change)) == (422, "invalid", errors)
    assert comments(admin.get("/v1/silences", client=client)) == []


def test_a_misspelt_matcher_is_told_the_nearest(admin: Api, client: str) -> None:
    (error,) = make(admin, client, matchers={"pipeline": ["x"]}).json()["errors"]
    assert error["detail"] == "There is no field 'pipeline'. Did you mean 'pipelines'?"


# -- preview ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(world: World, slug: str) -> str:
    """A client with three alerts that are open and one that is over; another client has one too."""
    fire(world, slug, "load-a", minutes_ago=3, tags=("dwh",), owner="ann")
    fire(world, slug, "load-b", minutes_ago=2, level=2, tags=("dwh", "hot"), environment="prod")
    fire(world, slug, "report", minutes_ago=1)
    fire(world, slug, "load-c", is_resolved=True)
    fire(world, world.slug(), "load-a")
    return slug


@pytest.mark.parametrize(
    ("matchers", "found"),
    [
        ({"rules": ["*"]}, ["report", "load-b", "load-a"]),
        ({"rules": ["fails-*-report"]}, ["report"]),
        ({"pipelines": ["load-*"]}, ["load-b", "load-a"]),
        ({"pipelines": ["load-*"], "levels": ["critical"]}, ["load-b"]),
        ({"levels": ["critical", "warning"]}, ["report", "load-b", "load-a"]),
        ({"tags": ["dwh"], "owners": ["a*"]}, ["load-a"]),
        ({"tags": ["h*", "cold"]}, ["load-b"]),
        ({"environments": ["prod"]}, ["load-b"]),
        ({"clients": ["nobody"]}, []),
    ],
)
def test_a_preview_shows_the_open_alerts_that_would_be_hit(
    admin: Api, three: str, matchers: dict[str, Any], found: list[str]
) -> None:
    answer = admin.post(f"/v1/silences:preview?client={three}", {"matchers": matchers})
    assert answer.status_code == 200
    assert [item["pipeline"] for item in answer.json()["items"]] == found
    assert answer.json()["count"] == len(found)


def test_a_preview_over_all_clients_is_for_keys_of_all_clients(world: World, admin: Api, three: str) -> None:
    body = {"matchers": {"pipelines": ["load-a"]}}
    everywhere = admin.post("/v1/silences:preview", body).json()
    assert everywhere["count"] >= 2
    assert len({item["client"] for item in everywhere["items"]}) >= 2
    bound = world.caller("read", three)
    assert [item["client"] for item in bound.post("/v1/silences:preview", body).json()["items"]] == [three]
    bad = bound.post("/v1/silences:preview", {"matchers": {"pipelins": ["x"]}})
    assert problem(bad) == (422, "invalid", [("/matchers/pipelins", "unknown_field")])


# -- who may ----------------------------------------------------------------------------------------------------------


def test_reading_needs_read_and_writing_needs_write(world: World, client: str, admin: Api) -> None:
    path = path_of(make(admin, client))
    reader, sender, writer = (world.caller(role, client) for role in ("read", "ingest", "write"))
    assert reader.get(path).status_code == 200
    for answer in (sender.get(path), make(reader, client), reader.put(path, SAID), reader.delete(path)):
        assert problem(answer)[:2] == (403, "forbidden")
    assert make(writer, client).status_code == 201
    assert writer.delete(path).status_code == 204


def test_a_bound_key_neither_sees_nor_touches_silences_of_others(world: World, admin: Api, client: str) -> None:
    mine = world.slug()
    bound = world.caller("write", mine)
    own = bound.post("/v1/silences", SAID)
    assert (own.status_code, own.json()["client"]) == (201, mine)
    fleet = admin.post("/v1/silences", SAID | {"comment": "all"})
    assert fleet.json()["client"] is None
    for path in (path_of(make(admin, client)), path_of(fleet)):
        for answer in (bound.get(path), bound.put(path, SAID), bound.delete(path)):
            assert problem(answer) == (404, "not_found", [])
        assert admin.get(path).json()["state"] == "active"
    assert problem(make(bound, client)) == (404, "not_found", [])
    assert problem(bound.get("/v1/silences", client=client)) == (404, "not_found", [])
    assert comments(bound.get("/v1/silences")) == ["the warehouse moves"]
    assert admin.delete(path_of(fleet)).status_code == 204


def test_nothing_is_silenced_for_an_archived_client(admin: Api, client: str) -> None:
    admin.delete(f"/v1/clients/{client}")
    assert problem(make(admin, client)) == (409, "client_archived", [])


@pytest.mark.parametrize("id_", ["x", "00000000-0000-0000-0000-000000000000", "{0}", "a%00b"])
def test_what_is_no_id_is_not_found(admin: Api, id_: str) -> None:
    for answer in (
        admin.get(f"/v1/silences/{id_}"),
        admin.put(f"/v1/silences/{id_}", SAID),
        admin.delete(f"/v1/silences/{id_}"),
    ):
        assert problem(answer) == (404, "not_found", [])
