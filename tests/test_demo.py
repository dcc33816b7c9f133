"""The demo: a story that can be told in any pieces, loaded through the real path, and a command that keeps its word."""

import json
import re
import signal
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import Engine

from pulsewatch import alert_targets, catalog, demo, rollups, slots
from pulsewatch.auth import Caller, Role
from pulsewatch.db import make_engine
from pulsewatch.demo_alerts import make_alerts, move_channels
from pulsewatch.demo_cast import CLIENTS, Pipeline, Telling
from pulsewatch.demo_feeder import Feeder, wire_item
from pulsewatch.demo_history import DAY, Delivery, History
from pulsewatch.demo_history import slots as expected_starts
from pulsewatch.demo_load import Loader
from pulsewatch.demo_rules import CHANNELS, RULES, SILENCES
from pulsewatch.demo_story import STAGED_OF_CLIENTS, STAGED_OF_TRADES
from pulsewatch.events import RunEvent, Status, dedupe_key, is_slug
from pulsewatch.intake.base import Limits, Request
from pulsewatch.intake.native import NativeWire
from pulsewatch.packing import content_digest
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Described
from pulsewatch.rules.matchers import Matchers
from pulsewatch.rules.rule import Rule
from pulsewatch.rules.spec import RuleSpec
from pulsewatch.secretbox import SecretBox
from pulsewatch.settings import Settings
from pulsewatch.supervisor import UpError
from tests.conftest import VERSION
from tests.running import Command, request, unmeasured
from tests.serving import make_key, scalar, serve_here, wait_until
from tests.shown import breathe

# A Saturday; two days of history are enough to see a story, and quick to make.
ANCHOR = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
HISTORY = History.of(demo.SEED, ANCHOR)
OF_TWO_DAYS = History.of(demo.SEED, ANCHOR, 2)


def of_client(history: History, *slugs: str) -> tuple[Pipeline, ...]:
    return tuple(pipeline for pipeline in history.pipelines if pipeline.client.slug in slugs)


def last_days(slug: str, days: int) -> list[Delivery]:
    return HISTORY.deliveries(of_client(HISTORY, slug), ANCHOR - days * DAY, ANCHOR)


def identity(event: RunEvent) -> tuple[str, datetime, bytes]:
    return event.client, event.occurred_at, dedupe_key(event)


# -- the story ------------------------------------------------------------------------------------------------------


def test_there_are_twenty_clients_in_many_time_zones_and_250_pipelines() -> None:
    assert len(HISTORY.pipelines) == 250
    assert {pipeline.client.slug for pipeline in HISTORY.pipelines} == {client.slug for client in CLIENTS}
    assert len(CLIENTS) == 20
    assert len({client.zone for client in CLIENTS}) == 20
    assert len({(pipeline.client.slug, pipeline.name) for pipeline in HISTORY.pipelines}) == 250
    assert {pipeline.environment for pipeline in HISTORY.pipelines} == {"prod", "staging"}


def test_what_is_said_of_clients_and_pipelines_is_valid_and_every_name_is_a_slug() -> None:
    for statement in HISTORY.statements():
        validate = catalog.validate_pipeline_changes if statement.pipeline else catalog.validate_client_changes
        assert validate(statement.changes) == (statement.changes, [])
        assert is_slug(statement.pipeline or statement.client)


@pytest.mark.unmeasured
def test_a_year_of_telling_would_not_change_how_much_is_told_in_two_months() -> None:
    """The load has to fit into a minute; a day is representative enough to tell how much it will be."""
    a_day = len(HISTORY.deliveries(HISTORY.pipelines, ANCHOR - 31 * DAY, ANCHOR - 30 * DAY))
    assert 200_000 < a_day * HISTORY.days < 600_000


@pytest.mark.unmeasured
def test_the_same_seed_and_anchor_tell_the_same_story_and_another_seed_another() -> None:
    own = of_client(HISTORY, "acme-retail")
    again = History.of(demo.SEED, ANCHOR)
    assert last_days("acme-retail", 3) == again.deliveries(of_client(again, "acme-retail"), ANCHOR - 3 * DAY, ANCHOR)
    other = History(demo.SEED + 1, ANCHOR, HISTORY.pipelines)
    assert last_days("acme-retail", 3) != other.deliveries(own, ANCHOR - 3 * DAY, ANCHOR)


