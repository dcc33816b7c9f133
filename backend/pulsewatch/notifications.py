"""The rows of notifications: how they are made, what stands for what, and what a person may do with them."""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID, uuid4

from pydantic import ValidationError
from sqlalchemy import Connection

from pulsewatch.channels.base import Message, MessageLevel, MessageStatus, Reason
from pulsewatch.db import fetch
from pulsewatch.delivery_sql import DELIVERY_LOCK
from pulsewatch.events import digest16
from pulsewatch.rules.matchers import Matchers, Silence
from pulsewatch.rules.rule import Rule

log = logging.getLogger(__name__)

FIRING_EXPIRES = timedelta(hours=24)
RESOLVED_EXPIRES = timedelta(hours=72)
TEST_EXPIRES = timedelta(hours=1)

Hold = Literal["silence", "acknowledged", "snoozed", "dry_run", "backfill", "channel_disabled", "untold"]


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that is not deleted. `client_id` is None for one of all clients."""

    id: int
    client_id: int | None
    key: str
    is_enabled: bool


@dataclass(frozen=True, slots=True)
class Held:
    """What holds a notification back."""

    by: Hold
    silence_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """One to be written. Held for good (of a rule that only tries, of the past) is dropped."""

    client_id: int
    channel_id: int
    message: Message
    event_as_of: datetime | None
    event_seq: int | None
    held: Held | None
    as_of: datetime

    def json(self) -> str:
        """Its row. One JSON text for all rows is read in a fraction of the time that arrays of texts take."""
        message = self.message
        status = "pending" if self.held is None else "dropped" if self.held.by in ("dry_run", "backfill") else "held"
        expires = {Reason.RESOLVED: RESOLVED_EXPIRES, Reason.TEST: TEST_EXPIRES}.get(message.reason, FIRING_EXPIRES)
        row = {
            "client_id": self.client_id,
            "id": message.notification_id,
            "channel_id": self.channel_id,
            "alert_id": message.alert_id,
            "event_as_of": self.event_as_of,
            "event_seq": self.event_seq,
            "reason": message.reason.value,
            "status": status,
            "held_by": self.held and self.held.by,
            "silence_id": self.held and self.held.silence_id,
            "created_at": self.as_of,
            "expires_at": self.as_of + expires,
        }
        return f'{json.dumps(row, default=str)[:-1]}, "body": {message.model_dump_json()}}}'


def notification_id(alert_id: UUID, event_seq: int, reason: str, channel_id: int, after: UUID | None = None) -> UUID:
    """The id of a notification; `after` is the one that a repeat or a catch-up comes after."""
    words = ("notification", str(alert_id), str(event_seq), reason, str(channel_id), str(after or ""))
    return UUID(digest16(*words))


# -- channels and silences -----------------------------------------------------------------------------------------

CHANNELS = """
select id, client_id, key, is_enabled
from pulsewatch.channel
where deleted_at is null and key = any(%(keys)s)
"""
SILENCES = """
select id, client_id, matchers
from pulsewatch.silence
where exists (
    select
    from unnest(%(times)s::timestamptz[]) as moment (at)
    where silence.starts_at <= moment.at and silence.ends_at > moment.at
)
order by starts_at, id
"""


def channels_of(connection: Connection, rules: Iterable[Rule]) -> dict[tuple[int, int], list[Channel]]:
    """The channels that rules name, by id and version: of the rule's own client, or else of all clients.

    A channel that is not there is left out.
    """
    by_version = {(rule.id, rule.version): rule for rule in rules}
    keys = sorted({key for rule in by_version.values() for key in rule.spec.channels})
    known = {}
    if keys:
        known = {(row[1], row[2]): Channel(*row) for row in fetch(connection, CHANNELS, {"keys": keys})}
    found = {}
    for name, rule in by_version.items():
        named = [
            known.get((rule.client_id, key)) or known.get((None, key)) for key in dict.fromkeys(rule.spec.channels)
        ]
        found[name] = [channel for channel in named if channel is not None]
    return found


def silences_in_force(connection: Connection, *times: datetime) -> list[Silence]:
    """The silences that hold at a time, at any of them if several are given, oldest first."""
    found = []
    for id_, client_id, matchers in fetch(connection, SILENCES, {"times": list(times)}):
        try:
            found.append(Silence(id_, client_id, Matchers.model_validate(matchers)))
        except ValidationError as error:
            # People are rather told once too often.
            log.error("silence %s is not understood and silences nothing: %s", id_, error.errors()[0]["msg"])
    return found


# -- rows ----------------------------------------------------------------------------------------------------------

INSERT = """
insert into pulsewatch.notification (
    client_id, id, channel_id, alert_id, event_as_of, event_seq, reason, status, held_by, silence_id, body,
    next_attempt_at, expires_at, created_at
)
select
    new.client_id, new.id, new.channel_id, new.alert_id, new.event_as_of, new.event_seq, new.reason, new.status,
    new.held_by, new.silence_id, new.body, new.created_at, new.expires_at, new.created_at
