"""Sends notifications: at least once, in order, and no more than people can bear (docs/delivery.md).

1. Claim: due notifications are leased, by one statement, under a token.
2. Send: in threads, outside of any transaction.
3. Settle: what became of it is written down where the lease is still ours, together with the attempt.

A worker that dies in between leaves leases that run out: another one sends the same again, under the same id. So
nothing is lost, and a receiver that looks at ids takes nothing twice.
"""

import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine

from pulsewatch.db import fetch
from pulsewatch.delivery_sql import (
    ATTEMPTS,
    CLAIM,
    COUNT_REFUSALS,
    DELIVERY_LOCK,
    END,
    IS_ANYTHING,
    MAKE_ROOM,
    NOTE_ANSWERS,
    PUT_OFF,
    SETTLE,
    STANDING,
    SUPERSEDE_LATE,
    SWEEP,
    THREADS,
)
from pulsewatch.outbound import Outbound
from pulsewatch.sending import LONGEST_WAIT_S, Claimed, Clock, Result, Sending, send
from pulsewatch.settings import Settings

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
# One that was not begun by then goes back: sending it takes time, and the lease must not run out meanwhile.
BEGIN_WITHIN = timedelta(seconds=25)
# What waits behind an attempt that nobody answered.
RETURNED_WAIT = timedelta(seconds=5)
REFUSALS = 5

