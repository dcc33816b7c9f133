"""What goes in and out, for the OpenAPI document. The tests hold these against real answers."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from pulsewatch.auth import Role
from pulsewatch.catalog import MAX_SECONDS, MAX_TAGS
from pulsewatch.events import SLUG_PATTERN
from pulsewatch.schedules import MAX_SCHEDULE_LENGTH

RunStatus = Literal["queued", "running", "succeeded", "failed", "cancelled", "skipped", "timed_out"]
Flag = Literal["finish_before_start", "external_id_reused", "assumed_utc", "scheduled_at_ignored"]
AnnotationKind = Literal["deploy", "note"]
EventFlag = Literal["assumed_utc", "scheduled_at_ignored"]
Slug = Annotated[str, Field(pattern=SLUG_PATTERN)]
Item = TypeVar("Item")


class Answer(BaseModel):
    """Something that is answered: always with all its fields."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class Page(Answer, Generic[Item]):
    """Part of a list."""

    items: list[Item]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last.")


class FieldFault(Answer):
    """What is wrong with one field."""

    pointer: str = Field(
        description="RFC 6901 pointer into the body; `?name` for the query, `{name}` for the path.",
        examples=["/schedule"],
    )
    code: str = Field(description="Stable, for machines.", examples=["invalid_schedule"])
    detail: str = Field(description="For people.", examples=["'* * *' has 3 fields; cron has five."])


class ProblemAnswer(BaseModel):
    """An RFC 9457 problem."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="URN that ends in the problem's code.", examples=["urn:pulsewatch:problem:invalid"])
    title: str = Field(description="The status in words.", examples=["Unprocessable Content"])
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(description="What is wrong, for people.", examples=["/schedule: cron has five fields."])
    request_id: str | None = Field(
        None, description="Also in the header X-Request-ID and in the log.", examples=["a01cf2a09cb3f2a8"]
    )
    errors: list[FieldFault] | None = Field(None, description="The fields at fault, where there are some.")


class ClientChanges(BaseModel):
    """What to set of a client. A field that is absent stays; null clears it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"title": "Acme Corp."}]})

    title: str | None = Field(None, max_length=200, description="Name for people.")


class Client(Answer):
    """Whose work it is: the boundary between tenants."""

    slug: Slug = Field(description="Name in URLs and events; never changes.", examples=["acme"])
    title: str | None = Field(description="Name for people.", examples=["Acme Corp."])
    archived_at: datetime | None = Field(description="Set: events are refused, history stays.", examples=[None])
    created_at: datetime = Field(description="First seen.")
    updated_at: datetime = Field(description="Last change.")


