"""Alert rules over HTTP."""

from typing import Any

import pytest
from sqlalchemy import text

from pulsewatch.auth import Role, create_key
from pulsewatch.rules import KINDS
from tests.api.conftest import Api, World, problem

FAILING: dict[str, Any] = {"kind": "consecutive_failures", "levels": {"warning": 2, "critical": 4}}


@pytest.fixture
def client(admin: Api, slug: str) -> str:
    """A client with two pipelines."""
    admin.put(f"/v1/clients/{slug}", {})
    admin.put(f"/v1/clients/{slug}/pipelines/load", {"tags": ["dwh"], "owner": "ann"})
    admin.put(f"/v1/clients/{slug}/pipelines/report", {"environment": "prod"})
    return slug


@pytest.fixture
def path(client: str) -> str:
    """A rule of the client, that is not there yet."""
    return f"/v1/alert-rules/fails?client={client}"


def act(path: str, verb: str) -> str:
    """The path of something that can be done with the rule."""
    rule, _, query = path.partition("?")
    return f"{rule}{verb}?{query}"


def look(api: Api, path: str) -> Any:
    """GET of a path that has its query already."""
    return api.request("GET", path)


def keys(answer: Any) -> list[tuple[str, str | None]]:
    assert answer.status_code == 200, answer.text
    return [(item["key"], item["client"]) for item in answer.json()["items"]]


def targets(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["pipeline"] for item in answer.json()["items"]]


def add_channel(world: World, key: str, client: str | None = None) -> None:
    with world.begin() as connection:
        connection.execute(
            text(
                "insert into pulsewatch.channel (client_id, key, kind, config)"
                " values ((select id from pulsewatch.client where slug = :client), :key, 'slack', '{}')"
            ),
            {"client": client, "key": key},
        )


# -- put, get, delete -------------------------------------------------------------------------------------------------


def test_a_put_makes_a_rule_and_shows_it_with_all_its_defaults(admin: Api, client: str, path: str) -> None:
    made = admin.put(f"{path}&comment=at+last", FAILING)

    assert made.status_code == 201
    assert made.headers["etag"] == '"1"'
    shown = made.json()
    assert {name: shown[name] for name in ("key", "client", "version", "change", "author", "comment")} == {
        "key": "fails",
        "client": client,
        "version": 1,
        "change": "created",
        "author": None,
        "comment": "at last",
    }
    assert shown["spec"]["params"] == {"statuses": ["failed", "timed_out"]}
    assert (shown["spec"]["is_enabled"], shown["spec"]["repeat_s"], shown["spec"]["channels"]) == (True, 14400, [])
    assert look(admin, path).json() == shown
    assert look(admin, path).headers["etag"] == '"1"'


def test_what_is_shown_can_be_put_and_says_nothing_new(admin: Api, path: str) -> None:
    made = admin.put(path, FAILING)
    again = admin.put(path, made.json()["spec"])
    assert (again.status_code, again.json()) == (200, made.json())


def test_a_put_says_the_whole_rule(admin: Api, path: str) -> None:
    admin.put(path, FAILING | {"for_s": 60, "is_enabled": False})
    changed = admin.put(path, FAILING)
    assert (changed.status_code, changed.json()["version"], changed.json()["change"]) == (200, 2, "changed")
    assert (changed.json()["spec"]["for_s"], changed.json()["spec"]["is_enabled"]) == (0, True)


def test_the_author_is_the_name_of_the_key(world: World, path: str) -> None:
    with world.begin() as connection:
        key = create_key(connection, Role.WRITE, None, name="terraform")[1]
    assert Api(world.client, key).put(path, FAILING).json()["author"] == "terraform"


def test_if_match_guards_a_rule(admin: Api, path: str) -> None:
    assert admin.put(path, FAILING, If_None_Match="*").status_code == 201
    assert problem(admin.put(path, FAILING, If_None_Match="*"))[:2] == (412, "precondition_failed")
    admin.put(path, FAILING | {"for_s": 60})
    assert problem(admin.put(path, FAILING, If_Match='"1"'))[:2] == (412, "precondition_failed")
    assert problem(admin.delete(path, If_Match='"1"'))[:2] == (412, "precondition_failed")
    assert admin.put(path, FAILING, If_Match='"2"').json()["version"] == 3
    assert admin.delete(path, If_Match='"3"').status_code == 204


