"""Events, the runs that follow from them, and what ingestion leaves behind."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Identity,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from pulsewatch.db import metadata
from pulsewatch.models.types import Timestamp

RUN_STATUS_LIST = "'queued', 'running', 'succeeded', 'failed', 'cancelled', 'skipped', 'timed_out'"

run_event = Table(
    "run_event",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose event."),
    Column("occurred_at", Timestamp, nullable=False, comment="When it happened, as the producer says."),
    Column("dedupe_key", Uuid, nullable=False, comment="Digest of what makes it the same event."),
    Column("content_digest", Uuid, nullable=False, comment="Digest of what it says: a retry or a conflict."),
    Column("run_id", Uuid, nullable=False, comment="Its run, in the same client."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Its pipeline."),
    Column(
        "received_at",
        Timestamp,
        nullable=False,
        server_default=func.now(),
        comment="Start of the transaction that stored it.",
    ),
    Column("status", Text, nullable=False, comment="A run status, or info."),
    Column("attempt", SmallInteger, comment="0 to 31; null counts as 0."),
    Column(
        "flags",
        SmallInteger,
        nullable=False,
        server_default="0",
        comment="1 assumed_utc, 2 scheduled_at_ignored.",
    ),
    Column("started_at", Timestamp, comment="Start of the run, where the event says it."),
    Column("scheduled_at", Timestamp, comment="When the run was due, where the event says it."),
    Column("duration_s", Double, comment="Seconds, where the event says it."),
    Column("event_id", Text, comment="The producer's id of the event."),
    Column("message", Text, comment="For people."),
    Column("error_class", Text, comment="Kind of failure."),
    Column("url", Text, comment="Where to look further."),
    Column("metrics", JSONB, comment="Numbers by name."),
    Column("attributes", JSONB, comment="Anything else, by name."),
    Column("parent", JSONB, comment="{namespace, pipeline, run} of the run that started this one."),
    PrimaryKeyConstraint("client_id", "occurred_at", "dedupe_key"),
    CheckConstraint(f"status in ({RUN_STATUS_LIST}, 'info')", name="status"),
    CheckConstraint("attempt between 0 and 31", name="attempt"),
    CheckConstraint("duration_s >= 0", name="duration_s"),
    CheckConstraint("occurred_at >= '2000-01-01 00:00:00+00'", name="occurred_at"),
    comment="One row per accepted event: an immutable fact about a run. Append only, partitioned by month (UTC).",
    postgresql_partition_by="RANGE (occurred_at)",
)

run = Table(
    "run",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose run."),
    Column(
        "id",
        Uuid,
        nullable=False,
        comment="UUIDv8 from the producer's words; the same in any order of arrival.",
    ),
    Column("pipeline_id", BigInteger, nullable=False, comment="Its pipeline."),
    Column(
        "state_key",
        BigInteger,
        nullable=False,
        comment="Precedence of the winning event: attempt << 58 | class << 56 | epoch_us << 3 | rank.",
    ),
    Column("winner_key", Uuid, nullable=False, comment="dedupe_key of the winning event."),
    Column("opened_at", Timestamp, nullable=False, comment="occurred_at of the earliest event."),
    Column("opening_key", Uuid, nullable=False, comment="dedupe_key of the earliest event."),
    Column(
        "first_at",
        Timestamp,
        nullable=False,
        comment="Least of started_at and occurred_at over all events; lists sort by it.",
    ),
    Column("last_at", Timestamp, nullable=False, comment="Greatest occurred_at over all events."),
    Column("start_at", Timestamp, comment="Earliest start within the winning attempt."),
    Column("latest_start_at", Timestamp, comment="Latest start within the winning attempt."),
    Column("earliest_end_at", Timestamp, comment="Earliest end, by a producer, within the winning attempt."),
    Column("implied_start_at", Timestamp, comment="finished_at - said_duration_s."),
    Column("finished_at", Timestamp, comment="When the winning event ended the run; null while it goes on."),
    Column("prev_started_at", Timestamp, comment="started_at before the last change: its hour is marked too."),
    Column("prev_finished_at", Timestamp, comment="finished_at before the last change: its hour is marked too."),
    Column("said_duration_s", Double, comment="Duration that the winning event gives, in seconds."),
    Column(
        "flags",
        SmallInteger,
        nullable=False,
        server_default="0",
        comment="Union over its events: 1 assumed_utc, 2 scheduled_at_ignored.",
    ),
    Column(
        "status",
        Text,
        nullable=False,
        comment="Status of the winning event; queued where there is only info.",
    ),
    Column("external_id", Text, nullable=False, comment="What the producer calls the run."),
    Column("message", Text, comment="Of the winning event."),
    Column("error_class", Text, comment="Of the winning event."),
    Column("url", Text, comment="Of the winning event."),
    Column("opening_scheduled_at", Timestamp, comment="Of the earliest event."),
    Column("winner_scheduled_at", Timestamp, comment="Of the winning event; laid over the opening one when read."),
    Column("opening_metrics", JSONB, comment="Of the earliest event."),
    Column("winner_metrics", JSONB, comment="Of the winning event; laid over the opening ones when read."),
    Column("opening_attributes", JSONB, comment="Of the earliest event."),
    Column("winner_attributes", JSONB, comment="Of the winning event; laid over the opening ones when read."),
    Column("opening_parent", JSONB, comment="Of the earliest event."),
    Column("winner_parent", JSONB, comment="Of the winning event; stands before the opening one when read."),
    Column(
        "received_at",
        Timestamp,
        nullable=False,
        server_default=func.now(),
        comment="Greatest received_at of the events that changed it.",
    ),
    Column(
        "first_received_at",
        Timestamp,
        nullable=False,
        server_default=func.now(),
        comment="Least received_at of the events that changed it: nothing was known of it before.",
    ),
    PrimaryKeyConstraint("client_id", "id"),
    # Lists of a client's runs, newest first, by keyset.
    Index("run_client_first_at_idx", "client_id", text("first_at desc"), "id"),
    # Lists of one pipeline's runs; its last 64 runs.
    Index("run_pipeline_first_at_idx", "client_id", "pipeline_id", text("first_at desc")),
    # Runs that finished within a window (rollups); a BRIN keeps updates heap-only.
    Index("run_finished_at_idx", "finished_at", postgresql_using="brin"),
    CheckConstraint(f"status in ({RUN_STATUS_LIST})", name="status"),
    CheckConstraint("state_key >= 0", name="state_key"),
    CheckConstraint("said_duration_s >= 0", name="said_duration_s"),
    CheckConstraint("first_at <= opened_at and opened_at <= last_at", name="first_at"),
    comment="One row per run: a pure function of the set of its events, whatever their order.",
    # Rows grow when a run finishes; the room left lets the new version stay on its page (docs/performance.md).
    postgresql_with={"fillfactor": "50"},
)

dirty = Table(
    "dirty",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose hour."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Which pipeline's hour."),
    Column(
        "hour_at",
        Timestamp,
        nullable=False,
        comment="The hour (UTC) whose numbers have to be computed again.",
    ),
    Column(
        "first_at",
        Timestamp,
        comment="first_at of the run that changed, so that it is found by index; null where a slot changed.",
    ),
    Column(
        "marked_at", Timestamp, nullable=False, server_default=func.now(), comment="When it was left; tells the lag."
    ),
    comment="Marks left by ingestion for the rollups; no key: the same mark may stand here many times.",
)

ingest_reject = Table(
    "ingest_reject",
    metadata,
    Column("id", BigInteger, Identity(always=True), comment="Order of arrival."),
    Column("received_at", Timestamp, nullable=False, server_default=func.now(), comment="When it came in."),
    Column("client_id", BigInteger, comment="The client of the key or named by the item, where known."),
    Column("key_id", Uuid, comment="The API key that sent it."),
    Column("source", Text, nullable=False, comment="The wire: native, openlineage ..."),
    Column("code", Text, nullable=False, comment="Why it was refused, for machines."),
    Column("pointer", Text, nullable=False, comment="JSON pointer to the field at fault."),
    Column("detail", Text, nullable=False, comment="Why it was refused, for people."),
    Column("item", Text, nullable=False, comment="The first 8192 bytes of the item, as it came."),
    PrimaryKeyConstraint("id"),
    # Lists newest first; retention.
    Index("ingest_reject_received_at_idx", "received_at"),
    # The same for a key that is bound to one client.
    Index("ingest_reject_client_id_idx", "client_id", "id"),
    comment="One row per refused item, kept for 14 days.",
)

ingest_stat = Table(
    "ingest_stat",
    metadata,
    Column("bucket_at", Timestamp, nullable=False, comment="Start of the five minutes (UTC)."),
    Column("source", Text, nullable=False, comment="The wire: native, openlineage ..."),
    Column(
        "writer",
        BigInteger,
        nullable=False,
        comment="The connection that counted: writers never wait for each other.",
    ),
    Column("accepted", BigInteger, nullable=False, server_default="0", comment="New events."),
    Column(
        "duplicates",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="Events that were there already.",
    ),
    Column("rejected", BigInteger, nullable=False, server_default="0", comment="Items that were refused."),
    Column(
        "lag_s_sum",
        Double,
        nullable=False,
        server_default="0",
        comment="Sum of received_at - occurred_at over accepted events, in seconds.",
    ),
    Column("lag_s_max", Double, nullable=False, server_default="0", comment="The greatest of them, in seconds."),
    Column("last_at", Timestamp, comment="When an event was accepted last; null: somewhen in the five minutes."),
    PrimaryKeyConstraint("bucket_at", "source", "writer"),
    comment="Outcomes of ingestion per five minutes, wire and writer.",
)
