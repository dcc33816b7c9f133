"""From names to ids: clients and pipelines are made on first sight.

Everything is sorted before it is locked or inserted, so that two writers meet in the same order.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection

from pulsewatch.events import digest16, pipeline_slug

# (client id, namespace, name)
PipelineName = tuple[int, str, str]


class PipelineCache:
    """Pipeline ids by name, of one process. Ids never change, so entries never go stale.

    Only committed ids may enter: call `learn` after the commit.
    """

    MAX_ENTRIES = 200_000

    def __init__(self) -> None:
        self._ids: dict[PipelineName, int] = {}

    def get(self, name: PipelineName) -> int | None:
        return self._ids.get(name)

    def learn(self, ids: dict[PipelineName, int]) -> None:
        if len(self._ids) + len(ids) > self.MAX_ENTRIES:
            self._ids.clear()
        self._ids.update(ids)


@dataclass(frozen=True, slots=True)
class KnownClient:
    """A client's id, and whether it takes events."""

    id: int
    is_archived: bool


def clients(connection: Connection, slugs: Collection[str]) -> dict[str, KnownClient]:
    """The clients of these slugs; those never seen are made. Slugs must be valid."""
    wanted = sorted(slugs)
    known = _select_clients(connection, wanted)
    missing = [slug for slug in wanted if slug not in known]
    if missing:
        connection.exec_driver_sql(
            "insert into pulsewatch.client (slug) select unnest(%s::text[]) on conflict do nothing",
            (missing,),
        )
        # A client that another writer made meanwhile is visible only to a new statement.
        known |= _select_clients(connection, missing)
    return known


def _select_clients(connection: Connection, slugs: list[str]) -> dict[str, KnownClient]:
    rows = connection.exec_driver_sql(
        "select id, slug, archived_at is not null from pulsewatch.client where slug = any(%s)", (slugs,)
    )
    return {slug: KnownClient(client_id, is_archived) for client_id, slug, is_archived in rows}


def lock_clients(connection: Connection, client_ids: Collection[int]) -> None:
    """Hold these clients' rows against other statements until the transaction ends."""
    connection.exec_driver_sql(
        "select id from pulsewatch.client where id = any(%s) order by id for no key update", (sorted(client_ids),)
    )


def pipelines(
    connection: Connection, names: Iterable[PipelineName], *, max_pipelines: int
) -> tuple[dict[PipelineName, int], dict[PipelineName, str]]:
    """Ids of these pipelines, making those never seen; and, for those that could not be made, the code why.

    Codes: `pipeline_limit` where the client has max_pipelines already, `slug_taken` where another pipeline of the
    client has the slug that this name would get.
    """
    wanted = sorted(set(names))
    ids = _select_pipelines(connection, wanted)
    missing = [name for name in wanted if name not in ids]
    if not missing:
        return ids, {}
    over_limit = _lock_and_count(connection, missing, max_pipelines)
    admitted = [name for name in missing if name not in over_limit]
    if admitted:
        connection.exec_driver_sql(_INSERT_PIPELINES, (_as_json(admitted),))
        ids |= _select_pipelines(connection, admitted)
    refused = dict.fromkeys(over_limit - ids.keys(), "pipeline_limit")
    refused |= {name: "slug_taken" for name in admitted if name not in ids}
    return ids, refused


def _lock_and_count(connection: Connection, missing: list[PipelineName], max_pipelines: int) -> set[PipelineName]:
    """Lock the clients whose pipelines are about to be made; the names that would pass the limit."""
    client_ids = sorted({client_id for client_id, _, _ in missing})
    lock_clients(connection, client_ids)
    counted = connection.exec_driver_sql(
        "select client_id, count(*) from pulsewatch.pipeline where client_id = any(%s) group by client_id",
        (client_ids,),
    )
    room = dict.fromkeys(client_ids, max_pipelines)
    for client_id, count in counted:
        room[client_id] -= count
    over_limit = set()
    # Under the lock, so that what another writer made meanwhile is counted and not refused.
    present = _select_pipelines(connection, missing)
    for name in missing:
        if name in present:
            continue
        room[name[0]] -= 1
        if room[name[0]] < 0:
            over_limit.add(name)
    return over_limit


_NAMED = """
    from jsonb_to_recordset(%s::jsonb)
        as named (client_id bigint, namespace text, name text, slug text, digest uuid)
"""
_INSERT_PIPELINES = f"""
    insert into pulsewatch.pipeline (client_id, slug, namespace, name, identity_digest)
    select client_id, slug, namespace, name, digest
    {_NAMED}
    order by client_id, digest
    on conflict do nothing
"""
_SELECT_PIPELINES = f"""
    select pipeline.client_id, pipeline.namespace, pipeline.name, pipeline.id
    {_NAMED}
    inner join pulsewatch.pipeline
        on named.client_id = pipeline.client_id and named.digest = pipeline.identity_digest
"""


def _as_json(names: list[PipelineName]) -> str:
    return msgspec.json.encode(
        [
            {
                "client_id": client_id,
                "namespace": namespace,
                "name": name,
                "slug": pipeline_slug(namespace, name),
                "digest": digest16(namespace, name),
            }
            for client_id, namespace, name in names
        ]
    ).decode()


def _select_pipelines(connection: Connection, names: list[PipelineName]) -> dict[PipelineName, int]:
    rows = connection.exec_driver_sql(_SELECT_PIPELINES, (_as_json(names),))
    return {(client_id, namespace, name): pipeline_id for client_id, namespace, name, pipeline_id in rows}
