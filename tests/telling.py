"""Rules, alerts and channels straight into tables, and a receiver that answers as a test says."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection, text

from pulsewatch.channels.base import Reason
from pulsewatch.notifying import Told
from pulsewatch.outbound import Outbound
from pulsewatch.rules.base import Described, Level
from pulsewatch.rules.rule import Rule
from pulsewatch.rules.spec import RuleSpec
from tests.rows import NAMES, NOON

LOOPBACK = [ip_network("127.0.0.0/8")]
SPEC = {"kind": "consecutive_failures", "title": "Failing", "levels": {"warning": 2, "critical": 5}}


def outbound() -> Outbound:
    """The way out, with loopback opened."""
    return Outbound(LOOPBACK)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def one(connection: Connection, statement: str, **values: object) -> Any:
    return connection.execute(text(statement), values).scalar_one()


def add_target(connection: Connection, client: str = "acme", pipeline: str = "load", **described: Any) -> Described:
    """A client with a pipeline, of which tags, owner and environment may be said."""
    client_id = one(
        connection,
        "insert into pulsewatch.client (slug) values (:slug) on conflict (slug) do update set slug = excluded.slug"
        " returning id",
        slug=client,
    )
    pipeline_id = one(
        connection,
        "insert into pulsewatch.pipeline (client_id, slug, name, identity_digest, tags, owner, environment)"
        " values (:client_id, :slug, :slug, gen_random_uuid(), :tags, :owner, :environment) returning id",
        client_id=client_id,
        slug=pipeline,
        tags=list(described.get("tags", ())),
        owner=described.get("owner"),
        environment=described.get("environment"),
    )
    return Described(client_id, pipeline_id, client, pipeline, **described)


def add_rule(connection: Connection, key: str = "failing", client_id: int | None = None, **said: Any) -> Rule:
    """A rule in its first version."""
    spec = RuleSpec.model_validate({**SPEC, "channels": ["ops"], **said})
    rule_id = one(
        connection,
        "insert into pulsewatch.alert_rule (client_id, key, version, kind, is_enabled)"
        " values (:client_id, :key, 1, :kind, true) returning id",
        client_id=client_id,
        key=key,
        kind=spec.kind,
    )
    rule = Rule(rule_id, client_id, key, 1, spec)
    _add_version(connection, rule, "created")
    return rule


def change_rule(connection: Connection, rule: Rule, made_s: float = -60, **said: Any) -> Rule:
    """The rule's next version."""
    changed = replace(
        rule, version=rule.version + 1, spec=RuleSpec.model_validate({**rule.spec.model_dump(mode="json"), **said})
    )
    connection.execute(
        text("update pulsewatch.alert_rule set version = :version where id = :id"),
        {"version": changed.version, "id": changed.id},
    )
    _add_version(connection, changed, "changed", made_s)
    return changed


def _add_version(connection: Connection, rule: Rule, change: str, made_s: float = -60) -> None:
    connection.execute(
        text(
            "insert into pulsewatch.alert_rule_version (rule_id, version, change, spec, created_at)"
            " values (:rule_id, :version, :change, cast(:spec as jsonb), :made_at)"
        ),
        {
            "rule_id": rule.id,
            "version": rule.version,
            "change": change,
            "spec": rule.spec.model_dump_json(),
            "made_at": after(made_s),
        },
    )


def add_channel(
    connection: Connection,
    url: str = "http://127.0.0.1:9/",
    key: str = "ops",
    client_id: int | None = None,
    rate_per_min: int = 6000,
    *,
    is_enabled: bool = True,
    kind: str = "webhook",
) -> int:
    """A webhook; its id."""
    return int(
        one(
            connection,
            "insert into pulsewatch.channel (client_id, key, kind, config, rate_per_min, is_enabled)"
            " values (:client_id, :key, :kind, cast(:config as jsonb), :rate_per_min, :is_enabled) returning id",
            client_id=client_id,
            key=key,
            kind=kind,
            config=json.dumps({"url": url}),
            rate_per_min=rate_per_min,
            is_enabled=is_enabled,
        )
    )


def add_silence(
    connection: Connection, from_s: float, until_s: float, client_id: int | None = None, **matchers: Any
) -> UUID:
    silence_id: UUID = one(
        connection,
        "insert into pulsewatch.silence (client_id, matchers, starts_at, ends_at, comment)"
        " values (:client_id, cast(:matchers as jsonb), :starts_at, :ends_at, 'because') returning id",
        client_id=client_id,
        matchers=json.dumps(matchers),
        starts_at=after(from_s),
        ends_at=after(until_s),
    )
    return silence_id


