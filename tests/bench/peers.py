"""The yardstick for single posts: what Healthchecks asks of PostgreSQL for one ping, by pgbench.

No HTTP, no Python and no TLS are paid on that side, so it is an upper bound for the peer. Per ping: look up the
check, begin, lock it, update all its columns, insert the ping, commit: six round trips, one transaction that writes.
"""

import re
import subprocess
from pathlib import Path

import psycopg

CHECKS = 10_000
TABLES = f"""
create table api_check (
    id bigint primary key, name varchar(100), slug varchar(100), tags varchar(500), code uuid unique,
    "desc" text, created timestamptz, kind varchar(10), timeout interval, grace interval, schedule text,
    tz varchar(36), filter_subject boolean, filter_body boolean, start_kw varchar(200), success_kw varchar(200),
    failure_kw varchar(200), methods varchar(30), manual_resume boolean, n_pings integer, last_ping timestamptz,
    last_start timestamptz, last_start_rid uuid, last_duration interval, has_confirmation_link boolean,
    alert_after timestamptz, status varchar(6), project_id bigint
);
create table api_ping (
    id bigint generated always as identity primary key, n integer, owner_id bigint references api_check,
    created timestamptz, kind varchar(6), scheme varchar(10), remote_addr inet, method varchar(10), ua varchar(200),
    body text, body_raw bytea, object_size integer, exitstatus smallint, rid uuid
);
create index on api_check (project_id);
create index on api_check (alert_after) where status not in ('down', 'paused', 'new');
create index on api_ping (owner_id);
insert into api_check
select
    i, 'check ' || i, 'check-' || i, '', md5(i::text)::uuid, '', now(), 'simple', '1 day', '1 hour', '* * * * *',
    'UTC', false, false, '', '', '', '', false, 0, null, null, null, null, false, null, 'up', 1
from generate_series(1, {CHECKS}) as i;
"""
SCRIPT = rf"""
\set id random(1, {CHECKS})
select * from api_check where code = md5(:id::text)::uuid limit 21;
begin;
select * from api_check where id = :id for update;
update api_check set name = name, slug = slug, tags = tags, code = code, "desc" = "desc", created = created,
kind = kind, timeout = timeout, grace = grace, schedule = schedule, tz = tz, filter_subject = filter_subject,
filter_body = filter_body, start_kw = start_kw, success_kw = success_kw, failure_kw = failure_kw, methods = methods,
manual_resume = manual_resume, n_pings = n_pings + 1, last_ping = now(), last_start = null, last_start_rid = null,
last_duration = null, has_confirmation_link = false, alert_after = now() + interval '1 day', status = 'up',
project_id = project_id where id = :id;
insert into api_ping (n, owner_id, created, kind, scheme, remote_addr, method, ua, body, exitstatus, rid)
values (1, :id, now(), null, 'https', '10.0.0.1', 'GET', 'curl/8.5.0', null, null, null) returning id;
commit;
"""


def prepare(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLES.encode())
        connection.execute("vacuum analyze api_check")


def pings_per_second(programs: Path, dsn: str, folder: Path, *, connections: int, seconds: int) -> float:
    """Healthchecks pings per second, over so many connections, with simple queries."""
    script = folder / "ping.sql"
    script.write_text(SCRIPT)
    options = ("-n", "-M", "simple", "-c", str(connections), "-j", "2", "-T", str(seconds), "-f", str(script))
    done = subprocess.run((str(programs / "pgbench"), *options, dsn), check=False, capture_output=True, text=True)
    found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise RuntimeError(done.stdout + done.stderr)
    return float(found[1])
