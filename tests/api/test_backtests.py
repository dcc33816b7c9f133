"""Rules tried on the past over HTTP: what they would have told, and what another one would have."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.exc import InternalError

from pulsewatch.alert_writing import ALERTING_LOCK
from pulsewatch.api import backtest_schemas as schemas
from pulsewatch.api import backtests
from pulsewatch.events import Status
from tests.alert_stage import at
from tests.api.conftest import problem
from tests.api.staged import Scene, iso
from tests.api.staged import scene as scene

FAILED, SUCCEEDED = Status.FAILED, Status.SUCCEEDED
ONCE = {"kind": "consecutive_failures", "levels": {"warning": 1}}
TWICE = {"kind": "consecutive_failures", "levels": {"warning": 2, "critical": 3}}
UNSAVED = "/v1/alert-rules:backtest"


@pytest.fixture
def played(scene: Scene) -> Scene:
    """A pipeline that fails thrice from minute 10 to 30 and again at 50, one of which came late; another is well."""
    scene.run(1, "0", SUCCEEDED)
    scene.run(1, "0", SUCCEEDED, pipeline="report")
    for minutes, late in ((10, 0), (20, 25), (30, 0)):
        scene.run(minutes, str(minutes), FAILED, late=late)
    scene.run(40, "40", SUCCEEDED)
    scene.run(50, "50", FAILED)
    scene.run(60, "60", SUCCEEDED)
    scene.work(61)
    return scene


def window(mode: str = "as_final", to: float = 120, **said: Any) -> dict[str, Any]:
    return {"from": iso(0), "to": iso(to), "mode": mode} | said


def spans(answer: Any) -> list[tuple[str, str | None, str, float | None]]:
    return [(one["fired_at"], one["resolved_at"], one["level"], one["value"]) for one in answer["alerts"]]


def test_a_rule_that_is_not_stored_tells_when_it_would_have_fired(played: Scene) -> None:
    answer = played.admin.post(UNSAVED, window(spec=TWICE))
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "from": iso(0),
        "to": iso(120),
        "mode": "as_final",
        "key": None,
        "version": None,
        "target_count": 2,
        "firing_target_count": 1,
        "targets": [{"client": "acme", "pipeline": "load", "alert_count": 1, "firing_s": 1200.0}],
        "alert_count": 1,
        "alerts": [
            {
                "client": "acme",
                "pipeline": "load",
                "fired_at": iso(20),
                "resolved_at": iso(40),
                "level": "critical",
                "value": 2.0,
            }
        ],
        # Fired, worse, resolved.
        "notification_count": 3,
        "compared_with": None,
        "only_this": None,
        "only_other": None,
    }


def test_what_came_late_is_not_known_before(played: Scene) -> None:
    """The failure of minute 20 came at 45: so at 30 there are two in a row, and never three."""
    answer = played.admin.post(UNSAVED, window("as_known", spec=TWICE)).json()
    assert spans(answer) == [(at_grid(30), at_grid(40), "warning", 2.0)]


def at_grid(minutes: float) -> str:
    """The first tick after something was received at that time."""
    return iso(minutes + 5 / 60)


def test_by_what_was_known_then_it_tells_what_was_told(scene: Scene) -> None:
    scene.run(1, "0", SUCCEEDED)
    scene.rule(2, levels={"warning": 2, "critical": 3}, for_s=120, keep_firing_s=300)
    came = {
        11: (10, FAILED),
        21: (20, FAILED),
        31: (30, FAILED),
        41: (40, SUCCEEDED),
        45: (15, FAILED),
        61: (60, FAILED),
    }
    for minutes in range(2, 70):
        if minutes in came:
            ended, status = came[minutes]
            scene.run(ended, str(ended), status, late=minutes - ended - 0.5)
        scene.tick(minutes)
    told = [
        (alert["fired_at"], alert["resolved_at"], alert["max_level"])
        for alert in reversed(scene.admin.get("/v1/alerts").json()["items"])
    ]
    asked = {"from": iso(2), "to": iso(70), "mode": "as_known"}
    answer = scene.admin.post("/v1/alert-rules/rule:backtest", asked).json()
    assert [span[:3] for span in spans(answer)] == told == [(iso(23), iso(46), "critical")]


def test_two_rules_are_compared_by_what_only_one_of_them_would_have_told(played: Scene) -> None:
    answer = played.admin.post(UNSAVED, window(spec=ONCE, compare_with={"spec": TWICE})).json()
    assert spans(answer) == [(iso(10), iso(40), "warning", 1.0), (iso(50), iso(60), "warning", 1.0)]
    assert spans(answer["compared_with"]) == [(iso(20), iso(40), "critical", 2.0)]
    assert (answer["only_this"]["alert_count"], spans(answer["only_this"])) == (1, spans(answer)[1:])
    assert answer["only_other"] == {"alert_count": 0, "alerts": []}
    reverse = played.admin.post(UNSAVED, window(spec=TWICE, compare_with={"spec": ONCE})).json()
    assert reverse["only_other"] == answer["only_this"]


def test_a_stored_rule_is_compared_with_its_own_versions_and_other_rules(played: Scene) -> None:
    path = "/v1/alert-rules/fails"
    for spec in (ONCE, TWICE):
        played.admin.put(path, spec)
    played.admin.put("/v1/alert-rules/other", ONCE)
    now = played.admin.post(f"{path}:backtest", window(compare_with={"version": 1})).json()
    assert (now["key"], now["version"], now["alert_count"]) == ("fails", 2, 1)
    assert [now["compared_with"][name] for name in ("key", "version", "alert_count")] == ["fails", 1, 2]
    first = played.admin.post(f"{path}:backtest", window(version=1, compare_with={"key": "other"})).json()
    assert (first["version"], first["compared_with"]["key"]) == (1, "other")
    assert first["only_this"] == first["only_other"] == {"alert_count": 0, "alerts": []}
    unsaved = played.admin.post(UNSAVED, window(spec=TWICE, compare_with={"key": "fails", "version": 1})).json()
    assert unsaved["compared_with"]["alert_count"] == 2


def test_what_goes_on_at_the_end_is_not_resolved_and_told_again(played: Scene) -> None:
    answer = played.admin.post(UNSAVED, window(to=55, spec=ONCE | {"repeat_s": 60})).json()
    assert spans(answer)[1] == (iso(50), None, "warning", 1.0)
    # 30 minutes: fired, 29 times again, resolved; 5 minutes: fired, 4 times again.
    assert answer["notification_count"] == 31 + 5
    assert answer["targets"][0]["firing_s"] == 35 * 60


def test_a_target_counts_from_when_it_was_there(scene: Scene) -> None:
    scene.run(60, "1", SUCCEEDED)
    scene.work(61)
    quiet = {"kind": "freshness", "levels": {"warning": 1800}}
    answer = scene.admin.post(UNSAVED, window(spec=quiet)).json()
    assert spans(answer) == [(iso(90), None, "warning", 1800.0)]


def test_what_is_yet_to_come_is_left_out(played: Scene) -> None:
    answer = played.admin.post(UNSAVED, window(spec=ONCE) | {"to": "2999-01-01T00:00:00Z", "from": iso(0)}).json()
    assert at(0) < datetime.fromisoformat(answer["to"]) <= datetime.now(UTC)
    last = played.admin.post(UNSAVED, window(spec=ONCE) | {"to": "9999-12-31T23:59:59-14:00", "from": iso(0)}).json()
    assert datetime.fromisoformat(answer["to"]) <= datetime.fromisoformat(last["to"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("said", "errors"),
    [
        ({"from": iso(5), "to": iso(5)}, [("/from", "out_of_range")]),
        ({"from": "1999-12-31T23:59:59Z", "to": "2000-02-01T00:00:00Z"}, [("/from", "out_of_range")]),
        ({"from": "2020-01-01T00:00:00Z", "to": "2021-02-05T00:00:00Z"}, [("/from", "out_of_range")]),
        ({"from": "0001-01-01T00:00:00+14:00"}, [("/from", "out_of_range")]),
        ({"from": "9999-12-31T23:59:59-14:00"}, [("/from", "out_of_range")]),
        ({"to": "0001-01-01T00:00:00+14:00"}, [("/from", "out_of_range")]),
        ({"spec": {"kind": "freshness", "levels": {"warning": 1e15}}}, [("/spec/levels/warning", "out_of_range")]),
        ({"from": "2026-01-01T00:00:00"}, [("/from", "naive_time")]),
        ({"from": None}, [("/from", "wrong_type")]),
        ({"mode": "as_told"}, [("/mode", "unknown_value")]),
        ({"until": 1}, [("/until", "unknown_field")]),
        ({"spec": {"kind": "x", "levels": {"warning": 1}}}, [("/spec/kind", "unknown_value")]),
        ({"spec": TWICE | {"levels": {"warning": 0}}}, [("/spec/levels/warning", "out_of_range")]),
        ({"spec": TWICE | {"channels": ["none"]}}, [("/spec/channels/0", "unknown_value")]),
        ({"compare_with": {"spec": {"kind": "freshness"}}}, [("/compare_with/spec/levels", "missing_field")]),
        ({"compare_with": {"spec": ONCE, "key": "x"}}, [("/compare_with", "invalid_value")]),
        ({"compare_with": {"version": 1}}, [("/compare_with", "missing_field")]),
        ({"compare_with": {"key": "fails", "version": 9}}, [("/compare_with/version", "unknown_value")]),
    ],
)
def test_a_bad_question_names_the_field(played: Scene, said: dict[str, Any], errors: list[tuple[str, str]]) -> None:
    played.admin.put("/v1/alert-rules/fails", ONCE)
    assert problem(played.admin.post(UNSAVED, window(spec=TWICE) | said)) == (422, "invalid", errors)


def test_what_is_not_there_is_not_found(played: Scene) -> None:
    assert problem(played.admin.post("/v1/alert-rules/none:backtest", {}))[:2] == (404, "not_found")
    asked = window(spec=ONCE, compare_with={"key": "none"})
    assert problem(played.admin.post(UNSAVED, asked))[:2] == (404, "not_found")


def test_too_many_targets_over_too_long_a_time_are_refused(played: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backtests.MOST_WORK, "as_known", 0.1)
    refused = played.admin.post(UNSAVED, window("as_known", spec=ONCE))
    assert problem(refused) == (422, "too_much_work", [])
    assert refused.json()["detail"] == (
        "2 targets over 0.0833 days are too many: as_known may look at 0.1 targets times days. Take a shorter time,"
        " a narrower selector, or as_final."
    )
    assert played.admin.post(UNSAVED, window(spec=ONCE)).status_code == 200


def test_what_takes_too_long_is_given_up(played: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtests, "TIMEOUT_S", 0.0)
    assert problem(played.admin.post(UNSAVED, window(spec=ONCE)))[:2] == (422, "too_much_work")


def test_only_so_many_are_made_at_once(played: Scene) -> None:
    for _ in range(backtests.AT_ONCE):
        assert backtests._places.acquire(blocking=False)
    try:
        busy = played.admin.post(UNSAVED, window(spec=ONCE))
    finally:
        backtests._places.release(backtests.AT_ONCE)
    assert problem(busy)[:2] == (503, "unavailable")
    assert busy.headers["retry-after"] == "5"
    assert played.admin.post(UNSAVED, window(spec=ONCE)).status_code == 200


def test_a_bound_key_tries_rules_on_its_own_client_only(played: Scene) -> None:
    for minutes in (10, 20):
        played.run(minutes, str(minutes), FAILED, client="globex")
    played.work(61)
    for client in ("acme", "globex"):
        assert played.admin.put(f"/v1/alert-rules/fails?client={client}", TWICE).status_code == 201
    played.admin.put("/v1/alert-rules/all", ONCE)
    bound = played.caller("read", "globex")
    answer = bound.post(UNSAVED, window(spec=TWICE)).json()
    assert (answer["target_count"], spans(answer)) == (1, [(iso(20), None, "warning", 2.0)])
    stored = bound.post("/v1/alert-rules/fails:backtest", window()).json()
    assert {one["client"] for one in stored["alerts"]} == {"globex"}
    assert problem(bound.post("/v1/alert-rules/fails:backtest?client=acme", window()))[:2] == (404, "not_found")
    assert problem(bound.post("/v1/alert-rules/all:backtest", window()))[:2] == (404, "not_found")
    asked = window(spec=TWICE, compare_with={"key": "all"})
    assert problem(bound.post(UNSAVED, asked))[:2] == (404, "not_found")
    fleet = window(spec={"kind": "ingestion", "levels": {"critical": 300}})
    assert problem(bound.post(UNSAVED, fleet))[2] == [("/spec/kind", "unknown_value")]
    assert problem(played.caller("ingest").post(UNSAVED, window(spec=ONCE)))[:2] == (403, "forbidden")


def test_nobody_waits_for_a_backtest_nor_it_for_anybody(played: Scene) -> None:
    with played.engine.begin() as connection:
        connection.exec_driver_sql(ALERTING_LOCK)
        assert played.admin.post(UNSAVED, window(spec=ONCE)).status_code == 200
    with backtests._trying(played.engine) as connection:
        backtests._window(connection, schemas.ReadBacktest.model_validate({"from": at(0), "to": at(1)}))
        assert played.tick(62) is not None


def test_a_backtest_cannot_write(played: Scene) -> None:
    with (
        pytest.raises(InternalError, match="read-only transaction"),
        backtests._trying(played.engine) as connection,
    ):
        connection.exec_driver_sql("delete from pulsewatch.silence")
