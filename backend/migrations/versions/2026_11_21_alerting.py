"""Alert rules, alerts, silences, channels and notifications.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-21
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "pulsewatch"
TIMESTAMP = sa.DateTime(timezone=True)

TABLES = (
    "alert_rule",
    "alert_rule_version",
    "alert_target",
    "alert",
    "alert_event",
    "silence",
    "channel",
    "notification",
    "notification_attempt",
    "alert_mark",
    "alert_tick",
)


def create_alert_rule() -> None:
    op.create_table(
        "alert_rule",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Internal number; never shown."
        ),
        sa.Column("client_id", sa.BigInteger(), comment="Its one client; null: all."),
        sa.Column("key", sa.Text(), nullable=False, comment="Name in URLs; never changes."),
        sa.Column("version", sa.Integer(), nullable=False, comment="The version that holds."),
        sa.Column("kind", sa.Text(), nullable=False, comment="Kind of condition, of this version."),
        sa.Column("is_enabled", sa.Boolean(), nullable=False, comment="Whether it is evaluated, by this version."),
        sa.Column(
            "created_at",
            TIMESTAMP,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When its first version was made.",
        ),
        sa.Column(
            "updated_at",
            TIMESTAMP,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When this version was made.",
        ),
        sa.Column("deleted_at", TIMESTAMP, comment="Set: not evaluated, not listed; its history stays."),
        sa.CheckConstraint("key ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'", name=op.f("alert_rule_key_check")),
        sa.CheckConstraint("version >= 1", name=op.f("alert_rule_version_check")),
        sa.ForeignKeyConstraint(["client_id"], ["pulsewatch.client.id"], name=op.f("alert_rule_client_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("alert_rule_pkey")),
        sa.UniqueConstraint(
            "client_id", "key", name=op.f("alert_rule_client_id_key_key"), postgresql_nulls_not_distinct=True
        ),
        schema=SCHEMA,
        comment="One row per alert rule; what it says is in its versions.",
    )


def create_alert_rule_version() -> None:
    op.create_table(
        "alert_rule_version",
        sa.Column("rule_id", sa.BigInteger(), nullable=False, comment="Its rule."),
        sa.Column("client_id", sa.BigInteger(), comment="The one client of its rule; null: all."),
        sa.Column("version", sa.Integer(), nullable=False, comment="Counts from 1."),
        sa.Column(
            "change", sa.Text(), nullable=False, comment="What was done: created, changed, enabled, disabled ..."
        ),
        sa.Column("spec", postgresql.JSONB(), nullable=False, comment="The whole rule as it was given."),
        sa.Column("author", sa.Text(), comment="Who did it: the name of the key."),
        sa.Column("comment", sa.Text(), comment="Why, in their words."),
        sa.Column("created_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="When."),
        sa.CheckConstraint(
            "change in ('created', 'changed', 'enabled', 'disabled', 'dry_run', 'restored', 'deleted')",
            name=op.f("alert_rule_version_change_check"),
        ),
        sa.CheckConstraint("length(comment) <= 2000", name=op.f("alert_rule_version_comment_check")),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["pulsewatch.alert_rule.id"], name=op.f("alert_rule_version_rule_id_fkey")
        ),
        sa.PrimaryKeyConstraint("rule_id", "version", name=op.f("alert_rule_version_pkey")),
        schema=SCHEMA,
        comment="One row per change of an alert rule. Append only.",
    )


def create_alert_target() -> None:
    op.create_table(
        "alert_target",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose; 0: the fleet."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Which pipeline; 0: the client as a whole."),
        sa.Column("rule_id", sa.BigInteger(), nullable=False, comment="Which rule."),
        sa.Column("target_since", TIMESTAMP, nullable=False, comment="Since when the rule watches it."),
        sa.Column(
            "deadline_at", TIMESTAMP, comment="When to look again although nothing arrives; may be early, never late."
        ),
        sa.Column(
            "state", sa.Text(), server_default="ok", nullable=False, comment="ok, pending, firing, recovering ..."
        ),
        sa.Column(
            "level", sa.SmallInteger(), server_default="0", nullable=False, comment="0 none, 1 warning, 2 critical."
        ),
        sa.Column("alert_id", sa.Uuid(), comment="The episode that is pending or open."),
        sa.Column("state_since", TIMESTAMP, nullable=False, comment="When the state last changed."),
        sa.Column("pending_since", TIMESTAMP, comment="Since when the condition has held without a break."),
        sa.Column("lower_since", TIMESTAMP, comment="Since when it has been below the level that is told."),
        sa.Column(
            "ok_samples", sa.Integer(), server_default="0", nullable=False, comment="Good samples in a row, recovering."
        ),
        sa.Column("sample_at", TIMESTAMP, comment="The newest sample that was counted."),
        sa.Column("seq", sa.Integer(), server_default="0", nullable=False, comment="Events written for this episode."),
        sa.CheckConstraint(
            "(state in ('firing', 'recovering')) = (level > 0)", name=op.f("alert_target_level_of_state_check")
        ),
        sa.CheckConstraint("state = 'ok' or alert_id is not null", name=op.f("alert_target_alert_id_check")),
        sa.CheckConstraint(
            "state in ('ok', 'pending', 'firing', 'recovering', 'no_data', 'error')",
            name=op.f("alert_target_state_check"),
        ),
        sa.CheckConstraint("level between 0 and 2", name=op.f("alert_target_level_check")),
        sa.ForeignKeyConstraint(["rule_id"], ["pulsewatch.alert_rule.id"], name=op.f("alert_target_rule_id_fkey")),
        sa.PrimaryKeyConstraint("client_id", "pipeline_id", "rule_id", name=op.f("alert_target_pkey")),
        schema=SCHEMA,
        comment="One row per target of a rule: how the rule stands on it.",
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "alert_target_deadline_idx",
        "alert_target",
        ["deadline_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("deadline_at is not null"),
    )
    op.create_index("alert_target_rule_idx", "alert_target", ["rule_id"], schema=SCHEMA)
    op.create_index(
        "alert_target_state_idx",
        "alert_target",
        ["rule_id", "state"],
        schema=SCHEMA,
        postgresql_where=sa.text("state <> 'ok'"),
    )


def create_alert() -> None:
    op.create_table(
        "alert",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose; 0: the fleet."),
        sa.Column(
            "id", sa.Uuid(), nullable=False, comment="From rule, target and begin: the same if it is written again."
        ),
        sa.Column("rule_id", sa.BigInteger(), nullable=False, comment="Which rule."),
        sa.Column("rule_version", sa.Integer(), nullable=False, comment="The version that fired."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Which pipeline; 0: the client as a whole."),
        sa.Column("level", sa.SmallInteger(), nullable=False, comment="1 warning, 2 critical; the last one told."),
        sa.Column("max_level", sa.SmallInteger(), nullable=False, comment="The highest so far."),
        sa.Column("pending_at", TIMESTAMP, comment="When the condition began to hold."),
        sa.Column("fired_at", TIMESTAMP, nullable=False, comment="When it fired."),
        sa.Column("acknowledged_at", TIMESTAMP, comment="When somebody took it on; null: nobody has it."),
        sa.Column("acknowledged_by", sa.Text(), comment="Who."),
        sa.Column("first_acknowledged_at", TIMESTAMP, comment="When somebody first did; never cleared."),
        sa.Column("snoozed_until", TIMESTAMP, comment="Until then nobody is told again, unless it gets worse."),
        sa.Column("resolved_at", TIMESTAMP, comment="When it ended; null while it is open."),
        sa.Column(
            "resolve_reason",
            sa.Text(),
            comment="recovered, rule_changed, rule_deleted, rule_disabled or target_removed.",
        ),
        sa.Column("value", sa.Double(), comment="What was measured when it last changed."),
        sa.Column("threshold", sa.Double(), comment="The threshold of the level."),
        sa.Column("summary", sa.Text(), nullable=False, comment="One sentence for people."),
        sa.Column(
            "labels", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False, comment="Labels of the rule."
        ),
        sa.Column(
            "annotations",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Texts, filled in.",
        ),
        sa.Column(
            "is_backfill", sa.Boolean(), server_default="false", nullable=False, comment="Worked out afterwards."
        ),
        sa.Column(
            "is_dry_run", sa.Boolean(), server_default="false", nullable=False, comment="Of a rule that only tries."
        ),
        sa.CheckConstraint(
            "resolve_reason in ('recovered', 'rule_changed', 'rule_deleted', 'rule_disabled', 'target_removed')",
            name=op.f("alert_resolve_reason_known_check"),
        ),
        sa.CheckConstraint("(resolved_at is null) = (resolve_reason is null)", name=op.f("alert_resolve_reason_check")),
        sa.CheckConstraint("level between 1 and 2 and max_level between level and 2", name=op.f("alert_level_check")),
        sa.CheckConstraint("resolved_at >= fired_at", name=op.f("alert_resolved_at_check")),
        sa.ForeignKeyConstraint(["rule_id"], ["pulsewatch.alert_rule.id"], name=op.f("alert_rule_id_fkey")),
        sa.PrimaryKeyConstraint("client_id", "id", name=op.f("alert_pkey")),
        schema=SCHEMA,
        comment="One row per alert: an episode of a rule on a target, from firing to resolved.",
    )
    op.create_index(
        "alert_client_fired_at_idx", "alert", ["client_id", sa.literal_column("fired_at desc"), "id"], schema=SCHEMA
    )
    op.create_index("alert_resolved_at_idx", "alert", ["resolved_at"], schema=SCHEMA)
    op.create_index(
        "alert_fired_at_idx", "alert", [sa.literal_column("fired_at desc"), "client_id", "id"], schema=SCHEMA
    )
    op.create_index(
        "alert_open_idx",
        "alert",
        ["client_id", "pipeline_id", "rule_id"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("resolved_at is null"),
    )
    op.create_index("alert_rule_fired_at_idx", "alert", ["rule_id", sa.literal_column("fired_at desc")], schema=SCHEMA)


def create_alert_event() -> None:
    op.create_table(
        "alert_event",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose; 0: the fleet."),
        sa.Column("as_of", TIMESTAMP, nullable=False, comment="The time that it speaks of."),
        sa.Column("alert_id", sa.Uuid(), nullable=False, comment="The episode."),
        sa.Column("seq", sa.Integer(), nullable=False, comment="Counts within the episode, from 1."),
        sa.Column("rule_id", sa.BigInteger(), nullable=False, comment="Which rule."),
        sa.Column("rule_version", sa.Integer(), nullable=False, comment="By which version."),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Which pipeline; 0: the client as a whole."),
        sa.Column("kind", sa.Text(), nullable=False, comment="What happened: fired, resolved, acknowledged ..."),
        sa.Column("from_state", sa.Text(), nullable=False, comment="State before."),
        sa.Column("state", sa.Text(), nullable=False, comment="State after."),
        sa.Column("prev_level", sa.SmallInteger(), nullable=False, comment="Level before."),
        sa.Column("level", sa.SmallInteger(), nullable=False, comment="Level after."),
        sa.Column("value", sa.Double(), comment="What was measured."),
        sa.Column("threshold", sa.Double(), comment="What it was held against."),
        sa.Column("reason", sa.Text(), comment="Why, where it was not what was measured: rule_changed ..."),
        sa.Column("evidence", postgresql.JSONB(), comment="What it rests on: runs, parameters, times."),
        sa.Column("actor", sa.Text(), comment="Who did it: the name of a key."),
        sa.Column("comment", sa.Text(), comment="What they said."),
        sa.Column("known_at", TIMESTAMP, comment="Events received before then were known."),
        sa.Column(
            "recorded_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="When it was written."
        ),
        sa.Column(
            "is_backfill", sa.Boolean(), server_default="false", nullable=False, comment="Worked out afterwards."
        ),
        sa.CheckConstraint(
            "kind in ('pending', 'pending_cleared', 'fired', 'level_changed', 'recovering', 'refired', "
            "'resolved', 'no_data', 'data_back', 'error', 'error_cleared', 'acknowledged', 'unacknowledged', "
            "'snoozed', 'commented')",
            name=op.f("alert_event_kind_check"),
        ),
        sa.CheckConstraint(
            "state in ('ok', 'pending', 'firing', 'recovering', 'no_data', 'error') and from_state in ('ok', "
            "'pending', 'firing', 'recovering', 'no_data', 'error')",
            name=op.f("alert_event_state_check"),
        ),
        sa.CheckConstraint("length(comment) <= 2000", name=op.f("alert_event_comment_check")),
        sa.PrimaryKeyConstraint("client_id", "as_of", "alert_id", "seq", name=op.f("alert_event_pkey")),
        schema=SCHEMA,
        comment="One row per transition of an alert or act of a person. Append only, partitioned by month (UTC).",
        postgresql_partition_by="RANGE (as_of)",
    )
    op.create_index("alert_event_alert_idx", "alert_event", ["client_id", "alert_id"], schema=SCHEMA)
    op.create_index(
        "alert_event_target_idx",
        "alert_event",
        ["client_id", "pipeline_id", "rule_id", sa.literal_column("as_of desc")],
        schema=SCHEMA,
    )


def create_silence() -> None:
    op.create_table(
        "silence",
        sa.Column(
            "id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False, comment="Shown in lists."
        ),
        sa.Column("client_id", sa.BigInteger(), comment="Its one client; null: all."),
        sa.Column(
            "matchers",
            postgresql.JSONB(),
            nullable=False,
            comment="Which alerts: rules, clients, pipelines, tags, levels ...",
        ),
        sa.Column("starts_at", TIMESTAMP, nullable=False, comment="From then on."),
        sa.Column("ends_at", TIMESTAMP, nullable=False, comment="Until then; set to the present to end it early."),
        sa.Column("comment", sa.Text(), nullable=False, comment="Why."),
        sa.Column("author", sa.Text(), comment="Who: the name of a key."),
        sa.Column(
            "created_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="When it was made."
        ),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="Last change."),
        sa.CheckConstraint("ends_at >= starts_at", name=op.f("silence_ends_at_check")),
        sa.CheckConstraint("length(comment) between 1 and 2000", name=op.f("silence_comment_check")),
        sa.ForeignKeyConstraint(["client_id"], ["pulsewatch.client.id"], name=op.f("silence_client_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("silence_pkey")),
        schema=SCHEMA,
        comment="One row per silence: a time in which some alerts are written down but not told.",
    )
    op.create_index("silence_ends_at_idx", "silence", ["ends_at"], schema=SCHEMA)


def create_channel() -> None:
    op.create_table(
        "channel",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Internal number; never shown."
        ),
        sa.Column("client_id", sa.BigInteger(), comment="Its one client; null: all."),
        sa.Column("key", sa.Text(), nullable=False, comment="Name in URLs and rules; never changes."),
        sa.Column("kind", sa.Text(), nullable=False, comment="webhook, email, slack ..."),
        sa.Column("title", sa.Text(), comment="Name for people."),
        sa.Column("config", postgresql.JSONB(), nullable=False, comment="What is no secret."),
        sa.Column("secrets", sa.LargeBinary(), comment="What is: JSON, encrypted."),
        sa.Column(
            "rate_per_min",
            sa.Integer(),
            server_default="60",
            nullable=False,
            comment="So many messages a minute at most.",
        ),
        sa.Column(
            "is_enabled",
            sa.Boolean(),
            server_default="true",
            nullable=False,
            comment="False: messages wait for nobody.",
        ),
        sa.Column(
            "permanent_failures",
            sa.SmallInteger(),
            server_default="0",
            nullable=False,
            comment="Refusals for good in a row.",
        ),
        sa.Column("disabled_reason", sa.Text(), comment="Why PulseWatch itself switched it off."),
        sa.Column("quiet_until", TIMESTAMP, comment="Until then it asked to be left alone."),
        sa.Column("unanswered_since", TIMESTAMP, comment="Since when nobody has answered there; null: somebody did."),
        sa.Column(
            "created_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="When it was made."
        ),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="Last change."),
        sa.Column("deleted_at", TIMESTAMP, comment="Set: not used, not listed; its history stays."),
        sa.CheckConstraint("key ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'", name=op.f("channel_key_check")),
        sa.CheckConstraint("rate_per_min between 1 and 6000", name=op.f("channel_rate_per_min_check")),
        sa.ForeignKeyConstraint(["client_id"], ["pulsewatch.client.id"], name=op.f("channel_client_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("channel_pkey")),
        sa.UniqueConstraint(
            "client_id", "key", name=op.f("channel_client_id_key_key"), postgresql_nulls_not_distinct=True
        ),
        schema=SCHEMA,
        comment="One row per channel: where people are told.",
    )


def create_notification() -> None:
    op.create_table(
        "notification",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose alert; 0: the fleet's."),
        sa.Column(
            "id", sa.Uuid(), nullable=False, comment="From alert event, reason and channel; the receiver sees it."
        ),
        sa.Column("channel_id", sa.BigInteger(), nullable=False, comment="To where."),
        sa.Column("alert_id", sa.Uuid(), comment="About which alert; null: a test."),
        sa.Column("event_as_of", TIMESTAMP, comment="About which of its events."),
        sa.Column("event_seq", sa.Integer(), comment="Its number."),
        sa.Column(
            "reason", sa.Text(), nullable=False, comment="fired, level_changed, repeat, resolved, catch_up or test."
        ),
        sa.Column(
            "status", sa.Text(), nullable=False, comment="held, pending, leased, sent, superseded, dead or dropped."
        ),
        sa.Column(
            "held_by", sa.Text(), comment="Why it was held: silence, acknowledged, snoozed, dry_run, backfill ..."
        ),
        sa.Column("silence_id", sa.Uuid(), comment="The silence that held it."),
        sa.Column("body", postgresql.JSONB(), nullable=False, comment="The message."),
        sa.Column("rest", postgresql.JSONB(), comment="Where some have it: who is to get it still, who never will."),
        sa.Column("attempt_count", sa.Integer(), server_default="0", nullable=False, comment="Attempts so far."),
        sa.Column("next_attempt_at", TIMESTAMP, nullable=False, comment="Not before then."),
        sa.Column("lease_until", TIMESTAMP, comment="Until then it is somebody's who sends it."),
        sa.Column("lease_token", sa.Uuid(), comment="Theirs: nobody else may say how it went."),
        sa.Column("expires_at", TIMESTAMP, nullable=False, comment="From then on it is given up."),
        sa.Column(
            "created_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False, comment="When it was written."
        ),
        sa.Column("sent_at", TIMESTAMP, comment="When the receiver took it."),
        sa.Column("provider_ref", sa.Text(), comment="What the receiver calls it."),
        sa.Column("last_error", sa.Text(), comment="Why the last attempt failed."),
        sa.CheckConstraint(
            "(status = 'leased') = (lease_token is not null)", name=op.f("notification_lease_token_check")
        ),
        sa.CheckConstraint("(status = 'sent') = (sent_at is not null)", name=op.f("notification_sent_at_check")),
        sa.CheckConstraint(
            "held_by in ('silence', 'acknowledged', 'snoozed', 'dry_run', 'backfill', 'channel_disabled', 'untold')",
            name=op.f("notification_held_by_check"),
        ),
        sa.CheckConstraint(
            "reason in ('fired', 'level_changed', 'repeat', 'resolved', 'catch_up', 'test')",
            name=op.f("notification_reason_check"),
        ),
        sa.CheckConstraint(
            "status in ('held', 'pending', 'leased', 'sent', 'superseded', 'dead', 'dropped')",
            name=op.f("notification_status_check"),
        ),
        sa.ForeignKeyConstraint(["channel_id"], ["pulsewatch.channel.id"], name=op.f("notification_channel_id_fkey")),
        sa.PrimaryKeyConstraint("client_id", "id", name=op.f("notification_pkey")),
        schema=SCHEMA,
        comment="One row per message to a channel.",
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("notification_alert_idx", "notification", ["client_id", "alert_id"], schema=SCHEMA)
    op.create_index(
        "notification_client_created_at_idx",
        "notification",
        ["client_id", sa.literal_column("created_at desc"), "id"],
        schema=SCHEMA,
    )
    op.create_index(
        "notification_created_at_idx",
        "notification",
        [sa.literal_column("created_at desc"), "client_id", "id"],
        schema=SCHEMA,
    )
    op.create_index(
        "notification_due_idx",
        "notification",
        ["next_attempt_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("status in ('pending', 'leased')"),
    )
    op.create_index(
        "notification_stuck_idx",
        "notification",
        ["status", "client_id", "alert_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("status in ('held', 'dead')"),
    )


def create_notification_attempt() -> None:
    op.create_table(
        "notification_attempt",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose alert; 0: the fleet's."),
        sa.Column("started_at", TIMESTAMP, nullable=False, comment="When it began."),
        sa.Column("notification_id", sa.Uuid(), nullable=False, comment="Which message."),
        sa.Column("n", sa.Integer(), nullable=False, comment="Counts its attempts, from 1."),
        sa.Column("latency_s", sa.Double(), nullable=False, comment="How long it took, in seconds."),
        sa.Column("outcome", sa.Text(), nullable=False, comment="sent, retry, permanent, or lost (nobody knows)."),
        sa.Column("http_status", sa.Integer(), comment="Status of the answer, where there was one."),
        sa.Column("error", sa.Text(), comment="What went wrong."),
        sa.Column(
            "retry_after_s", sa.Double(), comment="For how long the receiver asked to be left alone, in seconds."
        ),
        sa.CheckConstraint(
            "outcome in ('sent', 'retry', 'permanent', 'lost')", name=op.f("notification_attempt_outcome_check")
        ),
        sa.PrimaryKeyConstraint(
            "client_id", "started_at", "notification_id", "n", name=op.f("notification_attempt_pkey")
        ),
        schema=SCHEMA,
        comment="One row per attempt to send a message. Append only, partitioned by month (UTC).",
        postgresql_partition_by="RANGE (started_at)",
    )
    op.create_index(
        "notification_attempt_notification_idx", "notification_attempt", ["client_id", "notification_id"], schema=SCHEMA
    )
    op.create_index("notification_attempt_started_at_idx", "notification_attempt", ["started_at"], schema=SCHEMA)


def create_alert_mark() -> None:
    op.create_table(
        "alert_mark",
        sa.Column("client_id", sa.BigInteger(), nullable=False, comment="Whose pipeline."),
        sa.Column(
            "pipeline_id", sa.BigInteger(), nullable=False, comment="Which pipeline; 0: the client itself was changed."
        ),
        sa.Column(
            "is_defined",
            sa.Boolean(),
            server_default="false",
            nullable=False,
            comment="It is new, or was described anew: which rules watch it has to be found out.",
        ),
        sa.Column(
            "marked_at",
            TIMESTAMP,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When ingestion left its mark, cut to the grid of ticks: rules look at it at a later tick.",
        ),
        schema=SCHEMA,
        comment="Marks for the alert rules: a pipeline's runs or slots changed, and its numbers are there. No key.",
    )


def create_alert_tick() -> None:
    op.create_table(
        "alert_tick",
        sa.Column("as_of", TIMESTAMP, nullable=False, comment="Its time; events received before then were known."),
        sa.Column("touched", sa.Integer(), nullable=False, comment="Targets that were looked at."),
        sa.Column("changed", sa.Integer(), nullable=False, comment="Targets whose state changed."),
        sa.Column(
            "seen_at",
            TIMESTAMP,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When a worker last saw to the rules.",
        ),
        sa.Column(
            "frozen_because",
            sa.Text(),
            comment="Why rules that measure time were left as they were; null: they were not.",
        ),
        sa.Column("away_s", sa.Double(), comment="For so long nobody had seen to them before; null: not for too long."),
        sa.Column("duration_s", sa.Double(), nullable=False, comment="How long it took, in seconds."),
        sa.PrimaryKeyConstraint("as_of", name=op.f("alert_tick_pkey")),
        schema=SCHEMA,
        comment="One row per evaluation of the rules.",
    )


# Who makes a pipeline or a client, or says something else of it, need not know that rules look at it.
MARK_DEFINED = """
create function pulsewatch.mark_defined() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_table_name = 'client' then
        insert into pulsewatch.alert_mark (client_id, pipeline_id, is_defined) values (new.id, 0, true);
    else
        insert into pulsewatch.alert_mark (client_id, pipeline_id, is_defined) values (new.client_id, new.id, true);
    end if;
    return null;