# They mostly wait for answers. Channels that nobody answered at have a quarter of them at most, each one.
SENDERS = 64
PROBES = 16
LANES = 4  # of a channel: one that begins to hang keeps so many senders
CHANNEL_CLAIM = 40
ROUND_CLAIM = 200
ROUND_S = 5.0
LOOK_EVERY_S = 0.25
IDLE_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """So many attempts ended so; taken_over counts leases of workers that have died."""

    sent: int = 0
    retry: int = 0
    permanent: int = 0
    returned: int = 0
    taken_over: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How delivery is doing. attempts: of the last hour, by kind of channel and outcome."""

    pending: float
    oldest_pending_s: float
    dead: float
    attempts: Mapping[tuple[str, str], int]


def deliver(
    engine: Engine,
    settings: Settings,
    outbound: Outbound,
    as_of: datetime,
    *,
    jitter: Callable[[], float] = random.random,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Delivered:
    """Send what is due, and what comes due meanwhile. Several workers may do it: each message is claimed by one.

    jitter gives the part of its wait, from 0 to 1, that a message which failed waits for. Once is_stopping says so,
    nothing more is begun.
    """
    with engine.connect() as connection:
        if not fetch(connection, IS_ANYTHING)[0][0]:
            return Delivered()
    sending = Sending(settings, outbound, Clock(as_of, time.monotonic()), jitter)
    tally = _send_all(engine, sending, is_stopping)
    return Delivered(**tally)


def _send_all(engine: Engine, sending: Sending, is_stopping: Callable[[], bool]) -> Counter[str]:
    """Claim, send and settle until nothing is due: what ends is settled at once, and channels that are done go on.

    As long as one channel hangs, the others go on: their messages must not wait until it is given up.
    """
    results: SimpleQueue[Result | int] = SimpleQueue()
    tally: Counter[str] = Counter()
    lanes: Counter[int] = Counter()  # by channel
    look_at_s = sweep_at_s = 0.0
    with ThreadPoolExecutor(SENDERS, thread_name_prefix="deliver") as senders:
        while True:
            if sweep_at_s <= sending.clock.passed_s:
                _prepare(engine, sending.clock.now)
                sweep_at_s = sending.clock.passed_s + ROUND_S
            if look_at_s <= sending.clock.passed_s and not is_stopping():
                claimed = claim(engine, sending.clock.now, busy=lanes)
                tally["taken_over"] += sum(each.is_taken_over for each in claimed)
                for lane in _lanes(claimed):
                    lanes[lane[0].channel_id] += 1
                    senders.submit(_send_lane, sending, lane, results)
                look_at_s = sending.clock.passed_s + (LOOK_EVERY_S if claimed else IDLE_LOOK_S)
            if not lanes:
                return tally
            ended, freed = _drain(results)
            if ended:
                settle(engine, ended)
                tally.update(result.outcome for result in ended)
            for channel_id in freed:
                lanes[channel_id] -= 1
                if not lanes[channel_id]:
                    del lanes[channel_id]
                    look_at_s = 0.0


def _prepare(engine: Engine, as_of: datetime) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(MAKE_ROOM, {"as_of": as_of})
    with engine.begin() as connection:
        sweep(connection, as_of)


def _lanes(claimed: Iterable[Claimed]) -> list[list[Claimed]]:
    """Messages of one channel each, so many lanes of a channel at most; in each, one goes after the other."""
    by_channel: defaultdict[int, list[Claimed]] = defaultdict(list)
    for each in claimed:
        by_channel[each.channel_id].append(each)
    return [lane for some in by_channel.values() for start in range(LANES) if (lane := some[start::LANES])]


def _drain(results: SimpleQueue[Result | int]) -> tuple[list[Result], list[int]]:
    """What has ended by now, and the channels of lanes that are done; waits a little for the first."""
    ended: list[Result] = []
    freed: list[int] = []
    try:
        said = results.get(timeout=LOOK_EVERY_S)
        while True:
            if isinstance(said, Result):
                ended.append(said)
            else:
                freed.append(said)
            said = results.get_nowait()
    except Empty:
        return ended, freed


# -- claim ---------------------------------------------------------------------------------------------------------


def sweep(connection: Connection, as_of: datetime) -> None:
    """Give up what is too old, hold back what is for a channel that is off, drop what is for one that is gone."""
    connection.exec_driver_sql(DELIVERY_LOCK)
    dead = fetch(connection, SWEEP, {"as_of": as_of, "lease": LEASE})
    _end(connection, dead)


def claim(engine: Engine, as_of: datetime, *, busy: Iterable[int] = (), limit: int = ROUND_CLAIM) -> list[Claimed]:
    """Lease what is due, of channels that are not busy; in the order in which it is to be sent."""
    token = uuid4()
    wanted = {
        "as_of": as_of,
        "lease": LEASE,
        "token": token,
        "busy": list(busy),
        "per_channel": CHANNEL_CLAIM,
        "probes": PROBES,
        "limit": limit,
    }
    with engine.begin() as connection:
        connection.exec_driver_sql(DELIVERY_LOCK)
        rows = fetch(connection, CLAIM, wanted)
        claimed = [Claimed(token, as_of + BEGIN_WITHIN, *row) for row in rows]
        return _threaded(connection, claimed)


def _threaded(connection: Connection, claimed: Sequence[Claimed]) -> list[Claimed]:
    """The same, with what they refer to."""
    later = [each for each in claimed if each.alert_id is not None and each.reason != "fired"]
    if not later:
        return list(claimed)
    values = {
        "client_ids": [each.client_id for each in later],
        "alert_ids": [each.alert_id for each in later],
        "channel_ids": [each.channel_id for each in later],
    }
    refs = {tuple(key): ref for *key, ref in fetch(connection, THREADS, values)}
    return [replace(each, thread_ref=refs.get((each.client_id, each.alert_id, each.channel_id))) for each in claimed]


# -- send ----------------------------------------------------------------------------------------------------------


def _send_lane(sending: Sending, lane: Sequence[Claimed], results: SimpleQueue[Result | int]) -> None:
    """Send one after the other. Behind one that nobody answered, the others go back and wait."""
    silent: Result | None = None
    try:
        for claimed in lane:
            now = sending.clock.now
            if silent is not None:
                wait = RETURNED_WAIT
                if silent.retry_after_s is not None:
                    wait = timedelta(seconds=min(silent.retry_after_s, LONGEST_WAIT_S))
                results.put(Result(claimed, "returned", now, next_attempt_at=now + wait))
            elif now > claimed.begin_by:
                results.put(Result(claimed, "returned", now))
            else:
                result = send(sending, claimed)
                silent = result if result.is_silent else None
                results.put(result)
    finally:
        results.put(lane[0].channel_id)


# -- settle --------------------------------------------------------------------------------------------------------


def settle(engine: Engine, results: Sequence[Result]) -> None:
    """Write down what became of messages; of those whose lease another worker has taken over, nothing."""
    results = sorted(results, key=lambda result: (result.claimed.client_id, result.claimed.id))
    columns = {
        "client_id": [result.claimed.client_id for result in results],
        "id": [result.claimed.id for result in results],
        "lease_token": [result.claimed.token for result in results],
    }
    names = (
        "outcome", "started_at", "latency_s", "http_status", "error", "retry_after_s", "next_attempt_at",
        "provider_ref", "rest",
    )  # fmt: skip
    columns |= {name: [getattr(result, name) for result in results] for name in names}
    with engine.begin() as connection:
        connection.exec_driver_sql(DELIVERY_LOCK)
        settled = fetch(connection, SETTLE, columns)
        ours = {(client_id, id_) for client_id, id_, *_ in settled}
        firing = [row for row in settled if row[4] not in ("resolved", "test")]
        _supersede_late(connection, [row for row in firing if row[5] == "pending"])
        _end(connection, [(row[0], row[2], row[3]) for row in firing])
        own = [result for result in results if (result.claimed.client_id, result.claimed.id) in ours]
        _put_off_channels(connection, own)
        _note_answers(connection, own)
        _count_refusals(connection, sorted(own, key=lambda result: result.started_at))


def _supersede_late(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        fetch(connection, SUPERSEDE_LATE, {"client_ids": [row[0] for row in rows], "ids": [row[1] for row in rows]})


def _end(connection: Connection, keys: Sequence[tuple[Any, ...]]) -> None:
    if keys:
        names = ("client_ids", "alert_ids", "channel_ids")
        fetch(connection, END, {name: [key[place] for key in keys] for place, name in enumerate(names)})


def _put_off_channels(connection: Connection, results: Sequence[Result]) -> None:
    until = {
        result.claimed.channel_id: result.ended_at + timedelta(seconds=min(result.retry_after_s, LONGEST_WAIT_S))
        for result in results
        if result.retry_after_s is not None
    }
    if until:
        fetch(connection, PUT_OFF, {"channel_ids": list(until), "until_at": list(until.values())})


def _note_answers(connection: Connection, results: Sequence[Result]) -> None:
    tried = [result for result in results if result.outcome != "returned"]
    last = {result.claimed.channel_id: result for result in sorted(tried, key=lambda result: result.ended_at)}
    if last:
        values = {
            "channel_ids": list(last),
            "is_unanswered": [result.is_unanswered for result in last.values()],
            "ended_at": [result.ended_at for result in last.values()],
        }
        fetch(connection, NOTE_ANSWERS, values)


def _count_refusals(connection: Connection, results: Sequence[Result]) -> None:
    """Count refusals in a row; a channel that refuses too often, or is gone for good, is switched off.

    A test that is refused tells who tries it, and counts for nothing.
    """
    said: dict[int, tuple[bool, int, bool, str | None]] = {}
    for result in results:
        channel_id = result.claimed.channel_id
        is_reset, refused, is_gone, error = said.get(channel_id, (False, 0, False, None))
        if result.outcome == "sent":
            said[channel_id] = (True, 0, is_gone, error)
        elif result.outcome == "permanent" and result.claimed.reason != "test":
            said[channel_id] = (is_reset, refused + 1, is_gone or result.is_gone, result.error)
    if not said:
        return
    listed = sorted(said.items())
    values = {
        "limit": REFUSALS,
        "channel_ids": [channel_id for channel_id, _ in listed],
        "is_reset": [row[0] for _, row in listed],
        "refused": [row[1] for _, row in listed],
        "is_gone": [row[2] for _, row in listed],
        "errors": [row[3] for _, row in listed],
    }
    for key, is_enabled, reason in fetch(connection, COUNT_REFUSALS, values):
        if not is_enabled:
            log.warning("channel %s is switched off: %s", key, reason)


# -- how it is doing -----------------------------------------------------------------------------------------------


def standing(connection: Connection) -> Standing:
    """How delivery is doing, for /metrics."""
    ((pending, oldest_pending_s, dead),) = fetch(connection, STANDING)
    attempts = {(kind, outcome): count for kind, outcome, count in fetch(connection, ATTEMPTS)}
    return Standing(pending, oldest_pending_s, dead, attempts)
