"""What is tried again, and when; what is not; which channels are switched off."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from pulsewatch import notifications
from pulsewatch.db import make_engine
from pulsewatch.delivery import Delivered
from tests import telling
from tests.channels.receivers import Postbox, mail_server
from tests.delivering import attempts, end, fire, fire_more, one_row, send, shown, tell, waits_s
from tests.rows import NOON
from tests.telling import DROP, Answer, Receiver, add_channel, after


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=8, application_name="tests")
    yield engine
    engine.dispose()


@pytest.fixture
def far() -> Iterator[Receiver]:
    with telling.receiver() as far:
        yield far


# -- failures that pass --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_an_answer_that_may_change_is_waited_for(engine: Engine, far: Receiver, status: int) -> None:
    fire(engine, far.url)
    far.script = [Answer(status)]
    assert send(engine) == Delivered(retry=1)
    ((shown_status, error),) = shown(engine, "status, last_error")
    assert shown_status == "pending"
    assert error.startswith(f"Answered {status} ")
    assert attempts(engine) == [(1, "retry", status)]
    assert waits_s(engine) == 10
    assert send(engine, 9) == Delivered()
    assert send(engine, 11) == Delivered(sent=1)
    assert far.ids == [far.ids[0]] * 2


def test_a_connection_that_breaks_is_tried_again(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url)
    far.script = [DROP]
    assert send(engine) == Delivered(retry=1)
    assert attempts(engine) == [(1, "retry", None)]
    assert send(engine, 11) == Delivered(sent=1)


def test_each_wait_is_longer_and_a_random_part_of_it(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url)
    far.script = [Answer(503)] * 20
    waited, seconds = [], 0.0
    for _ in range(8):
        assert send(engine, seconds, jitter=0.5).retry == 1
        waited.append(waits_s(engine))
        seconds += waited[-1] + 1
    assert waited == [5, 15, 60, 300, 900, 3600, 3600, 3600]


def test_whoever_asks_to_be_left_alone_is(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url, "a", "b")
    far.script = [Answer(429, {"Retry-After": "90"})] * 2
    assert send(engine, jitter=0).retry >= 1
    tried = len(far.got)
    # What was not tried waits as well.
    assert send(engine, 89) == Delivered()
    far.script = []
    assert send(engine, 95) == Delivered(sent=2)
    assert len(far.got) == tried + 2


def test_whoever_asks_to_be_left_alone_is_by_what_is_made_afterwards_too(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url)
    far.script = [Answer(503, {"Retry-After": "90"})]
    assert send(engine) == Delivered(retry=1)
    tell(engine, replace(fire_more(engine, "b"), event_as_of=after(1)))
    assert send(engine, 89) == Delivered()
    assert send(engine, 95) == Delivered(sent=2)
    assert far.reasons == ["fired"] * 3


def test_it_is_given_up_after_a_day_and_nobody_hears_the_end_of_it(engine: Engine, far: Receiver) -> None:
    (fired,) = fire(engine, far.url)
    far.script = [Answer(429)] * 99
    assert send(engine) == Delivered(retry=1)
    assert send(engine, 86_401) == Delivered()
    end(engine, fired, 86_402)
    assert shown(engine, "reason, status, last_error") == [
        ("fired", "dead", "Given up, its time is over. Answered 429 Too Many Requests."),
    ]


def test_what_is_over_while_it_is_refused_for_now_is_not_told(engine: Engine, far: Receiver) -> None:
    (fired,) = fire(engine, far.url)
    far.script = [Answer(429)]
    far.on_request = lambda _got: end(engine, fired, 0)
    assert send(engine) == Delivered(retry=1)
    assert shown(engine, "reason, status, held_by") == [
        ("fired", "superseded", None),
        ("resolved", "dropped", "untold"),
    ]


def test_what_is_over_while_nobody_answers_is_told_from_its_beginning(engine: Engine, far: Receiver) -> None:
    (fired,) = fire(engine, far.url)
    far.script = [DROP]
    far.on_request = lambda _got: end(engine, fired, 0) if len(far.got) == 1 else None
    assert send(engine) == Delivered(retry=1)
    assert send(engine, 11) == Delivered(sent=2)
    assert far.reasons == ["fired", "fired", "resolved"]


def test_what_begins_and_ends_while_the_rate_holds_it_back_is_not_told(engine: Engine, far: Receiver) -> None:
    first, second = fire(engine, far.url, "a", "b", rate_per_min=1)
    assert send(engine) == Delivered(sent=1)
    end(engine, first, 10)
    end(engine, second, 10)
    assert [send(engine, seconds).sent for seconds in (61, 122)] == [1, 0]
    assert far.reasons == ["fired", "resolved"]
    assert len({got.alert_id for got in far.got}) == 1


@pytest.mark.parametrize("answer", [DROP, Answer(502)])
def test_the_end_of_what_may_have_arrived_is_told_three_days_long(
    engine: Engine, far: Receiver, answer: Answer
) -> None:
    (fired,) = fire(engine, far.url)
    far.script = [answer]
    send(engine)
    end(engine, fired, 60)
    assert send(engine, 86_401) == Delivered(sent=1)
    assert shown(engine) == [("fired", "dead"), ("resolved", "sent")]


def fire_by_mail(engine: Engine, postbox: Postbox, *names: str) -> None:
    """An alert, and a channel by which these are to hear of it."""
    fire(engine, "http://127.0.0.1:9/", kind="email")
    config = {
        "host": "127.0.0.1", "port": postbox.port, "security": "none", "sender": "alerts@pulse.example",
        "recipients": [f"{name}@acme.example" for name in names],
    }  # fmt: skip
    with engine.begin() as connection:
        statement = "update pulsewatch.channel set config = cast(:config as jsonb)"
        connection.execute(text(statement), {"config": json.dumps(config)})


def test_recipients_that_were_refused_for_now_get_the_same_mail_later_and_nobody_gets_it_twice(engine: Engine) -> None:
    with mail_server() as postbox:
        fire_by_mail(engine, postbox, "ops", "night", "gone")
        postbox.to_recipient = {"night@acme.example": "450 later", "gone@acme.example": "550 nobody"}
        assert send(engine) == Delivered(retry=1)
        assert send(engine, 11) == Delivered(retry=1)
        postbox.to_recipient = {}
        assert send(engine, 60) == Delivered(sent=1)
        assert [got.recipients for got in postbox.got] == [["ops@acme.example"], ["night@acme.example"]]
        first_id, second_id = (got.mail["Message-ID"] for got in postbox.got)
    assert first_id == second_id
    assert shown(engine, "status, provider_ref, last_error") == [
        ("sent", first_id, "Refused: gone@acme.example (550 nobody).")
    ]
    assert attempts(engine, "n, outcome, error") == [
        (1, "retry", "Refused: gone@acme.example (550 nobody), night@acme.example (450 later)."),
        (2, "retry", "Refused: night@acme.example (450 later)."),
        (3, "sent", "Refused: gone@acme.example (550 nobody)."),
    ]
    assert one_row(engine, "select unanswered_since, permanent_failures from pulsewatch.channel")[1] == 0


def test_a_mail_that_some_have_is_sent_although_the_others_are_refused_for_good_later(engine: Engine) -> None:
    with mail_server() as postbox:
        fire_by_mail(engine, postbox, "ops", "night")
        postbox.to_recipient = {"night@acme.example": "450 later"}
        assert send(engine) == Delivered(retry=1)
        assert one_row(engine, "select unanswered_since from pulsewatch.channel") == (None,)
        postbox.to_recipient = {"night@acme.example": "550 nobody"}
        assert send(engine, 11) == Delivered(sent=1)
        assert len(postbox.got) == 1
    assert shown(engine, "status, last_error") == [("sent", "Refused: night@acme.example (550 nobody).")]
    assert one_row(engine, "select permanent_failures from pulsewatch.channel") == (0,)


# -- failures that do not ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_final_and_nobody_hears_the_end_of_it(engine: Engine, far: Receiver, status: int) -> None:
    (fired,) = fire(engine, far.url)
    far.script = [Answer(status)]
    far.on_request = lambda _got: end(engine, fired, 0)
    assert send(engine) == Delivered(permanent=1)
    assert shown(engine) == [("fired", "dead"), ("resolved", "dropped")]
    assert attempts(engine) == [(1, "permanent", status)]
    assert one_row(engine, "select permanent_failures, is_enabled from pulsewatch.channel") == (1, True)


def test_five_refusals_in_a_row_switch_a_channel_off_and_what_waits_is_held(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url, *"abcdefgh", rate_per_min=5)
    far.script = [Answer(404)] * 5
    assert send(engine) == Delivered(permanent=5)
    assert one_row(engine, "select permanent_failures, is_enabled, disabled_reason from pulsewatch.channel") == (
        5,
        False,
        "5 refusals in a row, the last: Answered 404 Not Found.",
    )
    assert send(engine, 61) == Delivered()
    assert sorted(shown(engine, "status, held_by")) == [("dead", None)] * 5 + [("held", "channel_disabled")] * 3


def test_a_success_in_between_forgives_refusals(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url, *"abcd")
    far.script = [Answer(404)] * 4
    send(engine)
    tell(engine, replace(fire_more(engine, "e"), event_as_of=after(1)))
    assert send(engine, 1) == Delivered(sent=1)
    assert one_row(engine, "select permanent_failures, is_enabled from pulsewatch.channel") == (0, True)


def test_one_that_is_gone_is_switched_off_at_once(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url)
    far.script = [Answer(410)]
    assert send(engine) == Delivered(permanent=1)
    assert one_row(engine, "select is_enabled, disabled_reason from pulsewatch.channel") == (
        False,
        "It is gone: Answered 410 Gone.",
    )


def test_a_channel_that_is_switched_on_again_counts_anew(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url)
    with engine.begin() as connection:
        connection.execute(text("update pulsewatch.channel set permanent_failures = 5"))
    far.script = [Answer(404)]
    send(engine)
    assert one_row(engine, "select permanent_failures, is_enabled from pulsewatch.channel") == (1, True)


def test_a_test_reaches_a_channel_that_is_off_and_its_refusal_counts_for_nothing(engine: Engine, far: Receiver) -> None:
    with engine.begin() as connection:
        channel_id = add_channel(connection, far.url, is_enabled=False)
        for _ in range(2):
            notifications.try_out(connection, channel_id, 0, None, NOON)
    far.script = [Answer(404)]
    assert send(engine) == Delivered(sent=1, permanent=1)
    assert far.reasons == ["test", "test"]
    assert one_row(engine, "select permanent_failures, is_enabled from pulsewatch.channel") == (0, False)


def test_what_is_ours_to_mend_is_no_refusal(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url, kind="pigeon")
    assert send(engine) == Delivered(retry=1)
    assert shown(engine, "status, last_error") == [("pending", "PulseWatch could not send it: KeyError.")]
    assert one_row(engine, "select permanent_failures from pulsewatch.channel") == (0,)


def test_messages_to_a_deleted_channel_are_dropped(engine: Engine, far: Receiver) -> None:
    fire(engine, far.url)
    with engine.begin() as connection:
        connection.execute(text("update pulsewatch.channel set deleted_at = now()"))
    assert send(engine) == Delivered()
    assert shown(engine) == [("fired", "dropped")]