end
$$
"""
# By the rules of ingestion (docs/ingestion.md): the event of the greatest state_key wins, which is made here as there;
# equals are settled by the greater key.
RUN_AS_KNOWN = """
create function pulsewatch.run_as_known(
    of_client bigint, of_run uuid, from_at timestamptz, until_at timestamptz, known_before timestamptz
)
returns table (
    first_at timestamptz,
    last_at timestamptz,
    status text,
    finished_at timestamptz,
    said_duration_s double precision,
    implied_start_at timestamptz,
    error_class text,
    winner_scheduled_at timestamptz,
    winner_metrics jsonb,
    opening_scheduled_at timestamptz,
    opening_metrics jsonb,
    start_at timestamptz,
    received_at timestamptz
)
language plpgsql stable
as $$
#variable_conflict use_column
begin
    return query
    select
        min(least(told.started_at, told.occurred_at)) as first_at,
        max(told.occurred_at) as last_at,
        case
            when bool_and(told.is_info) then 'queued'
            else (array_agg(told.status order by told.state_key desc, told.key desc))[1]
        end as status,
        (
            array_agg(case when told.is_end then told.occurred_at end order by told.state_key desc, told.key desc)
        )[1] as finished_at,
        (array_agg(told.duration_s order by told.state_key desc, told.key desc))[1] as said_duration_s,
        (array_agg(
            case when told.is_end then told.occurred_at - make_interval(secs => told.duration_s) end
            order by told.state_key desc, told.key desc
        ))[1] as implied_start_at,
        (array_agg(told.error_class order by told.state_key desc, told.key desc))[1] as error_class,
        (array_agg(told.scheduled_at order by told.state_key desc, told.key desc))[1] as winner_scheduled_at,
        (array_agg(told.metrics order by told.state_key desc, told.key desc))[1] as winner_metrics,
        (array_agg(told.scheduled_at order by told.occurred_at, told.key))[1] as opening_scheduled_at,
        (array_agg(told.metrics order by told.occurred_at, told.key))[1] as opening_metrics,
        min(case when told.status = 'running' then least(told.started_at, told.occurred_at) else told.started_at end)
            filter (where not told.is_info and told.attempt = told.last_attempt) as start_at,
        max(told.received_at) as received_at
    from (
        select
            event.status, event.occurred_at, event.started_at, event.scheduled_at, event.duration_s, event.error_class,
            event.metrics, event.dedupe_key as key, event.received_at,
            event.status = 'info' as is_info,
            event.status in ('succeeded', 'failed', 'cancelled', 'skipped', 'timed_out') as is_end,
            coalesce(event.attempt, 0) as attempt,
            max(coalesce(event.attempt, 0)) filter (where event.status <> 'info') over () as last_attempt,
            case when event.status = 'info' then 0 else
                (coalesce(event.attempt, 0)::bigint << 58)
                | (
                    case event.status
                        when 'queued' then 0
                        when 'running' then 1
                        when 'timed_out' then 2
                        else 3
                    end::bigint << 56
                )
                | ((extract(epoch from event.occurred_at) * 1000000)::bigint << 3)
                | case event.status when 'failed' then 4 when 'cancelled' then 3 when 'skipped' then 2
                    when 'succeeded' then 1 else 0 end
            end as state_key
        from pulsewatch.run_event as event
        where event.client_id = of_client
            and event.occurred_at between from_at and until_at
            and event.run_id = of_run
            and event.received_at < known_before
    ) as told;
