"""First tables.

Revision ID: 0001
Revises: none
Create Date: 2026-11-21
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "pulsewatch"
TIMESTAMP = sa.DateTime(timezone=True)
TABLES = (
    "client",
    "pipeline",
    "run_event",
    "run",
    "dirty",
    "api_key",
    "ingest_reject",
    "ingest_stat",
    "worker_heartbeat",
    "analytics_object",
)

# Partitions are attached, not created in place: ATTACH lets inserts into the other months go on, CREATE ... PARTITION
# OF and DROP shut out everybody. The advisory lock orders two callers; the second one finds the partition there.
# Every partitioned table of the schema gets its month; append-only ones are known by their trigger.
ENSURE_PARTITION = """
create function pulsewatch.ensure_partition(month date) returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '2s'
as $$
declare
    first_day constant date := date_trunc('month', month)::date;
    next_first constant date := (date_trunc('month', month) + interval '1 month')::date;
    parent record;
    name text;
    is_made boolean := false;
begin
    if first_day < date '2000-01-01' or first_day > date '2255-01-01' then
        raise exception 'no partition for %: outside 2000 to 2255', first_day using errcode = '22008';
    end if;
    for parent in
        select
            class.relname as name,
            (
                select string_agg(format('alter column %I set statistics 0', attname), ', ')
                from pg_attribute
                where attrelid = class.oid and attstattarget = 0 and attnum > 0 and not attisdropped
            ) as less_statistics,
            exists (
                select from pg_trigger
                where tgrelid = class.oid and tgfoid = 'pulsewatch.refuse_change'::regproc
            ) as is_append_only
        from pg_class as class
        where class.relnamespace = 'pulsewatch'::regnamespace and class.relkind = 'p'
        order by class.relname
    loop
        name := parent.name || '_' || to_char(first_day, 'YYYY_MM');
        continue when to_regclass('pulsewatch.' || name) is not null;
        perform pg_advisory_xact_lock(hashtext('pulsewatch.partition'));
        -- Not to_regclass: it would answer from this session's cache, which does not know yet what another one made.
        continue when exists (
            select from pg_class where relname = name and relnamespace = 'pulsewatch'::regnamespace
        );
        execute format(
            'create table pulsewatch.%I (like pulsewatch.%I'
            ' including comments including constraints including defaults including indexes)'
            ' with (fillfactor = %s, autovacuum_vacuum_insert_scale_factor = 0.05,'
            ' autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02)',
            name, parent.name, case when parent.is_append_only then 100 else 70 end
        );
        if parent.less_statistics is not null then
            execute format('alter table pulsewatch.%I %s', name, parent.less_statistics);
        end if;
        -- The triggers for rows come with the table; those for statements do not.
        if parent.is_append_only then
            execute format(
                'create trigger %I before truncate on pulsewatch.%I'
                ' for each statement execute function pulsewatch.refuse_change()',
                parent.name || '_no_truncate', name
            );
        end if;
        execute format(
            'alter table pulsewatch.%I attach partition pulsewatch.%I for values from (%L) to (%L)',
            parent.name, name, first_day::timestamptz, next_first::timestamptz
        );
        is_made := true;
    end loop;
    return is_made;
end
$$
"""

# Dropping needs the owner of the table, which the role of the worker need not be. All ingestion waits behind it, so it
# gives up soon: the next tick tries again.
DROP_PARTITION = """
create function pulsewatch.drop_partition(parent text, month date) returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms'
as $$
declare
    name constant text := parent || '_' || to_char(month, 'YYYY_MM');
begin
    if coalesce(current_setting('pulsewatch.erasing', true), '') <> 'on' then
        raise exception '% is append-only', parent using errcode = '55000',
            hint = 'Old months go by retention, a client by `pulsewatch purge`.';
    end if;
    perform pg_advisory_xact_lock(hashtext('pulsewatch.partition'));
    if not exists (
        select from pg_inherits
        join pg_class as class on class.oid = pg_inherits.inhrelid
        join pg_class as whole on whole.oid = pg_inherits.inhparent
        where class.relname = name and class.relnamespace = 'pulsewatch'::regnamespace
            and whole.relname = parent and whole.relnamespace = 'pulsewatch'::regnamespace
    ) then
        return false;
    end if;
    execute format('drop table pulsewatch.%I', name);
    return true;
