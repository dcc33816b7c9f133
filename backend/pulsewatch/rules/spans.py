"""What kinds share in SQL: thresholds that time runs into, and the runs of a span of time."""

from pulsewatch.rules.known_runs import KEY, Of

DECIMALS = 6
# As far as any history goes, and what can be added to any time.
MOST_S = 10 * 366 * 86_400


def next_at(reference: str) -> str:
    """An expression over `asked`: when the time since `reference` reaches the next threshold; null: it has them all."""
    return f"""least(
        case
            when {reference} + make_interval(secs => asked.thresholds[1]) > asked.as_of
                then {reference} + make_interval(secs => asked.thresholds[1])
        end,
        case
            when {reference} + make_interval(secs => asked.thresholds[2]) > asked.as_of
                then {reference} + make_interval(secs => asked.thresholds[2])
        end
    )"""


def seconds_since(reference: str) -> str:
    """An expression over `asked`: seconds from `reference` to as_of, exact to the microsecond; 0 if it is yet to be."""
    return f"greatest(extract(epoch from asked.as_of - {reference}), 0)::double precision"


def hours_of(target: str, from_at: str, of: Of = "pipeline") -> str:
    """A table expression over `target`: its hours with runs that were going on at a time, or began later.

    What ran then is still open, or ended in an hour that came after it.
    """
    key = KEY[of].format("hour", target)
    return f"""(
    select hour.first_at_min
    from pulsewatch.pipeline_hour as hour
    where {key} and hour.hour_at > {from_at} - interval '1 hour'
    union all
    select hour.first_at_min
    from pulsewatch.pipeline_hour as hour
    where {key} and hour.open_count > 0 and hour.hour_at <= {from_at}
)"""


def runs_of_span(back: str = "interval '0'", of: Of = "pipeline") -> str:
    """A table expression over `span`: runs that were going on, began or ended in [from_at - back, to_at).

    Columns: first_at, started_at (null: not known), finished_at, last_at, received_at. Which runs there were is found
    by the hours in which they count; those of the day before are looked at in any case.
    """
    return f"""(
    select
        run.first_at, run.last_at, run.finished_at, run.received_at,
        coalesce(run.start_at, run.implied_start_at) as started_at
    from (
        select least(min(hour.first_at_min), span.from_at - {back} - interval '1 day') as since
        from {hours_of("span", f"span.from_at - {back}", of)} as hour
    ) as searched
    cross join lateral (
        select run.first_at, run.last_at, run.finished_at, run.received_at, run.start_at, run.implied_start_at
        from pulsewatch.run
        where {KEY[of].format("run", "span")}
            and run.first_at >= searched.since
            and run.first_at < span.to_at
            and (run.finished_at is null or greatest(run.finished_at, run.last_at) >= span.from_at - {back})
        offset 0
    ) as run
    offset 0
)"""


def check_seconds(level: float) -> None:
    """A time that can be run into: more than none, and told to the microsecond as the database's times are."""
    if not 0 < level <= MOST_S:
        raise ValueError(f"a number of seconds above 0 and up to {MOST_S}")
    if round(level, DECIMALS) != level:
        raise ValueError("seconds with six decimals at most")


def spoken(seconds: float) -> str:
    """A time as people say it: 45 s, 12 min, 3 h 20 min, 2 d 5 h; the two greatest units."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = int(seconds)
    days, hours, minutes, rest = whole // 86_400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next(index for index, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)
