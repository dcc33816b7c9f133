"""What processes and the database say of themselves: CPU time, memory, log volume, heap-only updates. Linux."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psycopg

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """A line of /proc/PID/stat, as far as it is used."""

    parent: int
    cpu_s: float
    ended_children_cpu_s: float


def _stat(pid: int) -> ProcessStat:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = (int(field) / TICKS_PER_S for field in fields[11:15])
    return ProcessStat(int(fields[1]), user + system, children_user + children_system)


def process_cpu_s(pid: int) -> float:
    """CPU time of one process so far, all its threads."""
    return _stat(pid).cpu_s


def server_cpu_s(postmaster: int) -> float:
    """CPU time of a PostgreSQL server so far: the postmaster and all its processes, those that ended too."""
    first = _stat(postmaster)
    total = first.cpu_s + first.ended_children_cpu_s
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = _stat(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if stat.parent == postmaster:
            total += stat.cpu_s
    return total


def memory_mb(pid: int, name: str) -> float:
    """`VmRSS` (now) or `VmHWM` (at most so far) of a process, in MB of 1024 kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


@dataclass(frozen=True, slots=True)
class Storage:
    """Counters of a database; subtract two to see what happened between."""

    wal_bytes: int
    run_updates: int
    run_heap_only_updates: int


def storage(dsn: str) -> Storage:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, n_tup_upd, n_tup_hot_upd"
            " from pg_stat_user_tables where schemaname = 'pulsewatch' and relname = 'run'"
        ).fetchone()
    if row is None:
        raise LookupError("pulsewatch.run")
    return Storage(*row)


def describe(dsn: str) -> list[tuple[str, str]]:
    """The machine and the server, for the head of the report."""
    names = ("shared_buffers", "max_wal_size", "fsync", "full_page_writes", "synchronous_commit", "wal_compression")
    with psycopg.connect(dsn, autocommit=True) as connection:
        version = connection.execute("select current_setting('server_version')").fetchone()
        shown = [connection.execute(f"show {name}".encode()).fetchone() for name in names]
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    settings = ", ".join(f"{name} {row[0]}" for name, row in zip(names, shown, strict=True) if row)
    return [
        ("Machine", f"{os.cpu_count()} x {model}, {memory_gb:.0f} GB, {platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
        ("PostgreSQL", f"{version[0] if version else '?'} (embedded, as `pulsewatch up` starts it): {settings}"),
    ]