end
$$
"""

REFUSE_CHANGE = """
create function pulsewatch.refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(current_setting('pulsewatch.erasing', true), '') <> 'on' then
        raise exception '% is append-only: % refused', tg_table_name, lower(tg_op) using errcode = '55000',
            hint = 'Old months go by retention, a client by `pulsewatch purge`.';
    end if;
    if tg_op = 'UPDATE' then
        return new;
    end if;
    return old;
end
$$
"""

MERGE_ROW = """
create type pulsewatch.merge_row as (
    client_id bigint,
    pipeline_id bigint,
    run_id uuid,
    occurred_at timestamptz,
    dedupe_key uuid,
    content_digest uuid,
    flags smallint,
    attempt smallint,
    event_id text,
    status text,
    started_at timestamptz,
    duration_s double precision,
    message text,
    error_class text,
    url text,
    scheduled_at timestamptz,
    metrics jsonb,
    attributes jsonb,
    parent jsonb,
    state_key bigint,
    external_id text,
    first_at timestamptz,
    last_at timestamptz,
    start_at timestamptz,
    latest_start_at timestamptz,
    earliest_end_at timestamptz,
    implied_start_at timestamptz,
    run_flags smallint,
    opened_at timestamptz,
    opening_key uuid,
    opening_scheduled_at timestamptz,
    opening_metrics jsonb,
    opening_attributes jsonb,
    opening_parent jsonb
)
"""

FUNCTION_COMMENTS = {
    "ensure_partition(date)": "Makes that month (UTC) of every partitioned table; true if one was missing.",
    "drop_partition(text, date)": "Drops the partition of that table of that month; for retention alone.",
    "refuse_change()": "Trigger: append-only tables refuse changes unless pulsewatch.erasing is on in the transaction.",
}


def create_client() -> None:
    op.create_table(
        "client",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Internal number; never shown."
        ),
        sa.Column("slug", sa.Text(), nullable=False, comment="Name in URLs and events; never changes."),
        sa.Column("title", sa.Text(), comment="Name for people."),
        sa.Column("archived_at", TIMESTAMP, comment="Set: events are refused, history stays."),
        sa.Column("created_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="First seen."),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="Last change."),
        sa.Column(
            "said_at",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Per field, the time of the statement that set it: the later one wins.",
        ),
        sa.CheckConstraint("slug ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'", name=op.f("client_slug_check")),
        sa.CheckConstraint("length(title) <= 200", name=op.f("client_title_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("client_pkey")),
        sa.UniqueConstraint("slug", name=op.f("client_slug_key")),
        schema=SCHEMA,
        comment="One row per client: whose work it is, the boundary between tenants.",
    )


def create_pipeline() -> None:
    op.create_table(
        "pipeline",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Its client."),
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Internal number; never shown."
        ),
        sa.Column("slug", sa.Text(), nullable=False, comment="Name in URLs, unique in the client; never changes."),
        sa.Column(
            "namespace", sa.Text(), server_default="", nullable=False, comment="As the producer says it; '' natively."
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="As the producer says it."),
        sa.Column("identity_digest", sa.Uuid(), nullable=False, comment="Digest of namespace and name."),
        sa.Column("title", sa.Text(), comment="Name for people."),
        sa.Column("schedule", sa.Text(), comment="Five-field cron, an @ form, or an interval such as 'every 15m'."),
        sa.Column("timezone", sa.Text(), comment="IANA zone of the schedule; null is UTC."),
        sa.Column("start_grace_s", sa.Double(), comment="How late a start may be, in seconds."),
        sa.Column("max_runtime_s", sa.Double(), comment="How long a run may take, in seconds."),
        sa.Column(
            "tags",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Labels, sorted.",
        ),
        sa.Column("owner", sa.Text(), comment="Who looks after it."),
        sa.Column("environment", sa.Text(), comment="prod, staging ..."),
        sa.Column("archived_at", TIMESTAMP, comment="Set: hidden from lists; events are still kept."),
        sa.Column("created_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="First seen."),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="Last change."),
        sa.Column(
            "said_at",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Per field, the time of the statement that set it: the later one wins.",
        ),
        sa.CheckConstraint("slug ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'", name=op.f("pipeline_slug_check")),
        sa.CheckConstraint(
            "length(namespace) <= 512 and length(name) between 1 and 512", name=op.f("pipeline_name_check")
        ),
        sa.CheckConstraint(
            "max_runtime_s > 0 and max_runtime_s <= 31622400", name=op.f("pipeline_max_runtime_s_check")
        ),
        sa.CheckConstraint(
            "start_grace_s >= 0 and start_grace_s <= 31622400", name=op.f("pipeline_start_grace_s_check")
        ),
        sa.ForeignKeyConstraint(["client_id"], ["pulsewatch.client.id"], name=op.f("pipeline_client_id_fkey")),
        sa.PrimaryKeyConstraint("client_id", "id", name=op.f("pipeline_pkey")),
        sa.UniqueConstraint("client_id", "identity_digest", name=op.f("pipeline_client_id_identity_digest_key")),
        sa.UniqueConstraint("client_id", "slug", name=op.f("pipeline_client_id_slug_key")),
        schema=SCHEMA,
        comment="One row per pipeline: something that runs again and again for a client.",
    )


def create_run_event() -> None:
    op.create_table(
        "run_event",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose event."),
        sa.Column("occurred_at", TIMESTAMP, nullable=False, comment="When it happened, as the producer says."),
        sa.Column("dedupe_key", sa.Uuid(), nullable=False, comment="Digest of what makes it the same event."),
        sa.Column(
            "content_digest", sa.Uuid(), nullable=False, comment="Digest of what it says: a retry or a conflict."
        ),
        sa.Column("run_id", sa.Uuid(), nullable=False, comment="Its run, in the same client."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Its pipeline."),
        sa.Column(
            "received_at",
            TIMESTAMP,
            server_default=sa.text("now()"),
            nullable=False,
            comment="Start of the transaction that stored it.",
        ),
        sa.Column("status", sa.Text(), nullable=False, comment="A run status, or info."),
        sa.Column("attempt", sa.SmallInteger(), comment="0 to 31; null counts as 0."),
        sa.Column(
            "flags",
            sa.SmallInteger(),
            server_default="0",
            nullable=False,
            comment="1 assumed_utc, 2 scheduled_at_ignored.",
        ),
        sa.Column("started_at", TIMESTAMP, comment="Start of the run, where the event says it."),
        sa.Column("scheduled_at", TIMESTAMP, comment="When the run was due, where the event says it."),
        sa.Column("duration_s", sa.Double(), comment="Seconds, where the event says it."),
        sa.Column("event_id", sa.Text(), comment="The producer's id of the event."),
        sa.Column("message", sa.Text(), comment="For people."),
        sa.Column("error_class", sa.Text(), comment="Kind of failure."),
        sa.Column("url", sa.Text(), comment="Where to look further."),
        sa.Column("metrics", postgresql.JSONB(), comment="Numbers by name."),
        sa.Column("attributes", postgresql.JSONB(), comment="Anything else, by name."),
        sa.Column("parent", postgresql.JSONB(), comment="{namespace, pipeline, run} of the run that started this one."),
        sa.CheckConstraint("occurred_at >= '2000-01-01 00:00:00+00'", name=op.f("run_event_occurred_at_check")),
        sa.CheckConstraint(
            "status in ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'skipped', 'timed_out', 'info')",
            name=op.f("run_event_status_check"),
        ),
        sa.CheckConstraint("attempt between 0 and 31", name=op.f("run_event_attempt_check")),
        sa.CheckConstraint("duration_s >= 0", name=op.f("run_event_duration_s_check")),
        sa.PrimaryKeyConstraint("client_id", "occurred_at", "dedupe_key", name=op.f("run_event_pkey")),
        schema=SCHEMA,
        comment="One row per accepted event: an immutable fact about a run. Append only, partitioned by month (UTC).",
        postgresql_partition_by="RANGE (occurred_at)",
    )


def create_run() -> None:
    op.create_table(
        "run",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose run."),
        sa.Column(
            "id",
            sa.Uuid(),
            nullable=False,
            comment="UUIDv8 from the producer's words; the same in any order of arrival.",
        ),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Its pipeline."),
        sa.Column(
            "state_key",
            sa.BigInteger(),
            nullable=False,
            comment="Precedence of the winning event: attempt << 58 | class << 56 | epoch_us << 3 | rank.",
        ),
        sa.Column("winner_key", sa.Uuid(), nullable=False, comment="dedupe_key of the winning event."),
        sa.Column("opened_at", TIMESTAMP, nullable=False, comment="occurred_at of the earliest event."),
        sa.Column("opening_key", sa.Uuid(), nullable=False, comment="dedupe_key of the earliest event."),
        sa.Column(
            "first_at",
            TIMESTAMP,
            nullable=False,
            comment="Least of started_at and occurred_at over all events; lists sort by it.",
        ),
        sa.Column("last_at", TIMESTAMP, nullable=False, comment="Greatest occurred_at over all events."),
        sa.Column("start_at", TIMESTAMP, comment="Earliest start within the winning attempt."),
        sa.Column("latest_start_at", TIMESTAMP, comment="Latest start within the winning attempt."),
        sa.Column("earliest_end_at", TIMESTAMP, comment="Earliest end, by a producer, within the winning attempt."),
        sa.Column("implied_start_at", TIMESTAMP, comment="finished_at - said_duration_s."),
        sa.Column("finished_at", TIMESTAMP, comment="When the winning event ended the run; null while it goes on."),
        sa.Column("prev_started_at", TIMESTAMP, comment="started_at before the last change: its hour is marked too."),
        sa.Column("prev_finished_at", TIMESTAMP, comment="finished_at before the last change: its hour is marked too."),
        sa.Column("said_duration_s", sa.Double(), comment="Duration that the winning event gives, in seconds."),
        sa.Column(
            "flags",
            sa.SmallInteger(),
            server_default="0",
            nullable=False,
            comment="Union over its events: 1 assumed_utc, 2 scheduled_at_ignored.",
        ),
        sa.Column(
            "status", sa.Text(), nullable=False, comment="Status of the winning event; queued where there is only info."
        ),
        sa.Column("external_id", sa.Text(), nullable=False, comment="What the producer calls the run."),
        sa.Column("message", sa.Text(), comment="Of the winning event."),
        sa.Column("error_class", sa.Text(), comment="Of the winning event."),
        sa.Column("url", sa.Text(), comment="Of the winning event."),
        sa.Column("opening_scheduled_at", TIMESTAMP, comment="Of the earliest event."),
        sa.Column(
            "winner_scheduled_at", TIMESTAMP, comment="Of the winning event; laid over the opening one when read."
        ),
        sa.Column("opening_metrics", postgresql.JSONB(), comment="Of the earliest event."),
        sa.Column(
            "winner_metrics", postgresql.JSONB(), comment="Of the winning event; laid over the opening ones when read."
        ),
        sa.Column("opening_attributes", postgresql.JSONB(), comment="Of the earliest event."),
        sa.Column(
            "winner_attributes",
            postgresql.JSONB(),
            comment="Of the winning event; laid over the opening ones when read.",
        ),
        sa.Column("opening_parent", postgresql.JSONB(), comment="Of the earliest event."),
        sa.Column(
            "winner_parent",
            postgresql.JSONB(),
            comment="Of the winning event; stands before the opening one when read.",
        ),
        sa.CheckConstraint(
            "status in ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'skipped', 'timed_out')",
            name=op.f("run_status_check"),
        ),
        sa.CheckConstraint("first_at <= opened_at and opened_at <= last_at", name=op.f("run_first_at_check")),
        sa.CheckConstraint("said_duration_s >= 0", name=op.f("run_said_duration_s_check")),
        sa.CheckConstraint("state_key >= 0", name=op.f("run_state_key_check")),
        sa.PrimaryKeyConstraint("client_id", "id", name=op.f("run_pkey")),
        schema=SCHEMA,
        comment="One row per run: a pure function of the set of its events, whatever their order.",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index(
        "run_client_first_at_idx", "run", ["client_id", sa.literal_column("first_at desc"), "id"], schema=SCHEMA
    )
    op.create_index("run_finished_at_idx", "run", ["finished_at"], schema=SCHEMA, postgresql_using="brin")
    op.create_index(
        "run_pipeline_first_at_idx",
        "run",
        ["client_id", "pipeline_id", sa.literal_column("first_at desc")],
        schema=SCHEMA,
    )


def create_dirty() -> None:
    op.create_table(
        "dirty",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose hour."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Which pipeline's hour."),
        sa.Column(
            "hour_at", TIMESTAMP, nullable=False, comment="The hour (UTC) whose numbers have to be computed again."
        ),
        schema=SCHEMA,
        comment="Marks left by ingestion for the rollups; no key: the same mark may stand here many times.",
    )


def create_api_key() -> None:
    op.create_table(
        "api_key",
        sa.Column(
            "id",
            sa.Uuid(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
            comment="Shown in lists; not the key.",
        ),
        sa.Column(
            "secret_digest",
            postgresql.BYTEA(),
            nullable=False,
            comment="sha256 of the key; the key itself is stored nowhere.",
        ),
        sa.Column("role", sa.Text(), nullable=False, comment="ingest, read, write or admin."),
        sa.Column("client_id", sa.BigInteger(), comment="The one client it may see; null: all."),
        sa.Column("name", sa.Text(), comment="What it is for."),
        sa.Column(
            "created_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="When it was made."
        ),
        sa.Column("expires_at", TIMESTAMP, comment="From then on it is refused."),
        sa.Column("revoked_at", TIMESTAMP, comment="Set: refused."),
        sa.Column("last_used_at", TIMESTAMP, comment="Last use, written at most once a minute."),
        sa.CheckConstraint("role in ('ingest', 'read', 'write', 'admin')", name=op.f("api_key_role_check")),
        sa.CheckConstraint("length(secret_digest) = 32", name=op.f("api_key_secret_digest_check")),
        sa.ForeignKeyConstraint(["client_id"], ["pulsewatch.client.id"], name=op.f("api_key_client_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("api_key_pkey")),
        sa.UniqueConstraint("secret_digest", name=op.f("api_key_secret_digest_key")),
        schema=SCHEMA,
        comment="One row per API key.",
    )


def create_ingest_reject() -> None:
    op.create_table(
        "ingest_reject",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Order of arrival."),
        sa.Column(
            "received_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="When it came in."
        ),
        sa.Column("client_id", sa.BigInteger(), comment="The client of the key or named by the item, where known."),
        sa.Column("key_id", sa.Uuid(), comment="The API key that sent it."),
        sa.Column("source", sa.Text(), nullable=False, comment="The wire: native, openlineage ..."),
        sa.Column("code", sa.Text(), nullable=False, comment="Why it was refused, for machines."),
        sa.Column("pointer", sa.Text(), nullable=False, comment="JSON pointer to the field at fault."),
        sa.Column("detail", sa.Text(), nullable=False, comment="Why it was refused, for people."),
        sa.Column("item", sa.Text(), nullable=False, comment="The first 8192 bytes of the item, as it came."),
        sa.PrimaryKeyConstraint("id", name=op.f("ingest_reject_pkey")),
        schema=SCHEMA,
        comment="One row per refused item, kept for 14 days.",
    )
    op.create_index("ingest_reject_client_id_idx", "ingest_reject", ["client_id", "id"], schema=SCHEMA)
    op.create_index("ingest_reject_received_at_idx", "ingest_reject", ["received_at"], schema=SCHEMA)


def create_ingest_stat() -> None:
    op.create_table(
        "ingest_stat",
        sa.Column("bucket_at", TIMESTAMP, nullable=False, comment="Start of the five minutes (UTC)."),
        sa.Column("source", sa.Text(), nullable=False, comment="The wire: native, openlineage ..."),
        sa.Column(
            "writer",
            sa.BigInteger(),
            nullable=False,
            comment="The connection that counted: writers never wait for each other.",
        ),
        sa.Column("accepted", sa.BigInteger(), server_default="0", nullable=False, comment="New events."),
        sa.Column(
            "duplicates", sa.BigInteger(), server_default="0", nullable=False, comment="Events that were there already."
        ),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False, comment="Items that were refused."),
        sa.Column(
            "lag_s_sum",
            sa.Double(),
            server_default="0",
            nullable=False,
            comment="Sum of received_at - occurred_at over accepted events, in seconds.",
        ),
        sa.Column(
            "lag_s_max", sa.Double(), server_default="0", nullable=False, comment="The greatest of them, in seconds."
        ),
        sa.PrimaryKeyConstraint("bucket_at", "source", "writer", name=op.f("ingest_stat_pkey")),
        schema=SCHEMA,
        comment="Outcomes of ingestion per five minutes, wire and writer.",
    )


def create_worker_heartbeat() -> None:
    op.create_table(
        "worker_heartbeat",
        sa.Column("worker_id", sa.Text(), nullable=False, comment="Host and process of the worker."),
        sa.Column("started_at", TIMESTAMP, nullable=False, comment="When it started."),
        sa.Column("beat_at", TIMESTAMP, nullable=False, comment="Its last sign of life."),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("worker_heartbeat_pkey")),
        schema=SCHEMA,
        comment="One row per worker process; /ready looks at the newest.",
    )


def create_analytics_object() -> None:
    op.create_table(
        "analytics_object",
        sa.Column("name", sa.Text(), nullable=False, comment="Its name in the schema analytics."),
        sa.Column("kind", sa.Text(), nullable=False, comment="view or function."),
        sa.Column("file", sa.Text(), nullable=False, comment="The file that defines it; files sort in load order."),
        sa.CheckConstraint("kind in ('view', 'function')", name=op.f("analytics_object_kind_check")),
        sa.PrimaryKeyConstraint("name", name=op.f("analytics_object_pkey")),
        schema=SCHEMA,
        comment="The objects of the schema analytics that migrate made and may replace; all others are the user's own.",
    )


def create_functions() -> None:
    for statement in (REFUSE_CHANGE, ENSURE_PARTITION, DROP_PARTITION):
        op.execute(statement)
    for function, comment in FUNCTION_COMMENTS.items():
        op.execute(f"comment on function pulsewatch.{function} is '{comment}'")
        op.execute(f"revoke execute on function pulsewatch.{function} from public")


def create_merge_row() -> None:
    op.execute(MERGE_ROW)
    op.execute("comment on type pulsewatch.merge_row is 'A run event as ingestion hands it to the server; no table.'")


def make_append_only() -> None:
    op.execute(
        "create trigger run_event_append_only before update or delete on pulsewatch.run_event"
        " for each row execute function pulsewatch.refuse_change()"
    )
    op.execute(
        "create trigger run_event_no_truncate before truncate on pulsewatch.run_event"
        " for each statement execute function pulsewatch.refuse_change()"
    )


def tune_vacuum() -> None:
    """Vacuum by small shares: these tables grow to many millions of rows, and the defaults wait for a fifth."""
    op.execute(
        "alter table pulsewatch.run set (autovacuum_vacuum_scale_factor = 0.02,"
        " autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02)"
    )
    op.execute(
        "alter table pulsewatch.dirty set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)"
    )


def upgrade() -> None:
    op.execute("comment on schema pulsewatch is 'Tables of PulseWatch; read them through the schema analytics.'")
    create_client()
    create_pipeline()
    create_run_event()
    create_run()
    create_dirty()
    create_api_key()
    create_ingest_reject()
    create_ingest_stat()
    create_worker_heartbeat()
    create_analytics_object()
    create_functions()
    create_merge_row()
    make_append_only()
    tune_vacuum()


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
        end
        $$
        """
    )
    for table in reversed(TABLES):
        op.drop_table(table, schema=SCHEMA)
    for function in FUNCTION_COMMENTS:
        op.execute(f"drop function pulsewatch.{function}")
    op.execute("drop type pulsewatch.merge_row")