def add_alert(connection: Connection, rule: Rule, target: Described, name: str = "a", **said: Any) -> Told:
    """An alert that fired at noon, and the event that tells so."""
    told = Told(
        client_id=target.client_id,
        alert_id=uuid5(NAMES, name),
        event_as_of=NOON,
        event_seq=1,
        reason=Reason.FIRED,
        rule=rule,
        target=target,
        level=Level.WARNING,
        prev_level=Level.NONE,
        max_level=Level.WARNING,
        value=2.0,
        threshold=2.0,
        summary=f"{target.name}: 2 runs in a row failed",
        fired_at=NOON,
        resolved_at=None,
        acknowledged_at=None,
        snoozed_until=None,
        labels={"team": "data"},
        annotations={"description": "Call."},
        run_ids=(uuid5(NAMES, "run"),),
        is_backfill=False,
        is_dry_run=False,
    )
    told = replace(told, **said)
    connection.execute(
        text(
            "insert into pulsewatch.alert (client_id, id, rule_id, rule_version, pipeline_id, level, max_level,"
            " fired_at, value, threshold, summary, is_backfill, is_dry_run)"
            " values (:client_id, :id, :rule_id, :version, :pipeline_id, :level, :level, :fired_at, :value, :threshold,"
            " :summary, :is_backfill, :is_dry_run)"
        ),
        {
            "client_id": told.client_id,
            "id": told.alert_id,
            "rule_id": rule.id,
            "version": rule.version,
            "pipeline_id": target.pipeline_id,
            "level": int(told.level),
            "fired_at": told.fired_at,
            "value": told.value,
            "threshold": told.threshold,
            "summary": told.summary,
            "is_backfill": told.is_backfill,
            "is_dry_run": told.is_dry_run,
        },
    )
    return told


def set_alert(connection: Connection, told: Told, **values: Any) -> None:
    """Change columns of its alert."""
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    connection.execute(
        text(f"update pulsewatch.alert set {assignments} where client_id = :client_id and id = :id"),
        {**values, "client_id": told.client_id, "id": told.alert_id},
    )


def worse(connection: Connection, told: Told, seconds: float, seq: int = 2) -> Told:
    """The event that it has become critical; whoever took it on did so as bad as it was."""
    set_alert(connection, told, level=2, max_level=2, value=5, acknowledged_at=None, snoozed_until=None)
    return replace(
        told,
        reason=Reason.LEVEL_CHANGED,
        event_as_of=after(seconds),
        event_seq=seq,
        level=Level.CRITICAL,
        prev_level=Level.WARNING,
        max_level=Level.CRITICAL,
        value=5.0,
        threshold=5.0,
        acknowledged_at=None,
        snoozed_until=None,
    )


def over(connection: Connection, told: Told, seconds: float, seq: int = 9) -> Told:
    """The event that it is over."""
    set_alert(connection, told, resolved_at=after(seconds), resolve_reason="recovered")
    return replace(
        told,
        reason=Reason.RESOLVED,
        event_as_of=after(seconds),
        event_seq=seq,
        prev_level=told.level,
        value=0.0,
        resolved_at=after(seconds),
    )


def notifications(connection: Connection, columns: str = "reason, status, held_by") -> list[tuple[Any, ...]]:
    """All of them, in the order of what they tell."""
    query = (
        f"select {columns} from pulsewatch.notification order by alert_id, created_at, event_seq, channel_id, reason"
    )
    return [tuple(row) for row in connection.execute(text(query))]


# -- the far end ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a request gets; status 0: the connection is dropped without a word."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


OK = Answer()
DROP = Answer(0)


@dataclass(frozen=True)
class Got:
    """A request: the id that a receiver tells doubles by, and what it says."""

    id: str
    path: str
    reason: str
    alert_id: str | None
    level: str
    came_s: float


@dataclass
class Receiver:
    """A web server that answers by `script`, and with 200 once that is over."""

    url: str = ""
    script: list[Answer] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    on_request: Callable[[Got], None] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def reasons(self) -> list[str]:
        return [got.reason for got in self.got]

    @property
    def ids(self) -> list[str]:
        return [got.id for got in self.got]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Whoever sent may be gone."""


@contextlib.contextmanager
def receiver(script: Sequence[Answer] = ()) -> Iterator[Receiver]:
    """A receiver on loopback while the block runs."""
    far = Receiver(script=list(script))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["pulsewatch"]
            got = Got(
                self.headers["webhook-id"], self.path, body["reason"], body["alert_id"], body["level"], time.monotonic()
            )
            with far.lock:
                far.got.append(got)
                answer = far.script.pop(0) if far.script else OK
            if far.on_request is not None:
                far.on_request(got)
            time.sleep(answer.delay_s)
            if answer.status:
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        far.url = f"http://127.0.0.1:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield far
        finally:
            server.shutdown()
            thread.join()