class PipelineChanges(BaseModel):
    """What to set of a pipeline. A field that is absent stays; null clears it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "title": "Nightly load",
                    "schedule": "30 2 * * *",
                    "timezone": "Europe/Berlin",
                    "start_grace_s": 300,
                    "max_runtime_s": 3600,
                    "tags": ["dwh", "nightly"],
                    "owner": "data-team@example.com",
                    "environment": "prod",
                }
            ]
        },
    )

    title: str | None = Field(None, max_length=200, description="Name for people.")
    schedule: str | None = Field(
        None,
        max_length=MAX_SCHEDULE_LENGTH,
        description=(
            "Five-field cron (`30 2 * * *`), `@hourly @daily @weekly @monthly @yearly`, or an interval such as "
            "`every 15m` (s, m, h, d; at least 10 seconds)."
        ),
        examples=["30 2 * * *"],
    )
    timezone: str | None = Field(
        None, max_length=100, description="IANA zone of the schedule; null is UTC.", examples=["Europe/Berlin"]
    )
    start_grace_s: float | None = Field(None, ge=0, le=MAX_SECONDS, description="How late a start may be, in seconds.")
    max_runtime_s: float | None = Field(None, gt=0, le=MAX_SECONDS, description="How long a run may take, in seconds.")
    tags: list[Annotated[str, Field(min_length=1, max_length=100)]] | None = Field(
        None, max_length=MAX_TAGS, description="Labels. They are kept sorted, each once."
    )
    owner: str | None = Field(None, max_length=200, description="Who looks after it.")
    environment: str | None = Field(None, max_length=100, description="prod, staging ...")


class Pipeline(Answer):
    """Something that runs again and again for a client."""

    slug: Slug = Field(description="Name in URLs, unique in the client; never changes.", examples=["nightly"])
    namespace: str = Field(description="As the producer says it; empty for native events.", examples=[""])
    name: str = Field(description="As the producer says it.", examples=["nightly"])
    title: str | None = Field(description="Name for people.", examples=["Nightly load"])
    schedule: str | None = Field(description="When it is expected to run.", examples=["30 2 * * *"])
    timezone: str | None = Field(description="IANA zone of the schedule; null is UTC.", examples=["Europe/Berlin"])
    start_grace_s: float | None = Field(description="How late a start may be, in seconds.", examples=[300])
    max_runtime_s: float | None = Field(description="How long a run may take, in seconds.", examples=[3600])
    tags: list[str] = Field(description="Labels, sorted.", examples=[["dwh", "nightly"]])
    owner: str | None = Field(description="Who looks after it.", examples=["data-team@example.com"])
    environment: str | None = Field(description="prod, staging ...", examples=["prod"])
    archived_at: datetime | None = Field(description="Set: hidden from lists.", examples=[None])
    created_at: datetime = Field(description="First seen.")
    updated_at: datetime = Field(description="Last change.")


class Parent(Answer):
    """The run that started this one, as its producer calls it."""

    namespace: str = Field(examples=[""])
    pipeline: str = Field(examples=["orchestrator"])
    run: str = Field(examples=["2026-01-31"])


class Run(Answer):
    """One execution of a pipeline: what all its events say together."""

    id: UUID = Field(description="The same whatever the order in which events arrived.")
    client: str = Field(description="Slug of its client.", examples=["acme"])
    pipeline: str = Field(description="Slug of its pipeline.", examples=["nightly"])
    external_id: str = Field(description="What the producer calls it.", examples=["2026-01-31"])
    status: RunStatus = Field(description="Status of the winning event.", examples=["failed"])
    scheduled_at: datetime | None = Field(description="When it was due, where a producer said so.")
    started_at: datetime | None = Field(description="Start of the winning attempt; null if unknown.")
    finished_at: datetime | None = Field(description="When it ended; null while it goes on.")
    duration_s: float | None = Field(description="Seconds; null if unknown.", examples=[412.5])
    attempt: int = Field(description="The winning attempt, 0 for the first.", examples=[0])
    error_class: str | None = Field(description="Kind of failure.", examples=["TimeoutError"])
    message: str | None = Field(description="Message of the winning event.", examples=["no answer in 60 s"])
    metrics: dict[str, float] = Field(description="Numbers by name.", examples=[{"rows": 1042}])
    attributes: dict[str, Any] = Field(description="Anything else, by name.", examples=[{"host": "worker-3"}])
    url: str | None = Field(description="Where to look further.", examples=["https://ci.example.com/run/7"])
    parent: Parent | None = Field(description="The run that started this one.")
    flags: list[Flag] = Field(description="What was odd about it.", examples=[[]])
    first_at: datetime = Field(description="The earliest time known of it; lists sort and filter by it.")


class RunEvent(Answer):
    """An immutable fact about a run."""

    status: RunStatus | Literal["info"] = Field(description="`info` changes no status.")
    occurred_at: datetime = Field(description="When it happened, as the producer says.")
    received_at: datetime = Field(description="When it was stored.")
    event_id: str | None = Field(description="The producer's id of the event.")
    attempt: int | None = Field(description="As the producer says; null counts as 0.")
    scheduled_at: datetime | None = Field(description="When the run was due, where the event says it.")
    started_at: datetime | None = Field(description="Start of the run, where the event says it.")
    duration_s: float | None = Field(description="Seconds, where the event says it.")
    message: str | None = Field(description="For people.")
    error_class: str | None = Field(description="Kind of failure.")
    metrics: dict[str, float] = Field(description="Numbers by name.")
    attributes: dict[str, Any] = Field(description="Anything else, by name.")
    url: str | None = Field(description="Where to look further.")
    parent: Parent | None = Field(description="The run that started this one.")
    flags: list[EventFlag] = Field(description="How the event was read.")


class RunWithEvents(Run):
    """A run and its events."""

    events: list[RunEvent] = Field(
        description="Oldest first, at most 1000: of more than that, the first and the last 500."
    )
    has_all_events: bool = Field(
        description="False: `events` may lack some between the first and the last. Those past the keep time of events"
        " are gone and do not count.",
        examples=[True],
    )


class AnnotationRequest(BaseModel):
    """A deploy or note to be written down."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "at": "2026-01-31T06:00:00Z",
                    "kind": "deploy",
                    "text": "loader 2.4.1",
                    "pipeline": "nightly",
                    "url": "https://git.example.com/loader/releases/2.4.1",
                }
            ]
        },
    )

    at: datetime = Field(
        description="When it happened, or began: RFC 3339 with an offset, from 2000 to 400 days ahead."
    )
    until_at: datetime | None = Field(None, description="When it ended, after `at`; leave it out for a moment.")
    kind: AnnotationKind = Field(description="What it is.")
    text: str = Field(min_length=1, max_length=2000, description="For people.")
    pipeline: Slug | None = Field(None, description="The one pipeline it is about; null is all of the client.")
    url: str | None = Field(None, max_length=2000, pattern=r"^https?://[^\s]+$", description="Where to look further.")


