"""What the demo watches for: its alert rules, whom they tell, and what is silenced. Values only."""

from dataclasses import dataclass, field
from typing import Any

RUNBOOKS = "https://wiki.example.com/runbooks"
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class DemoRule:
    """An alert rule; `client` is None for one of all clients. `drafts` are what it said before it was switched on."""

    key: str
    spec: dict[str, Any]
    client: str | None = None
    comment: str | None = None
    drafts: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class DemoChannel:
    """A channel that leads to the demo's own receiver."""

    key: str
    title: str
    client: str | None = None


@dataclass(frozen=True, slots=True)
class DemoSilence:
    """A silence, in hours from the moment at which the demo was first started."""

    from_h: float
    to_h: float
    comment: str
    matchers: dict[str, list[str]] = field(default_factory=dict)


CHANNELS = (
    DemoChannel("data-team", "Data team"),
    DemoChannel("finance", "Finance data"),
    DemoChannel("acme-ops", "Operations of Acme Retail", "acme-retail"),
)

RULES = (
    DemoRule(
        "ingest-failing",
        {
            "title": "Ingestion fails again and again",
            "kind": "consecutive_failures",
            "selector": {"tags": ["ingest"], "environments": ["prod"]},
            "levels": {"warning": 2, "critical": 4},
            "repeat_s": HOUR,
            "channels": ["data-team"],
            "runbook_url": f"{RUNBOOKS}/ingest",
            "labels": {"team": "data"},
            "annotations": {"description": "{{ pipeline }} of {{ client }} belongs to {{ owner }}."},
        },
        comment="one failure heals by itself too often",
        drafts=({"levels": {"warning": 1, "critical": 2}}, {"levels": {"warning": 1, "critical": 4}}),
    ),
    DemoRule(
        "stream-failing",
        {
            "title": "A stream fails",
            "kind": "consecutive_failures",
            "selector": {"pipelines": ["stream_*"]},
            "levels": {"warning": 1, "critical": 3},
            "channels": ["data-team"],
            "runbook_url": f"{RUNBOOKS}/streams",
            "labels": {"team": "data"},
        },
    ),
    DemoRule(
        "stream-quiet",
        {
            "title": "Nothing from a stream",
            "kind": "no_data",
            "selector": {"pipelines": ["stream_*"]},
            "levels": {"warning": 180, "critical": 900},
            "channels": ["data-team"],
            "runbook_url": f"{RUNBOOKS}/streams",
        },
    ),
    DemoRule(
        "marts-failing-often",
        {
            "title": "Many runs of a mart fail",
            "kind": "failure_rate",
            "params": {"window_s": 6 * HOUR, "min_runs": 4, "min_failures": 2},
            "selector": {"tags": ["dbt"]},
            "levels": {"warning": 0.3, "critical": 0.6},
            "for_s": 600,
            "keep_firing_s": 1800,
            "channels": ["data-team"],
        },
    ),
    DemoRule(
        "marts-slow",
        {
            "title": "A mart takes long",
            "kind": "duration_threshold",
            "selector": {"tags": ["dbt"], "environments": ["prod"]},
            "levels": {"warning": 900, "critical": 1800},
            "recover_consecutive": 2,
            "channels": ["data-team"],
        },
    ),
    DemoRule(
        "start-missed",
        {
            "title": "A start did not come",
            "kind": "missed_run",
            "selector": {"tags": ["bi", "reverse-etl"], "environments": ["prod"]},
            "levels": {"warning": 2, "critical": 4},
            "evaluation_delay_s": 120,
            "channels": ["data-team"],
            "annotations": {"summary": "{{ client }}: {{ pipeline }} was expected {{ value }} times and did not come"},
        },
    ),
    DemoRule(
        "finance-missed",
        {
            "title": "A report of finance did not come",
            "kind": "missed_run",
            "selector": {"owners": ["finance-data"], "tags": ["report", "marts"], "environments": ["prod"]},
            "levels": {"critical": 1},
            "evaluation_delay_s": 120,
            "channels": ["finance"],
            "labels": {"team": "finance"},
        },
    ),
    DemoRule(
        "runs-too-long",
        {
            "title": "A run goes on and on",
            "kind": "overrun",
            "selector": {"tags": ["ml", "snapshot"]},
            "levels": {"warning": 2.5 * HOUR, "critical": 5 * HOUR},
            "channels": ["data-team"],
        },
    ),
    DemoRule(
        "backup-stale",
        {
            "title": "No backup for more than a day",
            "kind": "freshness",
            "selector": {"tags": ["backup"], "environments": ["prod"]},
            "levels": {"warning": 28 * HOUR, "critical": 76 * HOUR},
            "new_target_grace_s": 24 * HOUR,
            "channels": ["data-team"],
            "runbook_url": f"{RUNBOOKS}/backups",
        },
    ),
    DemoRule(
        "client-quiet",
        {
            "title": "Nothing from a client",
            "kind": "client_no_data",
            "selector": {"clients": ["solar-city-*"]},
            "levels": {"warning": 2 * HOUR, "critical": 5 * HOUR},
            "channels": ["data-team"],
        },
    ),
    DemoRule(
        "orders-few",
        {
            "title": "Few orders came in",
            "kind": "metric_threshold",
            "params": {"metric": "rows", "direction": "below"},
            "selector": {"pipelines": ["ingest_orders"]},
            "levels": {"warning": 40_000, "critical": 20_000},
            "channels": ["acme-ops"],
        },
        client="acme-retail",
    ),
    DemoRule(
        "staging-failing",
        {
            "title": "Staging fails",
            "kind": "consecutive_failures",
            "selector": {"environments": ["staging"]},
            "levels": {"warning": 2},
            "repeat_s": None,
            "channels": ["data-team"],
        },
    ),
    DemoRule(
        "quality-strict",
        {
            "title": "A check failed",
            "kind": "consecutive_failures",
            "selector": {"tags": ["quality"]},
            "levels": {"warning": 1, "critical": 3},
            "channels": ["data-team"],
            "is_dry_run": True,
        },
        comment="let us see for a week how often it would fire",
    ),
)

SILENCES = (
    DemoSilence(-31 * 24.0, -30.5 * 24, "Announced: the new data center", {"clients": ["kite-airlines"]}),
    DemoSilence(-4 * 24.0, -3.5 * 24, "Delta Freight is offline", {"clients": ["delta-freight"]}),
    DemoSilence(
        -2.0,
        48.0,
        "The dashboards move to another tool",
        {"clients": ["bluewater-bank"], "pipelines": ["refresh_*"]},
    ),
    DemoSilence(-48.0, 120.0, "Staging is being rebuilt", {"environments": ["staging"]}),
)
# Alerts that go on when the demo starts: with the first of them something is done.
TAKEN_ON = ("ingest-failing", "acme-retail")
