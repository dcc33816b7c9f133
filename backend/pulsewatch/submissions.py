"""What the wires hand to ingestion, and what ingestion hands back. Values only."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from pulsewatch.events import RunEvent


@dataclass(frozen=True, slots=True)
class CatalogStatement:
    """What a `client` or `pipeline` event says: fields to set (None clears), at a time."""

    client: str
    changes: dict[str, Any]
    occurred_at: datetime
    pipeline: str | None = None
    namespace: str = ""


Item = RunEvent | CatalogStatement


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an item was not taken: a stable code, a JSON pointer into the item, words for people."""

    code: str
    pointer: str
    detail: str


# What became of an item: ACCEPTED, DUPLICATE, or the Refusal.
ACCEPTED = "accepted"
DUPLICATE = "duplicate"
Outcome = str | Refusal
CONFLICT = Refusal("conflict", "/event_id", "An event of the same identity says something else; the first one stays.")


@dataclass(frozen=True, slots=True)
class Rejected:
    """One item of a request that was not taken: its place in the request, why, and whose it was as far as known."""

    index: int
    refusal: Refusal
    client: str | None = None


def _no_text(_: int) -> bytes:
    return b""


@dataclass(slots=True)
class Submission:
    """One request's content, over one wire, by one key.

    `items` are those that parsed, `indexes` their places in the request. Several items may share a place: they are
    one event, and the first of them speaks for it. `received` is how many events the request held, where that is
    more than its items and rejects tell. `text_of`
    gives an item's text by its place, for the rejects; it is asked only for those. `body_bytes` is the size of the
    request, unpacked.
    """

    source: str
    items: list[Item] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    text_of: Callable[[int], bytes] = _no_text
    key_id: UUID | None = None
    client_id: int | None = None
    body_bytes: int = 0
    received: int = 0

    def add(self, index: int, item: Item) -> None:
        """Take an item that parsed."""
        self.indexes.append(index)
        self.items.append(item)

    def reject(self, index: int, refusal: Refusal, client: str | None = None) -> None:
        """Note an item that cannot be taken."""
        self.rejected.append(Rejected(index, refusal, client))


@dataclass(slots=True)
class Receipt:
    """What became of a submission, once it is committed. `rejected` is in the order of the request."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    received: int = 0
