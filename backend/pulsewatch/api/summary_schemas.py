"""What summaries answer, for the OpenAPI document."""

from datetime import datetime

from pydantic import Field

from pulsewatch.api.schemas import Answer


class Numbers(Answer):
    """What happened in some time. Outcomes and durations count in the hour in which a run finished, starts in that in
    which it started, late and missed ones in that in which the start was expected."""

    started_count: int = Field(description="Runs that started.", examples=[25])
    succeeded_count: int = Field(description="Runs that succeeded.", examples=[22])
    failed_count: int = Field(description="Runs that failed.", examples=[1])
    timed_out_count: int = Field(description="Runs that took longer than they may.", examples=[1])
    cancelled_count: int = Field(description="Runs that were cancelled.", examples=[0])
    skipped_count: int = Field(description="Runs that were skipped.", examples=[0])
    finished_count: int = Field(description="All that finished: the five before, together.", examples=[24])
    retried_count: int = Field(description="Finished runs of a later attempt than the first.", examples=[2])
    on_time_count: int = Field(description="Expected starts that were met in time.", examples=[22])
    late_count: int = Field(description="Expected starts that were met late.", examples=[1])
    missed_count: int = Field(description="Expected starts that were not met.", examples=[1])
    success_rate: float | None = Field(
        description="Succeeded of all that succeeded, failed or timed out; null if none did.",
        examples=[0.9166666666666666],
    )
    failure_rate: float | None = Field(
        description="The others of these; null if there are none.", examples=[0.08333333333333333]
    )
    retry_rate: float | None = Field(
        description="Retried of finished; null if none did.", examples=[0.08333333333333333]
    )
    on_time_rate: float | None = Field(
        description="Met in time of all expected starts; null if none was expected.", examples=[0.9166666666666666]
    )
    duration_count: int = Field(description="Finished runs whose duration is known.", examples=[24])
    duration_sum_s: float = Field(description="Sum of their durations in seconds.", examples=[1476.0])
    duration_avg_s: float | None = Field(
        description="Mean duration in seconds; null if none is known.", examples=[61.5]
    )
    duration_min_s: float | None = Field(description="The shortest, in seconds.", examples=[41.2])
    duration_max_s: float | None = Field(description="The longest, in seconds.", examples=[340.0])
    duration_p50_s: float | None = Field(description="The median in seconds, at most 4.5 % off.", examples=[58.7])
    duration_p95_s: float | None = Field(description="95th percentile in seconds, likewise.", examples=[75.1])
    duration_p99_s: float | None = Field(description="99th percentile in seconds, likewise.", examples=[340.0])
    rows_sum: float | None = Field(description="Sum of the metric `rows`; null if no run told it.", examples=[120000])
    bytes_sum: float | None = Field(
        description="Sum of the metric `bytes`; null if no run told it.", examples=[9012224]
    )


class NumbersAt(Numbers):
    """The same of one hour or day."""

    at: datetime = Field(description="Start of the hour or day (UTC).")


class ClientNumbers(Numbers):
    """The same of one client."""

    client: str = Field(description="Slug of the client.", examples=["acme"])
    title: str = Field(description="Name for people; the slug where none is given.", examples=["Acme Corp."])
    is_archived: bool = Field(description="It is no longer in use.", examples=[False])


class Summary(Answer):
    """What happened in a window, as a whole and step by step."""

    from_: datetime = Field(alias="from", description="Start of the first hour.", examples=["2026-01-30T06:00:00Z"])
    to: datetime = Field(description="End of the last hour.", examples=["2026-01-31T06:00:00Z"])
    totals: Numbers = Field(description="The whole window. Percentiles are those of all its runs together.")
    series: list[NumbersAt] = Field(
        description="Each hour or day of the window, in order, zeros where nothing happened; days are whole (UTC), also"
        " at both ends. Empty for `step=none`."
    )


class FleetSummary(Summary):
    """The same over all clients that the key may see, and of each of them."""

    clients: list[ClientNumbers] = Field(
        description="Each client, by slug, also where nothing happened. Archived ones only where something did."
    )