from json_to_recordset(%(rows)s::json) as new (
    client_id bigint, id uuid, channel_id bigint, alert_id uuid, event_as_of timestamptz, event_seq integer,
    reason text, status text, held_by text, silence_id uuid, body jsonb, created_at timestamptz, expires_at timestamptz
)
order by new.client_id, new.id
on conflict (client_id, id) do nothing
returning client_id, id
"""

# A newer message tells what the older ones would have.
SUPERSEDE = """
update pulsewatch.notification as older
set status = case older.status when 'pending' then 'superseded' else 'dropped' end
from unnest(%(client_ids)s::bigint[], %(alert_ids)s::uuid[], %(channel_ids)s::bigint[], %(ids)s::uuid[])
    as newer (client_id, alert_id, channel_id, id)
where older.client_id = newer.client_id
    and older.alert_id = newer.alert_id
    and older.channel_id = newer.channel_id
    and older.id <> newer.id
    and older.status in ('pending', 'held')
    and older.reason <> 'resolved'
"""


def insert(connection: Connection, notifications: Iterable[Notification]) -> list[Notification]:
    """Write them; returns those that were not there already."""
    made = sorted(
        notifications, key=lambda notification: (notification.client_id, notification.message.notification_id)
    )
    if not made:
        return []
    new = set(fetch(connection, INSERT, {"rows": f"[{','.join(each.json() for each in made)}]"}))
    return [each for each in made if (each.client_id, each.message.notification_id) in new]


def supersede(connection: Connection, notifications: Iterable[Notification]) -> None:
    """Let new messages that an alert goes on stand for the older ones that were not sent yet."""
    newer = [
        each
        for each in notifications
        if each.held is None and each.message.reason in (Reason.LEVEL_CHANGED, Reason.REPEAT, Reason.CATCH_UP)
    ]
    if newer:
        values = {
            "client_ids": [each.client_id for each in newer],
            "alert_ids": [each.message.alert_id for each in newer],
            "channel_ids": [each.channel_id for each in newer],
            "ids": [each.message.notification_id for each in newer],
        }
        fetch(connection, SUPERSEDE, values)


# -- by hand -------------------------------------------------------------------------------------------------------

RETRY = """
update pulsewatch.notification
set
    status = 'pending', next_attempt_at = %(as_of)s, last_error = null,
    expires_at = %(as_of)s::timestamptz + case reason when 'resolved' then interval '72 h' else interval '24 h' end
where client_id = %(client_id)s and id = %(id)s and status = 'dead'
returning id
"""


def try_out(connection: Connection, channel_id: int, client_id: int, client: str | None, as_of: datetime) -> UUID:
    """Write a test message to a channel, also to one that is disabled; returns its id.

    `client_id` and `client` are those of the channel; 0 and None for one of all clients.
    """
    message = Message(
        notification_id=uuid4(),
        alert_id=None,
        reason=Reason.TEST,
        status=MessageStatus.FIRING,
        level=MessageLevel.WARNING,
        client=client,
        pipeline=None,
        rule="test",
        rule_title="Test",
        rule_version=1,
        kind="test",
        title="Test of a channel",
        summary="PulseWatch can reach you here. Nothing is wrong.",
        fired_at=as_of,
        is_test=True,
    )
    insert(connection, [Notification(client_id, channel_id, message, None, None, None, as_of)])
    return message.notification_id


def retry(connection: Connection, client_id: int, id_: UUID, as_of: datetime) -> bool:
    """Send a dead notification after all, as from now on; False if it is not dead (any more)."""
    connection.exec_driver_sql(DELIVERY_LOCK)
    return bool(fetch(connection, RETRY, {"client_id": client_id, "id": id_, "as_of": as_of}))
