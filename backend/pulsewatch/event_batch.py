"""Run events on their way into the tables, which go there as one parameter."""

from collections.abc import Iterable, Iterator
from operator import attrgetter

from pulsewatch.db import Binary
from pulsewatch.events import RunEvent
from pulsewatch.packing import Row, pack, row_of
from pulsewatch.runstate import RunDelta, finish_alone
from pulsewatch.submissions import CONFLICT, DUPLICATE, Outcome

# (client id, dedupe key): with occurred_at, of which the key is made too, the primary key of an event.
Identity = tuple[int, bytes]
# How the functions of ingestion want them. Two writers that hold rows of the same runs meet in the same order, so that
# neither waits for the other in vain; the same event has the same run, unless its sender contradicts himself.
# That is by client, pipeline, run, time and dedupe key: as they are packed, bytes are in the order of what they say.
# (A process of a version that has another order may meet this one crosswise: one of the two is then tried again.)
_ORDER = attrgetter("head")


class EventBatch:
    """Run events on their way into the tables: each identity once, folded into their runs."""

    def __init__(self) -> None:
        self.rows: dict[Identity, Row] = {}
        self.again: dict[Identity, list[tuple[int, bytes]]] = {}  # further copies: where, and what they say
        self._runs: dict[tuple[int, bytes], Row | RunDelta] = {}  # a row while it is the only one of its run

    def add(self, position: int, event: RunEvent, client_id: int, pipeline_id: int) -> Outcome | None:
        """Take an event; where the batch holds one of its identity already, the outcome of this one."""
        row = row_of(event, client_id, pipeline_id)
        identity = (client_id, row.dedupe_key)
        first = self.rows.setdefault(identity, row)
        if first is not row:
            self.again.setdefault(identity, []).append((position, row.content_digest))
            return DUPLICATE if first.content_digest == row.content_digest else CONFLICT
        row.place = position
        run = (client_id, row.run_id)
        delta = self._runs.setdefault(run, row)
        if delta is not row:
            if isinstance(delta, Row):
                delta = self._runs[run] = RunDelta.of(delta)
            delta.absorb(RunDelta.of(row))
        return None

    def packed(self) -> Binary:
        """The batch as the database reads it; nothing can be added any more."""
        for run in self._runs.values():
            if isinstance(run, Row):
                finish_alone(run)
            else:
                run.finish()
        return pack(sorted(self.rows.values(), key=_ORDER))

    def conflicting(self, stored: dict[Identity, bytes]) -> set[int]:
        """Where the events stand that say something else than what is stored, all copies included.

        One by one, each copy would cost a transaction of its own.
        """
        found = {self.rows[identity].place for identity in stored}
        for identity, digest in stored.items():
            found |= {position for position, said in self.again.get(identity, ()) if said != digest}
        return found

    def places_known(self, fresh: Iterable[tuple[int, str]]) -> Iterator[int]:
        """Where the events stand that the database had already; `fresh`: clients and dedupe keys that it had not."""
        new = {(client_id, bytes.fromhex(key)) for client_id, key in fresh}
        return (row.place for identity, row in self.rows.items() if identity not in new)
