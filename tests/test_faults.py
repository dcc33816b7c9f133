"""What an acknowledgement is worth when things break: real processes, real sockets, real commits."""

import asyncio
import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import httpx
import psycopg
import pytest

from pulsewatch import alerting
from pulsewatch.auth import Role
from pulsewatch.db import make_engine
from pulsewatch.embedded import EmbeddedPostgres
from pulsewatch.events import RunEvent, Status
from pulsewatch.migrate import migrate
from pulsewatch.settings import Settings
from tests.alert_stage import Stage, at
from tests.conftest import TEMPLATE, VERSION, create_database, drop_database
from tests.serving import DEADLINE_S, Relay, Server, is_ingest_waiting, make_key, scalar, serve, wait_until
from tests.telling import add_channel

pytestmark = pytest.mark.slow

AT = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
TABLES = ("client", "pipeline", "run", "run_event", "dirty", "ingest_stat", "ingest_reject")


def event(run: str, status: str = "running", client: str = "acme") -> dict[str, str]:
    words = {"type": "run", "client": client, "pipeline": "nightly", "occurred_at": AT.isoformat()}
    return words | {"run": run, "status": status}


def post(server: Server, headers: dict[str, str], *events: dict[str, str]) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/events", json=events, headers=headers, timeout=DEADLINE_S)


def told(answer: httpx.Response) -> tuple[int, int, int]:
    """Status, accepted and duplicates of an answer."""
    said = answer.json()
    return answer.status_code, said.get("accepted", 0), said.get("duplicates", 0)


def stored_events(dsn: str, client: str) -> int:
    own = f"client_id = (select id from pulsewatch.client where slug = '{client}')"
    return scalar(dsn, f"select count(*) from pulsewatch.run_event where {own}")


@contextmanager
def held(dsn: str, statement: str) -> Iterator[psycopg.Connection]:
    """Hold a lock against ingestion until the block ends."""
    with psycopg.connect(dsn) as holder:
        holder.execute(statement.encode())
        yield holder


# All of a transaction is written by the time it counts its outcomes, and nothing is committed.
BEFORE_THE_COMMIT = "lock table pulsewatch.ingest_stat in exclusive mode"
BEFORE_ALL = "select pg_advisory_xact_lock(hashtext('pulsewatch.ingest'))"


@dataclass(frozen=True)
class Standing:
    """A server that several tests share, each with a client of its own: one writer, and a queue of 50 events."""

    dsn: str
    relay: Relay
    server: Server
    headers: dict[str, str]


@pytest.fixture(scope="module")
def standing(server: str) -> Iterator[Standing]:
    dsn = create_database(server, "pulsewatch_faults", TEMPLATE)
    _, headers = make_key(dsn)
    with Relay(dsn) as relay, serve(relay.dsn, ingest_writers=1, ingest_queue_events=50) as running:
        yield Standing(dsn, relay, running, headers)
    drop_database(server, "pulsewatch_faults")


def test_an_api_killed_between_commit_and_answer_and_a_retry_give_one_event(standing: Standing) -> None:
    dsn, headers = standing.dsn, standing.headers
    committed = "select count(*) from pulsewatch.run where external_id = 'r1'"
    with Relay(dsn) as relay, ThreadPoolExecutor(1) as threads, serve(relay.dsn) as server:
        for writer in ("a thread", "the loop"):
            assert told(post(server, headers, event(writer, client="killed"))) == (200, 1, 0)
        relay.withholds = True
        sending = threads.submit(post, server, headers, event("r1", client="killed"))
        assert relay.withheld.wait(DEADLINE_S)
        # PostgreSQL has committed; the api does not know it yet, let alone the client.
        assert scalar(dsn, committed) == 1
        server.kill()
        with pytest.raises(httpx.TransportError):
            sending.result()
    assert told(post(standing.server, headers, event("r1", client="killed"))) == (200, 0, 1)
    assert stored_events(dsn, "killed") == 3
    assert scalar(dsn, committed) == 1


def test_an_api_killed_while_a_transaction_is_open_leaves_nothing_half_written(standing: Standing) -> None:
    def counts() -> list[int]:
        return [scalar(standing.dsn, f"select count(*) from pulsewatch.{table}") for table in TABLES]

    dsn, events = standing.dsn, [event("r1", client="open"), event("r2", client="open")]
    before = counts()
    with ThreadPoolExecutor(1) as threads, serve(dsn) as server:
        with held(dsn, BEFORE_THE_COMMIT):
            sending = threads.submit(post, server, standing.headers, *events)
            wait_until(lambda: is_ingest_waiting(dsn), "the transaction is open")
            server.kill()
        with pytest.raises(httpx.TransportError):
            sending.result()
    active = "datname = current_database() and state like '%transaction%' and application_name like 'pulsewatch %'"
    wait_until(lambda: not scalar(dsn, f"select count(*) from pg_stat_activity where {active}"), "it is rolled back")
    assert counts() == before
    assert told(post(standing.server, standing.headers, *events)) == (200, 2, 0)


