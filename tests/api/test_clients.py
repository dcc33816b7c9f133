"""Clients over HTTP."""

from typing import Any

import pytest

from tests.api.conftest import Api, World, problem, slugs


def test_a_put_makes_a_client_and_the_same_put_again_changes_nothing(admin: Api, slug: str) -> None:
    first = admin.put(f"/v1/clients/{slug}", {"title": "Acme Corp."})
    again = admin.put(f"/v1/clients/{slug}", {"title": "Acme Corp."})

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.headers["etag"] == again.headers["etag"]
    assert first.json() | {"created_at": "", "updated_at": ""} == {
        "slug": slug,
        "title": "Acme Corp.",
        "archived_at": None,
        "created_at": "",
        "updated_at": "",
    }


def test_an_absent_field_stays_and_null_clears_it(admin: Api, slug: str) -> None:
    path = f"/v1/clients/{slug}"
    admin.put(path, {"title": "Acme"})

    assert admin.put(path, {}).json()["title"] == "Acme"
    assert admin.put(path, {"title": None}).json()["title"] is None
    assert admin.get(path).json()["title"] is None


def test_if_match_lets_a_change_through_only_from_what_was_read(admin: Api, slug: str) -> None:
    path = f"/v1/clients/{slug}"
    tag = admin.put(path, {"title": "one"}).headers["etag"]

    changed = admin.put(path, {"title": "two"}, If_Match=tag)
    late = admin.put(path, {"title": "three"}, If_Match=tag)

    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert admin.get(path).headers["etag"] == changed.headers["etag"]
    assert problem(late) == (412, "precondition_failed", [])
    assert admin.get(path).json()["title"] == "two"
    assert admin.delete(path, If_Match=tag).status_code == 412
    assert admin.delete(path, If_Match=f'"other", {changed.headers["etag"]}').status_code == 204


def test_preconditions_on_what_does_not_exist(admin: Api, slug: str) -> None:
    path = f"/v1/clients/{slug}"

    assert admin.put(path, {}, If_Match="*").status_code == 412
    assert admin.get(path).status_code == 404
    assert admin.put(path, {}, If_None_Match="*").status_code == 201
    assert admin.put(path, {}, If_None_Match="*").status_code == 412


def test_an_archived_client_leaves_the_list_and_a_put_brings_it_back(admin: Api, slug: str) -> None:
    path = f"/v1/clients/{slug}"
    admin.put(path, {"title": "Acme"})

    assert admin.delete(path).status_code == 204
    assert admin.delete(path).status_code == 204
    assert slug not in slugs(admin.get("/v1/clients", limit=500))
    assert slug in slugs(admin.get("/v1/clients", limit=500, archived="true"))
    assert slug in slugs(admin.get("/v1/clients", limit=500, archived="any"))
    assert admin.get(path).json()["archived_at"] is not None

    revived = admin.put(path, {})
    assert (revived.status_code, revived.json()["archived_at"]) == (200, None)
    assert revived.json()["title"] == "Acme"


def test_a_key_that_is_bound_to_an_archived_client_does_not_bring_it_back(world: World, admin: Api, slug: str) -> None:
    path = f"/v1/clients/{slug}"
    bound = world.caller("write", slug)
    assert bound.put(path, {"title": "Acme"}).status_code == 200
    admin.delete(path)

    assert problem(bound.put(path, {"title": "Acme again"})) == (409, "client_archived", [])
    assert bound.get(path).json()["archived_at"] is not None
    assert (admin.put(path, {}).json()["archived_at"], bound.put(path, {}).status_code) == (None, 200)


def test_the_list_goes_by_slug_and_a_cursor_continues_it(admin: Api, world: World) -> None:
    made = [world.slug() for _ in range(5)]
    for slug in reversed(made):
        admin.put(f"/v1/clients/{slug}", {})

    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        answer = admin.get("/v1/clients", limit=2, **cursor).json()
        seen += [item["slug"] for item in answer["items"]]
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}

    assert seen == sorted(seen)
    assert [slug for slug in seen if slug in made] == made


@pytest.mark.parametrize("slug", ["-acme", "a b", "ä", "x" * 101, "a%00b"])
def test_a_name_that_is_no_slug_is_refused_when_written_and_not_found_when_read(admin: Api, slug: str) -> None:
    assert problem(admin.put(f"/v1/clients/{slug}", {})) == (422, "invalid", [("{client}", "not_a_slug")])
    assert problem(admin.get(f"/v1/clients/{slug}")) == (404, "not_found", [])
    assert problem(admin.delete(f"/v1/clients/{slug}")) == (404, "not_found", [])


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"titel": "x"}, ("/titel", "unknown_field")),
        ({"title": 5}, ("/title", "wrong_type")),
        ({"title": "x" * 201}, ("/title", "too_long")),
        ({"title": "a\0b"}, ("/title", "nul_character")),
        ([], ("", "wrong_type")),
        ("text", ("", "wrong_type")),
    ],
)
def test_a_body_that_is_not_valid_names_the_field(admin: Api, slug: str, body: object, error: tuple[str, str]) -> None:
    answer = admin.put(f"/v1/clients/{slug}", body)

    assert problem(answer) == (422, "invalid", [error])
    assert admin.get(f"/v1/clients/{slug}").status_code == 404


def test_an_unknown_field_names_the_nearest_known_one(admin: Api, slug: str) -> None:
    answer = admin.put(f"/v1/clients/{slug}", {"titel": "x"})
    assert "Did you mean 'title'?" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("content", "headers", "expected"),
    [
        (b"{", {}, (400, "invalid_json")),
        (b"", {}, (400, "invalid_json")),
        (b'{"title": "\\ud800"}', {}, (400, "invalid_json")),
        (b'{"title": "\xed\xa0\x80"}', {}, (400, "invalid_json")),
        (b'{"title": NaN}', {}, (400, "invalid_json")),
        (b"[" * 60_000, {}, (400, "too_deep")),
        (b'{"title": "' + b"x" * 70_000 + b'"}', {}, (413, "too_large")),
        (b"{}", {"Content-Type": "text/plain"}, (415, "unsupported_media_type")),
        (b"{}", {"Content-Encoding": "gzip"}, (415, "unsupported_media_type")),
    ],
)
def test_a_body_that_cannot_be_read_is_a_problem_of_its_own(
    admin: Api, slug: str, content: bytes, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    headers = {"Content-Type": "application/json"} | headers
    answer = admin.request("PUT", f"/v1/clients/{slug}", content=content, headers=headers)
    assert problem(answer)[:2] == expected
