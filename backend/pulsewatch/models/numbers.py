"""Slots, and what is worked out from runs and slots: hours, days, states and spans of failure."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from pulsewatch.db import metadata
from pulsewatch.models.types import Timestamp


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
    # A client's slots in a window. The late and missed ones of all clients: lists show them from the index alone.
    Index("slot_client_slot_at_idx", "client_id", "slot_at"),
    Index(
        "slot_late_idx",
        "slot_at",
        "client_id",
        postgresql_include=["pipeline_id", "status", "deadline_at", "run_id", "started_at"],
        postgresql_where=text("status in ('late', 'missed')"),
    ),
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
    Column("marked_at", Timestamp, nullable=False, server_default=func.now(), comment="When ingestion left its mark."),
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
    # The last hour in which a run failed.
    Index(
        "pipeline_hour_failed_idx",
        "client_id",
        "pipeline_id",
        "hour_at",
        postgresql_where=text("failed_count + timed_out_count > 0"),
    ),
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
    Column("last_failure_hour_at", Timestamp, comment="Latest hour (UTC) in which any run failed or timed out."),
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
    # The spans of a client, or of all, in a window: error_classes counts them from the index alone. A pipeline's spans
    # around a time.
    Index(
        "failing_span_client_began_at_idx",
        "client_id",
        "began_at",
        postgresql_include=["pipeline_id", "error_class", "failure_count"],
    ),
    Index(
        "failing_span_began_at_idx",
        "began_at",
        "client_id",
        postgresql_include=["pipeline_id", "error_class", "failure_count"],
    ),
    Index("failing_span_pipeline_first_at_idx", "client_id", "pipeline_id", "first_at"),
    comment="One row per span in which a pipeline was failing: from a first failure to the next success.",
)
