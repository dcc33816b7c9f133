"""Why an alert fired, and why a rule fires or does not, over HTTP."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from pulsewatch import rulebook
from pulsewatch.events import Status, run_id
from tests.alert_stage import at
from tests.api.alerting_rows import fire, notify
from tests.api.conftest import problem
from tests.api.staged import Scene, iso
from tests.api.staged import scene as scene
from tests.telling import add_channel

FAILED, SUCCEEDED = Status.FAILED, Status.SUCCEEDED
RULE = "/v1/alert-rules/rule:explain"
LOAD = {"client": "acme", "pipeline": "load"}


def run_of(name: str, pipeline: str = "load", client: str = "acme") -> str:
    return str(run_id(client, "", pipeline, name))


@pytest.fixture
def failing(scene: Scene) -> Scene:
    """Two runs that failed, of which the first came before there was a rule: it fires at minute 11."""
    scene.run(1, "1", FAILED, error_class="DiskFull", message="no space")
    scene.rule(5, levels={"warning": 2, "critical": 4}, title="Fails")
    scene.tick(6)
    scene.run(10, "2", FAILED)
    scene.tick(11)
    return scene


# -- alerts -----------------------------------------------------------------------------------------------------------


def test_an_alert_tells_what_it_rests_on(failing: Scene) -> None:
    (alert,) = failing.admin.get("/v1/alerts").json()["items"]
    answer = failing.admin.get(f"/v1/alerts/{alert['id']}/explain").json()

    assert answer["alert"] == alert
    assert answer["because"] == "acme/load: 2 runs in a row have failed or timed out (limit 2)"
    assert answer["rule"] == {
        "key": "rule",
        "client": None,
        "version": 1,
        "kind": "consecutive_failures",
        "title": "Fails",
        "unit": "runs",
        "direction": "above",
        "params": {"statuses": ["failed", "timed_out"]},
        "levels": {"warning": 2.0, "critical": 4.0},
        "for_s": 0.0,
        "keep_firing_s": 0.0,
        "recover_consecutive": 1,
        "on_no_data": "keep",
        "on_error": "keep",
        "evaluation_delay_s": 0.0,
        "new_target_grace_s": 0.0,
    }
    fired = answer["fired"]
    assert (fired["kind"], fired["as_of"], fired["value"], fired["threshold"]) == ("fired", iso(11), 2.0, 2.0)
    assert answer["events"] == [fired]
    newer, older = answer["runs"]
    assert [newer["id"], older["id"]] == [run_of("2"), run_of("1")] == fired["evidence"]["runs"]
    assert (older["error_class"], older["message"]) == ("DiskFull", "no space")
    assert failing.admin.get(older["href"]).json()["external_id"] == "1"
    assert (answer["notifications"], answer["nobody_told_because"]) == ([], "The rule names no channels.")


def test_an_alert_is_explained_by_the_version_that_fired(failing: Scene) -> None:
    failing.rule(12, levels={"warning": 1}, for_s=60, title="Fails")
    (alert,) = failing.admin.get("/v1/alerts").json()["items"]
    rule = failing.admin.get(f"/v1/alerts/{alert['id']}/explain").json()["rule"]
    assert (rule["version"], rule["levels"], rule["for_s"]) == (1, {"warning": 2.0, "critical": 4.0}, 0.0)


def test_messages_tell_why_they_were_held_back(scene: Scene) -> None:
    fired = fire(scene.world, "acme")
    with scene.world.begin() as connection:
        channel = add_channel(connection, client_id=fired.client_id)
        for minutes_ago, status in ((5, "sent"), (4, "dead"), (3, "held"), (2, "dropped")):
            notify(connection, fired, channel, status, minutes_ago=minutes_ago)
        silence = connection.execute(
            text(
                "insert into pulsewatch.silence (id, client_id, matchers, starts_at, ends_at, comment)"
                " values (gen_random_uuid(), null, '{\"rules\": [\"*\"]}', :from, :to, 'it moves') returning id"
            ),
            {"from": at(0), "to": at(60)},
        ).scalar_one()
        held = "update pulsewatch.notification set held_by = 'silence', silence_id = :id where status = 'held'"
        connection.execute(text(held), {"id": silence})
        connection.execute(text("update pulsewatch.notification set held_by = 'acknowledged' where status = 'dropped'"))

    def told(caller: Any) -> list[tuple[str, Any]]:
        answer = caller.get(f"{fired.path}/explain").json()
        assert answer["nobody_told_because"] is None
        return [(one["because"], one["silence"]) for one in answer["notifications"]]

    shown = {"id": str(silence), "starts_at": iso(0), "ends_at": iso(60), "comment": "it moves"}
    assert told(scene.admin) == [
        ("It was sent.", None),
        ("It was given up.", None),
        ("A silence held it back.", shown),
        ("Somebody had acknowledged the alert.", None),
    ]
    # What is said about silences of all clients is not for one of them.
    assert told(scene.caller("read", "acme"))[2] == ("A silence held it back.", shown | {"comment": None})


def test_an_alert_of_another_client_is_not_explained(scene: Scene) -> None:
    fired = fire(scene.world, "acme")
    scene.admin.put("/v1/clients/globex", {})
    assert problem(scene.caller("admin", "globex").get(f"{fired.path}/explain"))[:2] == (404, "not_found")
    assert scene.caller("read", "acme").get(f"{fired.path}/explain").status_code == 200
    assert problem(scene.caller("ingest").get(f"{fired.path}/explain"))[:2] == (403, "forbidden")
    assert problem(scene.admin.get("/v1/alerts/x/explain"))[:2] == (404, "not_found")


# -- rules ------------------------------------------------------------------------------------------------------------


def test_a_rule_tells_why_it_fires(failing: Scene) -> None:
    (alert,) = failing.admin.get("/v1/alerts").json()["items"]
    answer = failing.admin.get(RULE, **LOAD).json()
    assert answer["because"] == "It fires: acme/load: 2 runs in a row have failed or timed out (limit 2)."
    assert (answer["is_watched"], answer["state"], answer["state_since"]) == (True, "firing", iso(11))
    assert (answer["state_level"], answer["alert_id"], answer["target_since"]) == ("warning", alert["id"], iso(5))
    assert (answer["value"], answer["threshold"], answer["level"]) == (2.0, 2.0, "warning")
    assert (answer["sample_at"], answer["changes_at"], answer["looks_again_at"]) == (iso(10), None, None)
    assert (answer["waits"], answer["frozen_because"], answer["silences"]) == ([], None, [])
    assert [run["id"] for run in answer["runs"]] == [run_of("2"), run_of("1")]


def test_a_rule_tells_why_it_did_not_fire_at_a_time_by_what_was_known_then(failing: Scene) -> None:
    failing.run(8, "late", FAILED, late=20)
    failing.tick(29)
    answer = failing.admin.get(RULE, **LOAD, as_of=iso(9)).json()
    assert answer["because"] == "It does not fire: 1 is below its threshold of 2."
    assert (answer["as_of"], answer["state"], answer["state_since"]) == (iso(9), "ok", None)
    assert (answer["value"], answer["level"], answer["alert_id"]) == (1.0, None, None)
    then = failing.admin.get(RULE, **LOAD, as_of=iso(12)).json()
    assert (then["state"], then["state_since"], then["value"]) == ("firing", iso(11), 2.0)
    assert failing.admin.get(RULE, **LOAD).json()["value"] == 3.0


def test_a_rule_tells_how_many_runs_it_takes(scene: Scene) -> None:
    for number in range(4):
        scene.run(number, str(number), FAILED)
    scene.rule(5, kind="failure_rate", params={"window_s": 600}, levels={"warning": 0.5})
    scene.tick(6)
    answer = scene.admin.get(RULE, **LOAD, as_of=iso(6)).json()
    assert answer["because"] == (
        "It does not fire: acme/load: 4 of 4 runs of the last 10 min failed: a rate takes 5 runs."
    )
    assert (answer["value"], answer["evidence"]) == (0.0, {"run_count": 4, "failed_count": 4})
    scene.run(6, "4", FAILED)
    scene.tick(7)
    (alert,) = scene.admin.get("/v1/alerts").json()["items"]
    told = scene.admin.get(f"/v1/alerts/{alert['id']}/explain").json()
    assert told["because"] == "acme/load: 100 % of the runs of the last 10 min failed (limit 50 %)"
    assert (told["fired"]["evidence"]["run_count"], told["fired"]["evidence"]["failed_count"]) == (5, 5)


def test_a_rule_tells_what_it_waits_for(scene: Scene) -> None:
    scene.run(1, "1", SUCCEEDED)
    scene.rule(5, levels={"warning": 1}, for_s=600, keep_firing_s=300, recover_consecutive=2, new_target_grace_s=600)
    scene.tick(6)
    scene.run(7, "2", FAILED)
    scene.tick(8)

    def waits(minutes: float) -> tuple[str, list[tuple[str, str | None]]]:
        answer = scene.admin.get(RULE, **LOAD, as_of=iso(minutes)).json()
        return answer["state"], [(one["wait"], one["until"]) for one in answer["waits"]]

    assert waits(9) == ("ok", [("new_target_grace", iso(15))])
    scene.tick(15)
    assert waits(16) == ("pending", [("for", iso(25))])
    scene.tick(25)
    assert waits(26) == ("firing", [])
    scene.run(27, "3", SUCCEEDED)
    scene.tick(28)
    assert waits(29) == ("recovering", [("keep_firing", iso(33)), ("recover_consecutive", None)])
    now = scene.admin.get(RULE, **LOAD).json()
    assert now["because"] == (
        "It fires, though it is good now: acme/load: 0 runs in a row have failed or timed out (limit 1)."
        " It must have been good for 300 s. It takes 2 good samples in a row, 1 so far."
    )
    assert now["looks_again_at"] == iso(33)


def test_a_rule_tells_that_it_waits_for_the_past_to_arrive(scene: Scene) -> None:
    scene.rule(1, levels={"warning": 1})
    scene.run(-300, "1", FAILED, late=305)
    scene.tick(6)
    answer = scene.admin.get(RULE, **LOAD, as_of=iso(6)).json()
    assert (answer["state"], answer["waits"]) == (
        "pending",
        [
            {
                "wait": "arrivals",
                "until": iso(7),
                "detail": "What happened long ago is arriving; more may be on its way.",
            }
        ],
    )


def test_rules_that_measure_time_tell_that_they_are_left_as_they_were(scene: Scene) -> None:
    scene.run(1, "1", SUCCEEDED)
    scene.rule(5, kind="freshness", levels={"warning": 600})
    scene.tick(6)
    scene.tick(60)
    answer = scene.admin.get(RULE, **LOAD, as_of=iso(60)).json()
    assert (answer["frozen_because"], answer["state"], answer["value"]) == ("worker_away", "ok", 3540.0)
    assert answer["because"] == (
        "It does not fire yet: 3540 has reached its threshold of 600."
        " Rules that measure time are left as they were: PulseWatch itself was away until now."
    )
    before = scene.admin.get(RULE, **LOAD, as_of=iso(6)).json()
    assert (before["frozen_because"], before["changes_at"], before["waits"]) == (None, iso(11), [])


def test_silences_in_force_are_named(failing: Scene) -> None:
    said = {"matchers": {"levels": ["warning"]}, "for_s": 60, "comment": "it moves"}
    silence = failing.admin.post("/v1/silences", said).json()
    failing.admin.post("/v1/silences", said | {"matchers": {"levels": ["critical"]}})
    (shown,) = failing.admin.get(RULE, **LOAD).json()["silences"]
    assert shown == {name: silence[name] for name in ("id", "starts_at", "ends_at", "comment")}


def test_a_rule_tells_why_it_does_not_watch(failing: Scene) -> None:
    def lack(**said: str) -> tuple[Any, ...]:
        answer = failing.admin.get(RULE, **(LOAD | said)).json()
        return answer["is_watched"], answer["not_watched_because"], answer["state"]

    assert lack() == (True, None, "firing")
    assert lack(as_of=iso(4)) == (False, "rule_not_there", None)
    failing.admin.put("/v1/clients/acme/pipelines/new", {})
    assert lack(pipeline="new") == (False, "not_yet", None)
    failing.admin.post("/v1/alert-rules/rule:disable", None)
    assert lack() == (False, "rule_disabled", None)
    failing.rule(12, selector={"pipelines": ["other"]})
    assert lack() == (False, "selector", None)
    failing.rule(13)
    failing.admin.delete("/v1/clients/acme/pipelines/load")
    failing.tick(20)
    assert lack() == (False, "archived", None)


def test_what_became_of_the_rule_since_changes_nothing_about_the_past(failing: Scene) -> None:
    def past(minutes: float) -> tuple[Any, ...]:
        answer = failing.admin.get(RULE, **LOAD, as_of=iso(minutes)).json()
        return answer["not_watched_because"], answer["state"], answer["state_since"], answer["alert_id"]

    before = past(12)
    assert before[:3] == (None, "firing", iso(11))
    with failing.world.begin() as connection:
        # The pipeline was there before the test's times.
        for table in ("client", "pipeline"):
            connection.execute(text(f"update pulsewatch.{table} set created_at = :at"), {"at": at(0)})
        row = rulebook.find(connection, None, "rule")
        assert row is not None
        rulebook.set_enabled(connection, row, rulebook.Said("ann", None, at(20)), is_enabled=False)
    assert past(12) == before
    assert past(25) == ("rule_disabled", None, None, None)
    failing.rule(30, levels={"warning": 2, "critical": 4}, title="Fails")
    assert past(12) == before
    assert past(25) == ("rule_disabled", None, None, None)
    assert past(31)[:2] == (None, "ok")


def test_a_client_and_all_clients_together_are_targets_too(scene: Scene) -> None:
    scene.run(1, "1", SUCCEEDED)
    scene.rule(2, "client", kind="client_no_data", levels={"warning": 600})
    scene.rule(2, "fleet", kind="ingestion", levels={"critical": 300})
    scene.tick(3)
    client = scene.admin.get("/v1/alert-rules/client:explain", client="acme").json()
    assert (client["client"], client["pipeline"], client["state"]) == ("acme", None, "ok")
    fleet = scene.admin.get("/v1/alert-rules/fleet:explain").json()
    assert (fleet["client"], fleet["pipeline"], fleet["state"]) == (None, None, "ok")
    for params, error in (
        ({}, ("?client", "missing_field")),
        ({"client": "acme", "pipeline": "load"}, ("?pipeline", "unknown_value")),
    ):
        assert problem(scene.admin.get("/v1/alert-rules/client:explain", **params)) == (422, "invalid", [error])


def test_of_two_rules_of_a_key_the_clients_own_is_meant(failing: Scene) -> None:
    assert failing.admin.get(RULE, **LOAD).json()["rule"]["client"] is None
    failing.rule(20, "rule", "acme", levels={"warning": 9})
    own = failing.admin.get(RULE, **LOAD).json()["rule"]
    assert (own["client"], own["levels"]) == ("acme", {"warning": 9.0})


def test_a_bad_question_about_a_rule_is_refused(failing: Scene) -> None:
    ahead = (at(0) + timedelta(days=30)).isoformat()
    for params, error in (
        ({"client": "acme"}, ("?pipeline", "missing_field")),
        ({"pipeline": "load"}, ("?client", "missing_field")),
        (LOAD | {"as_of": "now"}, ("?as_of", "wrong_type")),
        (LOAD | {"as_of": ahead}, ("?as_of", "out_of_range")),
    ):
        assert problem(failing.admin.get(RULE, **params)) == (422, "invalid", [error])
    for path, params in (
        ("/v1/alert-rules/none:explain", LOAD),
        (RULE, {"client": "none", "pipeline": "load"}),
        (RULE, {"client": "acme", "pipeline": "none"}),
    ):
        assert problem(failing.admin.get(path, **params))[:2] == (404, "not_found")


def test_a_bound_key_asks_about_its_own_rules_only(failing: Scene) -> None:
    failing.rule(20, "own", "acme")
    failing.admin.put("/v1/clients/globex", {})
    bound = failing.caller("read", "acme")
    assert bound.get("/v1/alert-rules/own:explain", pipeline="load").json()["client"] == "acme"
    assert problem(bound.get(RULE, **LOAD))[:2] == (404, "not_found")
    foreign = failing.caller("admin", "globex")
    assert problem(foreign.get("/v1/alert-rules/own:explain", **LOAD))[:2] == (404, "not_found")
    assert problem(foreign.get("/v1/alert-rules/own:explain", pipeline="load"))[:2] == (404, "not_found")
