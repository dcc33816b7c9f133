"""What people say about alert rules is kept, version by version, and the targets follow."""

from datetime import timedelta
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from pulsewatch import rulebook
from pulsewatch.db import make_engine
from pulsewatch.rules.spec import RuleSpec
from tests.rows import NOON
from tests.test_alert_targets import (
    FAILING,
    LATER,
    SECOND,
    add_client,
    add_pipeline,
    alerts,
    fire,
    marked,
    said,
    save,
    watched,
)


def spec(**changes: Any) -> RuleSpec:
    return RuleSpec.model_validate({**FAILING, **changes})


def rule(connection: Connection, key: str = "r") -> Row[Any]:
    row = rulebook.find(connection, None, key, is_deleted_too=True)
    assert row is not None
    return row


def history(connection: Connection, key: str = "r") -> list[tuple[int, str]]:
    """(version, what was done), oldest first."""
    rows = connection.execute(rulebook.select_versions(rule(connection, key).id)).all()
    return [(row.version, row.change) for row in reversed(rows)]


@pytest.fixture
def load(connection: Connection) -> tuple[int, int]:
    named = add_pipeline(connection, "acme", "load")
    marked(connection)
    return named


def test_a_version_says_the_whole_rule_who_made_it_when_and_why(connection: Connection) -> None:
    what = spec(levels={"critical": 3}, channels=["mail", "mail", "chat"], selector={"tags": ["dwh"]})
    assert rulebook.save(connection, None, "r", what, rulebook.Said("terraform", "why not", NOON)) == "created"

    row = rule(connection)
    assert (row.version, row.kind, row.is_enabled, row.client) == (1, "consecutive_failures", True, None)
    assert (row.created_at, row.updated_at, row.deleted_at) == (NOON, NOON, None)
    assert (row.change, row.author, row.comment) == ("created", "terraform", "why not")
    assert row.spec == {
        "title": None,
        "kind": "consecutive_failures",
        "params": {"statuses": ["failed", "timed_out"]},
        "selector": {"clients": [], "pipelines": [], "tags": ["dwh"], "owners": [], "environments": []},
        "levels": {"warning": None, "critical": 3},
        "for_s": 0,
        "keep_firing_s": 0,
        "recover_consecutive": 1,
        "on_no_data": "keep",
        "on_error": "keep",
        "evaluation_delay_s": 0,
        "new_target_grace_s": 0,
        "repeat_s": 14400,
        "channels": ["mail", "chat"],
        "runbook_url": None,
        "labels": {},
        "annotations": {},
        "is_enabled": True,
        "is_dry_run": False,
    }
    assert RuleSpec.model_validate(row.spec) == rulebook.normalised(what)


def test_the_same_rule_again_makes_no_version(connection: Connection) -> None:
    rulebook.save(connection, None, "r", spec(), said())
    same = spec(params={"statuses": ["failed", "timed_out"]}, for_s=0.0)
    assert rulebook.save(connection, None, "r", same, said(LATER)) is None
    assert rulebook.save(connection, None, "r", spec(for_s=60), said(LATER)) == "changed"
    assert history(connection) == [(1, "created"), (2, "changed")]
    assert (rule(connection).created_at, rule(connection).updated_at) == (NOON, LATER)


def test_one_key_names_a_rule_for_all_and_one_for_each_client(connection: Connection) -> None:
    ids = [None, add_client(connection, "acme"), add_client(connection, "globex")]
    for client_id in ids:
        assert rulebook.save(connection, client_id, "r", spec(), said()) == "created"
    found = [rulebook.find(connection, client_id, "r") for client_id in ids]
    assert [row and row.client for row in found] == [None, "acme", "globex"]


def test_a_rule_that_is_switched_off_closes_its_alerts_and_watches_nothing(
    connection: Connection, load: tuple[int, int]
) -> None:
    fire(connection, save(connection, "r"), load)

    assert rulebook.set_enabled(connection, rule(connection), said(LATER), is_enabled=False)
    assert not rulebook.set_enabled(connection, rule(connection), said(LATER), is_enabled=False)
    assert (watched(connection), alerts(connection)) == ([], [("acme/load", "rule_disabled")])
    assert not rule(connection).is_enabled

    assert rulebook.set_enabled(connection, rule(connection), said(LATER + SECOND), is_enabled=True)
    assert watched(connection) == ["r: acme/load"]
    assert history(connection) == [(1, "created"), (2, "disabled"), (3, "enabled")]


