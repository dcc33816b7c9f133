"""The measurements. Sides that are compared take turns, round by round; a figure is the median of its rounds."""

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.bench import load, machine, peers, stream
from tests.bench.history import CLIENTS, PIPELINES_PER_CLIENT, client_slug, pipeline_name
from tests.bench.stream import BATCH_EVENTS, Stream
from tests.serving import Server

# How the answer ends where every event was new and good.
ALL_ACCEPTED = b',"duplicates":0,"rejected":[]}'


@dataclass(frozen=True, slots=True)
class Place:
    """A database, the api process in front of it, and a key for both ingesting and reading."""

    dsn: str
    server: Server
    key: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is sent."""

    rounds: int
    batches: int  # per side and round
    batch_connections: int
    singles: int  # per round
    single_connections: int
    ping_seconds: int
    read_users: int
    reads_per_s: float
    reads: int
    alert_rounds: int
    alert_warm_up: int  # ticks
    alert_settling: int  # ticks before those of a number are measured
    delivery_rounds: int
    messages: int  # per round


@dataclass(slots=True)
class Side:
    """The rounds of one side."""

    rates: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    generator_us: list[float] = field(default_factory=list)
    api_us: list[float] = field(default_factory=list)
    postgres_us: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def latency_ms(self, percent: int) -> float:
        return percentile(self.latencies_s, percent) * 1000


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` % of the values do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * percent // 100) - 1)]


@dataclass(slots=True)
class Bench:
    """Everything that a measurement needs. `loader` runs the load generator, a process of its own."""

    full: Place
    empty: Place
    postmaster: int
    programs: Path
    folder: Path
    loader: ProcessPoolExecutor
    stream: Stream
    pipeline_ids: Sequence[int]
    sizes: Sizes
    advance: Callable[[str], None]

    # -- batches -------------------------------------------------------------------------------------------------

    def batches(self) -> dict[str, Side]:
        """Batches over HTTP with all the history and with none, and COPY of the same rows, in turn."""
        sides = {name: Side() for name in ("full", "copy", "empty")}
        self._post_batches(self.full, Side())  # what a first use costs is not counted
        self._post_batches(self.empty, Side())
        for number in range(self.sizes.rounds):
            names = list(sides)
            for name in names[number % 3 :] + names[: number % 3]:
                self.advance(f"batches, round {number + 1}: {name}")
                if name == "copy":
                    self._copy(sides[name])
                elif name == "empty":
                    _empty(self.empty.dsn)
                    self._post_batches(self.empty, sides[name])
                else:
                    self._post_batches(self.full, sides[name])
        return sides

    def _post_batches(self, place: Place, side: Side) -> None:
        bodies = [stream.body(batch) for batch in self.stream.batches(self.sizes.batches)]
        requests = [load.encode_request("POST", "/v1/events", place.key, body) for body in bodies]
        self._send(place, side, requests, self.sizes.batch_connections, BATCH_EVENTS)

    def _send(self, place: Place, side: Side, requests: list[bytes], connections: int, events: int) -> None:
        count = len(requests) * events
        self._measure(place, side, count, load.send_all, place.server.port, requests, connections, ALL_ACCEPTED)

    def _copy(self, side: Side) -> None:
        blocks = [stream.copy_rows(batch, self.pipeline_ids) for batch in self.stream.batches(self.sizes.batches)]
        count = len(blocks) * BATCH_EVENTS
        self._measure(self.full, side, count, load.copy_all, self.full.dsn, stream.COPY_RUN_EVENTS, blocks)

    def _measure(
        self, place: Place, side: Side, count: int, send: Callable[..., load.Timing], *arguments: object
    ) -> None:
        """Have the load generator send `count` things, and note what that cost everybody."""
        api = place.server.process.pid
        api_s, postgres_s = machine.process_cpu_s(api), machine.server_cpu_s(self.postmaster)
        timing = self.loader.submit(send, *arguments).result()
        side.rates.append(count / timing.elapsed_s)
        side.latencies_s.extend(timing.latencies_s)
        side.generator_us.append(timing.cpu_s / count * 1e6)
        side.api_us.append((machine.process_cpu_s(api) - api_s) / count * 1e6)
        side.postgres_us.append((machine.server_cpu_s(self.postmaster) - postgres_s) / count * 1e6)

    def wal_per_event(self) -> tuple[float, float]:
        """Bytes of write-ahead log per event with all the history: right after a checkpoint, and going on."""
        with psycopg.connect(self.full.dsn, autocommit=True) as connection:
            connection.execute("checkpoint")
        found = []
        for name in ("right after a checkpoint", "going on"):
            self.advance(f"write-ahead log {name}")
            before = machine.storage(self.full.dsn).wal_bytes
            self._post_batches(self.full, Side())
            written = machine.storage(self.full.dsn).wal_bytes - before
            found.append(written / (self.sizes.batches * BATCH_EVENTS))
        return found[0], found[1]

    # -- single posts --------------------------------------------------------------------------------------------

    def singles(self) -> tuple[Side, Side]:
        """Single events, each acknowledged after its commit; and Healthchecks pings as pgbench sends them, in turn."""
        ours, theirs = Side(), Side()
        peer = _create_database(self.full.dsn, "healthchecks")
        peers.prepare(peer)
        for number in range(self.sizes.rounds):
            self.advance(f"single posts, round {number + 1}")
            bodies = self.stream.singles(self.sizes.singles)
            requests = [load.encode_request("POST", "/v1/events", self.full.key, body) for body in bodies]
            self._send(self.full, ours, requests, self.sizes.single_connections, 1)
            self.advance(f"Healthchecks pings, round {number + 1}")
            theirs.rates.append(
                peers.pings_per_second(
                    self.programs,
                    peer,
                    self.folder,
                    connections=self.sizes.single_connections,
                    seconds=self.sizes.ping_seconds,
                )
            )
        return ours, theirs

    # -- reads ---------------------------------------------------------------------------------------------------

    def reads(self) -> dict[str, Side]:
        """Reads by many open connections, together so many per second: all kinds mixed, then each kind alone."""
        kinds = self._read_paths()
        sides = {}
        mixed = [path for paths in kinds.values() for path in paths]
        for name, paths in {"mixed": mixed, **kinds}.items():
            self.advance(f"reads: {name}")
            requests = [load.encode_request("GET", path, self.full.key) for path in paths]
            # A kind alone is asked for less often and for a shorter time: it is there to tell which one is dear.
            count = self.sizes.reads if name == "mixed" else self.sizes.reads // 6
            rate = self.sizes.reads_per_s if name == "mixed" else self.sizes.reads_per_s / 2
            arguments = (self.full.server.port, requests, self.sizes.read_users, rate, count)
            side = sides[name] = Side()
            api_s, postgres_s = (
                machine.process_cpu_s(self.full.server.process.pid),
                machine.server_cpu_s(self.postmaster),
            )
            timing = self.loader.submit(load.send_paced, *arguments).result()
            side.rates.append(count / timing.elapsed_s)
            side.latencies_s.extend(timing.latencies_s)
            side.api_us.append((machine.process_cpu_s(self.full.server.process.pid) - api_s) / count * 1e6)
            side.postgres_us.append((machine.server_cpu_s(self.postmaster) - postgres_s) / count * 1e6)
        return sides

    def _read_paths(self) -> dict[str, list[str]]:
        """100 paths of each kind, spread over clients, pipelines and time."""
        clients = [client_slug(number) for number in range(CLIENTS)]
        with psycopg.connect(self.full.dsn, autocommit=True) as connection:
            rows = connection.execute(
                "select client.slug, newest.id from pulsewatch.client cross join lateral ("
                "  select id from pulsewatch.run where client_id = client.id order by first_at desc"
                "  offset (client.id * 37) % 500 limit 1"
                ") as newest"
            ).fetchall()
        return {
            "/v1/runs": ["/v1/runs"] * len(clients),
            "/v1/runs?client=": [f"/v1/runs?client={client}" for client in clients],
            "/v1/clients/{client}/pipelines/{pipeline}/runs": [
                f"/v1/clients/{client}/pipelines/{pipeline_name(number % PIPELINES_PER_CLIENT)}/runs"
                for number, client in enumerate(clients)
            ],
            "/v1/runs/{id}": [f"/v1/runs/{run_id}" for _, run_id in rows],
            "/v1/clients": ["/v1/clients"] * len(clients),
        }


def _empty(dsn: str) -> None:
    """Remove all events and runs; clients and pipelines stay."""
    with psycopg.connect(dsn) as connection:
        connection.execute("set local pulsewatch.erasing = 'on'")
        connection.execute("truncate pulsewatch.run, pulsewatch.run_event, pulsewatch.dirty, pulsewatch.ingest_stat")


def _create_database(server: str, name: str) -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'create database "{name}"'.encode())
    return psycopg.conninfo.make_conninfo(server, dbname=name)
