"""Alert rules, how they stand on each target, the alerts that came of it, and what people were told.

A target is a pipeline; pipeline_id 0 means the client as a whole, client_id 0 as well all clients together. Rules,
channels and silences without a client are for all clients; those of a client are for its own pipelines only.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from pulsewatch.db import metadata
from pulsewatch.models.types import Timestamp

SLUG = "~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'"
STATES = "'ok', 'pending', 'firing', 'recovering', 'no_data', 'error'"
EVENT_KINDS = (
    "'pending', 'pending_cleared', 'fired', 'level_changed', 'recovering', 'refired', 'resolved', 'no_data', "
    "'data_back', 'error', 'error_cleared', 'acknowledged', 'unacknowledged', 'snoozed', 'commented'"
)
RESOLVE_REASONS = "'recovered', 'rule_changed', 'rule_deleted', 'rule_disabled', 'target_removed'"
REASONS = "'fired', 'level_changed', 'repeat', 'resolved', 'catch_up', 'test'"
NOTIFICATION_STATUSES = "'held', 'pending', 'leased', 'sent', 'superseded', 'dead', 'dropped'"
HOLDS = "'silence', 'acknowledged', 'snoozed', 'dry_run', 'backfill', 'channel_disabled', 'untold'"
CHANGES = "'created', 'changed', 'enabled', 'disabled', 'dry_run', 'restored', 'deleted'"
NOW = func.now()

alert_rule = Table(
    "alert_rule",
    metadata,
    Column("id", BigInteger, Identity(always=True), comment="Internal number; never shown."),
    Column("client_id", BigInteger, ForeignKey("pulsewatch.client.id"), comment="Its one client; null: all."),
    Column("key", Text, nullable=False, comment="Name in URLs; never changes."),
    Column("version", Integer, nullable=False, comment="The version that holds."),
    Column("kind", Text, nullable=False, comment="Kind of condition, of this version."),
    Column("is_enabled", Boolean, nullable=False, comment="Whether it is evaluated, by this version."),
    Column("created_at", Timestamp, nullable=False, server_default=NOW, comment="When its first version was made."),
    Column("updated_at", Timestamp, nullable=False, server_default=NOW, comment="When this version was made."),
    Column("deleted_at", Timestamp, comment="Set: not evaluated, not listed; its history stays."),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("client_id", "key", postgresql_nulls_not_distinct=True),
    CheckConstraint(f"key {SLUG}", name="key"),
    CheckConstraint("version >= 1", name="version"),
    comment="One row per alert rule; what it says is in its versions.",
)

alert_rule_version = Table(
    "alert_rule_version",
    metadata,
    Column("rule_id", BigInteger, ForeignKey("pulsewatch.alert_rule.id"), nullable=False, comment="Its rule."),
    # As in the rule, which never changes it: what a client's reader sees is told by a column of the row itself.
    Column("client_id", BigInteger, comment="The one client of its rule; null: all."),
    Column("version", Integer, nullable=False, comment="Counts from 1."),
    Column("change", Text, nullable=False, comment="What was done: created, changed, enabled, disabled ..."),
    Column("spec", JSONB, nullable=False, comment="The whole rule as it was given."),
    Column("author", Text, comment="Who did it: the name of the key."),
    Column("comment", Text, comment="Why, in their words."),
    Column("created_at", Timestamp, nullable=False, server_default=NOW, comment="When."),
    PrimaryKeyConstraint("rule_id", "version"),
    CheckConstraint(f"change in ({CHANGES})", name="change"),
    CheckConstraint("length(comment) <= 2000", name="comment"),
    comment="One row per change of an alert rule. Append only.",
)

alert_target = Table(
    "alert_target",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose; 0: the fleet."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Which pipeline; 0: the client as a whole."),
    Column("rule_id", BigInteger, ForeignKey("pulsewatch.alert_rule.id"), nullable=False, comment="Which rule."),
    Column("target_since", Timestamp, nullable=False, comment="Since when the rule watches it."),
    Column("deadline_at", Timestamp, comment="When to look again although nothing arrives; may be early, never late."),
    Column("state", Text, nullable=False, server_default="ok", comment="ok, pending, firing, recovering ..."),
    Column("level", SmallInteger, nullable=False, server_default="0", comment="0 none, 1 warning, 2 critical."),
    Column("alert_id", Uuid, comment="The episode that is pending or open."),
    Column("state_since", Timestamp, nullable=False, comment="When the state last changed."),
    Column("pending_since", Timestamp, comment="Since when the condition has held without a break."),
    Column("lower_since", Timestamp, comment="Since when it has been below the level that is told."),
    Column("ok_samples", Integer, nullable=False, server_default="0", comment="Good samples in a row, recovering."),
    Column("sample_at", Timestamp, comment="The newest sample that was counted."),
    Column("seq", Integer, nullable=False, server_default="0", comment="Events written for this episode."),
    PrimaryKeyConstraint("client_id", "pipeline_id", "rule_id"),
    # What is due; what a rule watches.
    Index("alert_target_deadline_idx", "deadline_at", postgresql_where=text("deadline_at is not null")),
    Index("alert_target_rule_idx", "rule_id"),
    # What is not well: few of many.
    Index("alert_target_state_idx", "rule_id", "state", postgresql_where=text("state <> 'ok'")),
    CheckConstraint(f"state in ({STATES})", name="state"),
    CheckConstraint("level between 0 and 2", name="level"),
    CheckConstraint("(state in ('firing', 'recovering')) = (level > 0)", name="level_of_state"),
    CheckConstraint("state = 'ok' or alert_id is not null", name="alert_id"),
    comment="One row per target of a rule: how the rule stands on it.",
    # Rows change in place again and again.
    postgresql_with={"fillfactor": "70"},
)

alert = Table(
    "alert",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose; 0: the fleet."),
    Column("id", Uuid, nullable=False, comment="From rule, target and begin: the same if it is written again."),
    Column("rule_id", BigInteger, ForeignKey("pulsewatch.alert_rule.id"), nullable=False, comment="Which rule."),
    Column("rule_version", Integer, nullable=False, comment="The version that fired."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Which pipeline; 0: the client as a whole."),
    Column("level", SmallInteger, nullable=False, comment="1 warning, 2 critical; the last one told."),
    Column("max_level", SmallInteger, nullable=False, comment="The highest so far."),
    Column("pending_at", Timestamp, comment="When the condition began to hold."),
    Column("fired_at", Timestamp, nullable=False, comment="When it fired."),
    Column("acknowledged_at", Timestamp, comment="When somebody took it on; null: nobody has it."),
    Column("acknowledged_by", Text, comment="Who."),
    Column("first_acknowledged_at", Timestamp, comment="When somebody first did; never cleared."),
    Column("snoozed_until", Timestamp, comment="Until then nobody is told again, unless it gets worse."),
    Column("resolved_at", Timestamp, comment="When it ended; null while it is open."),
    Column("resolve_reason", Text, comment="recovered, rule_changed, rule_deleted, rule_disabled or target_removed."),
    Column("value", Double, comment="What was measured when it last changed."),
    Column("threshold", Double, comment="The threshold of the level."),
    Column("summary", Text, nullable=False, comment="One sentence for people."),
    Column("labels", JSONB, nullable=False, server_default=text("'{}'"), comment="Labels of the rule."),
    Column("annotations", JSONB, nullable=False, server_default=text("'{}'"), comment="Texts, filled in."),
    Column("is_backfill", Boolean, nullable=False, server_default="false", comment="Worked out afterwards."),
    Column("is_dry_run", Boolean, nullable=False, server_default="false", comment="Of a rule that only tries."),
    PrimaryKeyConstraint("client_id", "id"),
    # One open episode for each rule and target.
    Index(
        "alert_open_idx",
        "client_id",
        "pipeline_id",
        "rule_id",
        unique=True,
        postgresql_where=text("resolved_at is null"),
    ),
    # Lists of a client's alerts, newest first; the alerts of a rule.
    Index("alert_client_fired_at_idx", "client_id", text("fired_at desc"), "id"),
    Index("alert_rule_fired_at_idx", "rule_id", text("fired_at desc")),
    # All clients' alerts in a window; lists, newest first.
    Index("alert_fired_at_idx", text("fired_at desc"), "client_id", "id"),
    # What was open in a window, and what is: by its end.
    Index("alert_resolved_at_idx", "resolved_at"),
    CheckConstraint("level between 1 and 2 and max_level between level and 2", name="level"),
    CheckConstraint("resolved_at >= fired_at", name="resolved_at"),
    CheckConstraint("(resolved_at is null) = (resolve_reason is null)", name="resolve_reason"),
    CheckConstraint(f"resolve_reason in ({RESOLVE_REASONS})", name="resolve_reason_known"),
    comment="One row per alert: an episode of a rule on a target, from firing to resolved.",
)

alert_event = Table(
    "alert_event",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose; 0: the fleet."),
    Column("as_of", Timestamp, nullable=False, comment="The time that it speaks of."),
    Column("alert_id", Uuid, nullable=False, comment="The episode."),
    Column("seq", Integer, nullable=False, comment="Counts within the episode, from 1."),
    Column("rule_id", BigInteger, nullable=False, comment="Which rule."),
    Column("rule_version", Integer, nullable=False, comment="By which version."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Which pipeline; 0: the client as a whole."),
    Column("kind", Text, nullable=False, comment="What happened: fired, resolved, acknowledged ..."),
    Column("from_state", Text, nullable=False, comment="State before."),
    Column("state", Text, nullable=False, comment="State after."),
    Column("prev_level", SmallInteger, nullable=False, comment="Level before."),
    Column("level", SmallInteger, nullable=False, comment="Level after."),
    Column("value", Double, comment="What was measured."),
    Column("threshold", Double, comment="What it was held against."),
    Column("reason", Text, comment="Why, where it was not what was measured: rule_changed ..."),
    Column("evidence", JSONB, comment="What it rests on: runs, parameters, times."),
    Column("actor", Text, comment="Who did it: the name of a key."),
    Column("comment", Text, comment="What they said."),
    Column("known_at", Timestamp, comment="Events received before then were known."),
    Column("recorded_at", Timestamp, nullable=False, server_default=NOW, comment="When it was written."),
    Column("is_backfill", Boolean, nullable=False, server_default="false", comment="Worked out afterwards."),
    PrimaryKeyConstraint("client_id", "as_of", "alert_id", "seq"),
    # The events of one alert.
    Index("alert_event_alert_idx", "client_id", "alert_id"),
    # How a rule stood on a target at a time.
    Index("alert_event_target_idx", "client_id", "pipeline_id", "rule_id", text("as_of desc")),
    CheckConstraint(f"kind in ({EVENT_KINDS})", name="kind"),
    CheckConstraint(f"state in ({STATES}) and from_state in ({STATES})", name="state"),
    CheckConstraint("length(comment) <= 2000", name="comment"),
    comment="One row per transition of an alert or act of a person. Append only, partitioned by month (UTC).",
    postgresql_partition_by="RANGE (as_of)",
)

silence = Table(
    "silence",
    metadata,
    Column("id", Uuid, nullable=False, server_default=func.gen_random_uuid(), comment="Shown in lists."),
    Column("client_id", BigInteger, ForeignKey("pulsewatch.client.id"), comment="Its one client; null: all."),
    Column("matchers", JSONB, nullable=False, comment="Which alerts: rules, clients, pipelines, tags, levels ..."),
    Column("starts_at", Timestamp, nullable=False, comment="From then on."),
    Column("ends_at", Timestamp, nullable=False, comment="Until then; set to the present to end it early."),
    Column("comment", Text, nullable=False, comment="Why."),
    Column("author", Text, comment="Who: the name of a key."),
    Column("created_at", Timestamp, nullable=False, server_default=NOW, comment="When it was made."),
    Column("updated_at", Timestamp, nullable=False, server_default=NOW, comment="Last change."),
    PrimaryKeyConstraint("id"),
    # Those in force.
    Index("silence_ends_at_idx", "ends_at"),
    CheckConstraint("ends_at >= starts_at", name="ends_at"),
    CheckConstraint("length(comment) between 1 and 2000", name="comment"),
    comment="One row per silence: a time in which some alerts are written down but not told.",
)

channel = Table(
    "channel",
    metadata,
    Column("id", BigInteger, Identity(always=True), comment="Internal number; never shown."),
    Column("client_id", BigInteger, ForeignKey("pulsewatch.client.id"), comment="Its one client; null: all."),
    Column("key", Text, nullable=False, comment="Name in URLs and rules; never changes."),
    Column("kind", Text, nullable=False, comment="webhook, email, slack ..."),
    Column("title", Text, comment="Name for people."),
    Column("config", JSONB, nullable=False, comment="What is no secret."),
    Column("secrets", LargeBinary, comment="What is: JSON, encrypted."),
    Column("rate_per_min", Integer, nullable=False, server_default="60", comment="So many messages a minute at most."),
    Column("is_enabled", Boolean, nullable=False, server_default="true", comment="False: messages wait for nobody."),
    Column(
        "permanent_failures", SmallInteger, nullable=False, server_default="0", comment="Refusals for good in a row."
    ),
    Column("disabled_reason", Text, comment="Why PulseWatch itself switched it off."),
    Column("quiet_until", Timestamp, comment="Until then it asked to be left alone."),
    Column("unanswered_since", Timestamp, comment="Since when nobody has answered there; null: somebody did."),
    Column("created_at", Timestamp, nullable=False, server_default=NOW, comment="When it was made."),
    Column("updated_at", Timestamp, nullable=False, server_default=NOW, comment="Last change."),
    Column("deleted_at", Timestamp, comment="Set: not used, not listed; its history stays."),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("client_id", "key", postgresql_nulls_not_distinct=True),
    CheckConstraint(f"key {SLUG}", name="key"),
    CheckConstraint("rate_per_min between 1 and 6000", name="rate_per_min"),
    comment="One row per channel: where people are told.",
)

notification = Table(
    "notification",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose alert; 0: the fleet's."),
    Column("id", Uuid, nullable=False, comment="From alert event, reason and channel; the receiver sees it."),
    Column("channel_id", BigInteger, ForeignKey("pulsewatch.channel.id"), nullable=False, comment="To where."),
    Column("alert_id", Uuid, comment="About which alert; null: a test."),
    Column("event_as_of", Timestamp, comment="About which of its events."),
    Column("event_seq", Integer, comment="Its number."),
    Column("reason", Text, nullable=False, comment="fired, level_changed, repeat, resolved, catch_up or test."),
    Column("status", Text, nullable=False, comment="held, pending, leased, sent, superseded, dead or dropped."),
    Column("held_by", Text, comment="Why it was held: silence, acknowledged, snoozed, dry_run, backfill ..."),
    Column("silence_id", Uuid, comment="The silence that held it."),
    Column("body", JSONB, nullable=False, comment="The message."),
    Column("rest", JSONB, comment="Where some have it: who is to get it still, who never will."),
    Column("attempt_count", Integer, nullable=False, server_default="0", comment="Attempts so far."),
    Column("next_attempt_at", Timestamp, nullable=False, comment="Not before then."),
    Column("lease_until", Timestamp, comment="Until then it is somebody's who sends it."),
    Column("lease_token", Uuid, comment="Theirs: nobody else may say how it went."),
    Column("expires_at", Timestamp, nullable=False, comment="From then on it is given up."),
    Column("created_at", Timestamp, nullable=False, server_default=NOW, comment="When it was written."),
    Column("sent_at", Timestamp, comment="When the receiver took it."),
    Column("provider_ref", Text, comment="What the receiver calls it."),
    Column("last_error", Text, comment="Why the last attempt failed."),
    PrimaryKeyConstraint("client_id", "id"),
    # What is to be sent: few of many.
    Index("notification_due_idx", "next_attempt_at", postgresql_where=text("status in ('pending', 'leased')")),
    # What waits for somebody: to be let go, or to be looked at. Few as well.
    Index(
        "notification_stuck_idx", "status", "client_id", "alert_id", postgresql_where=text("status in ('held', 'dead')")
    ),
    # What was told of an alert; lists, newest first.
    Index("notification_alert_idx", "client_id", "alert_id"),
    Index("notification_client_created_at_idx", "client_id", text("created_at desc"), "id"),
    # The same over all clients.
    Index("notification_created_at_idx", text("created_at desc"), "client_id", "id"),
    CheckConstraint(f"reason in ({REASONS})", name="reason"),
    CheckConstraint(f"status in ({NOTIFICATION_STATUSES})", name="status"),
    CheckConstraint(f"held_by in ({HOLDS})", name="held_by"),
    CheckConstraint("(status = 'leased') = (lease_token is not null)", name="lease_token"),
    CheckConstraint("(status = 'sent') = (sent_at is not null)", name="sent_at"),
    comment="One row per message to a channel.",
    postgresql_with={"fillfactor": "70"},
)

notification_attempt = Table(
    "notification_attempt",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose alert; 0: the fleet's."),
    Column("started_at", Timestamp, nullable=False, comment="When it began."),
    Column("notification_id", Uuid, nullable=False, comment="Which message."),
    Column("n", Integer, nullable=False, comment="Counts its attempts, from 1."),
    Column("latency_s", Double, nullable=False, comment="How long it took, in seconds."),
    Column("outcome", Text, nullable=False, comment="sent, retry, permanent, or lost (nobody knows)."),
    Column("http_status", Integer, comment="Status of the answer, where there was one."),
    Column("error", Text, comment="What went wrong."),
    Column("retry_after_s", Double, comment="For how long the receiver asked to be left alone, in seconds."),
    PrimaryKeyConstraint("client_id", "started_at", "notification_id", "n"),
    # The attempts of one message.
    Index("notification_attempt_notification_idx", "client_id", "notification_id"),
    # Those of the last minute, for the rates of channels.
    Index("notification_attempt_started_at_idx", "started_at"),
    CheckConstraint("outcome in ('sent', 'retry', 'permanent', 'lost')", name="outcome"),
    comment="One row per attempt to send a message. Append only, partitioned by month (UTC).",
    postgresql_partition_by="RANGE (started_at)",
)

alert_mark = Table(
    "alert_mark",
    metadata,
    Column("client_id", BigInteger, nullable=False, comment="Whose pipeline."),
    Column("pipeline_id", BigInteger, nullable=False, comment="Which pipeline; 0: the client itself was changed."),
    Column(
        "is_defined",
        Boolean,
        nullable=False,
        server_default="false",
        comment="It is new, or was described anew: which rules watch it has to be found out.",
    ),
    Column(
        "marked_at",
        Timestamp,
        nullable=False,
        server_default=func.now(),
        comment="When ingestion left its mark, cut to the grid of ticks: rules look at it at a later tick.",
    ),
    # Those that are left, among many that are gone.
    Index("alert_mark_marked_at_idx", "marked_at"),
    comment="Marks for the alert rules: a pipeline's runs or slots changed, and its numbers are there. No key.",
)

alert_tick = Table(
    "alert_tick",
    metadata,
    Column("as_of", Timestamp, nullable=False, comment="Its time; events received before then were known."),
    Column("touched", Integer, nullable=False, comment="Targets that were looked at."),
    Column("changed", Integer, nullable=False, comment="Targets whose state changed."),
    Column("seen_at", Timestamp, nullable=False, server_default=NOW, comment="When a worker last saw to the rules."),
    Column("frozen_because", Text, comment="Why rules that measure time were left as they were; null: they were not."),
    Column("away_s", Double, comment="For so long nobody had seen to them before; null: not for too long."),
    Column("duration_s", Double, nullable=False, comment="How long it took, in seconds."),
    PrimaryKeyConstraint("as_of"),
    comment="One row per evaluation of the rules.",
)