class Annotation(Answer):
    """A deploy or note that people want to see beside the runs."""

    id: UUID = Field(description="For deleting it.")
    client: str = Field(description="Slug of its client.", examples=["acme"])
    pipeline: str | None = Field(description="The one pipeline it is about; null: all.", examples=["nightly"])
    at: datetime = Field(description="When it happened, or began.")
    until_at: datetime | None = Field(description="When it ended; null: a moment.", examples=[None])
    kind: AnnotationKind = Field(description="What it is.", examples=["deploy"])
    text: str = Field(description="For people.", examples=["loader 2.4.1"])
    url: str | None = Field(
        description="Where to look further.", examples=["https://git.example.com/loader/releases/2.4.1"]
    )
    created_at: datetime = Field(description="When it was written down.")


class Reject(Answer):
    """An item that ingestion refused."""

    received_at: datetime = Field(description="When it came in.")
    client: str | None = Field(description="Slug of the client it was for, where known.", examples=["acme"])
    key_id: UUID | None = Field(description="The API key that sent it.")
    source: str = Field(description="The wire.", examples=["native"])
    code: str = Field(description="Why it was refused, for machines.", examples=["naive_time"])
    pointer: str = Field(description="JSON pointer to the field at fault.", examples=["/occurred_at"])
    detail: str = Field(description="Why it was refused, for people.", examples=["The time needs an offset."])
    item: str = Field(description="Its first 8192 bytes, as it came.", examples=['{"type": "run"}'])


class KeyRequest(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"role": "ingest", "client": "acme", "name": "airflow"}]},
    )

    role: Role = Field(description="admin includes write, write includes read and ingest; ingest reads nothing.")
    client: Slug | None = Field(None, description="The one client it may see; null is all.")
    name: str | None = Field(None, max_length=200, description="What it is for.")
    expires_at: datetime | None = Field(
        None, description="From then on it is refused. RFC 3339 with an offset.", examples=["2099-01-31T00:00:00Z"]
    )


class Key(Answer):
    """An API key, without the key itself."""

    id: UUID = Field(description="For revoking it; not the key.")
    role: Role = Field(description="What it may do.")
    client: str | None = Field(description="The one client it may see; null is all.", examples=["acme"])
    name: str | None = Field(description="What it is for.", examples=["airflow"])
    created_at: datetime = Field(description="When it was made.")
    expires_at: datetime | None = Field(description="From then on it is refused.")
    revoked_at: datetime | None = Field(description="Set: it is refused.")
    last_used_at: datetime | None = Field(description="Last use, written at most once a minute.")


class NewKey(Key):
    """A key that was just made."""

    key: str = Field(description="The key. It is shown this once.", examples=["pw_..."])


class Health(Answer):
    """The process is alive."""

    status: Literal["ok"]


class Part(Answer):
    """One thing that PulseWatch needs."""

    ok: bool
    detail: str = Field(examples=["2 s ago"])


class Readiness(Answer):
    """Whether everything is there that is needed to serve."""

    status: Literal["ready", "not_ready"]
    database: Part
    migrations: Part
    worker: Part


class ClientPage(Page[Client]):
    """Part of the list."""


class PipelinePage(Page[Pipeline]):
    """Part of the list."""


class RunPage(Page[Run]):
    """Part of the list."""


class AnnotationPage(Page[Annotation]):
    """Part of the list."""


class RejectPage(Page[Reject]):
    """Part of the list."""


class KeyPage(Page[Key]):
    """Part of the list."""