def test_a_rule_that_begins_only_to_try_keeps_its_state(connection: Connection, load: tuple[int, int]) -> None:
    fire(connection, save(connection, "r"), load)
    assert rulebook.set_dry_run(connection, rule(connection), said(LATER), is_dry_run=True)
    assert not rulebook.set_dry_run(connection, rule(connection), said(LATER), is_dry_run=True)
    assert rule(connection).spec["is_dry_run"] is True
    assert history(connection) == [(1, "created"), (2, "dry_run")]
    assert alerts(connection) == [("acme/load", None)]


def test_what_fired_while_a_rule_only_tried_fires_anew_once_it_tells(
    connection: Connection, load: tuple[int, int]
) -> None:
    fire(connection, save(connection, "r", is_dry_run=True), load)
    assert rulebook.set_dry_run(connection, rule(connection), said(LATER), is_dry_run=False)
    assert [reason for *_, reason in alerts(connection)] == ["rule_changed"]
    standing = text("select state, alert_id, deadline_at from pulsewatch.alert_target")
    assert [tuple(row) for row in connection.execute(standing)] == [("ok", None, LATER)]


def test_a_deleted_rule_closes_its_alerts_and_keeps_its_history(connection: Connection, load: tuple[int, int]) -> None:
    fire(connection, save(connection, "r"), load)

    rulebook.delete(connection, rule(connection), said(LATER))

    assert rulebook.find(connection, None, "r") is None
    assert (watched(connection), alerts(connection)) == ([], [("acme/load", "rule_deleted")])
    assert history(connection) == [(1, "created"), (2, "deleted")]
    event = "select rule_version, kind, reason from pulsewatch.alert_event order by seq"
    assert [tuple(row) for row in connection.exec_driver_sql(event)] == [
        (1, "fired", None),
        (2, "resolved", "rule_deleted"),
    ]


def test_a_deleted_rule_comes_back_with_the_next_version(connection: Connection, load: tuple[int, int]) -> None:
    assert load
    save(connection, "r")
    rulebook.delete(connection, rule(connection), said(LATER))
    assert rulebook.save(connection, None, "r", spec(), said(LATER + SECOND)) == "created"
    assert history(connection) == [(1, "created"), (2, "deleted"), (3, "created")]
    assert (rule(connection).deleted_at, rule(connection).created_at) == (None, NOON)
    assert watched(connection) == ["r: acme/load"]


def test_an_earlier_version_can_hold_again_even_of_a_deleted_rule(connection: Connection) -> None:
    save(connection, "r", for_s=60)
    save(connection, "r", for_s=120)
    assert rulebook.restore(connection, rule(connection), spec(for_s=60), said(LATER))
    assert not rulebook.restore(connection, rule(connection), spec(for_s=60), said(LATER))
    rulebook.delete(connection, rule(connection), said(LATER))
    assert rulebook.restore(connection, rule(connection), spec(for_s=60), said(LATER))
    assert rule(connection).spec["for_s"] == 60
    assert history(connection)[2:] == [(3, "restored"), (4, "deleted"), (5, "restored")]


def test_a_version_cannot_be_changed(connection: Connection) -> None:
    save(connection, "r")
    with pytest.raises(DBAPIError, match="append"), connection.begin_nested():
        connection.execute(text("update pulsewatch.alert_rule_version set comment = 'never said'"))


def test_the_rule_that_pulsewatch_brings_comes_once_and_stays_deleted(connection: Connection) -> None:
    assert rulebook.ensure_builtin(connection, NOON)
    assert not rulebook.ensure_builtin(connection, LATER)
    row = rule(connection, rulebook.BUILTIN_KEY)
    assert (row.kind, row.client, row.spec["channels"], row.version) == ("ingestion", None, [], 1)
    assert watched(connection) == ["pulsewatch-ingestion: */*"]

    rulebook.delete(connection, row, said(LATER))
    assert not rulebook.ensure_builtin(connection, LATER + SECOND)
    assert watched(connection) == []


def test_two_who_write_the_same_rule_at_once_make_two_versions(database: str) -> None:
    engine = make_engine(database, pool_size=4, application_name="tests")

    def write(number: int) -> None:
        with engine.begin() as connection:
            rulebook.save(connection, None, "r", spec(for_s=number), said(NOON + timedelta(seconds=number)))

    threads = [Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        assert history(connection) == [(1, "created"), (2, "changed"), (3, "changed"), (4, "changed")]
    engine.dispose()
