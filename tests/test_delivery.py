"""Notifications reach a real receiver: at least once, in order, no more often than they should; and what if not."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from pulsewatch import delivery, notifications
from pulsewatch.db import make_engine
from pulsewatch.delivery import Delivered
from pulsewatch.notifying import Told, notify
from pulsewatch.rules.base import Level
from pulsewatch.sending import Result
from tests import telling
from tests.delivering import attempts, end, fire, go_critical, one_row, send, shown
from tests.rows import NOON
from tests.running import ROOT, Command
from tests.telling import DROP, Answer, Got, Receiver, add_alert, add_channel, add_rule, add_target, after


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=8, application_name="tests")
    yield engine
    engine.dispose()


@pytest.fixture
def far() -> Iterator[Receiver]:
    with telling.receiver() as far:
        yield far


# -- the ordinary way ----------------------------------------------------------------------------------------------


def test_what_is_pending_is_sent_and_the_attempt_is_written_down(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url)
    assert send(engine) == Delivered(sent=1)
    ((id_, status, attempt_count, lease, error),) = shown(engine, "id, status, attempt_count, lease_token, last_error")
    assert (status, attempt_count, lease, error) == ("sent", 1, None, None)
    assert far.ids == [f"msg_{id_.hex}"]
    assert attempts(engine) == [(1, "sent", 200)]
    assert send(engine, 1) == Delivered()
    assert len(far.got) == 1


def test_nothing_to_send_asks_nothing_of_anybody(engine: Engine) -> None:
    assert send(engine) == Delivered()


def test_what_is_not_due_waits(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url)
    assert send(engine, -1) == Delivered()
    assert far.got == []


def test_a_month_without_room_for_attempts_gets_it(engine: Engine, far: Receiver) -> None:
    with engine.begin() as connection:
        channel_id = add_channel(connection, far.url)
        notifications.try_out(connection, channel_id, 0, None, datetime.fromisoformat("2031-05-31T23:59:00Z"))
    assert send(engine, as_of=datetime.fromisoformat("2031-05-31T23:59:30Z")) == Delivered(sent=1)


# -- order ---------------------------------------------------------------------------------------------------------


def test_the_end_waits_until_it_was_told_that_it_went_on(engine: Engine, far: Receiver) -> None:
    (fired,) = fire(engine, far.url)
    far.script = [Answer(503)]
    send(engine)
    end(engine, fired, 2)
    # The first one is not due again yet, the last one is: it waits all the same.
    assert send(engine, 5) == Delivered()
    assert send(engine, 12) == Delivered(sent=2)
    assert far.reasons == ["fired", "fired", "resolved"]


def test_after_ten_minutes_of_silence_the_newest_is_told_once_and_in_order(engine: Engine, far: Receiver) -> None:
    first, second = fire(engine, far.url, "a", "b")
    far.script = [DROP] * 99
    seconds = 0.0
    while seconds < 600:
        send(engine, seconds, jitter=0.5)
        if seconds == 100:
            go_critical(engine, first, seconds)
            end(engine, second, seconds)
        if seconds == 300:
            end(engine, replace(first, level=Level.CRITICAL), seconds)
        seconds += 20
    far.script, far.got = [], []
    for later in range(600, 4000, 20):
        send(engine, later)
    assert reasons(far, first) == ["level_changed", "resolved"]
    assert reasons(far, second) == ["fired", "resolved"]
    assert sorted(shown(engine)) == [
        ("fired", "sent"),
        ("fired", "superseded"),
        ("level_changed", "sent"),
        ("resolved", "sent"),
        ("resolved", "sent"),
    ]


def reasons(far: Receiver, told: Told) -> list[str]:
    """What the receiver was told of an alert."""
    return [got.reason for got in far.got if got.alert_id == str(told.alert_id)]


def test_one_that_fails_while_a_newer_one_came_is_not_sent_again(engine: Engine, far: Receiver) -> None:
    (fired,) = fire(engine, far.url)
    far.script = [Answer(503)]

    def grow_worse(got: Got) -> None:
        if got.reason == "fired":
            go_critical(engine, fired, 1)

    far.on_request = grow_worse
    assert send(engine) == Delivered(retry=1)
    assert send(engine, 2) == Delivered(sent=1)
    assert far.reasons == ["fired", "level_changed"]
    assert shown(engine) == [("fired", "superseded"), ("level_changed", "sent")]


def test_later_messages_name_what_the_first_one_is_called_there(engine: Engine, far: Receiver) -> None:
    (fired,) = fire(engine, far.url)
    send(engine)
    with engine.begin() as connection:
        connection.execute(text("update pulsewatch.notification set provider_ref = '<first@here>'"))
    end(engine, fired, 60)
    (claimed,) = delivery.claim(engine, after(60))
    assert claimed.thread_ref == "<first@here>"


# -- how much ------------------------------------------------------------------------------------------------------


def test_a_channel_gets_no_more_a_minute_than_it_should(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url, *(f"p{n}" for n in range(7)), rate_per_min=3)
    assert [send(engine, seconds).sent for seconds in (0, 30, 59, 61, 90, 122, 150)] == [3, 0, 0, 3, 0, 1, 0]


def test_a_rate_holds_over_several_workers(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url, *(f"p{n}" for n in range(60)), rate_per_min=20)
    assert sum(at_once(engine, 4)) == 20
    assert len(far.got) == 20


def test_several_workers_send_each_message_once(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url, *(f"p{n}" for n in range(200)))
    assert sum(at_once(engine, 4)) == 200
    assert len(far.ids) == len(set(far.ids)) == 200
    assert attempts(engine) == [(1, "sent", 200)] * 200


def at_once(engine: Engine, workers: int) -> list[int]:
    """How many each of several workers sent."""
    sent: list[int] = []
    threads = [threading.Thread(target=lambda: sent.append(send(engine).sent)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == workers
    return sent


def test_channels_take_turns(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url, *(f"p{n}" for n in range(50)))
    with engine.begin() as connection:
        quiet = add_channel(connection, far.url, key="quiet")
        late = add_alert(
            connection, add_rule(connection, "late", channels=["quiet"]), add_target(connection, pipeline="x"), "x"
        )
        notify(connection, [late], after(1))
    claimed = delivery.claim(engine, after(2), limit=10)
    assert [each.channel_id for each in claimed].count(quiet) == 1
    assert len(claimed) == 10


def test_a_channel_that_hangs_does_not_keep_others_waiting(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url, *(f"p{n}" for n in range(20)))
    released = threading.Event()

    def hang(_got: Got) -> None:
        released.wait(30)

    far.on_request = hang
    with telling.receiver() as quick:
        with engine.begin() as connection:
            add_channel(connection, quick.url, key="quick")
            told = add_alert(
                connection, add_rule(connection, "q", channels=["quick"]), add_target(connection, pipeline="q"), "q"
            )
            notify(connection, [told], NOON)
        quick.on_request = lambda _got: released.set()
        assert send(engine).sent == 21
        # The slow ones were let go by the quick one alone.
        assert len(quick.got) == 1


def test_what_is_made_while_a_channel_hangs_does_not_wait_for_it(
    engine: Engine, far: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each look is one of a new round.
    monkeypatch.setattr(delivery, "ROUND_S", 0.0)
    fire(engine, far.url)
    released = threading.Event()
    with telling.receiver() as quick:
        with engine.begin() as connection:
            add_channel(connection, quick.url, key="quick")
            rule = add_rule(connection, "q", channels=["quick"])

        def fire_another(_got: Got) -> None:
            number = len(quick.got)
            if number == 5:
                released.set()
                return
            with engine.begin() as connection:
                target = add_target(connection, pipeline=f"q{number}")
                notify(connection, [add_alert(connection, rule, target, f"q{number}")], NOON)

        def hang(got: Got) -> None:
            fire_another(got)
            assert released.wait(9)

        far.on_request, quick.on_request = hang, fire_another
        assert send(engine) == Delivered(sent=6)
        assert len(quick.got) == 5


def test_nothing_more_is_begun_once_it_is_to_stop(engine: Engine, far: Receiver) -> None:
    (fired,) = fire(engine, far.url)
    far.on_request = lambda _got: end(engine, fired, 0)
    looks = iter((False, True))
    assert send(engine, is_stopping=lambda: next(looks, True)) == Delivered(sent=1)
    assert shown(engine) == [("fired", "sent"), ("resolved", "pending")]
    assert send(engine, 1) == Delivered(sent=1)


def set_unanswered(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("update pulsewatch.channel set unanswered_since = :at"), {"at": NOON})


def test_a_channel_that_nobody_answered_at_is_tried_with_one_message_until_somebody_does(
    engine: Engine, far: Receiver
) -> None:
    fire(engine, far.url, *(f"p{n}" for n in range(9)))
    far.script = [DROP] * 4
    assert send(engine, jitter=0.5) == Delivered(retry=4, returned=5)
    query = "select unanswered_since between :from and :until from pulsewatch.channel"
    with engine.connect() as connection:
        assert connection.execute(text(query), {"from": NOON, "until": after(5)}).scalar_one()
    (probe,) = delivery.claim(engine, after(60))
    assert delivery.claim(engine, after(61)) == []
    delivery.settle(engine, [Result(probe, "retry", after(62), http_status=503, next_attempt_at=after(62))])
    assert one_row(engine, "select unanswered_since from pulsewatch.channel") == (None,)
    assert len(delivery.claim(engine, after(63))) == 9


def test_channels_that_hang_leave_senders_for_the_others(engine: Engine, far: Receiver) -> None:
    with engine.begin() as connection:
        target = add_target(connection)
        for number in range(delivery.PROBES + 3):
            add_channel(connection, far.url, key=f"c{number}")
            rule = add_rule(connection, f"r{number}", channels=[f"c{number}"])
            notify(connection, [add_alert(connection, rule, target, f"a{number}")], NOON)
    set_unanswered(engine)
    (told,) = fire(engine, far.url, "well")
    claimed = delivery.claim(engine, after(1))
    assert len(claimed) == delivery.PROBES + 1
    assert told.alert_id in {each.alert_id for each in claimed}
    assert delivery.claim(engine, after(2)) == []


# -- death ---------------------------------------------------------------------------------------------------------

WORKER = """
import sys
from datetime import datetime
from pulsewatch.db import make_engine
from pulsewatch.delivery import deliver
from pulsewatch.rules.base import Level
from pulsewatch.sending import Result
from pulsewatch.settings import Settings
from tests.telling import outbound
engine = make_engine(sys.argv[1], pool_size=4, application_name="victim")
deliver(engine, Settings(), outbound(), datetime.fromisoformat(sys.argv[2]))
"""


def test_what_a_killed_worker_had_sent_is_sent_again_under_the_same_id(
    engine: Engine, far: Receiver, database: str
) -> None:
    fire(engine, far.url)
    victims: list[Command] = []
    started = threading.Event()

    def kill(_got: Got) -> None:
        started.wait(30)
        os.kill(victims[0].process.pid, signal.SIGKILL)
        victims[0].process.wait(30)

    far.on_request = kill
    paths = f"{ROOT}:{ROOT / 'backend'}"
    victims.append(Command(program=(sys.executable, "-c", WORKER, database, NOON.isoformat()), PYTHONPATH=paths))
    started.set()
    assert victims[0].wait() == -signal.SIGKILL, victims[0].err
    assert [row[:2] for row in shown(engine, "status, attempt_count")] == [("leased", 1)]
    far.on_request = None
    assert send(engine, 30) == Delivered()
    assert send(engine, 100) == Delivered(sent=1, taken_over=1)
    assert len(far.ids) == 2
    assert len(set(far.ids)) == 1
    assert attempts(engine, "n, outcome, latency_s")[0] == (1, "lost", 60.0)
    assert attempts(engine)[1] == (2, "sent", 200)


def test_a_worker_that_was_too_slow_says_nothing_any_more(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url)
    (slow,) = delivery.claim(engine, NOON)
    (quick,) = delivery.claim(engine, after(61))
    assert quick.is_taken_over
    delivery.settle(engine, [Result(slow, "permanent", NOON, error="Answered 404 Not Found.")])
    assert shown(engine, "status, attempt_count") == [("leased", 2)]
    assert one_row(engine, "select permanent_failures from pulsewatch.channel") == (0,)
    delivery.settle(engine, [Result(quick, "sent", after(61), http_status=200)])
    assert shown(engine) == [("fired", "sent")]
    assert attempts(engine) == [(1, "lost", None), (2, "sent", 200)]


def test_a_lease_that_is_left_for_days_is_given_up(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url)
    delivery.claim(engine, NOON)
    assert send(engine, 90_000) == Delivered()
    assert shown(engine) == [("fired", "dead")]
    assert attempts(engine) == [(1, "lost", None)]
    assert far.got == []


# -- how it is doing -----------------------------------------------------------------------------------------------


def standing(engine: Engine) -> delivery.Standing:
    with engine.connect() as connection:
        return delivery.standing(connection)


def test_what_waits_and_what_was_given_up_is_counted(engine: Engine, far: Receiver) -> None:
    assert standing(engine) == delivery.Standing(0, 0.0, 0, {})
    now = one_row(engine, "select now()")[0]
    with engine.begin() as connection:
        channel_id = add_channel(connection, far.url)
        for ago_s in (300, 200, 100):
            notifications.try_out(connection, channel_id, 0, None, now - timedelta(seconds=ago_s))
    far.script = [Answer(404), Answer(503)]
    with engine.begin() as connection:
        connection.execute(text("update pulsewatch.channel set rate_per_min = 2"))
    assert send(engine, as_of=now) == Delivered(retry=1, permanent=1)
    said = standing(engine)
    assert (said.pending, said.dead) == (2, 1)
    assert 100 <= said.oldest_pending_s < 400
    assert said.attempts == {("webhook", "permanent"): 1, ("webhook", "retry"): 1}