@pytest.mark.unmeasured
def test_told_in_pieces_it_is_the_same_story() -> None:
    own = of_client(HISTORY, "acme-retail", "delta-freight")
    times = [ANCHOR - timedelta(hours=hours) for hours in (110, 96, 91, 60, 24, 1, 0)] + [ANCHOR + timedelta(hours=30)]
    pieces = [delivery for after, until in pairwise(times) for delivery in HISTORY.deliveries(own, after, until)]
    assert pieces == HISTORY.deliveries(own, times[0], times[-1])


@pytest.mark.unmeasured
def test_the_wire_reads_each_event_as_it_was_meant() -> None:
    events = [
        delivery.event for slug in ("acme-retail", "aurora-energy", "delta-freight") for delivery in last_days(slug, 3)
    ]
    body = json.dumps([wire_item(event) for event in events]).encode()
    limits = Limits(len(events), timedelta(days=400))
    anybody = Caller(UUID(int=1), Role.INGEST, None, None)
    read = NativeWire().parse(Request("/v1/events", {}, "application/json", body, anybody, ANCHOR, limits))
    assert not read.rejected
    assert read.items == events


def test_a_daily_run_comes_at_the_same_local_time_all_year() -> None:
    pipeline = next(one for one in HISTORY.pipelines if one.schedule == "0 4 * * *" and "Europe" in one.client.zone)
    zone = pipeline.client.zone
    summer, winter = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
    (in_summer,), (in_winter,) = expected_starts(pipeline, summer), expected_starts(pipeline, winter)
    assert in_winter - in_summer - (winter - summer) == timedelta(hours=1), zone


@pytest.mark.unmeasured
def test_everything_that_can_happen_to_runs_happens() -> None:
    deliveries = [one for slug in ("acme-retail", "delta-freight", "cedar-health") for one in last_days(slug, 40)]
    events = [delivery.event for delivery in deliveries]
    statuses = {event.status for event in events}
    assert statuses == set(Status) - {Status.TIMED_OUT}
    assert max(event.attempt or 0 for event in events) >= 2  # a second retry
    assert len({identity(event) for event in events}) < len(events)  # some were sent twice
    assert any(later.event.occurred_at < earlier.event.occurred_at for earlier, later in pairwise(deliveries))
    assert any(delivery.arrives_at - delivery.event.occurred_at > timedelta(minutes=10) for delivery in deliveries)
    assert {event.parent is None for event in events} == {True, False}
    assert {event.scheduled_at is None for event in events} == {True, False}


@pytest.mark.unmeasured
def test_an_event_that_is_sent_twice_says_the_same_twice() -> None:
    said = defaultdict(set)
    for delivery in last_days("delta-freight", 40):
        said[identity(delivery.event)].add(content_digest(delivery.event))
    assert {len(digests) for digests in said.values()} == {1}


@pytest.mark.unmeasured
def test_some_runs_are_late_and_some_are_missing() -> None:
    own = [one for one in of_client(HISTORY, "cedar-health") if one.parent is None and one.young_days is None]
    starts: dict[tuple[str, datetime], datetime] = {}
    for delivery in HISTORY.deliveries(tuple(own), HISTORY.begins_at, ANCHOR):
        event = delivery.event
        if event.status is Status.RUNNING and event.scheduled_at is not None:
            starts.setdefault((event.pipeline, event.scheduled_at), event.occurred_at)
    grace = {pipeline.name: timedelta(seconds=pipeline.start_grace_s) for pipeline in own}
    assert any(start - slot_at > grace[name] for (name, slot_at), start in starts.items())
    told = {name for name, _ in starts}
    expected = {
        (pipeline.name, slot_at)
        for pipeline in own
        if pipeline.name in told
        for number in range(HISTORY.days)
        for slot_at in expected_starts(pipeline, HISTORY.begins_at + number * DAY)
    }
    missing = len(expected - starts.keys()) / len(expected)
    assert 0.001 < missing < 0.1


