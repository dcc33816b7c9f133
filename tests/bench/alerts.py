"""The tick that evaluates alert rules, and backtests: 10 000 pipelines, three rules, every target touched or some.

A tick is measured as the worker runs it, marks, commit and all, one after another that touches as many. Beside it:
targets asked about one by one, as rules are evaluated where nothing is set-based.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, text

from pulsewatch import alert_targets, backtest, rulebook
from pulsewatch.backtest import Mode
from pulsewatch.db import make_engine
from pulsewatch.observing import Asked, observe
from pulsewatch.rules.rule import Rule
from pulsewatch.rules.spec import RuleSpec
from pulsewatch.worker import Evaluator
from tests.bench.measures import Sizes

GRID = timedelta(seconds=5)
SOME = 500
# Ticks come every 5 s, and autovacuum every 20 s; here they come as fast as they can.
TICKS_OF_A_NAP = 4
ONE_BY_ONE = 300
WINDOW = timedelta(days=30)
KNOWN_PIPELINES = 100
RULES = {
    "failures": {"kind": "consecutive_failures", "levels": {"warning": 3, "critical": 10}},
    "rate": {"kind": "failure_rate", "levels": {"warning": 0.9}, "params": {"window_s": 3600}},
    "slow": {"kind": "duration_threshold", "levels": {"warning": 86_400}},
}
MARK = """
insert into pulsewatch.alert_mark (client_id, pipeline_id, marked_at)
select client_id, id, :marked_at from pulsewatch.pipeline order by client_id, id limit :number
"""


@dataclass(frozen=True, slots=True)
class Timed:
    """What was measured, in milliseconds: the median and the range of its rounds."""

    name: str
    median_ms: float
    least_ms: float
    most_ms: float
    target: str = ""


def measure(dsn: str, until: datetime, sizes: Sizes, advance: Callable[[str], None]) -> list[Timed]:
    """Make the rules, let them settle, and time ticks and backtests at the end of the history."""
    # As the worker has it: a connection for ticks alone, which keeps their plans.
    engine = make_engine(dsn, pool_size=1, application_name="bench", is_preparing=True)
    aside = make_engine(dsn, pool_size=1, application_name="bench", is_preparing=True)
    as_of = until.replace(second=0, microsecond=0)
    advance("alert rules")
    with engine.begin() as connection:
        for key, said in RULES.items():
            spec = RuleSpec.model_validate(said)
            rulebook.save(connection, None, key, spec, rulebook.Said("bench", None, as_of - timedelta(hours=1)))
        connection.execute(text("delete from pulsewatch.alert_mark"))
    # What has long been the case is found once; after that a tick finds what is new.
    evaluator = Evaluator(engine)
    evaluator(as_of - GRID * (sizes.alert_warm_up + 1))
    _vacuum(aside, "alert_target")
    with aside.connect() as connection:
        count = connection.execute(text("select count(*) from pulsewatch.pipeline")).scalar_one()
    rounds: dict[str, list[float]] = {}
    # Each statement has been planned, as in a worker that has run for a minute.
    for number in range(sizes.alert_warm_up):
        _tick(evaluator, aside, as_of + GRID * (number - sizes.alert_warm_up), (count, SOME, 0)[number % 3])
    for name, number in ((f"all {count}", count), (f"{SOME}", SOME), ("no", 0)):
        advance("ticks")
        for turn in range(sizes.alert_rounds + sizes.alert_settling):
            as_of += GRID
            passed = _tick(evaluator, aside, as_of, number)
            if turn % TICKS_OF_A_NAP == 0:
                _vacuum(aside, "alert_mark")
            # The first ones pass over the marks that the ticks of another number took.
            if turn >= sizes.alert_settling:
                rounds.setdefault(f"tick, {name} pipelines touched", []).append(passed)
    advance("targets one by one")
    rounds[f"{ONE_BY_ONE} targets one by one"] = [_one_by_one(aside, as_of) for _ in range(sizes.alert_rounds)]
    found = [timed(name, values) for name, values in rounds.items()]
    advance("backtests")
    found += [_backtest(aside, as_of, "as_final", None), _backtest(aside, as_of, "as_known", KNOWN_PIPELINES)]
    engine.dispose()
    aside.dispose()
    return found


def _vacuum(engine: Engine, table: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"vacuum (analyze) pulsewatch.{table}"))


def timed(name: str, values: list[float]) -> Timed:
    """Seconds of rounds as a line of the table."""
    target = "< 100" if "all" in name else "< 10" if f" {SOME} " in name else ""
    return Timed(name, statistics.median(values) * 1000, min(values) * 1000, max(values) * 1000, target)


def _tick(evaluator: Evaluator, aside: Engine, as_of: datetime, touched: int) -> float:
    """Seconds of one tick, commit and all. The marks come from elsewhere, as those of the rollups do."""
    with aside.begin() as connection:
        connection.execute(text(MARK), {"marked_at": as_of - timedelta(seconds=10), "number": touched})
    began = time.perf_counter()
    if evaluator(as_of) is None:
        raise RuntimeError(f"nothing was evaluated for {as_of}")
    return time.perf_counter() - began


def _one_by_one(engine: Engine, as_of: datetime) -> float:
    with engine.connect() as connection:
        rules = alert_targets.load_rules(connection)
        targets = connection.execute(
            text("select client_id, id from pulsewatch.pipeline order by client_id, id limit :number"),
            {"number": ONE_BY_ONE // len(rules)},
        ).all()
        # Each statement is known by then.
        for rule in rules:
            for client_id, pipeline_id in targets[:1]:
                observe(connection, rule, [Asked(client_id, pipeline_id, as_of, None, as_of)])
        began = time.perf_counter()
        for rule in rules:
            for client_id, pipeline_id in targets:
                observe(connection, rule, [Asked(client_id, pipeline_id, as_of, None, as_of)])
        return time.perf_counter() - began


def _backtest(engine: Engine, as_of: datetime, mode: Mode, pipelines: int | None) -> Timed:
    """One rule over 30 days: of all pipelines, or of one client's."""
    with engine.connect() as connection:
        rule = next(rule for rule in alert_targets.load_rules(connection) if rule.key == "failures")
        if pipelines is not None:
            rule = _of_one_client(connection, rule)
        began = time.perf_counter()
        outcomes = backtest.backtest(connection, rule, as_of - WINDOW, as_of, mode)
        passed = time.perf_counter() - began
    count = sum(len(outcome.episodes) for outcome in outcomes)
    number = pipelines or "all"
    name = f"backtest {mode}, 30 days, {number} pipelines: {count} alerts"
    return Timed(name, passed * 1000, passed * 1000, passed * 1000, "< 5000")


def _of_one_client(connection: Connection, rule: Rule) -> Rule:
    client_id = connection.execute(text("select min(id) from pulsewatch.client")).scalar_one()
    return Rule(rule.id, client_id, rule.key, rule.version, rule.spec)
