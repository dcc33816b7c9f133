"""From names to ids: clients and pipelines are made on first sight.

Everything is sorted before it is locked or inserted, so that two writers meet in the same order.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection

from pulsewatch.db import fetch
from pulsewatch.events import digest16, pipeline_slug

# (client id, namespace, name)
PipelineName = tuple[int, str, str]
# The same in the producer's words: (slug of the client, namespace, name)
Words = tuple[str, str, str]


class Names:
    """Ids of client and pipeline by the producer's words for a pipeline, of one process.

    Ids never change, but a client may be archived, or erased and made anew: its pipelines are learnt again then. Only
    committed ids may enter: call `learn` after the commit.
    """

    MAX_ENTRIES = 200_000

    def __init__(self) -> None:
        self.ids: dict[Words, tuple[int, int]] = {}
        self.met: set[str] = set()  # clients all of whose pipelines have been learnt, as they were then

    def pipeline_id(self, words: Words, client_id: int) -> int | None:
        """The id of a pipeline of the client that has this id now."""
        known = self.ids.get(words)
        return None if known is None or known[0] != client_id else known[1]

    def learn(self, new: "Names") -> None:
        """Take over what another one holds."""
        if len(self.ids) + len(new.ids) > self.MAX_ENTRIES:
            self.ids.clear()
            self.met.clear()
        self.ids.update(new.ids)
        self.met.update(new.met)


@dataclass(frozen=True, slots=True)
class KnownClient:
    """A client's id, whether it takes events, and whether it was made just now."""

    id: int
    is_archived: bool
    is_new: bool = False


def clients(connection: Connection, slugs: Collection[str], *, may_make: Collection[str]) -> dict[str, KnownClient]:
    """The clients of these slugs. Those never seen are made where they may be, and missing otherwise.

    Slugs must be valid.
    """
    known = _select_clients(connection, sorted(slugs))
    missing = sorted(slug for slug in slugs if slug not in known and slug in may_make)
    if missing:
        made = connection.exec_driver_sql(
            "insert into pulsewatch.client (slug) select unnest(%s::text[]) on conflict do nothing returning id, slug",
            (missing,),
        )
        # A client that another writer made meanwhile is visible only to a new statement.
        known |= _select_clients(connection, missing) | {
            slug: KnownClient(client_id, is_archived=False, is_new=True) for client_id, slug in made
        }
    return known


def _select_clients(connection: Connection, slugs: list[str]) -> dict[str, KnownClient]:
    rows = fetch(
        connection, "select id, slug, archived_at is not null from pulsewatch.client where slug = any(%s)", (slugs,)
    )
    return {slug: KnownClient(client_id, is_archived) for client_id, slug, is_archived in rows}


def look_up(connection: Connection, wanted: Collection[Words], met: Collection[str]) -> Names:
    """The ids of those pipelines that are there, and of all others of their clients where these are not among `met`."""
    found = Names()
    new = {slug for slug, _, _ in wanted if slug not in met}
    for slug, space, name, client_id, id_ in fetch(connection, _PIPELINES_OF, (sorted(new),)) if new else ():
        found.ids[slug, space, name] = (client_id, id_)
        found.met.add(slug)
    missing = [words for words in wanted if words not in found.ids]
    if missing:
        clients = _select_clients(connection, sorted({slug for slug, _, _ in missing}))
        named = {(clients[slug].id, space, name): slug for slug, space, name in missing if slug in clients}
        for (client_id, space, name), id_ in _select_pipelines(connection, sorted(named)).items():
            found.ids[named[client_id, space, name], space, name] = (client_id, id_)
    return found


def lock_clients(connection: Connection, client_ids: Collection[int]) -> None:
    """Hold these clients' rows against other statements until the transaction ends."""
    connection.exec_driver_sql(
        "select id from pulsewatch.client where id = any(%s) order by id for no key update", (sorted(client_ids),)
    )


def pipelines(
    connection: Connection, names: Iterable[PipelineName], *, max_pipelines: int
) -> tuple[dict[PipelineName, int], set[PipelineName]]:
    """Ids of these pipelines, and which of them were made just now because they were never seen.

    Those without an id could not be made: their client has max_pipelines already.
    """
    wanted = sorted(set(names))
    ids = _select_pipelines(connection, wanted)
    missing = [name for name in wanted if name not in ids]
    if not missing:
        return ids, set()
    over_limit = _lock_and_count(connection, missing, max_pipelines)
    admitted = [name for name in missing if name not in over_limit]
    made: dict[PipelineName, int] = {}
    # A slug is 8 digits of the digest long, or all of them where somebody has given just that name to another.
    for digits in (8, 32):
        left = [name for name in admitted if name not in ids]
        if left:
            made |= _insert_pipelines(connection, left, digits)
            # One that another writer made meanwhile is visible only to a new statement.
            ids |= _select_pipelines(connection, left)
    return ids, set(made)


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


# Of a client that is met for the first time, as after a start, all: else each transaction would look up some of them,
# until the last has been met. So many take 25 ms; those beyond are looked up when they come.
_PIPELINES_OF = """
    select client.slug, pipeline.namespace, pipeline.name, client.id, pipeline.id
    from pulsewatch.client
    inner join pulsewatch.pipeline on client.id = pipeline.client_id
    where client.slug = any(%s)
    limit 20000
"""
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
    returning client_id, namespace, name, id
"""
_SELECT_PIPELINES = f"""
    select pipeline.client_id, pipeline.namespace, pipeline.name, pipeline.id
    {_NAMED}
    inner join pulsewatch.pipeline
        on named.client_id = pipeline.client_id and named.digest = pipeline.identity_digest
"""


def _as_json(names: list[PipelineName], digits: int = 8) -> str:
    return msgspec.json.encode(
        [
            {
                "client_id": client_id,
                "namespace": namespace,
                "name": name,
                "slug": pipeline_slug(namespace, name, digits),
                "digest": digest16(namespace, name),
            }
            for client_id, namespace, name in names
        ]
    ).decode()


def _insert_pipelines(connection: Connection, names: list[PipelineName], digits: int) -> dict[PipelineName, int]:
    rows = connection.exec_driver_sql(_INSERT_PIPELINES, (_as_json(names, digits),))
    return {(client_id, namespace, name): pipeline_id for client_id, namespace, name, pipeline_id in rows}


def _select_pipelines(connection: Connection, names: list[PipelineName]) -> dict[PipelineName, int]:
    rows = fetch(connection, _SELECT_PIPELINES, (_as_json(names),))
    return {(client_id, namespace, name): pipeline_id for client_id, namespace, name, pipeline_id in rows}
