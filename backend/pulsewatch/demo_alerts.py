"""Gives the demo its alert rules and all that belongs to them, with a history that the real engine works out."""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from pulsewatch import alert_acts, alert_targets, models, rulebook
from pulsewatch.alert_acts import Act
from pulsewatch.backfill import backfill
from pulsewatch.channels.webhook import CHANNEL, Config, Secrets
from pulsewatch.demo_rules import CHANNELS, RULES, SILENCES, TAKEN_ON, DemoRule
from pulsewatch.rules.spec import RuleSpec
from pulsewatch.secretbox import SecretBox

AUTHOR = "demo"
PEOPLE = ("maya", "jonas", "amara", "lee")
DRAFT_EVERY = timedelta(days=9)
TAKEN_ON_AFTER = timedelta(minutes=9)
SNOOZED_FOR = timedelta(hours=6)


def make_alerts(
    connection: Connection,
    box: SecretBox,
    hook: str,
    secret: str,
    begins_at: datetime,
    as_of: datetime,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Make channels that lead to `hook`, rules, silences, and the alerts of [begins_at, as_of).

    In one transaction of the caller's: as of then rules are evaluated live, and go on from there. Made again it does
    nothing to rules and alerts, and leads the channels to `hook`.
    """
    rulebook.lock(connection)
    clients = {slug: id_ for id_, slug in connection.execute(select(models.client.c.id, models.client.c.slug))}
    secrets = box.encrypt(Secrets(signing_secrets=(secret,)).model_dump_json().encode())
    for channel in CHANNELS:
        if channel.client is None or channel.client in clients:
            values = {
                "client_id": None if channel.client is None else clients[channel.client],
                "key": channel.key,
                "kind": CHANNEL.name,
                "title": channel.title,
                "config": Config(url=hook_of(hook, channel.key)).model_dump(mode="json"),
                "secrets": secrets,
                "rate_per_min": 600,
            }
            new = upsert(models.channel).values(values)
            known = {"config": new.excluded.config, "secrets": new.excluded.secrets}
            connection.execute(new.on_conflict_do_update(index_elements=["client_id", "key"], set_=known))
    _silence(connection, as_of)
    rules = [rule for rule in RULES if rule.client is None or rule.client in clients]
    for number, rule in enumerate(rules):
        on_progress(number, len(rules))
        _make_rule(connection, rule, None if rule.client is None else clients[rule.client], begins_at, as_of)
    connection.execute(ACKNOWLEDGE_PAST, {"people": list(PEOPLE), "before": as_of})
    _take_on(connection, as_of)
    on_progress(len(rules), len(rules))


def hook_of(hook: str, key: str) -> str:
    """Where a channel leads."""
    return f"{hook}/{key}"


def move_channels(connection: Connection, old: str, new: str) -> None:
    """Let the channels that lead to the receiver find it at its new address; those that people changed stay."""
    connection.execute(MOVE, {"old": old, "new": new})


MOVE = text("""
update pulsewatch.channel
set config = jsonb_set(config, '{url}', to_jsonb(replace(config ->> 'url', :old, :new))), updated_at = now()
where deleted_at is null and starts_with(config ->> 'url', :old || '/')
""")


def _make_rule(
    connection: Connection, rule: DemoRule, client_id: int | None, begins_at: datetime, as_of: datetime
) -> None:
    """Make the rule, after its drafts; and its past."""
    if rulebook.find(connection, client_id, rule.key, is_deleted_too=True) is not None:
        return
    for number, said in enumerate(rule.drafts):
        draft = RuleSpec.model_validate(rule.spec | said | {"is_enabled": False})
        at = as_of - DRAFT_EVERY * (len(rule.drafts) - number)
        rulebook.save(connection, client_id, rule.key, draft, rulebook.Said(AUTHOR, "a draft", at))
    spec = RuleSpec.model_validate(rule.spec)
    rulebook.save(connection, client_id, rule.key, spec, rulebook.Said(AUTHOR, rule.comment, as_of))
    row = rulebook.find(connection, client_id, rule.key)
    for made in alert_targets.load_rules(connection, [] if row is None else [row.id]):
        backfill(connection, made, begins_at, as_of)


def _silence(connection: Connection, as_of: datetime) -> None:
    if connection.execute(select(models.silence.c.id).limit(1)).first() is not None:
        return
    for silence in SILENCES:
        values = {
            "matchers": silence.matchers,
            "starts_at": as_of + timedelta(hours=silence.from_h),
            "ends_at": as_of + timedelta(hours=silence.to_h),
            "comment": silence.comment,
            "author": AUTHOR,
            "created_at": as_of + timedelta(hours=silence.from_h),
        }
        connection.execute(insert(models.silence).values(values))


def _take_on(connection: Connection, as_of: datetime) -> None:
    """Somebody takes on one of the alerts that go on, and puts another one off. Only once."""
    alert, rule, client, event = models.alert, models.alert_rule, models.client, models.alert_event
    if connection.execute(select(event.c.seq).where(event.c.kind == "snoozed").limit(1)).first() is not None:
        return
    key, slug = TAKEN_ON
    # Soon after it got as bad as it is.
    last = select(func.max(event.c.as_of)).where(event.c.client_id == alert.c.client_id, event.c.alert_id == alert.c.id)
    query = (
        select(alert.c.client_id, alert.c.id, last.scalar_subquery().label("last_at"))
        .select_from(alert.join(rule, rule.c.id == alert.c.rule_id).join(client, client.c.id == alert.c.client_id))
        .where(alert.c.resolved_at.is_(None), alert.c.acknowledged_at.is_(None))
        # On some days of the week only one of these goes on; another will do.
        .order_by(and_(rule.c.key == key, client.c.slug == slug).desc(), alert.c.fired_at, alert.c.id)
    )
    acts = [
        Act(row.client_id, row.id, min(row.last_at + TAKEN_ON_AFTER, as_of), PEOPLE[0])
        for row in connection.execute(query)
    ]
    for act in acts[:1]:
        alert_acts.acknowledge(connection, act)
    for act in acts[1:2]:
        alert_acts.snooze(connection, act, as_of + SNOOZED_FOR)


# What people did with the alerts of the past, as made up as the runs are: of those that lasted, most were taken on
# within the hour, critical ones sooner. The chances are taken from the alert's id, so that they are the same again.
ACKNOWLEDGE_PAST = text("""
with past as (
    select
        alert.client_id, alert.id, alert.rule_id, alert.rule_version, alert.pipeline_id, alert.level,
        alert.max_level, alert.fired_at, coalesce(alert.resolved_at, :before) as over_at,
        abs(hashtext(alert.id::text)) as chance
    from pulsewatch.alert
    where alert.is_backfill and not alert.is_dry_run and alert.acknowledged_at is null
),

taken_on as (
    select
        past.*,
        past.fired_at + make_interval(secs => (60 + past.chance % 3500) / past.max_level) as at,
        (cast(:people as text[]))[1 + past.chance % cardinality(cast(:people as text[]))] as person
    from past
    where past.chance / 10 % 10 < 3 + 3 * past.max_level
),

held as (
    update pulsewatch.alert as alert
    set acknowledged_at = taken_on.at, acknowledged_by = taken_on.person, first_acknowledged_at = taken_on.at
    from taken_on
    where alert.client_id = taken_on.client_id
        and alert.id = taken_on.id
        and taken_on.at < taken_on.over_at
        and alert.resolved_at is not null
        -- Worse than it was taken on as, it would be nobody's again.
        and not exists (
            select
            from pulsewatch.alert_event as worse
            where worse.client_id = taken_on.client_id
                and worse.alert_id = taken_on.id
                and worse.as_of >= taken_on.at
                and worse.level > worse.prev_level
        )
    returning taken_on.*
)

insert into pulsewatch.alert_event (
    client_id, as_of, alert_id, seq, rule_id, rule_version, pipeline_id, kind, from_state, state, prev_level, level,
    actor, is_backfill
)
select
    held.client_id, held.at, held.id,
    (
        select max(event.seq) + 1
        from pulsewatch.alert_event as event
        where event.client_id = held.client_id and event.alert_id = held.id
    ),
    held.rule_id, held.rule_version, held.pipeline_id, 'acknowledged', 'firing', 'firing', held.max_level,
    held.max_level, held.person, true
from held
order by held.client_id, held.at, held.id
""")