def test_a_drifting_pipeline_takes_longer_week_by_week() -> None:
    told_whole = [one for one in HISTORY.pipelines if one.telling is Telling.PAIR and one.young_days is None]
    pipeline = max(told_whole, key=lambda one: (one.drift, one.name))
    medians = []
    for number in (0, 50):
        begins_at = HISTORY.begins_at + number * DAY
        ends: dict[str, list[datetime]] = defaultdict(list)
        for delivery in HISTORY.deliveries((pipeline,), begins_at, begins_at + 9 * DAY):
            if delivery.event.status in (Status.RUNNING, Status.SUCCEEDED):
                ends[delivery.event.run].append(delivery.event.occurred_at)
        lengths = sorted(max(times) - min(times) for times in ends.values() if len(times) >= 2)
        medians.append(lengths[len(lengths) // 2])
    assert medians[1] > 1.4 * medians[0]


@pytest.mark.parametrize(("slug", "trade"), STAGED_OF_TRADES)
def test_what_is_staged_has_its_actors(slug: str, trade: str) -> None:
    assert any(one.client.slug == slug and one.trade.name == trade for one in HISTORY.pipelines)


def test_at_the_start_one_pipeline_keeps_failing_and_another_has_fallen_silent() -> None:
    ends = Counter(
        event.status
        for _, event in last_days("acme-retail", 1)
        if event.pipeline.startswith("ingest_") and event.status.is_terminal
    )
    assert ends.keys() == {Status.FAILED}
    told = {event.pipeline for _, event in last_days("bluewater-bank", 1)}
    assert not any(name.startswith("refresh_") for name in told)
    assert any(name.startswith("ingest_") for name in told)


@pytest.mark.parametrize("slug", STAGED_OF_CLIENTS)
def test_the_staged_incidents_of_clients_have_their_clients(slug: str) -> None:
    assert slug in {client.slug for client in CLIENTS}


def test_an_offline_client_is_heard_of_when_it_is_back() -> None:
    begins_at = ANCHOR - timedelta(hours=4 * 24)
    ends_at = begins_at + timedelta(hours=7)
    own = of_client(HISTORY, "delta-freight")
    during = HISTORY.deliveries(own, begins_at + timedelta(hours=2), ends_at)
    after = HISTORY.deliveries(own, ends_at, ends_at + timedelta(minutes=2))
    assert not [one for one in during if one.event.status is Status.RUNNING]
    assert [one for one in after if one.arrives_at - one.event.occurred_at > timedelta(hours=5)]


# -- the load ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def target(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=3, application_name="tests")
    yield engine
    engine.dispose()


def small_history(anchor: datetime, *slugs: str) -> History:
    whole = History.of(demo.SEED, anchor, 2)
    return History(whole.seed, anchor, of_client(whole, *slugs), 2)


def load(engine: Engine, history: History) -> Loader:
    loader = Loader(engine, history, max_pipelines=1000)
    assert loader.run(breathe, lambda: False)
    return loader


def test_the_load_stores_each_event_once_and_nothing_is_rejected(database: str, target: Engine) -> None:
    history = small_history(datetime.now(UTC), "acme-retail", "delta-freight")
    deliveries = history.deliveries(history.pipelines, history.begins_at, history.anchor)
    events = {identity(delivery.event) for delivery in deliveries}
    loaded = load(target, history).loaded
    statements = len(list(history.statements()))
    assert loaded.rejected == []
    assert loaded.accepted == len(events) + statements
    assert loaded.duplicates == len(deliveries) - len(events) > 0
    assert scalar(database, "select count(*) from pulsewatch.run_event") == len(events)
    runs = {(delivery.event.client, delivery.event.pipeline, delivery.event.run) for delivery in deliveries}
    assert scalar(database, "select count(*) from pulsewatch.run") == len(runs)
    described = "title is not null and schedule is not null and owner is not null and cardinality(tags) > 0"
    assert scalar(database, f"select count(*) from pulsewatch.pipeline where {described}") == statements - 2


def test_loading_again_gives_nothing_but_duplicates(database: str, target: Engine) -> None:
    history = small_history(datetime.now(UTC), "lumen-labs", "fjord-fisheries")
    first = load(target, history).loaded
    again = load(target, history).loaded
    statements = len(list(history.statements()))
    assert again.rejected == []
    assert again.accepted == 0
    assert again.duplicates == first.accepted + first.duplicates
    assert scalar(database, "select count(*) from pulsewatch.run_event") == first.accepted - statements


def test_a_load_that_is_interrupted_says_so_and_can_be_completed(database: str, target: Engine) -> None:
    history = small_history(datetime.now(UTC), "lumen-labs")
    interrupted = Loader(target, history, max_pipelines=1000)
    assert not interrupted.run(lambda: None, lambda: True)
    whole = {identity(one.event) for one in history.deliveries(history.pipelines, history.begins_at, history.anchor)}
    load(target, history)
    assert scalar(database, "select count(*) from pulsewatch.run_event") == len(whole)


def test_the_feeder_tells_over_http_what_the_load_would_have_told(database: str) -> None:
    now = datetime.now(UTC)
    history = small_history(now, "acme-retail")
    told: list[datetime] = []
    _, header = make_key(database)
    key = header["Authorization"].removeprefix("Bearer ")
    since = now - timedelta(hours=6)
    with serve_here(database) as url, Feeder(history, url, key, since, told.append):
        due = history.deliveries(history.pipelines, since, now)
        wait_until(lambda: told and told[-1] >= due[-1].arrives_at, "the feeder has caught up")
    events = {identity(delivery.event) for delivery in due}
    before = now.isoformat()
    stored = scalar(database, f"select count(*) from pulsewatch.run_event where occurred_at <= '{before}'")
    assert stored >= len(events) > 100
    assert told == sorted(told)


# -- the command ------------------------------------------------------------------------------------------------------


def start(data_dir: Path, *options: str) -> Command:
    # Little is kept, so that little is made up.
    return Command(
        "demo",
        "--data-dir",
        data_dir,
        "--port",
        0,
        *options,
        PULSEWATCH_EMBEDDED_VERSION=VERSION,
        PULSEWATCH_KEEP_EVENTS_DAYS="3",
    )


def told_keys(started: Command) -> dict[str, str]:
    wait_until(lambda: any("Ctrl-C" in line for line in started.out), "the guide is printed")
    return {
        found[1]: found[2] for line in started.out if (found := re.fullmatch(r"  (\w+) +(pw_\S{43})", line.rstrip()))
    }


def told_receiver(started: Command) -> str:
    (url,) = (line.split()[1] for line in started.out if line.startswith("  alerts "))
    return url


def paste(line: str) -> Any:
    """What the answer to a printed command decodes to."""
    done = subprocess.run(("bash", "-c", line), check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.any_postgresql
@pytest.mark.slow(70)
def test_the_demo_prints_commands_that_work_keeps_its_data_and_starts_over_when_told(data_dir: Path) -> None:
    with unmeasured():
        first = start(data_dir)
    first.url()
    keys = told_keys(first)
    assert keys.keys() == {role.value for role in Role}
    send, read, failed, firing = (line for line in first.out if line.startswith("curl"))
    assert paste(send) == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert paste(send) == {"accepted": 0, "duplicates": 1, "rejected": []}
    run = paste(read)
    assert (run["client"], run["status"], run["duration_s"], len(run["events"])) == ("acme-retail", "succeeded", 4.2, 1)
    page = paste(failed)
    assert [item["status"] for item in page["items"]] == ["failed"] * 5
    alerts = paste(firing)["items"]
    assert {item["state"] for item in alerts} == {"firing"}
    assert any(item["is_backfill"] for item in alerts)
    receiver = told_receiver(first)
    tried = request(first.url(), "POST", "/v1/channels/data-team:test", key=keys["write"])
    assert tried[0] == 202
    wait_until(lambda: any("  TEST  " in line for line in first.out), "the test message is shown")
    (shown,) = (
        one["message"] for one in request(receiver, "GET", "/messages")[1]["items"] if one["message"]["is_test"]
    )
    assert shown["notification_id"] == tried[1]["id"]
    psql = next(line.split("PostgreSQL")[1].strip() for line in first.out if "psql -h" in line)
    counted = subprocess.run(
        ("bash", "-c", f"{psql} -Atc 'select count(*) from analytics.clients'"),
        check=True,
        capture_output=True,
        text=True,
    )
    assert counted.stdout == "20\n"
    assert first.stop(signal.SIGINT) == 0

    second = start(data_dir)
    url = second.url()
    assert told_keys(second) == keys
    assert not any("Making up" in line or "Trying" in line for line in second.out)
    assert told_receiver(second) == receiver
    assert request(url, "GET", f"/v1/runs/{run['id']}", key=keys["read"])[1]["status"] == "succeeded"
    assert second.stop(signal.SIGTERM) == 0

    with unmeasured():
        third = start(data_dir, "--fresh")
    url = third.url()
    fresh_keys = told_keys(third)
    assert request(url, "GET", f"/v1/runs/{run['id']}", key=fresh_keys["read"])[0] == 404
    assert request(url, "GET", "/v1/runs", key=keys["read"])[0] == 401
    assert len(request(url, "GET", "/v1/clients", key=fresh_keys["read"])[1]["items"]) == 20
    assert third.stop(signal.SIGINT) == 0


# -- its alerts -------------------------------------------------------------------------------------------------------

HOOK = "http://127.0.0.1:9/hook"
BOX = SecretBox("a key of tests that nobody has to keep")


def alerted(engine: Engine, settings: Settings, history: History) -> None:
    with unmeasured():
        load(engine, history)
    while slots.tick(engine, settings, history.anchor) != slots.Round() or rollups.refresh(
        engine, settings, history.anchor
    ):
        pass
    with engine.begin() as connection:
        make_alerts(connection, BOX, HOOK, "whsec_" + "A" * 43 + "=", history.begins_at, history.anchor)


def test_the_demos_rules_are_of_every_kind_but_the_one_that_comes_along_and_differ() -> None:
    specs = [RuleSpec.model_validate(rule.spec) for rule in RULES]
    assert {spec.kind for spec in specs} == set(KINDS) - {"ingestion"}
    assert len({rule.key for rule in RULES}) == len(RULES)
    told = {key for spec in specs for key in spec.channels}
    assert told == {channel.key for channel in CHANNELS}
    for part in ("clients", "pipelines", "tags", "owners", "environments"):
        assert any(getattr(spec.selector, part) for spec in specs), part
    assert any(rule.client for rule in RULES)
    for is_so in ("is_dry_run", "for_s", "keep_firing_s", "evaluation_delay_s", "new_target_grace_s", "annotations"):
        assert any(getattr(spec, is_so) for spec in specs), is_so
    assert all(Matchers.model_validate(silence.matchers) for silence in SILENCES)


def test_each_rule_of_the_demo_watches_something() -> None:
    described = [
        Described(1, 1, one.client.slug, one.name, one.trade.tags, one.owner, one.environment)
        for one in HISTORY.pipelines
    ]
    clients = [Described(1, 0, client.slug, None) for client in CLIENTS]
    for rule in RULES:
        spec = RuleSpec.model_validate(rule.spec)
        stored = Rule(1, 1 if rule.client else None, rule.key, 1, spec)
        own = [one for one in (*described, *clients) if rule.client in (None, one.client)]
        assert any(alert_targets.watched(stored, target) for target in own), rule.key


@pytest.mark.slow
def test_the_demos_alerts_have_a_past_and_people_who_looked_after_them(
    database: str, target: Engine, settings: Settings
) -> None:
    history = small_history(datetime.now(UTC), "acme-retail", "bluewater-bank")
    alerted(target, settings, history)
    assert scalar(database, "select count(*) from pulsewatch.alert where is_backfill") > 10
    assert scalar(database, "select count(*) from pulsewatch.alert where not is_backfill") == 0
    assert (
        scalar(database, "select count(*) from pulsewatch.notification where held_by is distinct from 'backfill'") == 0
    )
    assert scalar(database, "select count(*) from pulsewatch.alert where resolved_at is null") > 2
    open_ = "select count(*) from pulsewatch.alert where resolved_at is null and"
    assert scalar(database, f"{open_} acknowledged_at is not null") == 1
    assert scalar(database, f"{open_} snoozed_until is not null") == 1
    assert scalar(database, "select count(*) from pulsewatch.silence where ends_at > now()") == 2
    kinds = "select count(distinct kind) from pulsewatch.alert_event"
    assert (
        scalar(database, f"{kinds} where kind in ('fired', 'level_changed', 'resolved', 'acknowledged', 'snoozed')")
        == 5
    )
    early = (
        "select count(*) from pulsewatch.alert"
        " where acknowledged_at < fired_at or acknowledged_at > coalesce(resolved_at, 'infinity')"
    )
    assert scalar(database, early) == 0


def test_the_demos_alerts_made_again_are_the_same(database: str, target: Engine, settings: Settings) -> None:
    history = small_history(datetime.now(UTC), "acme-retail")
    alerted(target, settings, history)
    count = "select count(*) from pulsewatch.alert_event"
    before = scalar(database, count)
    with target.begin() as connection:
        make_alerts(connection, BOX, HOOK, "whsec_" + "A" * 43 + "=", history.begins_at, history.anchor)
    assert scalar(database, count) == before
    assert scalar(database, "select count(*) from pulsewatch.silence") == len(SILENCES)
    assert scalar(database, "select max(version) from pulsewatch.alert_rule") == 3


def test_channels_follow_the_receiver_unless_people_changed_them(
    database: str, target: Engine, settings: Settings
) -> None:
    alerted(target, settings, small_history(datetime.now(UTC), "acme-retail"))
    with target.begin() as connection:
        mine = "update pulsewatch.channel set config = '{\"url\": \"https://example.com/\"}' where key = 'finance'"
        connection.exec_driver_sql(mine)
        move_channels(connection, HOOK, "http://127.0.0.1:10/hook")
    count = "select count(*) from pulsewatch.channel where config ->> 'url'"
    assert scalar(database, f"{count} = 'http://127.0.0.1:10/hook/' || key") == 2
    assert scalar(database, f"{count} = 'https://example.com/'") == 1


def test_the_staged_troubles_make_an_alert_fire_get_worse_and_end_within_minutes() -> None:
    streams = tuple(one for one in HISTORY.pipelines if one.name.startswith("stream_"))
    ends = Counter(
        (event.client, event.status)
        for _, event in HISTORY.deliveries(streams, ANCHOR + timedelta(minutes=1), ANCHOR + timedelta(minutes=11))
        if event.status.is_terminal
    )
    assert ends["galaxy-games", Status.FAILED] >= 3
    assert ends["galaxy-games", Status.SUCCEEDED] >= 3
    assert 4 <= ends["nimbus-cloud", Status.SUCCEEDED] <= 7


def test_data_that_are_not_the_demos_are_never_touched(database: str, target: Engine, data_dir: Path) -> None:
    make_key(database, Role.READ, "a-real-client")
    for fresh in (False, True):
        with pytest.raises(UpError, match="choose another --data-dir"):
            demo.recall(target, data_dir / demo.FILE, fresh=fresh)
    assert scalar(database, "select count(*) from pulsewatch.client") == 1
    assert not (data_dir / demo.FILE).exists()


def test_the_memory_of_one_database_opens_no_other(database: str, target: Engine, data_dir: Path) -> None:
    demo.recall(target, data_dir / demo.FILE, fresh=False)
    remembered = demo.Memory.read(data_dir / demo.FILE)
    assert remembered is not None
    make_key(database, Role.READ, "a-real-client")
    elsewhere = msgspec.structs.replace(remembered, keys=dict.fromkeys(Role, "pw_" + "x" * 43))
    elsewhere.write(data_dir / demo.FILE)
    with pytest.raises(UpError, match="not the demo's"):
        demo.recall(target, data_dir / demo.FILE, fresh=True)


def test_the_memory_is_readable_by_its_owner_alone(target: Engine, data_dir: Path) -> None:
    demo.recall(target, data_dir / demo.FILE, fresh=False)
    assert (data_dir / demo.FILE).stat().st_mode & 0o777 == 0o600


def test_starting_over_empties_every_table(database: str, target: Engine, data_dir: Path) -> None:
    path = data_dir / demo.FILE
    old = demo.recall(target, path, fresh=False)
    load(target, small_history(old.anchor, "lumen-labs"))
    again = demo.recall(target, path, fresh=True)
    assert again.keys.keys() == old.keys.keys()
    assert not set(again.keys.values()) & set(old.keys.values())
    for table in ("run", "run_event", "client", "pipeline", "dirty", "ingest_stat"):
        assert scalar(database, f"select count(*) from pulsewatch.{table}") == 0
    assert scalar(database, "select count(*) from pulsewatch.api_key") == 4
