"""The books of ingestion: what was refused and why, and how much of everything came in."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection

from pulsewatch.db import fetch
from pulsewatch.events import EPOCH, RunEvent
from pulsewatch.submissions import ACCEPTED, DUPLICATE, Item, Outcome, Receipt, Refusal, Rejected, Submission


def receipts(submissions: Sequence[Submission], outcomes: Sequence[Outcome]) -> list[Receipt]:
    """Deal the outcomes out to the requests they belong to, one for each place in the request."""
    receipts = []
    position = 0
    for submission in submissions:
        receipt = Receipt(received=submission.received, rejected=list(submission.rejected))
        receipts.append(receipt)
        if len(submission.items) == 1 and not isinstance(outcomes[position], Refusal):
            # A lone event, the most usual request, without what only several need.
            receipt.duplicates = int(outcomes[position] is DUPLICATE)
            receipt.accepted = 1 - receipt.duplicates
            position += 1
            continue
        by_place: dict[int, tuple[Outcome, Item]] = {}
        for index, item in zip(submission.indexes, submission.items, strict=True):
            outcome = outcomes[position]
            position += 1
            if index not in by_place or isinstance(outcome, Refusal):
                by_place[index] = outcome, item
        for index, (outcome, item) in by_place.items():
            if isinstance(outcome, Refusal):
                receipt.rejected.append(Rejected(index, outcome, item.client))
            elif outcome is DUPLICATE:
                receipt.duplicates += 1
            else:
                receipt.accepted += 1
        receipt.rejected.sort(key=lambda rejected: rejected.index)
    return receipts


REJECT_ITEM_BYTES = 8192
STAT_BUCKET = timedelta(minutes=5)


def record(
    connection: Connection,
    submissions: Sequence[Submission],
    receipts: Sequence[Receipt],
    outcomes: Sequence[Outcome],
    received_at: datetime,
) -> None:
    """Keep the rejects, and count every outcome by wire and five minutes."""
    stats: dict[str, dict[str, Any]] = {}
    position = 0
    for submission, receipt in zip(submissions, receipts, strict=True):
        stat = stats.setdefault(
            submission.source,
            {"accepted": 0, "duplicates": 0, "rejected": 0, "lag_s_sum": 0.0, "lag_s_max": 0.0},
        )
        stat["accepted"] += receipt.accepted
        stat["duplicates"] += receipt.duplicates
        stat["rejected"] += len(receipt.rejected)
        for item in submission.items:
            if outcomes[position] is ACCEPTED and isinstance(item, RunEvent):
                lag_s = max(0.0, (received_at - item.occurred_at).total_seconds())
                stat["lag_s_sum"] += lag_s
                stat["lag_s_max"] = max(stat["lag_s_max"], lag_s)
            position += 1
    all_rejected = (
        (submission, rejected)
        for submission, receipt in zip(submissions, receipts, strict=True)
        for rejected in receipt.rejected
    )
    rejects = [
        _reject_row(submission, rejected) | {"place": place}
        for place, (submission, rejected) in enumerate(all_rejected)
    ]
    if rejects:
        connection.exec_driver_sql(_REJECT_SQL, (msgspec.json.encode(rejects).decode(),))
    bucket_at = received_at - (received_at - EPOCH) % STAT_BUCKET
    rows = [
        {"source": source, "bucket_at": bucket_at, "last_at": received_at if stat["accepted"] else None} | stat
        for source, stat in sorted(stats.items())
    ]
    fetch(connection, _STAT_SQL, (msgspec.json.encode(rows).decode(),))


def _reject_row(submission: Submission, rejected: Rejected) -> dict[str, Any]:
    return {
        "client_id": submission.client_id,
        "client": _storable(rejected.client) if rejected.client else None,
        "key_id": submission.key_id,
        "source": submission.source,
        "code": rejected.refusal.code,
        "pointer": _storable(rejected.refusal.pointer),
        "detail": _storable(rejected.refusal.detail),
        "item": _storable(submission.text_of(rejected.index)[:REJECT_ITEM_BYTES].decode(errors="replace")),
    }


def _storable(text: str) -> str:
    """The text with what PostgreSQL cannot hold (NUL, lone surrogates) replaced."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


_REJECT_SQL = """
insert into pulsewatch.ingest_reject (client_id, key_id, source, code, pointer, detail, item)
select coalesce(bound.id, named.id), item.key_id, item.source, item.code, item.pointer, item.detail, item.item
from json_to_recordset(%s::json) as item (
    client_id bigint, client text, key_id uuid, source text, code text, pointer text, detail text, item text, place int
)
-- A client that was erased meanwhile leaves nothing behind, rejects included.
left join pulsewatch.client as bound on item.client_id = bound.id
left join pulsewatch.client as named on item.client_id is null and item.client = named.slug
order by item.place
"""

_STAT_SQL = """
insert into pulsewatch.ingest_stat as stat (
    bucket_at, source, writer, accepted, duplicates, rejected, lag_s_sum, lag_s_max, last_at
)
select bucket_at, source, pg_backend_pid(), accepted, duplicates, rejected, lag_s_sum, lag_s_max, last_at
from json_to_recordset(%s::json) as said (
    bucket_at timestamptz, source text, accepted bigint, duplicates bigint, rejected bigint,
    lag_s_sum double precision, lag_s_max double precision, last_at timestamptz
)
on conflict (bucket_at, source, writer) do update set
    accepted = stat.accepted + excluded.accepted,
    duplicates = stat.duplicates + excluded.duplicates,
    rejected = stat.rejected + excluded.rejected,
    lag_s_sum = stat.lag_s_sum + excluded.lag_s_sum,
    lag_s_max = greatest(stat.lag_s_max, excluded.lag_s_max),
    last_at = greatest(stat.last_at, excluded.last_at)
"""