def test_a_deleted_rule_is_gone_but_for_its_versions_and_can_be_made_again(admin: Api, path: str) -> None:
    admin.put(path, FAILING)
    assert admin.delete(f"{path}&comment=too+loud").status_code == 204
    assert problem(look(admin, path))[:2] == problem(admin.delete(path))[:2] == (404, "not_found")
    assert [item["change"] for item in look(admin, act(path, "/versions")).json()["items"]] == ["deleted", "created"]
    assert look(admin, act(path, "/versions")).json()["items"][0]["comment"] == "too loud"
    again = admin.put(path, FAILING)
    assert (again.status_code, again.json()["version"], again.json()["change"]) == (201, 3, "created")


def test_a_key_that_is_no_slug_and_an_archived_client_are_refused(admin: Api, client: str, path: str) -> None:
    assert problem(admin.put("/v1/alert-rules/-no", FAILING)) == (422, "invalid", [("{key}", "not_a_slug")])
    assert problem(admin.get("/v1/alert-rules/-no"))[:2] == (404, "not_found")
    assert problem(admin.put("/v1/alert-rules/x?client=nobody", FAILING))[:2] == (404, "not_found")
    admin.delete(f"/v1/clients/{client}")
    assert problem(admin.put(path, FAILING))[:2] == (409, "client_archived")


