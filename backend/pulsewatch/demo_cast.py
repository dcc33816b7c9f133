"""Who appears in the demo: made-up clients, and the pipelines that run for them. Pure; the same seed, the same cast."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Ids(StrEnum):
    """How a client's scheduler names its runs."""

    UUID7 = "uuid7"
    AIRFLOW = "airflow"
    COUNTER = "counter"


class Telling(StrEnum):
    """Which events a pipeline sends of a run."""

    QUEUED_TOO = "queued, running, end"
    PAIR = "running, end"
    END_ONLY = "the end, with its duration"


@dataclass(frozen=True, slots=True)
class Client:
    """A made-up client. `weekend` is its share of a weekday's work on Saturdays and Sundays."""

    slug: str
    title: str
    zone: str
    ids: Ids
    weekend: float
    things: tuple[str, ...]
    sends_event_ids: bool = False


@dataclass(frozen=True, slots=True)
class Trade:
    """A kind of pipeline: what is run, how often, how long it takes, and how it fails."""

    name: str
    title: str
    schedules: tuple[str, ...]
    duration_s: float
    rows: float
    errors: str
    tags: tuple[str, ...]
    fail_rate: float = 0.012
    retries: int = 0
    max_runtime_s: float | None = None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A made-up pipeline. `drift` is how much longer its runs take at the end of the history than at its start."""

    client: Client
    trade: Trade
    name: str
    title: str
    schedule: str
    owner: str
    environment: str
    telling: Telling
    duration_s: float
    rows: float
    drift: float
    start_grace_s: float
    fail_rate: float
    # Only the last days of the history, for what was set up lately; None for all of it.
    young_days: int | None = None
    # The pipeline whose runs start this one's.
    parent: str | None = None


def _client(slug: str, title: str, zone: str, ids: Ids, weekend: float, things: str) -> Client:
    return Client(slug, title, zone, ids, weekend, tuple(things.split()), sends_event_ids=ids is Ids.COUNTER)


CLIENTS = (
    _client("acme-retail", "Acme Retail", "Europe/Berlin", Ids.UUID7, 1.3, "orders baskets returns stock prices"),
    _client("aurora-energy", "Aurora Energy", "Europe/Oslo", Ids.AIRFLOW, 1.0, "meters grid tariffs invoices"),
    _client("bluewater-bank", "Bluewater Bank", "Europe/London", Ids.UUID7, 0.2, "payments accounts cards fraud fees"),
    _client("cedar-health", "Cedar Health", "America/New_York", Ids.AIRFLOW, 0.6, "claims visits labs referrals"),
    _client("delta-freight", "Delta Freight", "America/Chicago", Ids.COUNTER, 0.4, "shipments routes depots customs"),
    _client("elm-insurance", "Elm Insurance", "Europe/Zurich", Ids.UUID7, 0.2, "policies claims premiums brokers"),
    _client("fjord-fisheries", "Fjord Fisheries", "Atlantic/Reykjavik", Ids.COUNTER, 0.9, "catch quotas landings"),
    _client("galaxy-games", "Galaxy Games", "America/Los_Angeles", Ids.UUID7, 1.6, "sessions purchases matches ads"),
    _client("harbor-hotels", "Harbor Hotels", "Asia/Singapore", Ids.UUID7, 1.4, "bookings rates rooms guests"),
    _client("iris-media", "Iris Media", "Europe/Paris", Ids.AIRFLOW, 1.1, "articles views subscriptions ads"),
    _client("juniper-telecom", "Juniper Telecom", "Asia/Kolkata", Ids.UUID7, 0.9, "calls towers topups churn"),
    _client("kite-airlines", "Kite Airlines", "Australia/Sydney", Ids.UUID7, 1.1, "flights bookings crew baggage"),
    _client("lumen-labs", "Lumen Labs", "America/Denver", Ids.COUNTER, 0.3, "samples assays reagents"),
    _client("maple-grocers", "Maple Grocers", "America/Toronto", Ids.UUID7, 1.2, "sales stock suppliers loyalty"),
    _client("nimbus-cloud", "Nimbus Cloud", "UTC", Ids.UUID7, 0.8, "usage tenants invoices incidents"),
    _client("orchid-beauty", "Orchid Beauty", "Asia/Tokyo", Ids.AIRFLOW, 1.3, "orders campaigns reviews"),
    _client("pioneer-motors", "Pioneer Motors", "Europe/Madrid", Ids.UUID7, 0.3, "vehicles parts warranties dealers"),
    _client("quartz-mining", "Quartz Mining", "America/Santiago", Ids.COUNTER, 1.0, "drills haulage assays"),
    _client("river-university", "River University", "Europe/Dublin", Ids.UUID7, 0.3, "students courses grades"),
    _client("solar-city-council", "Solar City Council", "Pacific/Auckland", Ids.UUID7, 0.4, "permits taxes transit"),
)

QUARTERLY = ("*/15 * * * *", "every 15m", "5-59/15 6-22 * * *")
HOURLY = ("@hourly", "7 * * * *", "20 * * * *", "42 * * * *", "12 * * * *", "55 6-21 * * 1-5", "every 1h")
FEW_HOURS = ("10 */4 * * *", "every 6h", "35 5,11,17,23 * * *", "every 3h")
DAILY = ("30 2 * * *", "0 4 * * *", "15 5 * * *", "45 1 * * *", "10 6 * * 1-5", "@daily", "0 22 * * 1-5")
WEEKLY = ("0 3 * * 1", "@weekly", "30 7 * * 1", "0 20 * * 5")

TRADES = (
    Trade("ingest_{}", "Ingest {}", HOURLY, 95, 48_000, "source", ("ingest", "raw"), 0.015, retries=2),
    Trade("dbt_{}", "Build the marts of {}", HOURLY, 240, 210_000, "dbt", ("dbt", "marts"), 0.01, max_runtime_s=3600),
    Trade("sync_{}_to_crm", "Send {} to the CRM", QUARTERLY, 22, 900, "api", ("reverse-etl",), 0.02, retries=3),
    Trade("export_{}_report", "Report on {}", DAILY, 410, 36_000, "files", ("report",), 0.012, retries=1),
    Trade("snapshot_{}", "Snapshot of {}", DAILY, 1_500, 2_600_000, "warehouse", ("snapshot", "raw"), 0.01, retries=1),
    Trade("quality_{}", "Checks on {}", FEW_HOURS, 60, 0, "quality", ("quality",), 0.035),
    Trade("train_{}_forecast", "Train the {} forecast", WEEKLY, 5_400, 900_000, "memory", ("ml",), 0.06, retries=1),
    Trade("score_{}", "Score {}", DAILY, 700, 120_000, "memory", ("ml",), 0.02, max_runtime_s=7200),
    Trade("backup_{}_db", "Back up the {} database", DAILY, 1_150, 0, "files", ("backup", "critical"), 0.006),
    Trade("load_{}_files", "Load {} files from SFTP", FEW_HOURS, 130, 75_000, "files", ("ingest", "sftp"), 0.03, 1),
    Trade("{}-cleanup", "Clean up old {}", WEEKLY, 300, 15_000, "warehouse", ("maintenance",), 0.01),
    Trade("refresh_{}_dashboard", "Refresh the {} dashboard", HOURLY, 35, 0, "warehouse", ("bi",), 0.008, retries=1),
)
STREAMS = Trade("stream_{}", "Micro-batches of {}", ("every 1m",), 11, 640, "source", ("streaming",), 0.004)

TEAMS = ("data-platform", "analytics", "finance-data", "ml-team", "operations", "integrations")
PIPELINES = 250
# How the pipelines share out among the trades: many hourly ones, few of those that run all the time.
WEIGHTS = (6, 4, 1, 5, 4, 3, 1, 2, 2, 3, 1, 3)
# Those with micro-batches: they give the live feed something to show at any moment.
STREAMING = ("acme-retail", "galaxy-games", "nimbus-cloud")
STREAMING_DAYS = 4


def cast(seed: int) -> tuple[Pipeline, ...]:
    """All pipelines, client by client; every name once in its client. Their number is PIPELINES."""
    rng = Random(f"{seed}/cast")  # noqa: S311 - a story, not a secret
    by_client: dict[str, dict[str, Pipeline]] = {client.slug: {} for client in CLIENTS}
    for client in CLIENTS:
        if client.slug in STREAMING:
            stream = _pipeline(client, STREAMS, client.things[0], rng)
            by_client[client.slug][stream.name] = stream
    count = sum(map(len, by_client.values()))
    while count < PIPELINES:
        # The first clients are the large ones.
        client = rng.choice(CLIENTS[:8] if rng.random() < 0.3 else CLIENTS)
        pipeline = _pipeline(client, rng.choices(TRADES, WEIGHTS)[0], rng.choice(client.things), rng)
        own = by_client[client.slug]
        if pipeline.name not in own:
            own[pipeline.name] = pipeline
            count += 1
    return tuple(_started_by(pipeline, own) for own in by_client.values() for pipeline in own.values())


def _pipeline(client: Client, trade: Trade, thing: str, rng: Random) -> Pipeline:
    is_staging = trade is not STREAMS and rng.random() < 0.08
    schedule = rng.choice(trade.schedules)
    size = rng.lognormvariate(0, 0.5)
    return Pipeline(
        client=client,
        trade=trade,
        name=trade.name.format(thing) + ("-staging" if is_staging else ""),
        title=trade.title.format(thing) + (" (staging)" if is_staging else ""),
        schedule=schedule,
        owner=rng.choice(TEAMS),
        environment="staging" if is_staging else "prod",
        telling=rng.choices(tuple(Telling), (1, 6, 2))[0],
        duration_s=round(trade.duration_s * size, 1),
        rows=round(trade.rows * size * rng.lognormvariate(0, 0.3)),
        drift=rng.choice((0, 0, 0, 0.1, 0.25, -0.2)) if rng.random() < 0.95 else 1.4,
        start_grace_s=60.0 if trade is STREAMS else rng.choice((300.0, 600.0, 900.0, 1800.0)),
        fail_rate=trade.fail_rate * (4 if is_staging else 1),
        young_days=STREAMING_DAYS if trade is STREAMS else rng.choice((18, 40)) if rng.random() < 0.06 else None,
    )


def _started_by(pipeline: Pipeline, own: dict[str, Pipeline]) -> Pipeline:
    """The pipeline, started by the ingestion of the same thing where there is one of the same environment."""
    thing = pipeline.name.removeprefix("dbt_")
    parent = own.get(f"ingest_{thing}")
    if thing == pipeline.name or parent is None:
        return pipeline
    return Pipeline(
        **{field: getattr(pipeline, field) for field in Pipeline.__dataclass_fields__}
        | {"schedule": parent.schedule, "young_days": parent.young_days, "parent": parent.name}
    )
