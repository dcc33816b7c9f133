"""Annotations over HTTP: written down, listed, taken away."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.api.conftest import Api, World, problem

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOTE = {"at": "2026-03-01T12:00:00Z", "kind": "note", "text": "nothing runs"}


@pytest.fixture
def path(admin: Api, slug: str) -> str:
    """The annotations of a client that has the pipelines nightly and hourly."""
    for pipeline in ("", "/pipelines/nightly", "/pipelines/hourly"):
        assert admin.put(f"/v1/clients/{slug}{pipeline}", {}).status_code == 201
    return f"/v1/clients/{slug}/annotations"


def texts(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["text"] for item in answer.json()["items"]]


def test_a_deploy_is_written_down_and_found_where_location_says(admin: Api, slug: str, path: str) -> None:
    said = {
        "at": "2026-03-01T12:00:00.250+02:00",
        "until_at": "2026-03-01T12:30:00+02:00",
        "kind": "deploy",
        "text": "loader 2.4.1",
        "pipeline": "nightly",
        "url": "https://git.example.com/loader?tag=2.4.1",
    }
    made = admin.post(path, said)

    assert made.status_code == 201
    item = made.json()
    assert made.headers["location"] == f"{path}/{item['id']}"
    assert item == said | {
        "id": item["id"],
        "client": slug,
        "at": "2026-03-01T10:00:00.250000Z",
        "until_at": "2026-03-01T10:30:00Z",
        "created_at": item["created_at"],
    }
    assert admin.get(made.headers["location"]).json() == item
    assert admin.get(path).json() == {"items": [item], "next_cursor": None}


def test_an_annotation_needs_only_time_kind_and_text(admin: Api, path: str) -> None:
    item = admin.post(path, NOTE | {"until_at": None, "pipeline": None, "url": None}).json()
    assert (item["until_at"], item["pipeline"], item["url"]) == (None, None, None)
    assert item["at"] == "2026-03-01T12:00:00Z"


def test_one_that_is_deleted_is_gone(admin: Api, path: str) -> None:
    location = admin.post(path, NOTE).headers["location"]
    assert admin.delete(location).status_code == 204
    assert problem(admin.delete(location)) == (404, "not_found", [])
    assert problem(admin.get(location)) == (404, "not_found", [])
    assert texts(admin.get(path)) == []


def test_the_list_goes_newest_first_and_a_cursor_continues_it(admin: Api, path: str) -> None:
    for minutes in (0, 1, 1, 1, 2):
        at = (NOON + timedelta(minutes=minutes)).isoformat()
        assert admin.post(path, NOTE | {"at": at, "text": str(minutes)}).status_code == 201

    seen: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        answer = admin.get(path, limit=2, **cursor).json()
        seen += answer["items"]
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}

    assert [item["text"] for item in seen] == ["2", "1", "1", "1", "0"]
    assert [item["id"] for item in seen[1:4]] == sorted(item["id"] for item in seen[1:4])
    assert problem(admin.get(path, cursor="x")) == (400, "bad_cursor", [("?cursor", "bad_cursor")])


def test_a_window_shows_what_lasts_into_it(admin: Api, path: str) -> None:
    for text, begin, end in (("moment", 0, None), ("long", -10, 5), ("over", -11, -1), ("later", 10, None)):
        until_at = None if end is None else (NOON + timedelta(minutes=end)).isoformat()
        at = (NOON + timedelta(minutes=begin)).isoformat()
        assert admin.post(path, {"at": at, "until_at": until_at, "kind": "note", "text": text}).status_code == 201

    assert texts(admin.get(path, **{"from": "2026-03-01T12:00:00Z", "to": "2026-03-01T12:10:00Z"})) == [
        "moment",
        "long",
    ]
    assert texts(admin.get(path, to="2026-03-01T12:00:00Z", limit=1)) == ["long"]
    assert texts(admin.get(path, **{"from": "2026-03-01T12:10:00Z"})) == ["later"]


def test_the_list_is_filtered_by_kind_and_pipeline(admin: Api, path: str) -> None:
    for kind, pipeline in (("deploy", "nightly"), ("note", "nightly"), ("deploy", "hourly"), ("deploy", None)):
        said = NOTE | {"kind": kind, "pipeline": pipeline, "text": f"{kind} {pipeline}"}
        assert admin.post(path, said).status_code == 201

    assert sorted(texts(admin.get(path, kind="deploy"))) == ["deploy None", "deploy hourly", "deploy nightly"]
    assert sorted(texts(admin.get(path, pipeline="nightly"))) == ["deploy nightly", "note nightly"]
    assert texts(admin.get(path, pipeline="nightly", kind="note")) == ["note nightly"]
    assert problem(admin.get(path, pipeline="nobody")) == (404, "not_found", [])
    assert problem(admin.get(path, kind="x")) == (422, "invalid", [("?kind", "unknown_value")])
    assert problem(admin.get(path, **{"from": "2026-03-01"})) == (422, "invalid", [("?from", "wrong_type")])


@pytest.mark.parametrize(
    ("change", "errors"),
    [
        ({"at": None}, [("/at", "missing_field")]),
        ({"at": "2026-03-01T12:00:00"}, [("/at", "naive_time")]),
        ({"at": "yesterday"}, [("/at", "wrong_type")]),
        ({"at": 5}, [("/at", "wrong_type")]),
        ({"at": "1999-12-31T23:59:59Z"}, [("/at", "out_of_range")]),
        ({"at": "0001-01-01T00:00:00+14:00"}, [("/at", "out_of_range")]),
        ({"at": "9999-12-31T23:59:59-14:00"}, [("/at", "out_of_range")]),
        ({"until_at": "2026-03-01T13:00:00+01:00"}, [("/until_at", "out_of_range")]),
        ({"kind": "release"}, [("/kind", "unknown_value")]),
        ({"kind": None}, [("/kind", "missing_field")]),
        ({"kind": ["note"]}, [("/kind", "wrong_type")]),
        ({"text": ""}, [("/text", "too_short")]),
        ({"text": " \n"}, [("/text", "too_short")]),
        ({"text": "x" * 2001}, [("/text", "too_long")]),
        ({"text": "a\0b"}, [("/text", "nul_character")]),
        ({"pipeline": "nobody"}, [("/pipeline", "unknown_value")]),
        ({"pipeline": "no slug"}, [("/pipeline", "unknown_value")]),
        ({"pipeline": 7}, [("/pipeline", "wrong_type")]),
        ({"url": "ftp://example.com"}, [("/url", "invalid_url")]),
        ({"url": "https://example.com/a b"}, [("/url", "invalid_url")]),
        ({"url": "https://example.com/\n"}, [("/url", "invalid_url")]),
        ({"link": "https://example.com"}, [("/link", "unknown_field")]),
        ({"text": None, "pipeline": "nobody"}, [("/text", "missing_field"), ("/pipeline", "unknown_value")]),
    ],
)
def test_what_is_not_valid_is_named_and_nothing_is_written(
    admin: Api, path: str, change: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    assert problem(admin.post(path, NOTE | change)) == (422, "invalid", errors)
    assert texts(admin.get(path)) == []


def test_the_longest_words_are_kept_whole(admin: Api, path: str) -> None:
    item = admin.post(path, NOTE | {"text": "ß" * 2000, "url": "https://" + "x" * 1992}).json()
    assert (item["text"], len(item["url"])) == ("ß" * 2000, 2000)


def test_reading_needs_read_and_writing_needs_write(world: World, slug: str, path: str, admin: Api) -> None:
    location = admin.post(path, NOTE).headers["location"]
    reader, sender, writer = (world.caller(role, slug) for role in ("read", "ingest", "write"))
    assert texts(reader.get(path)) == texts(writer.get(path)) == ["nothing runs"]
    for caller, answer in (
        (sender, sender.get(path)),
        (reader, reader.post(path, NOTE)),
        (reader, reader.delete(location)),
    ):
        assert problem(answer)[:2] == (403, "forbidden"), caller.key
    assert writer.post(path, NOTE).status_code == 201
    assert writer.delete(location).status_code == 204


def test_a_bound_key_neither_sees_nor_touches_those_of_another_client(world: World, admin: Api, path: str) -> None:
    location = admin.post(path, NOTE).headers["location"]
    mine = world.slug()
    bound = world.caller("write", mine)
    own = bound.post(f"/v1/clients/{mine}/annotations", NOTE)
    assert own.status_code == 201
    for answer in (bound.get(path), bound.get(location), bound.post(path, NOTE), bound.delete(location)):
        assert problem(answer)[:2] == (404, "not_found")
    # An id of another client is not found under one's own.
    foreign_id = location.rsplit("/", 1)[1]
    assert bound.delete(f"/v1/clients/{mine}/annotations/{foreign_id}").status_code == 404
    assert admin.get(location).status_code == 200


def test_nothing_new_is_written_for_an_archived_client(admin: Api, slug: str, path: str) -> None:
    location = admin.post(path, NOTE).headers["location"]
    admin.delete(f"/v1/clients/{slug}")
    assert problem(admin.post(path, NOTE)) == (409, "client_archived", [])
    assert texts(admin.get(path)) == ["nothing runs"]
    assert admin.delete(location).status_code == 204


@pytest.mark.parametrize("id_", ["x", "00000000-0000-0000-0000-000000000000", "{0}", "a%00b"])
def test_what_is_no_id_is_not_found(admin: Api, path: str, id_: str) -> None:
    assert problem(admin.get(f"{path}/{id_}")) == (404, "not_found", [])
    assert problem(admin.delete(f"{path}/{id_}")) == (404, "not_found", [])
