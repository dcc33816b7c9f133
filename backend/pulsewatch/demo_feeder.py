"""Goes on telling the demo's story as time passes: posts each event over HTTP when it is due."""

import http.client
import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import urlsplit

from pulsewatch.demo_history import History
from pulsewatch.events import RunEvent, canonical_time

log = logging.getLogger(__name__)

BATCH_EVENTS = 1000
TIMEOUT_S = 30
PAUSE_S = 2.0
REFUSED_FOR_GOOD = (400, 403, 413, 422)
# What is due is looked for once a second, and made up so far ahead.
LOOK_S = 1.0
AHEAD = timedelta(minutes=30)
STRIDE = timedelta(days=1)


def wire_item(event: RunEvent) -> dict[str, Any]:
    """The event as a producer writes it for POST /v1/events."""
    item: dict[str, Any] = {
        "type": "run",
        "client": event.client,
        "pipeline": event.pipeline,
        "run": event.run,
        "status": event.status,
        "occurred_at": canonical_time(event.occurred_at),
    }
    for name in ("event_id", "attempt", "duration_s", "message", "error_class", "url", "metrics", "attributes"):
        if (value := getattr(event, name)) is not None:
            item[name] = value
    if event.scheduled_at is not None:
        item["scheduled_at"] = canonical_time(event.scheduled_at)
    if event.parent is not None:
        item["parent"] = {"pipeline": event.parent.pipeline, "run": event.parent.run}
    return item


class Feeder:
    """Posts from a thread of its own, from entering the block to leaving it.

    `told_until` is how far the story has been told already; `remember` is called with each new value of it, so that
    the next start goes on from there. What was told twice is a duplicate and does no harm.
    """

    def __init__(
        self, history: History, url: str, key: str, told_until: datetime, remember: Callable[[datetime], None]
    ) -> None:
        self._history = history
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self.told_until = told_until
        self._remember = remember
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-feeder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for batch, until in self._batches():
            while not self._post(batch):
                if self._stop.wait(PAUSE_S):
                    return
            self.told_until = until
            self._remember(until)

    def _batches(self) -> Iterator[tuple[list[RunEvent], datetime]]:
        """What is due, as it becomes due, and until when it is told with that; ends when told to stop."""
        history = self._history
        made_until = self.told_until
        while not self._stop.is_set():
            # Long strides while the past is caught up with, short ones ahead of the present.
            after, made_until = made_until, min(made_until + STRIDE, datetime.now(UTC) + AHEAD)
            ahead = history.deliveries(history.pipelines, after, made_until)
            start = 0
            while start < len(ahead):
                now = datetime.now(UTC)
                end = start
                while end < len(ahead) and end - start < BATCH_EVENTS and ahead[end].arrives_at <= now:
                    end += 1
                if end > start:
                    yield [delivery.event for delivery in ahead[start:end]], ahead[end - 1].arrives_at
                    start = end
                elif self._stop.wait(LOOK_S):
                    return
            while made_until > datetime.now(UTC):
                if self._stop.wait(LOOK_S):
                    return

    def _post(self, events: list[RunEvent]) -> bool:
        """Whether the events have been dealt with: taken, or refused for good. If not, they are to be sent again."""
        body = json.dumps([wire_item(event) for event in events]).encode()
        # Each on a connection of its own: the api closes those that idle, as this one would.
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", "/v1/events", body, self._headers)
            response = connection.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException) as error:
            log.info("the live feed waits for the api: %s", error)
            return False
        finally:
            connection.close()
        if response.status == 200:
            return True
        log.warning("the live feed was answered %s: %s", response.status, said[:300].decode(errors="replace"))
        # What a person has archived or erased is refused for ever; an overload or a revoked key may pass.
        return response.status in REFUSED_FOR_GOOD
