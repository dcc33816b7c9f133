"""Events as producers send them, endless and new: their JSON, and the same events as rows for COPY."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from pulsewatch.events import RunEvent, Status, canonical_json, dedupe_key, run_id
from pulsewatch.packing import content_digest
from tests.bench.history import CLIENTS, PIPELINES_PER_CLIENT, client_slug, pipeline_name

BATCH_EVENTS = 1000
# A run ends in one of the next batches, not always the same: both rows of a run are rarely in one transaction.
BATCHES_OF_A_RUN = (1, 8)
BETWEEN_STARTS = timedelta(milliseconds=1)
# COPY writes the same rows under clients of its own, whose numbers begin here.
COPY_CLIENT_ID = 1_000_000

Batch = list[RunEvent]


class Stream:
    """Batches of starts and ends of new runs from `begins_at` on. Everything but the times is random, by `seed`."""

    def __init__(self, begins_at: datetime, seed: int) -> None:
        self._at = begins_at
        self._random = random.Random(seed)  # noqa: S311 - load, not secrets
        self._ends: dict[int, Batch] = {}
        self._count = 0

    def batches(self, count: int) -> list[Batch]:
        return [self._batch() for _ in range(count)]

    def singles(self, count: int) -> list[bytes]:
        """Bodies that hold one bare event each."""
        events = [event for batch in self.batches(-(-count // BATCH_EVENTS)) for event in batch]
        return [msgspec.json.encode(_as_sent(event)) for event in events[:count]]

    def _batch(self) -> Batch:
        ends = self._ends.pop(self._count, [])
        batch: Batch = []
        is_warm = self._count > BATCHES_OF_A_RUN[1]
        while len(batch) + len(ends) < BATCH_EVENTS if is_warm else len(batch) < BATCH_EVENTS // 2:
            batch.append(self._start())
        self._count += 1
        return batch + ends

    def _start(self) -> RunEvent:
        self._at += BETWEEN_STARTS
        client = client_slug(self._random.randrange(CLIENTS))
        pipeline = pipeline_name(self._random.randrange(PIPELINES_PER_CLIENT))
        run = self._uuid7()
        ended_in = self._count + self._random.randint(*BATCHES_OF_A_RUN)
        self._ends.setdefault(ended_in, []).append(
            RunEvent(
                client=client,
                pipeline=pipeline,
                run=run,
                status=Status.SUCCEEDED,
                occurred_at=self._at + timedelta(seconds=30),
                message="loaded the table in good order",
                metrics={"rows": 1234.0, "bytes": 98765.0},
                attributes={"table": "sales.orders"},
            )
        )
        return RunEvent(
            client=client,
            pipeline=pipeline,
            run=run,
            status=Status.RUNNING,
            occurred_at=self._at,
            message="picked up by worker-7",
            metrics={"queued_s": 1.5},
            attributes={"host": "worker-7", "image": "etl:2026.11"},
        )

    def _uuid7(self) -> str:
        milliseconds = int(self._at.timestamp() * 1000)
        noise = self._random.getrandbits(74)
        return str(UUID(int=milliseconds << 80 | 7 << 76 | (noise >> 62) << 64 | 2 << 62 | noise & (1 << 62) - 1))


def _as_sent(event: RunEvent) -> dict[str, object]:
    names = ("client", "pipeline", "run", "status", "occurred_at", "message", "metrics", "attributes")
    return {"type": "run"} | {name: getattr(event, name) for name in names}


def body(batch: Batch) -> bytes:
    """The batch as the JSON array that is posted."""
    return msgspec.json.encode([_as_sent(event) for event in batch])


COPY_RUN_EVENTS = (
    "copy pulsewatch.run_event (client_id, occurred_at, dedupe_key, content_digest, run_id, pipeline_id, status,"
    " message, metrics, attributes) from stdin"
)


def copy_rows(batch: Batch, pipeline_ids: Sequence[int]) -> bytes:
    """The rows that ingestion would make of the batch, as text for COPY_RUN_EVENTS."""
    return "".join(_copy_row(event, pipeline_ids) for event in batch).encode()


def _copy_row(event: RunEvent, pipeline_ids: Sequence[int]) -> str:
    client, pipeline = int(event.client[-3:]), int(event.pipeline[-3:])
    fields = (
        COPY_CLIENT_ID + client,
        event.occurred_at.isoformat(),
        dedupe_key(event).hex(),
        content_digest(event).hex(),
        run_id(event.client, event.namespace, event.pipeline, event.run),
        pipeline_ids[pipeline * CLIENTS + client],
        event.status,
        event.message,
        canonical_json(event.metrics).decode(),
        canonical_json(event.attributes).decode(),
    )
    return "\t".join(map(str, fields)) + "\n"
