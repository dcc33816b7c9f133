"""Every table, constraint and index. Each index names the query it serves.

Rules (docs/decisions/0002-schema-rules.md): `client_id` leads every key of a tenant's table; no b-tree on a column
that changes while a run goes on; digests are 16 fixed bytes (`uuid`), never payloads.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB

from pulsewatch.db import metadata

Timestamp = DateTime(timezone=True)
RUN_STATUS_LIST = "'queued', 'running', 'succeeded', 'failed', 'cancelled', 'skipped', 'timed_out'"

client = Table(
    "client",
    metadata,
    Column("id", BigInteger, Identity(always=True), comment="Internal number; never shown."),
    Column("slug", Text, nullable=False, comment="Name in URLs and events; never changes."),
    Column("title", Text, comment="Name for people."),
    Column("archived_at", Timestamp, comment="Set: events are refused, history stays."),
    Column("created_at", Timestamp, nullable=False, server_default=func.now(), comment="First seen."),
    Column("updated_at", Timestamp, nullable=False, server_default=func.now(), comment="Last change."),
    Column(
        "said_at",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="Per field, the time of the statement that set it: the later one wins.",
    ),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("slug"),
    CheckConstraint("slug ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'", name="slug"),
    CheckConstraint("length(title) <= 200", name="title"),
    comment="One row per client: whose work it is, the boundary between tenants.",
)

pipeline = Table(
    "pipeline",
    metadata,
    Column("client_id", BigInteger, ForeignKey("pulsewatch.client.id"), nullable=False, comment="Its client."),
    Column("id", BigInteger, Identity(always=True), comment="Internal number; never shown."),
    Column("slug", Text, nullable=False, comment="Name in URLs, unique in the client; never changes."),
    Column("namespace", Text, nullable=False, server_default="", comment="As the producer says it; '' natively."),
    Column("name", Text, nullable=False, comment="As the producer says it."),
    Column("identity_digest", Uuid, nullable=False, comment="Digest of namespace and name."),
    Column("title", Text, comment="Name for people."),
    Column("schedule", Text, comment="Five-field cron, an @ form, or an interval such as 'every 15m'."),
    Column("timezone", Text, comment="IANA zone of the schedule; null is UTC."),
    Column("start_grace_s", Double, comment="How late a start may be, in seconds."),
    Column("max_runtime_s", Double, comment="How long a run may take, in seconds."),
    Column("tags", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="Labels, sorted."),
    Column("owner", Text, comment="Who looks after it."),
    Column("environment", Text, comment="prod, staging ..."),
    Column("archived_at", Timestamp, comment="Set: hidden from lists; events are still kept."),
    Column("created_at", Timestamp, nullable=False, server_default=func.now(), comment="First seen."),
    Column("updated_at", Timestamp, nullable=False, server_default=func.now(), comment="Last change."),
    Column(
        "said_at",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="Per field, the time of the statement that set it: the later one wins.",
    ),
    PrimaryKeyConstraint("client_id", "id"),
    UniqueConstraint("client_id", "slug"),
    UniqueConstraint("client_id", "identity_digest"),
    CheckConstraint("slug ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'", name="slug"),
    CheckConstraint("length(namespace) <= 512 and length(name) between 1 and 512", name="name"),
    CheckConstraint("start_grace_s >= 0 and start_grace_s <= 31622400", name="start_grace_s"),
    CheckConstraint("max_runtime_s > 0 and max_runtime_s <= 31622400", name="max_runtime_s"),
    comment="One row per pipeline: something that runs again and again for a client.",
)

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


def _counted() -> list[Column[Any]]:
    """The numbers of an hour or a day, the same for a pipeline, a client and the fleet (docs/rollups.md)."""
    return [
        Column("started_count", Integer, nullable=False, comment="Runs that started, by started_at."),
        Column("succeeded_count", Integer, nullable=False, comment="Runs that succeeded, by finished_at."),
        Column("failed_count", Integer, nullable=False, comment="Runs that failed, by finished_at."),
        Column("timed_out_count", Integer, nullable=False, comment="Runs that timed out, by finished_at."),
        Column("cancelled_count", Integer, nullable=False, comment="Runs that were cancelled, by finished_at."),
        Column("skipped_count", Integer, nullable=False, comment="Runs that were skipped, by finished_at."),
        Column("retried_count", Integer, nullable=False, comment="Finished runs of a later attempt than the first."),
        Column("on_time_count", Integer, nullable=False, comment="Slots met in time, by slot_at."),
        Column("late_count", Integer, nullable=False, comment="Slots met late, by slot_at."),
        Column("missed_count", Integer, nullable=False, comment="Slots not met, by slot_at."),
        Column("duration_count", Integer, nullable=False, comment="Finished runs whose duration is known."),
        Column("duration_sum_s", Double, nullable=False, comment="Sum of their durations, in seconds."),
        Column("duration_min_s", Double, comment="The shortest of them, in seconds."),
        Column("duration_max_s", Double, comment="The longest of them, in seconds."),
        Column("duration_p50_s", Double, comment="Their median in seconds, from the histogram."),
        Column("duration_p95_s", Double, comment="Their 95th percentile in seconds, from the histogram."),
        Column("duration_p99_s", Double, comment="Their 99th percentile in seconds, from the histogram."),
        Column(
            "duration_buckets",
            ARRAY(SmallInteger),
            nullable=False,
            comment="Buckets of the histogram that hold a run, ascending (pulsewatch.duration_bucket).",
        ),
        Column("duration_counts", ARRAY(Integer), nullable=False, comment="How many runs each of them holds."),
        Column("rows_sum", Double, comment="Sum of the metric rows over finished runs that report it."),
        Column("bytes_sum", Double, comment="Sum of the metric bytes over finished runs that report it."),
    ]


slot = Table(
    "slot",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose slot."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Its pipeline."),
    Column("slot_at", Timestamp, nullable=False, comment="When a start was expected."),
    Column("deadline_at", Timestamp, nullable=False, comment="From then on a start is late: slot_at + start_grace_s."),
    Column("status", Text, nullable=False, server_default="open", comment="open, on_time, late or missed."),
    Column("run_id", Uuid, comment="The run that took it, in the same client."),
    Column("started_at", Timestamp, comment="When that run started (started_at, else first_at)."),
    Column(
        "first_at_min", Timestamp, comment="Least first_at of the runs that ever claimed it: where to look for them."
    ),
    Column("first_at_max", Timestamp, comment="Greatest first_at of the runs that ever claimed it."),
    PrimaryKeyConstraint("client_id", "pipeline_id", "slot_at"),
    # Slots that are due; nearly all rows are not open.
    Index("slot_open_idx", "deadline_at", postgresql_where=text("status = 'open'")),
    # The slots that a run has taken, when it moves.
    Index("slot_run_idx", "client_id", "run_id", postgresql_where=text("run_id is not null")),
    # A client's slots in a window.
    Index("slot_client_slot_at_idx", "client_id", "slot_at"),
    CheckConstraint("status in ('open', 'on_time', 'late', 'missed')", name="status"),
    CheckConstraint("deadline_at >= slot_at", name="deadline_at"),
    CheckConstraint("(run_id is null) = (status in ('open', 'missed'))", name="run_id"),
    comment="One row per expected start of a scheduled pipeline, partitioned by month (UTC).",
    postgresql_partition_by="RANGE (slot_at)",
)

slot_plan = Table(
    "slot_plan",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose pipeline."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Which pipeline."),
    Column("schedule", Text, nullable=False, comment="The schedule that the slots ahead were made for."),
    Column("timezone", Text, comment="Its zone; null is UTC."),
    Column("start_grace_s", Double, nullable=False, comment="Its grace, in seconds."),
    Column("planned_until", Timestamp, nullable=False, comment="Slots exist for all times before this."),
    PrimaryKeyConstraint("client_id", "pipeline_id"),
    comment="One row per pipeline that has slots: for which schedule, and how far ahead.",
)

slot_mark = Table(
    "slot_mark",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose hour."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Which pipeline's hour."),
    Column("hour_at", Timestamp, nullable=False, comment="The hour (UTC) in which a run changed."),
    Column("first_at", Timestamp, comment="first_at of a run that changed."),
    comment="Marks left by the rollups for the slots: runs of a scheduled pipeline changed. No key.",
)

pipeline_hour = Table(
    "pipeline_hour",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose hour."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Which pipeline's hour."),
    Column("hour_at", Timestamp, nullable=False, comment="Start of the hour (UTC)."),
    *_counted(),
    Column("open_count", Integer, nullable=False, comment="Runs that started in the hour and have not finished."),
    Column("last_success_at", Timestamp, comment="Latest finish of a run that succeeded in the hour."),
    Column("first_at_min", Timestamp, comment="Least first_at of the runs counted here: where to look for them."),
    Column("first_at_max", Timestamp, comment="Greatest first_at of the runs counted here."),
    PrimaryKeyConstraint("client_id", "pipeline_id", "hour_at"),
    # A client's hour, over its pipelines.
    Index("pipeline_hour_client_hour_at_idx", "client_id", "hour_at"),
    # Hours with runs that go on: what is running, what runs too long.
    Index("pipeline_hour_open_idx", "client_id", "pipeline_id", "hour_at", postgresql_where=text("open_count > 0")),
    comment="One row per pipeline and hour in which anything happened, partitioned by month (UTC).",
    postgresql_partition_by="RANGE (hour_at)",
)

client_hour = Table(
    "client_hour",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose hour."),
    Column("hour_at", Timestamp, nullable=False, comment="Start of the hour (UTC)."),
    *_counted(),
    PrimaryKeyConstraint("client_id", "hour_at"),
    # The fleet's hour, over the clients; retention.
    Index("client_hour_hour_at_idx", "hour_at"),
    comment="One row per client and hour in which anything happened.",
    # Rows are computed again and again: the room left lets each new version stay on its page.
    postgresql_with={"fillfactor": "70"},
)

fleet_hour = Table(
    "fleet_hour",
    metadata,
    Column("hour_at", Timestamp, nullable=False, comment="Start of the hour (UTC)."),
    *_counted(),
    PrimaryKeyConstraint("hour_at"),
    comment="One row per hour in which anything happened, over all clients.",
    postgresql_with={"fillfactor": "70"},
)

pipeline_day = Table(
    "pipeline_day",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose day."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Which pipeline's day."),
    Column("day_utc", Timestamp, nullable=False, comment="Start of the day (UTC)."),
    *_counted(),
    PrimaryKeyConstraint("client_id", "pipeline_id", "day_utc"),
    # A client's pipelines in a window of days.
    Index("pipeline_day_client_day_utc_idx", "client_id", "day_utc"),
    comment="One row per pipeline and day (UTC) in which anything happened; kept for ever.",
    postgresql_with={"fillfactor": "70"},
)

client_day = Table(
    "client_day",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose day."),
    Column("day_utc", Timestamp, nullable=False, comment="Start of the day (UTC)."),
    *_counted(),
    PrimaryKeyConstraint("client_id", "day_utc"),
    comment="One row per client and day (UTC) in which anything happened; kept for ever.",
    postgresql_with={"fillfactor": "70"},
)

fleet_day = Table(
    "fleet_day",
    metadata,
    Column("day_utc", Timestamp, nullable=False, comment="Start of the day (UTC)."),
    *_counted(),
    PrimaryKeyConstraint("day_utc"),
    comment="One row per day (UTC) in which anything happened, over all clients; kept for ever.",
    postgresql_with={"fillfactor": "70"},
)

pipeline_state = Table(
    "pipeline_state",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose pipeline."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Which pipeline."),
    Column("last_run_id", Uuid, comment="The latest run, by (first_at, id)."),
    Column("last_run_status", Text, comment="Its status."),
    Column("last_run_first_at", Timestamp, comment="Its first_at."),
    Column("last_outcome_run_id", Uuid, comment="The latest run that succeeded, failed or timed out."),
    Column("last_outcome", Text, comment="Its status: succeeded, failed or timed_out."),
    Column("last_finished_at", Timestamp, comment="When it finished."),
    Column("last_duration_s", Double, comment="How long it took, in seconds; null if unknown."),
    Column("last_error_class", Text, comment="Its kind of failure."),
    Column("last_success_at", Timestamp, comment="Latest finish of any run that succeeded."),
    Column(
        "consecutive_failures",
        SmallInteger,
        nullable=False,
        comment="Runs that failed or timed out since the last success (64 at most); cancelled and skipped apart.",
    ),
    Column("failing_since", Timestamp, comment="Finish of the first of these; null while it does not fail."),
    Column("running_count", SmallInteger, nullable=False, comment="Runs that go on, among the last 64."),
    Column("running_since", Timestamp, comment="Earliest start among these."),
    Column("last_slot_at", Timestamp, comment="The latest slot that was judged."),
    Column("last_slot_status", Text, comment="on_time, late or missed."),
    Column("next_slot_at", Timestamp, comment="The earliest slot that is open."),
    PrimaryKeyConstraint("client_id", "pipeline_id"),
    comment="One row per pipeline that has runs or slots: how it is doing, worked out from its last 64 runs.",
    postgresql_with={"fillfactor": "70"},
)

failing_span = Table(
    "failing_span",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose pipeline."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Which pipeline."),
    Column("run_id", Uuid, nullable=False, comment="The run that began it."),
    Column("first_at", Timestamp, nullable=False, comment="first_at of that run."),
    Column("began_at", Timestamp, nullable=False, comment="When that run failed."),
    Column("last_first_at", Timestamp, nullable=False, comment="first_at of its last failing run."),
    Column("ended_at", Timestamp, comment="When the next run succeeded; null while it goes on."),
    Column("failure_count", Integer, nullable=False, comment="How many runs failed or timed out in it."),
    Column("error_class", Text, comment="Kind of failure of the run that began it, else its status."),
    PrimaryKeyConstraint("client_id", "pipeline_id", "run_id"),
    # A client's spans in a window; a pipeline's spans around a time.
    Index("failing_span_client_began_at_idx", "client_id", "began_at"),
    Index("failing_span_pipeline_first_at_idx", "client_id", "pipeline_id", "first_at"),
    comment="One row per span in which a pipeline was failing: from a first failure to the next success.",
)

annotation = Table(
    "annotation",
    metadata,
    Column("client_id", BigInteger, ForeignKey("pulsewatch.client.id"), nullable=False, comment="Whose."),
    Column("id", Uuid, nullable=False, server_default=func.gen_random_uuid(), comment="Shown in lists."),
    Column("pipeline_id", BigInteger, comment="The one pipeline it is about; null: all of the client."),
    Column("at", Timestamp, nullable=False, comment="When it happened, or began."),
    Column("until_at", Timestamp, comment="When it ended; null: a moment."),
    Column("kind", Text, nullable=False, comment="deploy or note."),
    Column("text", Text, nullable=False, comment="For people."),
    Column("url", Text, comment="Where to look further."),
    Column("created_at", Timestamp, nullable=False, server_default=func.now(), comment="When it was written down."),
    PrimaryKeyConstraint("client_id", "id"),
    ForeignKeyConstraint(["client_id", "pipeline_id"], ["pulsewatch.pipeline.client_id", "pulsewatch.pipeline.id"]),
    # A client's annotations in a window.
    Index("annotation_client_at_idx", "client_id", "at"),
    CheckConstraint("kind in ('deploy', 'note')", name="kind"),
    CheckConstraint("until_at > at", name="until_at"),
    CheckConstraint("length(text) between 1 and 2000", name="text"),
    CheckConstraint("length(url) <= 2000", name="url"),
    comment="One row per deploy or note that people want to see beside the runs.",
)

api_key = Table(
    "api_key",
    metadata,
    Column(
        "id",
        Uuid,
        nullable=False,
        server_default=func.gen_random_uuid(),
        comment="Shown in lists; not the key.",
    ),
    Column("secret_digest", BYTEA, nullable=False, comment="sha256 of the key; the key itself is stored nowhere."),
    Column("role", Text, nullable=False, comment="ingest, read, write or admin."),
    Column(
        "client_id",
        BigInteger,
        ForeignKey("pulsewatch.client.id"),
        comment="The one client it may see; null: all.",
    ),
    Column("name", Text, comment="What it is for."),
    Column("created_at", Timestamp, nullable=False, server_default=func.now(), comment="When it was made."),
    Column("expires_at", Timestamp, comment="From then on it is refused."),
    Column("revoked_at", Timestamp, comment="Set: refused."),
    Column("last_used_at", Timestamp, comment="Last use, written at most once a minute."),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("secret_digest"),
    CheckConstraint("role in ('ingest', 'read', 'write', 'admin')", name="role"),
    CheckConstraint("length(secret_digest) = 32", name="secret_digest"),
    comment="One row per API key.",
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
    PrimaryKeyConstraint("bucket_at", "source", "writer"),
    comment="Outcomes of ingestion per five minutes, wire and writer.",
)

worker_heartbeat = Table(
    "worker_heartbeat",
    metadata,
    Column("worker_id", Text, nullable=False, comment="Host and process of the worker."),
    Column("started_at", Timestamp, nullable=False, comment="When it started."),
    Column("beat_at", Timestamp, nullable=False, comment="Its last sign of life."),
    PrimaryKeyConstraint("worker_id"),
    comment="One row per worker process; /ready looks at the newest.",
)

analytics_object = Table(
    "analytics_object",
    metadata,
    Column("name", Text, nullable=False, comment="Its name in the schema analytics."),
    Column("kind", Text, nullable=False, comment="view or function."),
    Column("file", Text, nullable=False, comment="The file that defines it; files sort in load order."),
    PrimaryKeyConstraint("name"),
    CheckConstraint("kind in ('view', 'function')", name="kind"),
    comment="The objects of the schema analytics that migrate made and may replace; all others are the user's own.",
)
