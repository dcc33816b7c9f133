"""Slots, state, rollups and annotations.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-21
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "pulsewatch"
TIMESTAMP = sa.DateTime(timezone=True)

TABLES = (
    "slot",
    "slot_plan",
    "slot_mark",
    "pipeline_hour",
    "client_hour",
    "fleet_hour",
    "pipeline_day",
    "client_day",
    "fleet_day",
    "pipeline_state",
    "failing_span",
    "annotation",
)


def counted() -> list[sa.Column[Any]]:
    return [
        sa.Column("started_count", sa.Integer(), nullable=False, comment="Runs that started, by started_at."),
        sa.Column("succeeded_count", sa.Integer(), nullable=False, comment="Runs that succeeded, by finished_at."),
        sa.Column("failed_count", sa.Integer(), nullable=False, comment="Runs that failed, by finished_at."),
        sa.Column("timed_out_count", sa.Integer(), nullable=False, comment="Runs that timed out, by finished_at."),
        sa.Column("cancelled_count", sa.Integer(), nullable=False, comment="Runs that were cancelled, by finished_at."),
        sa.Column("skipped_count", sa.Integer(), nullable=False, comment="Runs that were skipped, by finished_at."),
        sa.Column(
            "retried_count", sa.Integer(), nullable=False, comment="Finished runs of a later attempt than the first."
        ),
        sa.Column("on_time_count", sa.Integer(), nullable=False, comment="Slots met in time, by slot_at."),
        sa.Column("late_count", sa.Integer(), nullable=False, comment="Slots met late, by slot_at."),
        sa.Column("missed_count", sa.Integer(), nullable=False, comment="Slots not met, by slot_at."),
        sa.Column("duration_count", sa.Integer(), nullable=False, comment="Finished runs whose duration is known."),
        sa.Column("duration_sum_s", sa.Double(), nullable=False, comment="Sum of their durations, in seconds."),
        sa.Column("duration_min_s", sa.Double(), comment="The shortest of them, in seconds."),
        sa.Column("duration_max_s", sa.Double(), comment="The longest of them, in seconds."),
        sa.Column("duration_p50_s", sa.Double(), comment="Their median in seconds, from the histogram."),
        sa.Column("duration_p95_s", sa.Double(), comment="Their 95th percentile in seconds, from the histogram."),
        sa.Column("duration_p99_s", sa.Double(), comment="Their 99th percentile in seconds, from the histogram."),
        sa.Column(
            "duration_buckets",
            postgresql.ARRAY(sa.SmallInteger()),
            nullable=False,
            comment="Buckets of the histogram that hold a run, ascending (pulsewatch.duration_bucket).",
        ),
        sa.Column(
            "duration_counts",
            postgresql.ARRAY(sa.Integer()),
            nullable=False,
            comment="How many runs each of them holds.",
        ),
        sa.Column("rows_sum", sa.Double(), comment="Sum of the metric rows over finished runs that report it."),
        sa.Column("bytes_sum", sa.Double(), comment="Sum of the metric bytes over finished runs that report it."),
    ]


def create_slot() -> None:
    op.create_table(
        "slot",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose slot."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Its pipeline."),
        sa.Column("slot_at", TIMESTAMP, nullable=False, comment="When a start was expected."),
        sa.Column(
            "deadline_at", TIMESTAMP, nullable=False, comment="From then on a start is late: slot_at + start_grace_s."
        ),
        sa.Column("status", sa.Text(), server_default="open", nullable=False, comment="open, on_time, late or missed."),
        sa.Column("run_id", sa.Uuid(), comment="The run that took it, in the same client."),
        sa.Column("started_at", TIMESTAMP, comment="When that run started (started_at, else first_at)."),
        sa.Column(
            "first_at_min",
            TIMESTAMP,
            comment="Least first_at of the runs that ever claimed it: where to look for them.",
        ),
        sa.Column("first_at_max", TIMESTAMP, comment="Greatest first_at of the runs that ever claimed it."),
        sa.CheckConstraint("deadline_at >= slot_at", name=op.f("slot_deadline_at_check")),
        sa.CheckConstraint("status in ('open', 'on_time', 'late', 'missed')", name=op.f("slot_status_check")),
        sa.CheckConstraint("(run_id is null) = (status in ('open', 'missed'))", name=op.f("slot_run_id_check")),
        sa.PrimaryKeyConstraint("client_id", "pipeline_id", "slot_at", name=op.f("slot_pkey")),
        postgresql_partition_by="RANGE (slot_at)",
        schema=SCHEMA,
        comment="One row per expected start of a scheduled pipeline, partitioned by month (UTC).",
    )
    op.create_index("slot_client_slot_at_idx", "slot", ["client_id", "slot_at"], schema=SCHEMA)
    op.create_index(
        "slot_open_idx", "slot", ["deadline_at"], schema=SCHEMA, postgresql_where=sa.text("status = 'open'")
    )
    op.create_index(
        "slot_run_idx", "slot", ["client_id", "run_id"], schema=SCHEMA, postgresql_where=sa.text("run_id is not null")
    )


def create_slot_plan() -> None:
    op.create_table(
        "slot_plan",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose pipeline."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Which pipeline."),
        sa.Column("schedule", sa.Text(), nullable=False, comment="The schedule that the slots ahead were made for."),
        sa.Column("timezone", sa.Text(), comment="Its zone; null is UTC."),
        sa.Column("start_grace_s", sa.Double(), nullable=False, comment="Its grace, in seconds."),
        sa.Column("planned_until", TIMESTAMP, nullable=False, comment="Slots exist for all times before this."),
        sa.PrimaryKeyConstraint("client_id", "pipeline_id", name=op.f("slot_plan_pkey")),
        schema=SCHEMA,
        comment="One row per pipeline that has slots: for which schedule, and how far ahead.",
    )


def create_slot_mark() -> None:
    op.create_table(
        "slot_mark",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose hour."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Which pipeline's hour."),
        sa.Column("hour_at", TIMESTAMP, nullable=False, comment="The hour (UTC) in which a run changed."),
        sa.Column("first_at", TIMESTAMP, comment="first_at of a run that changed."),
        schema=SCHEMA,
        comment="Marks left by the rollups for the slots: runs of a scheduled pipeline changed. No key.",
    )


def create_pipeline_hour() -> None:
    op.create_table(
        "pipeline_hour",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose hour."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Which pipeline's hour."),
        sa.Column("hour_at", TIMESTAMP, nullable=False, comment="Start of the hour (UTC)."),
        *counted(),
        sa.Column(
            "open_count", sa.Integer(), nullable=False, comment="Runs that started in the hour and have not finished."
        ),
        sa.Column("last_success_at", TIMESTAMP, comment="Latest finish of a run that succeeded in the hour."),
        sa.Column(
            "first_at_min", TIMESTAMP, comment="Least first_at of the runs counted here: where to look for them."
        ),
        sa.Column("first_at_max", TIMESTAMP, comment="Greatest first_at of the runs counted here."),
        sa.PrimaryKeyConstraint("client_id", "pipeline_id", "hour_at", name=op.f("pipeline_hour_pkey")),
        postgresql_partition_by="RANGE (hour_at)",
        schema=SCHEMA,
        comment="One row per pipeline and hour in which anything happened, partitioned by month (UTC).",
    )
    op.create_index("pipeline_hour_client_hour_at_idx", "pipeline_hour", ["client_id", "hour_at"], schema=SCHEMA)
    op.create_index(
        "pipeline_hour_open_idx",
        "pipeline_hour",
        ["client_id", "pipeline_id", "hour_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("open_count > 0"),
    )


def create_client_hour() -> None:
    op.create_table(
        "client_hour",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose hour."),
        sa.Column("hour_at", TIMESTAMP, nullable=False, comment="Start of the hour (UTC)."),
        *counted(),
        sa.PrimaryKeyConstraint("client_id", "hour_at", name=op.f("client_hour_pkey")),
        schema=SCHEMA,
        comment="One row per client and hour in which anything happened.",
    )
    op.create_index("client_hour_hour_at_idx", "client_hour", ["hour_at"], schema=SCHEMA)


def create_fleet_hour() -> None:
    op.create_table(
        "fleet_hour",
        sa.Column("hour_at", TIMESTAMP, nullable=False, comment="Start of the hour (UTC)."),
        *counted(),
        sa.PrimaryKeyConstraint("hour_at", name=op.f("fleet_hour_pkey")),
        schema=SCHEMA,
        comment="One row per hour in which anything happened, over all clients.",
    )


def create_pipeline_day() -> None:
    op.create_table(
        "pipeline_day",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose day."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Which pipeline's day."),
        sa.Column("day_utc", TIMESTAMP, nullable=False, comment="Start of the day (UTC)."),
        *counted(),
        sa.PrimaryKeyConstraint("client_id", "pipeline_id", "day_utc", name=op.f("pipeline_day_pkey")),
        schema=SCHEMA,
        comment="One row per pipeline and day (UTC) in which anything happened; kept for ever.",
    )
    op.create_index("pipeline_day_client_day_utc_idx", "pipeline_day", ["client_id", "day_utc"], schema=SCHEMA)


def create_client_day() -> None:
    op.create_table(
        "client_day",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose day."),
        sa.Column("day_utc", TIMESTAMP, nullable=False, comment="Start of the day (UTC)."),
        *counted(),
        sa.PrimaryKeyConstraint("client_id", "day_utc", name=op.f("client_day_pkey")),
        schema=SCHEMA,
        comment="One row per client and day (UTC) in which anything happened; kept for ever.",
    )


def create_fleet_day() -> None:
    op.create_table(
        "fleet_day",
        sa.Column("day_utc", TIMESTAMP, nullable=False, comment="Start of the day (UTC)."),
        *counted(),
        sa.PrimaryKeyConstraint("day_utc", name=op.f("fleet_day_pkey")),
        schema=SCHEMA,
        comment="One row per day (UTC) in which anything happened, over all clients; kept for ever.",
    )


def create_pipeline_state() -> None:
    op.create_table(
        "pipeline_state",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose pipeline."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Which pipeline."),
        sa.Column("last_run_id", sa.Uuid(), comment="The latest run, by (first_at, id)."),
        sa.Column("last_run_status", sa.Text(), comment="Its status."),
        sa.Column("last_run_first_at", TIMESTAMP, comment="Its first_at."),
        sa.Column("last_outcome_run_id", sa.Uuid(), comment="The latest run that succeeded, failed or timed out."),
        sa.Column("last_outcome", sa.Text(), comment="Its status: succeeded, failed or timed_out."),
        sa.Column("last_finished_at", TIMESTAMP, comment="When it finished."),
        sa.Column("last_duration_s", sa.Double(), comment="How long it took, in seconds; null if unknown."),
        sa.Column("last_error_class", sa.Text(), comment="Its kind of failure."),
        sa.Column("last_success_at", TIMESTAMP, comment="Latest finish of any run that succeeded."),
        sa.Column(
            "consecutive_failures",
            sa.SmallInteger(),
            nullable=False,
            comment="Runs that failed or timed out since the last success (64 at most); cancelled and skipped apart.",
        ),
        sa.Column("failing_since", TIMESTAMP, comment="Finish of the first of these; null while it does not fail."),
        sa.Column("running_count", sa.SmallInteger(), nullable=False, comment="Runs that go on, among the last 64."),
        sa.Column("running_since", TIMESTAMP, comment="Earliest start among these."),
        sa.Column("last_slot_at", TIMESTAMP, comment="The latest slot that was judged."),
        sa.Column("last_slot_status", sa.Text(), comment="on_time, late or missed."),
        sa.Column("next_slot_at", TIMESTAMP, comment="The earliest slot that is open."),
        sa.PrimaryKeyConstraint("client_id", "pipeline_id", name=op.f("pipeline_state_pkey")),
        schema=SCHEMA,
        comment="One row per pipeline that has runs or slots: how it is doing, worked out from its last 64 runs.",
    )


def create_failing_span() -> None:
    op.create_table(
        "failing_span",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose pipeline."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Which pipeline."),
        sa.Column("run_id", sa.Uuid(), nullable=False, comment="The run that began it."),
        sa.Column("first_at", TIMESTAMP, nullable=False, comment="first_at of that run."),
        sa.Column("began_at", TIMESTAMP, nullable=False, comment="When that run failed."),
        sa.Column("last_first_at", TIMESTAMP, nullable=False, comment="first_at of its last failing run."),
        sa.Column("ended_at", TIMESTAMP, comment="When the next run succeeded; null while it goes on."),
        sa.Column("failure_count", sa.Integer(), nullable=False, comment="How many runs failed or timed out in it."),
        sa.Column("error_class", sa.Text(), comment="Kind of failure of the run that began it, else its status."),
        sa.PrimaryKeyConstraint("client_id", "pipeline_id", "run_id", name=op.f("failing_span_pkey")),
        schema=SCHEMA,
        comment="One row per span in which a pipeline was failing: from a first failure to the next success.",
    )
    op.create_index("failing_span_client_began_at_idx", "failing_span", ["client_id", "began_at"], schema=SCHEMA)
    op.create_index(
        "failing_span_pipeline_first_at_idx", "failing_span", ["client_id", "pipeline_id", "first_at"], schema=SCHEMA
    )


def create_annotation() -> None:
    op.create_table(
        "annotation",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose."),
        sa.Column(
            "id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False, comment="Shown in lists."
        ),
        sa.Column("pipeline_id", sa.BigInteger(), comment="The one pipeline it is about; null: all of the client."),
        sa.Column("at", TIMESTAMP, nullable=False, comment="When it happened, or began."),
        sa.Column("until_at", TIMESTAMP, comment="When it ended; null: a moment."),
        sa.Column("kind", sa.Text(), nullable=False, comment="deploy or note."),
        sa.Column("text", sa.Text(), nullable=False, comment="For people."),
        sa.Column("url", sa.Text(), comment="Where to look further."),
        sa.Column(
            "created_at",
            TIMESTAMP,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was written down.",
        ),
        sa.CheckConstraint("until_at > at", name=op.f("annotation_until_at_check")),
        sa.CheckConstraint("kind in ('deploy', 'note')", name=op.f("annotation_kind_check")),
        sa.CheckConstraint("length(text) between 1 and 2000", name=op.f("annotation_text_check")),
        sa.CheckConstraint("length(url) <= 2000", name=op.f("annotation_url_check")),
        sa.ForeignKeyConstraint(["client_id"], ["pulsewatch.client.id"], name=op.f("annotation_client_id_fkey")),
        sa.ForeignKeyConstraint(
            ["client_id", "pipeline_id"],
            ["pulsewatch.pipeline.client_id", "pulsewatch.pipeline.id"],
            name=op.f("annotation_client_id_pipeline_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("client_id", "id", name=op.f("annotation_pkey")),
        schema=SCHEMA,
        comment="One row per deploy or note that people want to see beside the runs.",
    )
    op.create_index("annotation_client_at_idx", "annotation", ["client_id", "at"], schema=SCHEMA)


# Eight buckets an octave from a millisecond on: the middle of a bucket is at most 4.5 % off any value in it.
DURATION_BUCKET = """
create function pulsewatch.duration_bucket(duration_s double precision) returns smallint
language sql immutable strict parallel safe
return floor(ln(greatest(duration_s, 0.001)) / ln(2.0::double precision) * 8)::smallint
"""

DURATION_PERCENTILE = """
create function pulsewatch.duration_percentile(
    buckets smallint[], counts integer[], share double precision, least_s double precision, greatest_s double precision
) returns double precision
language plpgsql immutable parallel safe
as $$
declare
    total bigint := 0;
    seen bigint := 0;
    wanted double precision;
    amount integer;