end
$$
"""
FUNCTION_COMMENTS = {
    "mark_defined()": "Leaves a mark for the alert rules when a client or a pipeline is new or described anew.",
    "run_as_known(bigint, uuid, timestamptz, timestamptz, timestamptz)": (
        "A run, whose events lie between two times, as the events received before a time make it; nulls if none was."
    ),
}
# What rules pick targets by.
WATCHED = {"client": "archived_at", "pipeline": "tags, owner, environment, archived_at"}
APPEND_ONLY = ("alert_rule_version", "alert_event", "notification_attempt")
# Words that people and producers choose: no statistics of them (see the revision before).
WORDS = {
    "alert": ("summary", "acknowledged_by", "labels", "annotations"),
    "alert_event": ("actor", "comment", "evidence"),
    "alert_rule": ("key",),
    "alert_rule_version": ("spec", "author", "comment"),
    "silence": ("matchers", "comment", "author"),
    "channel": ("key", "title", "config", "secrets", "disabled_reason"),
    "notification": ("body", "rest", "provider_ref", "last_error"),
    "notification_attempt": ("error",),
}
MARK_EVERYTHING = """
insert into pulsewatch.alert_mark (client_id, pipeline_id, is_defined)
select client_id, id, true from pulsewatch.pipeline
union all
select id, 0, true from pulsewatch.client
order by 1, 2
"""


def upgrade() -> None:
    op.add_column(
        "run",
        sa.Column(
            "received_at",
            TIMESTAMP,
            server_default=sa.text("now()"),
            nullable=False,
            comment="Greatest received_at of the events that changed it.",
        ),
        schema=SCHEMA,
    )
    # Of runs that are there already nobody knows it: their events tell.
    op.add_column(
        "run",
        sa.Column(
            "first_received_at",
            TIMESTAMP,
            server_default=sa.text("'-infinity'"),
            nullable=False,
            comment="Least received_at of the events that changed it: nothing was known of it before.",
        ),
        schema=SCHEMA,
    )
    op.alter_column("run", "first_received_at", server_default=sa.text("now()"), schema=SCHEMA)
    op.add_column(
        "ingest_stat",
        sa.Column("last_at", TIMESTAMP, comment="When an event was accepted last; null: somewhen in the five minutes."),
        schema=SCHEMA,
    )
    create_alert_rule()
    create_alert_rule_version()
    create_alert_target()
    create_alert()
    create_alert_event()
    create_silence()
    create_channel()
    create_notification()
    create_notification_attempt()
    create_alert_mark()
    create_alert_tick()
    op.add_column(
        "slot_mark",
        sa.Column(
            "marked_at",
            TIMESTAMP,
            server_default=sa.text("now()"),
            nullable=False,
            comment="When ingestion left its mark.",
        ),
        schema=SCHEMA,
    )
    op.execute(MARK_DEFINED)
    op.execute(RUN_AS_KNOWN)
    for function, comment in FUNCTION_COMMENTS.items():
        op.execute(f"comment on function pulsewatch.{function} is '{comment}'")
        op.execute(f"revoke execute on function pulsewatch.{function} from public")
    for table, columns in WATCHED.items():
        op.execute(
            f"create trigger {table}_defined after insert or update of {columns} on pulsewatch.{table}"
            " for each row execute function pulsewatch.mark_defined()"
        )
    for table in APPEND_ONLY:
        op.execute(
            f"create trigger {table}_append_only before update or delete on pulsewatch.{table}"
            " for each row execute function pulsewatch.refuse_change()"
        )
        op.execute(
            f"create trigger {table}_no_truncate before truncate on pulsewatch.{table}"
            " for each statement execute function pulsewatch.refuse_change()"
        )
    for table, words in WORDS.items():
        op.execute(
            f"alter table pulsewatch.{table} "
            + ", ".join(f"alter column {column} set statistics 0" for column in words)
        )
    for table in ("alert_target", "notification"):
        op.execute(f"alter table pulsewatch.{table} set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)")
    op.execute(
        "alter table pulsewatch.alert_mark"
        " set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)"
    )
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
    for table in WATCHED:
        op.execute(f"drop trigger {table}_defined on pulsewatch.{table}")
    for table in reversed(TABLES):
        op.drop_table(table, schema=SCHEMA)
    for function in FUNCTION_COMMENTS:
        op.execute(f"drop function pulsewatch.{function}")
    op.drop_column("slot_mark", "marked_at", schema=SCHEMA)
    op.drop_column("ingest_stat", "last_at", schema=SCHEMA)
    op.drop_column("run", "first_received_at", schema=SCHEMA)
    op.drop_column("run", "received_at", schema=SCHEMA)
