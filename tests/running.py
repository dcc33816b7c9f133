"""The command `pulsewatch` as real processes, and requests to what they serve."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import coverage

ROOT = Path(__file__).parents[1]
PATIENCE = timedelta(seconds=60)


@contextlib.contextmanager
def unmeasured() -> Iterator[None]:
    """What the block does, and processes that it starts, are left out of the coverage, which slows them down.

    Where two threads compute at the same time they take eight times as long. What is in the block is to be covered by
    other tests.
    """
    measuring = coverage.Coverage.current()
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("COVERAGE_PROCESS_")}
    if measuring is not None:
        measuring.stop()
    try:
        yield
    finally:
        if measuring is not None:
            measuring.start()
        os.environ.update(hidden)


class Command:
    """A `pulsewatch` process. Its output is read all the time, so that it never waits for us."""

    def __init__(self, *arguments: object, program: Sequence[str] = (), **environment: str) -> None:
        words = (*(program or (sys.executable, "-m", "pulsewatch")), *map(str, arguments))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PULSEWATCH_")}
        if not program:
            kept["PYTHONPATH"] = str(ROOT / "backend")
        self.process = subprocess.Popen(
            words,
            env=kept | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        self.out: list[str] = []
        self.err: list[str] = []
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            with self._news:
                lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def url(self) -> str:
        """Waits for the line that says where it takes requests."""

        def found() -> list[str]:
            return re.findall(r"^ready (http://\S+)$", "".join(self.out), re.MULTILINE)

        with self._news:
            self._news.wait_for(lambda: found() or not self._readers[0].is_alive(), timeout=PATIENCE.total_seconds())
        assert found(), f"never ready: {self.out} {self.err}"
        return found()[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal and return the exit code, negative for a signal."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        try:
            code = self.process.wait(PATIENCE.total_seconds())
            for reader in self._readers:
                reader.join(PATIENCE.total_seconds())
            return code
        finally:
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()

    @property
    def children(self) -> dict[str, int]:
        """Process ids of what it supervises, by name."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                parent = path.joinpath("stat").read_text().rpartition(")")[2].split()[1]
                if parent == str(self.process.pid):
                    words = path.joinpath("cmdline").read_bytes().decode().split("\0")
                    found[words[words.index("pulsewatch") + 1]] = int(path.name)
        return found


@contextlib.contextmanager
def command(*arguments: object, program: Sequence[str] = (), **environment: str) -> Iterator[Command]:
    """The process while the block runs; stopped afterwards if it still runs."""
    started = Command(*arguments, program=program, **environment)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.stop()


def run(*arguments: object, program: Sequence[str] = (), **environment: str) -> Command:
    """The process, once it has ended."""
    done = Command(*arguments, program=program, **environment)
    done.wait()
    return done


def request(url: str, method: str, path: str, *, key: str | None = None, body: object = None) -> tuple[int, Any]:
    """Status and decoded JSON of an answer."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE.total_seconds())
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what nobody tells us, without taking the processor from those we wait for."""
    deadline = datetime.now(UTC) + PATIENCE
    never = threading.Event()
    while not is_so():
        assert datetime.now(UTC) < deadline, "it never came to that"
        never.wait(0.02)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
