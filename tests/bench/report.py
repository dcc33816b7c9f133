"""The tables, as Markdown."""

from collections.abc import Iterable, Sequence

from tests.bench.alerts import Timed
from tests.bench.measures import Side
from tests.bench.panels import Timing


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def number(value: float) -> str:
    """Three digits or more, with thousands set apart."""
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"


def _spread(side: Side) -> str:
    return f"{number(min(side.rates))} to {number(max(side.rates))}"


def verdict(value: float, target: float) -> str:
    return f"{value:.2f} ({'met' if value >= target else 'missed'})"


def batches(sides: dict[str, Side], *, runs: int, events: int, connections: int) -> str:
    full, copy, empty = sides["full"], sides["copy"], sides["empty"]
    names = {
        "full": f"HTTP, {connections} connections, history of {number(events)} events in {number(runs)} runs",
        "copy": "COPY of the same rows, 1 writer, same table",
        "empty": f"HTTP, {connections} connections, empty tables",
    }
    rows = []
    for name, side in sides.items():
        latencies = [f"{side.latency_ms(percent):.0f}" for percent in (50, 99)]
        costs = [
            number(_median(values)) if values else "" for values in (side.api_us, side.postgres_us, side.generator_us)
        ]
        rows.append([names[name], number(side.rate), _spread(side), *latencies, *costs])
    head = ["1000 events per request or commit", "events/s", "rounds", "p50 ms", "p99 ms"]
    head += ["api us/event", "PostgreSQL us/event", "generator us/event"]
    ratios = [
        ["HTTP / COPY", verdict(full.rate / copy.rate, 0.30), ">= 0.30, aim 0.50"],
        ["rate with history / rate when empty", verdict(full.rate / empty.rate, 0.85), ">= 0.85"],
    ]
    return table(head, rows) + "\n" + table(["ratio of medians", "measured", "target"], ratios)


def alerts(timed: Sequence[Timed]) -> str:
    rows = [
        [one.name, number(one.median_ms), f"{number(one.least_ms)} to {number(one.most_ms)}", one.target]
        for one in timed
    ]
    by_name = {one.name: one.median_ms for one in timed}
    each = next(ms / 300 for name, ms in by_name.items() if name.startswith("300 targets"))
    all_ms = next(ms for name, ms in by_name.items() if name.startswith("tick, all"))
    per_target = f"{number(each / (all_ms / 30_000))} times"
    head = ["10 000 pipelines, 3 rules", "ms", "rounds", "target"]
    return table(head, rows) + f"\nA target looked at alone costs {per_target} what it costs in a tick of all.\n"


def deliveries(timed: Sequence[Timed]) -> str:
    rows = [[one.name, number(one.median_ms), f"{number(one.least_ms)} to {number(one.most_ms)}"] for one in timed]
    told, posted = (one.median_ms for one in timed)
    head = ["to a receiver on this machine", "ms", "rounds"]
    return table(head, rows) + f"\nA message costs {number(told / posted)} times what its post costs alone.\n"


def storage(wal: tuple[float, float], heap_only: float, sizes: str, memory: tuple[float, float]) -> str:
    rows = [
        ["write-ahead log per event, right after a checkpoint", f"{number(wal[0])} B"],
        ["write-ahead log per event, going on", f"{number(wal[1])} B"],
        ["updates of `run` that were heap-only", f"{heap_only:.1%}"],
        ["tables with all their indexes", sizes],
        ["memory of the api process, now / at most", f"{memory[0]:.0f} / {memory[1]:.0f} MB"],
    ]
    return table(["what", "measured"], rows)


def singles(ours: Side, theirs: Side, connections: int) -> str:
    rows = [
        [
            f"single posts, {connections} connections",
            number(ours.rate),
            _spread(ours),
            f"{ours.latency_ms(50):.1f}",
            f"{ours.latency_ms(99):.1f}",
            number(_median(ours.api_us)),
            number(_median(ours.postgres_us)),
            number(_median(ours.generator_us)),
        ],
        [f"Healthchecks pings, pgbench, {connections} connections", number(theirs.rate), _spread(theirs), *[""] * 5],
    ]
    head = ["one event per request, acknowledged after its commit", "per second", "rounds", "p50 ms", "p99 ms"]
    head += ["api us", "PostgreSQL us", "generator us"]
    ratios = [["single posts / pings", verdict(ours.rate / theirs.rate, 4), ">= 4"]]
    return table(head, rows) + "\n" + table(["ratio of medians", "measured", "target"], ratios)


def reads(sides: dict[str, Side], users: int) -> str:
    rows = []
    for name, side in sides.items():
        latencies = [f"{side.latency_ms(percent):.1f}" for percent in (50, 95, 99)]
        rows.append(
            [
                f"`{name}`",
                number(side.rate),
                *latencies,
                number(_median(side.api_us)),
                number(_median(side.postgres_us)),
            ]
        )
    met = "met" if sides["mixed"].latency_ms(95) < 500 else "missed"
    head = [f"{users} open connections", "requests/s", "p50 ms", "p95 ms", "p99 ms", "api us", "PostgreSQL us"]
    return table(head, rows) + f"\nTarget: p95 below 500 ms, aim 100 ({met}).\n"


def panels(timings: Sequence[Timing], *, are_cold: bool) -> str:
    rows = [
        [timing.name, number(timing.rows), number(timing.warm_ms), number(timing.cold_ms)]
        for timing in sorted(timings, key=lambda timing: -timing.warm_ms)
    ]
    slowest = max(timing.warm_ms for timing in timings), max(timing.cold_ms for timing in timings)
    verdicts = ["met" if slowest[0] < 100 else "missed", "met" if slowest[1] < 250 else "missed"]
    cold = "server restarted, files forgotten" if are_cold else "server restarted"
    head = ["query", "rows", "warm ms", f"cold ms ({cold})"]
    return table(head, rows) + f"\nTargets: below 100 ms warm ({verdicts[0]}), below 250 ms cold ({verdicts[1]}).\n"


def _median(values: Sequence[float]) -> float:
    ranked = sorted(values)
    return ranked[len(ranked) // 2]