# -- what is wrong with a rule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"kind": None}, [("/kind", "wrong_type")]),
        ({"kind": "tarot"}, [("/kind", "unknown_value")]),
        ({"levels": {}}, [("/levels", "missing_field")]),
        ({"levels": {"warning": 0}}, [("/levels/warning", "out_of_range")]),
        ({"levels": {"warning": 4, "critical": 2}}, [("/levels/critical", "out_of_range")]),
        ({"levels": {"warning": "2"}}, [("/levels/warning", "wrong_type")]),
        ({"levels": {"warning": 2, "eror": 3}}, [("/levels/eror", "unknown_field")]),
        ({"params": {"status": ["failed"]}}, [("/params/status", "unknown_field")]),
        ({"params": {"statuses": ["failed", "bad"]}}, [("/params/statuses/1", "unknown_value")]),
        ({"params": {"statuses": []}}, [("/params/statuses", "too_short")]),
        ({"params": []}, [("/params", "wrong_type")]),
        ({"selector": {"tag": ["dwh"]}}, [("/selector/tag", "unknown_field")]),
        ({"selector": {"tags": [""]}}, [("/selector/tags/0", "too_short")]),
        ({"selector": {"tags": "dwh"}}, [("/selector/tags", "wrong_type")]),
        ({"for": 60}, [("/for", "unknown_field")]),
        ({"for_s": -1}, [("/for_s", "out_of_range")]),
        ({"for_s": True}, [("/for_s", "wrong_type")]),
        ({"repeat_s": 1}, [("/repeat_s", "out_of_range")]),
        ({"recover_consecutive": 1.5}, [("/recover_consecutive", "wrong_type")]),
        ({"on_no_data": "page"}, [("/on_no_data", "unknown_value")]),
        ({"is_enabled": 1}, [("/is_enabled", "wrong_type")]),
        ({"title": "x" * 201}, [("/title", "too_long")]),
        ({"title": "a\0b"}, [("/title", "nul_character")]),
        ({"labels": {"a/b": "x"}}, [("/labels/a~1b", "unknown_value")]),
        ({"annotations": {"summary": "{{ password }}"}}, [("/annotations/summary", "unknown_value")]),
        ({"annotations": {"summary": "{{ labels.team }}"}}, [("/annotations/summary", "unknown_value")]),
        ({"runbook_url": "wiki"}, [("/runbook_url", "invalid_url")]),
        ({"channels": ["a b"]}, [("/channels/0", "not_a_slug")]),
        ({"channels": ["no-such"]}, [("/channels/0", "unknown_value")]),
        (
            {"for_s": -1, "params": {"x": 1}, "levels": {"warning": 0.5}},
            [("/params/x", "unknown_field"), ("/levels/warning", "out_of_range"), ("/for_s", "out_of_range")],
        ),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
)
def test_a_bad_rule_names_the_fields_at_fault(
    admin: Api, client: str, path: str, changes: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    body = FAILING | changes
    refused = admin.put(path, body)
    assert problem(refused) == (422, "invalid", errors)
    for route in (f"/v1/alert-rules:validate?client={client}", f"/v1/alert-rules:targets?client={client}"):
        assert admin.post(route, body).json()["errors"] == refused.json()["errors"]
    assert look(admin, path).status_code == 404


def test_an_error_says_what_is_allowed(admin: Api, path: str) -> None:
    def detail(changes: dict[str, Any]) -> str:
        (error,) = admin.put(path, FAILING | changes).json()["errors"]
        said: str = error["detail"]
        return said

    assert detail({"selektor": {}}) == "There is no field 'selektor'. Did you mean 'selector'?"
    assert detail({"params": {"status": []}}) == "There is no field 'status'. Did you mean 'statuses'?"
    assert detail({"kind": "tarot"}).endswith(f"known are {', '.join(sorted(KINDS))}.")
    assert detail({"levels": {"warning": 0}}) == "For consecutive_failures: a number of runs from 1 to 50."
    assert detail({"on_error": "x"}) == "Input should be 'keep' or 'alert'."
    assert "known are client, pipeline, owner" in detail({"annotations": {"s": "{{ x }}"}})


def test_a_rule_reaches_channels_of_its_client_and_of_the_fleet_only(
    world: World, admin: Api, client: str, path: str
) -> None:
    other = world.slug()
    admin.put(f"/v1/clients/{other}", {})
    add_channel(world, f"own-{client}", client)
    add_channel(world, f"shared-{client}")
    add_channel(world, f"foreign-{client}", other)

    reached = admin.put(path, FAILING | {"channels": [f"own-{client}", f"shared-{client}"]})
    assert reached.status_code == 201

    refused = admin.put(path, FAILING | {"channels": [f"own-{client}", f"foreign-{client}"]})
    assert problem(refused) == (422, "invalid", [("/channels/1", "unknown_value")])
    known = refused.json()["errors"][0]["detail"].partition("Known are")[2]
    assert f"own-{client}" in known
    assert f"shared-{client}" not in known
    fleet = admin.put(f"/v1/alert-rules/{client}", FAILING | {"channels": [f"own-{client}"]})
    assert problem(fleet) == (422, "invalid", [("/channels/0", "unknown_value")])


def test_a_client_has_no_rule_about_all_clients(admin: Api, client: str, path: str) -> None:
    about_all = {"kind": "ingestion", "levels": {"critical": 600}}
    assert problem(admin.put(path, about_all)) == (422, "invalid", [("/kind", "unknown_value")])
    assert admin.put(f"/v1/alert-rules/{client}-all", about_all).status_code == 201
    assert admin.delete(f"/v1/alert-rules/{client}-all").status_code == 204


# -- lists ------------------------------------------------------------------------------------------------------------


def test_rules_are_listed_by_key_and_client_and_filtered(admin: Api, client: str) -> None:
    for key in ("b", "a", "c"):
        admin.put(f"/v1/alert-rules/{client}.{key}?client={client}", FAILING)
    admin.put(f"/v1/alert-rules/{client}.b", FAILING | {"is_enabled": False})
    admin.put(f"/v1/alert-rules/{client}.d?client={client}", {"kind": "overrun", "levels": {"warning": 60}})
    own = [(f"{client}.{key}", client) for key in "abcd"]

    assert keys(admin.get("/v1/alert-rules", client=client)) == own
    everything = [rule for rule in keys(admin.get("/v1/alert-rules", limit=500)) if rule[0].startswith(client)]
    assert everything == [own[0], (f"{client}.b", None), *own[1:]]
    assert keys(admin.get("/v1/alert-rules", client=client, kind="overrun")) == own[3:]
    assert (f"{client}.b", None) in keys(admin.get("/v1/alert-rules", enabled="false", limit=500))
    assert keys(admin.get("/v1/alert-rules", client=client, enabled="false")) == []
    assert keys(admin.get("/v1/alert-rules", client=client, enabled="true")) == own


def test_a_list_goes_page_by_page(admin: Api, client: str) -> None:
    for key in ("a", "b"):
        admin.put(f"/v1/alert-rules/{client}.{key}", FAILING)
        admin.put(f"/v1/alert-rules/{client}.{key}?client={client}", FAILING)
    found: list[tuple[str, str | None]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = admin.get("/v1/alert-rules", limit=1, **cursor)
        found += keys(answer)
        if answer.json()["next_cursor"] is None:
            break
        cursor = {"cursor": answer.json()["next_cursor"]}
    own = [rule for rule in found if rule[0].startswith(client)]
    assert own == [(f"{client}.{key}", of) for key in "ab" for of in (None, client)]
    assert found == keys(admin.get("/v1/alert-rules", limit=500))
    assert problem(admin.get("/v1/alert-rules", cursor="WzFd"))[:2] == (400, "bad_cursor")


def test_versions_go_newest_first_page_by_page(admin: Api, path: str) -> None:
    for for_s in (1, 2, 3):
        admin.put(f"{path}&comment=v{for_s}", FAILING | {"for_s": for_s})
    first = look(admin, act(path, "/versions") + "&limit=2").json()
    assert [(item["version"], item["comment"], item["spec"]["for_s"]) for item in first["items"]] == [
        (3, "v3", 3),
        (2, "v2", 2),
    ]
    rest = look(admin, act(path, "/versions") + f"&limit=2&cursor={first['next_cursor']}").json()
    assert [(item["version"], item["change"]) for item in rest["items"]] == [(1, "created")]
    assert rest["next_cursor"] is None


def test_the_kinds_tell_what_they_can_be_told(admin: Api) -> None:
    kinds = {kind["name"]: kind for kind in admin.get("/v1/alert-rule-kinds").json()["items"]}
    assert kinds.keys() == KINDS.keys()
    failures = kinds["consecutive_failures"]
    assert (failures["title"], failures["unit"], failures["target"]) == ("Failures in a row", "runs", "pipeline")
    assert failures["params"]["properties"]["statuses"]["default"] == ["failed", "timed_out"]


# -- who may ----------------------------------------------------------------------------------------------------------


def test_a_bound_key_sees_and_writes_the_rules_of_its_client_alone(world: World, admin: Api, client: str) -> None:
    other = world.slug()
    admin.put(f"/v1/clients/{other}", {})
    admin.put(f"/v1/alert-rules/{client}.theirs?client={other}", FAILING)
    admin.put(f"/v1/alert-rules/{client}.fleet", FAILING)
    bound = world.caller("write", client)

    made = bound.put(f"/v1/alert-rules/{client}.own", FAILING)
    assert (made.status_code, made.json()["client"]) == (201, client)
    assert keys(bound.get("/v1/alert-rules")) == [(f"{client}.own", client)]
    for key in ("theirs", "fleet"):
        assert bound.get(f"/v1/alert-rules/{client}.{key}").status_code == 404
        assert bound.delete(f"/v1/alert-rules/{client}.{key}").status_code == 404
        assert bound.post(f"/v1/alert-rules/{client}.{key}:disable", None).status_code == 404
    assert bound.put(f"/v1/alert-rules/x?client={other}", FAILING).status_code == 404
    assert bound.get("/v1/alert-rules", client=other).status_code == 404
    assert targets(bound.post("/v1/alert-rules:targets", FAILING)) == ["load", "report"]
    assert bound.post("/v1/alert-rules:validate", FAILING).json()["target_count"] == 2
    # The same key names another rule for each client.
    assert bound.put(f"/v1/alert-rules/{client}.fleet", FAILING).status_code == 201
    assert admin.get(f"/v1/alert-rules/{client}.fleet").json()["client"] is None


def test_a_reader_may_look_and_try_and_change_nothing(world: World, admin: Api, client: str, path: str) -> None:
    admin.put(path, FAILING)
    reader = world.caller("read", client)
    assert reader.get("/v1/alert-rules/fails").status_code == 200
    assert reader.post("/v1/alert-rules:validate", FAILING).status_code == 200
    for answer in (
        reader.put("/v1/alert-rules/fails", FAILING),
        reader.delete("/v1/alert-rules/fails"),
        reader.post("/v1/alert-rules/fails:disable", None),
        reader.post("/v1/alert-rules/fails:dry-run", {"is_dry_run": True}),
        reader.post("/v1/alert-rules/fails/versions/1:restore", None),
    ):
        assert problem(answer)[:2] == (403, "forbidden")