def test_sigterm_drains_what_was_taken(database: str) -> None:
    _, headers = make_key(database)
    with ThreadPoolExecutor(8) as threads, serve(database, ingest_writers=1) as server:
        with held(database, BEFORE_ALL) as holder:
            sending = [threads.submit(post, server, headers, event("r"))]
            wait_until(lambda: is_ingest_waiting(database), "a writer waits")
            sending += [threads.submit(post, server, headers, event(f"r{n}")) for n in range(7)]
            wait_until(lambda: queued(server) == 7, "the others wait in the queue")
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not takes_connections(server), "the server takes no more connections")
            holder.rollback()
        assert [told(each.result()) for each in sending] == [(200, 1, 0)] * 8
        assert server.process.wait(DEADLINE_S) == 0
    assert stored_events(database, "acme") == 8


def queued(server: Server) -> int:
    """How many events wait for a writer, as the metrics have it."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("pulsewatch_ingest_queue_events ")]
    return int(float(line.split()[1]))


def takes_connections(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
    except OSError:
        return False
    return True


def test_overload_is_503_with_retry_after_and_no_acknowledged_event_is_lost(standing: Standing) -> None:
    dsn, keys = standing.dsn, [make_key(standing.dsn)[1] for _ in range(4)]

    async def run() -> list[list[httpx.Response]]:
        async with httpx.AsyncClient(base_url=standing.server.url, timeout=DEADLINE_S) as client:

            async def send(key: int, number: int) -> httpx.Response:
                events = [event(f"{key}-{number}-{n}", client="overload") for n in range(10)]
                return await client.post("/v1/events", json=events, headers=keys[key])

            with held(dsn, BEFORE_ALL):
                first = asyncio.ensure_future(send(0, 0))
                await asyncio.to_thread(wait_until, lambda: is_ingest_waiting(dsn), "the writer waits")
                sent = [[asyncio.ensure_future(send(key, number)) for number in range(1, 9)] for key in range(4)]
                answered = asyncio.as_completed([each for every in sent for each in every])
                for _ in range(27):  # 32 requests, of which the queue takes 5
                    assert (await next(answered)).status_code == 503
            return [[await first], *[[await each for each in every] for every in sent]]

    first, *by_key = asyncio.run(run())
    answers = [answer for answers in by_key for answer in answers]
    assert told(first[0]) == (200, 10, 0)
    assert Counter(answer.status_code for answer in answers) == {200: 5, 503: 27}
    assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 503} == {"1"}
    assert max(sum(answer.status_code == 200 for answer in each) for each in by_key) == 2  # half of the queue
    assert stored_events(dsn, "overload") == 60


def test_a_client_that_hangs_up_is_no_error_and_a_whole_request_of_his_is_stored_once(standing: Standing) -> None:
    dsn, server = standing.dsn, standing.server
    events = (event("r1", client="hasty"), event("r2", client="hasty"))
    body = json.dumps(events[0]).encode()
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: {standing.headers['Authorization']}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    for part in (head[:20], head, head + body[:-1]):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(part)
    with held(dsn, BEFORE_ALL), socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head + body)
        wait_until(lambda: is_ingest_waiting(dsn), "the event is being stored")
        client.close()
    wait_until(lambda: stored_events(dsn, "hasty") == 1, "it is stored")
    assert told(post(server, standing.headers, *events)) == (200, 1, 1)


def test_without_a_database_everything_is_503_with_retry_after_until_it_is_back(standing: Standing) -> None:
    server, headers = standing.server, standing.headers
    _, unknown = make_key(standing.dsn, Role.WRITE)
    assert told(post(server, headers, event("r1", client="away"))) == (200, 1, 0)
    standing.relay.cut()
    away = [
        post(server, headers, event("r2", client="away")),  # a key that is remembered
        post(server, unknown, event("r2", client="away")),  # and one that is not
        httpx.get(f"{server.url}/v1/runs", headers=unknown),
        httpx.get(f"{server.url}/ready"),
    ]
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    standing.relay.open()
    assert [(answer.status_code, "retry-after" in answer.headers) for answer in away] == [(503, True)] * 4
    assert {answer.headers["content-type"] for answer in away[:3]} == {"application/problem+json"}
    assert told(post(server, headers, event("r2", client="away"))) == (200, 1, 0)
    assert httpx.get(f"{server.url}/v1/runs", headers=unknown).status_code == 200


class Load:
    """Clients that post until they are told to stop, each batch again until it is acknowledged."""

    BATCH = 5

    def __init__(self, server: Server, headers: dict[str, str], clients: int) -> None:
        self._server, self._headers = server, headers
        self._is_over = threading.Event()
        self._numbers = count()
        self.acknowledged: set[str] = set()
        self.oddities: list[str] = []
        self.refusals = 0
        self._threads = ThreadPoolExecutor(clients)
        self._posting = [self._threads.submit(self._post) for _ in range(clients)]

    def wait_for_acknowledgements(self, more: int) -> None:
        goal = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= goal, f"{more} more runs are acknowledged")

    def wait_for_refusal(self) -> None:
        before = self.refusals
        wait_until(lambda: self.refusals > before, "clients are told to come again")

    def finish(self) -> None:
        """Wait until everything that was sent is acknowledged."""
        self._is_over.set()
        for each in self._posting:
            each.result()
        self._threads.shutdown()

    def _post(self) -> None:
        with httpx.Client(base_url=self._server.url, headers=self._headers, timeout=DEADLINE_S) as client:
            while not self._is_over.is_set():
                number = next(self._numbers)
                # Every run is met twice, so that writers wait for one another.
                runs = [f"r{number * self.BATCH + n}" for n in range(self.BATCH)]
                for status in ("running", "succeeded"):
                    self._post_until_acknowledged(client, [event(run, status) for run in runs])
                self.acknowledged.update(runs)

    def _post_until_acknowledged(self, client: httpx.Client, events: list[dict[str, str]]) -> None:
        while True:
            answer = client.post("/v1/events", json=events)
            if answer.status_code == 200:
                said = answer.json()
                if said["accepted"] + said["duplicates"] != len(events):
                    self.oddities.append(answer.text)
                return
            self.refusals += 1
            if answer.status_code != 503 or "retry-after" not in answer.headers:
                self.oddities.append(f"{answer.status_code} {answer.text}")
                return
            # Sooner than Retry-After asks: that is seconds, and this is a test.
            self._is_over.wait(0.05)


@pytest.fixture
def breakable(data_dir: Path) -> Iterator[tuple[EmbeddedPostgres, str]]:
    """A server that the test may stop, durable as in real life, and the address of its migrated database."""
    settings = Settings.model_validate({"data_dir": data_dir, "embedded_version": VERSION})
    embedded = EmbeddedPostgres(settings)
    with embedded as dsn:
        migrate(dsn, settings)
        yield embedded, dsn


def test_postgresql_restarted_under_load_loses_and_doubles_nothing_that_is_ever_acknowledged(
    breakable: tuple[EmbeddedPostgres, str],
) -> None:
    embedded, dsn = breakable
    _, headers = make_key(dsn)
    with serve(dsn, ingest_writers=2) as server:
        load = Load(server, headers, clients=6)
        for mode in ("fast", "immediate"):
            load.wait_for_acknowledgements(100)
            embedded.stop(mode)
            kept = set(load.acknowledged)
            load.wait_for_refusal()
            embedded.start()
            with psycopg.connect(dsn) as connection:
                rows = connection.execute(
                    "select external_id from pulsewatch.run_event inner join pulsewatch.run"
                    " on run_event.client_id = run.client_id and run_event.run_id = run.id"
                    " group by external_id having count(*) = 2"
                ).fetchall()
            assert kept <= {run for (run,) in rows}
        load.wait_for_acknowledgements(100)
        load.finish()
    assert load.oddities == []
    sent = len(load.acknowledged)
    assert scalar(dsn, "select count(*) from pulsewatch.run_event") == 2 * sent
    assert scalar(dsn, "select count(*) from pulsewatch.run where status = 'succeeded'") == sent
    assert scalar(dsn, "select count(*) from pulsewatch.run") == sent


def test_what_a_crash_takes_back_of_a_tick_the_next_one_does(breakable: tuple[EmbeddedPostgres, str]) -> None:
    embedded, dsn = breakable
    engine = make_engine(dsn, pool_size=5, application_name="tests")
    stage = Stage(engine, Settings())
    stage.receive(0, *(RunEvent("acme", "nightly", f"r{n}", Status.FAILED, at(n / 2)) for n in range(2)))
    with engine.begin() as connection:
        add_channel(connection)
    stage.rule(1, channels=["ops"])
    stage.work(2)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("alter system set autovacuum = off")
        admin.execute("select pg_reload_conf()")
    # What does not wait for the disk gets there by this process, or with the next commit that waits.
    writer = scalar(dsn, "select pid from pg_stat_activity where backend_type = 'walwriter'")
    os.kill(writer, signal.SIGSTOP)
    assert alerting.tick(engine, at(2)) is not None
    assert stage.events() == [(2, "nightly", "fired", 1)]
    os.kill(writer, signal.SIGKILL)
    embedded.stop("immediate")
    embedded.start()
    assert stage.events() == stage.rows("select from pulsewatch.notification") == []
    assert alerting.tick(engine, at(2.5)) is not None
    assert stage.events() == [(2.5, "nightly", "fired", 1)]
    assert stage.rows("select status, reason from pulsewatch.notification") == [("pending", "fired")]
    assert stage.rows("select from pulsewatch.alert_mark") == []
    engine.dispose()