begin
    foreach amount in array counts loop
        total := total + amount;
    end loop;
    if total = 0 then
        return null;
    end if;
    wanted := greatest(ceil(share * total), 1);
    for place in 1 .. cardinality(counts) loop
        seen := seen + counts[place];
        if seen >= wanted then
            return least(greatest(power(2.0::double precision, (buckets[place] + 0.5) / 8), least_s), greatest_s);
        end if;
    end loop;
    return greatest_s;
end
$$
"""

FUNCTION_COMMENTS = {
    "duration_bucket(double precision)": "The bucket of a duration in seconds: eight an octave, from a millisecond on.",
    "duration_percentile(smallint[], integer[], double precision, double precision, double precision)": (
        "The duration in seconds below which that share of a histogram lies: nearest rank, the middle of its bucket,"
        " within the least and the greatest; at most 4.5 % off; null if it is empty."
    ),
}

# What the older version has left to do, and every hour of every run there is: the worker then computes them all.
MARK_EVERYTHING = """
insert into pulsewatch.dirty (client_id, pipeline_id, hour_at, first_at)
select hour.client_id, hour.pipeline_id, hour.hour_at, bound.first_at
from (
    select run.client_id, run.pipeline_id, touched.hour_at, min(run.first_at) as earliest, max(run.first_at) as latest
    from pulsewatch.run
    cross join lateral (
        values
        (date_bin('1 hour', coalesce(run.start_at, run.implied_start_at, run.first_at), '2000-01-01 00:00:00+00')),
        (date_bin('1 hour', run.finished_at, '2000-01-01 00:00:00+00'))
    ) as touched (hour_at)
    where touched.hour_at is not null
    group by run.client_id, run.pipeline_id, touched.hour_at
) as hour
cross join lateral (select hour.earliest union select hour.latest) as bound (first_at)
order by hour.client_id, hour.hour_at, hour.pipeline_id
"""


# Whoever sees some rows of a table can ask for the plan of any query on it. Its estimates come from the statistics of
# all rows, so by asking often enough the words of other clients' rows could be read from them. So there are none of
# words that producers choose. New partitions are made likewise.
WORDS = {
    "client": ("slug", "title"),
    "pipeline": ("slug", "namespace", "name", "title", "schedule", "timezone", "owner", "environment"),
    "run_event": ("event_id", "message", "error_class", "url"),
    "run": ("external_id", "message", "error_class", "url"),
    "pipeline_state": ("last_error_class",),
    "failing_span": ("error_class",),
    "annotation": ("text", "url"),
}


def set_statistics_of_words(target: int) -> None:
    for table, columns in WORDS.items():
        changes = ", ".join(f"alter column {column} set statistics {target}" for column in columns)
        op.execute(f"alter table pulsewatch.{table} {changes}")


def upgrade() -> None:
    op.add_column(
        "dirty",
        sa.Column(
            "first_at",
            TIMESTAMP,
            comment="first_at of the run that changed, so that it is found by index; null where a slot changed.",
        ),
        schema=SCHEMA,
    )
    op.add_column(
        "dirty",
        sa.Column(
            "marked_at",
            TIMESTAMP,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was left; tells the lag.",
        ),
        schema=SCHEMA,
    )
    create_slot()
    create_slot_plan()
    create_slot_mark()
    create_pipeline_hour()
    create_client_hour()
    create_fleet_hour()
    create_pipeline_day()
    create_client_day()
    create_fleet_day()
    create_pipeline_state()
    create_failing_span()
    create_annotation()
    op.execute(DURATION_BUCKET)
    op.execute(DURATION_PERCENTILE)
    for function, comment in FUNCTION_COMMENTS.items():
        op.execute(f"comment on function pulsewatch.{function} is '{comment}'")
    for table in ("client_hour", "fleet_hour", "pipeline_day", "client_day", "fleet_day", "pipeline_state"):
        op.execute(f"alter table pulsewatch.{table} set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)")
    op.execute(
        "alter table pulsewatch.slot_mark set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)"
    )
    set_statistics_of_words(0)
    op.execute("truncate pulsewatch.dirty")
    op.execute(MARK_EVERYTHING)


def downgrade() -> None:
    # The views go first: they read the tables. A view of the user's own stops this, as it should.
    op.execute(
        """
        do $$
        declare object record;
        begin
            for object in select name, kind from pulsewatch.analytics_object order by file desc loop
                execute format('drop %s if exists analytics.%I', object.kind, object.name);
            end loop;
            delete from pulsewatch.analytics_object;
        end
        $$
        """
    )
    set_statistics_of_words(-1)
    for table in reversed(TABLES):
        op.drop_table(table, schema=SCHEMA)
    for function in FUNCTION_COMMENTS:
        op.execute(f"drop function pulsewatch.{function}")
    op.drop_column("dirty", "marked_at", schema=SCHEMA)
    op.drop_column("dirty", "first_at", schema=SCHEMA)
