"""The edge of ingestion: a small ASGI application in front of the rest.

Here is what every wire has in common: authentication, unpacking, limits, errors. It is no FastAPI route, because a
framework's routing alone costs more than PostgreSQL does for a single event (docs/performance.md).
"""

import asyncio
import logging
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import parse_qsl

import zstandard
from sqlalchemy.exc import SQLAlchemyError

from pulsewatch.auth import Caller, Keyring
from pulsewatch.batching import Batcher
from pulsewatch.intake.base import Limits, Reply, Request, Wire
from pulsewatch.problems import Problem, unavailable
from pulsewatch.settings import Settings
from pulsewatch.submissions import Receipt
from pulsewatch.telemetry import ROUTE_KEY, App, Message, Receive, Scope, Send, problem_answer

# Decoding a large body takes long enough that other requests would notice; it goes to a thread.
LARGE_BODY_BYTES = 128 * 1024
# Packed, a few hundred bytes may hold megabytes: how much that is shows only in unpacking.
LARGE_PACKED_BYTES = 16 * 1024
KEY_THREADS = 2
ENCODINGS = ("identity", "gzip", "zstd")
# Packed bodies are taken in such pieces: what follows the end of a member is copied each time, and there may be many.
PIECE_BYTES = 4096

Headers = Mapping[bytes, bytes]
log = logging.getLogger(__name__)


class Edge:
    """Serves the wires' paths; everything else goes to `app`."""

    def __init__(self, app: App, wires: Iterable[Wire], batcher: Batcher, keyring: Keyring, settings: Settings) -> None:
        self._app = app
        self._wires = {path: wire for wire in wires for path in wire.paths}
        self._batcher = batcher
        self._keyring = keyring
        self._max_body_bytes = settings.max_body_bytes
        # Of their own, so that bodies are read on while the database is slow to know a key.
        self._key_threads = ThreadPoolExecutor(KEY_THREADS, thread_name_prefix="keys")
        self._limits = Limits(settings.max_events, timedelta(days=settings.keep_events_days))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, self._draining(receive), send)
            return
        wire = self._wires.get(scope["path"]) if scope["type"] == "http" else None
        if wire is None:
            await self._app(scope, receive, send)
            return
        scope[ROUTE_KEY] = scope["path"]
        try:
            reply = await self._answer(wire, scope, receive)
        except Problem as problem:
            headers, body = problem_answer(problem)
            await _send(send, problem.status, headers, body)
        except ClientLeft:
            return
        else:
            headers = []
            if reply.headers:
                headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
            if reply.status != 204:
                headers.append((b"content-length", str(len(reply.body)).encode()))
                headers.append((b"content-type", reply.media_type.encode()))
            await _send(send, reply.status, headers, reply.body)

    def _draining(self, receive: Receive) -> Receive:
        """The server's messages; before the one to shut down is passed on, what was taken is committed."""

        async def drain_first() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._batcher.close()
                self._key_threads.shutdown()
            return message

        return drain_first

    async def _answer(self, wire: Wire, scope: Scope, receive: Receive) -> Reply:
        headers: Headers = dict(scope["headers"])
        if scope["method"] != "POST":
            raise Problem(405, "method_not_allowed", "This path takes POST only.", headers={"Allow": "POST"})
        caller = await self._caller(headers)
        content_type = _content_type(headers, wire)
        encoding = _encoding(headers)
        body = await _read(receive, headers, self._max_body_bytes)
        if encoding != "identity":
            body = await _unpack_aside(body, encoding, self._max_body_bytes)
        query = scope["query_string"]
        request = Request(
            path=scope["path"],
            query=dict(parse_qsl(query.decode("latin-1"))) if query else {},
            content_type=content_type,
            body=body,
            caller=caller,
            received_at=datetime.now(UTC),
            limits=self._limits,
        )
        if len(request.body) > LARGE_BODY_BYTES:
            submission = await asyncio.to_thread(wire.parse, request)
        else:
            submission = wire.parse(request)
        submission.key_id, submission.client_id = caller.key_id, caller.client_id
        submission.body_bytes = len(request.body)
        is_empty = not submission.items and not submission.rejected
        receipt = Receipt() if is_empty else await self._batcher.submit(submission)
        return wire.reply(request, receipt)

    async def _caller(self, headers: Headers) -> Caller:
        """Who calls. Raises Problem 401, 403, or 503 where the database cannot be asked."""
        authorization = headers[b"authorization"].decode("latin-1") if b"authorization" in headers else None
        caller = self._keyring.cached(authorization)
        if caller is None:
            try:
                loop = asyncio.get_running_loop()
                caller = await loop.run_in_executor(self._key_threads, self._keyring.caller, authorization)
            except SQLAlchemyError as error:
                log.warning("the database does not know keys: %s", str(error).splitlines()[0])
                raise unavailable("The database does not answer; send it again.", retry_after_s=2) from error
        if not caller.may_ingest:
            raise Problem(403, "forbidden", f"A key of role {caller.role} may not send events; ingest may.")
        return caller


class ClientLeft(Exception):
    """The client closed the connection before its request was whole: there is nobody to answer."""


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@lru_cache(64)
def _media_type(content_type: bytes) -> str:
    return content_type.decode("latin-1").partition(";")[0].strip().lower()


def _content_type(headers: Headers, wire: Wire) -> str:
    named = _media_type(headers.get(b"content-type", b""))
    if not named:
        return next(iter(wire.content_types))
    if named not in wire.content_types:
        known = ", ".join(wire.content_types)
        raise Problem(415, "unsupported_media_type", f"Content-Type {named!a} is not read here; send one of {known}.")
    return named


def _encoding(headers: Headers) -> str:
    if b"content-encoding" not in headers:
        return "identity"
    named = headers[b"content-encoding"].decode("latin-1").strip().lower()
    if named not in ENCODINGS:
        raise Problem(
            415,
            "unsupported_encoding",
            f"Content-Encoding {named!a} is not read here; send one of {', '.join(ENCODINGS)}.",
            headers={"Accept-Encoding": ", ".join(ENCODINGS)},
        )
    return named


async def _read(receive: Receive, headers: Headers, max_bytes: int) -> bytes:
    """The body as it was sent, cut off as soon as it is too large."""
    said = headers.get(b"content-length", b"0")
    if said.isdigit() and int(said) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _unpack_aside(packed: bytes, encoding: str, max_bytes: int) -> bytes:
    """`unpack`, in a thread where it turns out to be much, so that nobody else waits for it."""
    if len(packed) <= LARGE_PACKED_BYTES:
        try:
            return unpack(packed, encoding, min(max_bytes, LARGE_BODY_BYTES))
        except Problem as problem:
            if problem.code != "too_large":
                raise
    return await asyncio.to_thread(unpack, packed, encoding, max_bytes)


def unpack(packed: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body unpacked, never holding more than max_bytes and one of it.

    Raises Problem 413 where there is more, 400 where it is not what its encoding says, or cut short.
    """
    if encoding == "identity":
        return packed
    try:
        body, is_whole = (_gunzip if encoding == "gzip" else _unpack_zstd)(packed, max_bytes + 1)
    except (zlib.error, zstandard.ZstdError) as error:
        raise Problem(400, "invalid_encoding", f"The body is not {encoding}: {error}.") from error
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    if not is_whole:
        raise Problem(400, "invalid_encoding", f"The {encoding} body ends too early.")
    return body


def _gunzip(packed: bytes, most: int) -> tuple[bytes, bool]:
    """At most so many bytes of the members, which follow one another, and whether the last one is whole."""
    unpacker = zlib.decompressobj(wbits=31)
    parts: list[bytes] = []
    for start in range(0, len(packed), PIECE_BYTES):
        piece = packed[start : start + PIECE_BYTES]
        while piece and most:
            if unpacker.eof:
                unpacker = zlib.decompressobj(wbits=31)
            parts.append(unpacker.decompress(piece, most))
            most -= len(parts[-1])
            piece = unpacker.unused_data
    return b"".join(parts), unpacker.eof


def _unpack_zstd(packed: bytes, most: int) -> tuple[bytes, bool]:
    """The same for the frames of zstd. Windows over 8 MiB, which cost memory, are refused, as RFC 9659 allows."""
    zstd = zstandard.ZstdDecompressor(max_window_size=2**23)
    body = zstd.stream_reader(packed, read_across_frames=True).read(most)
    if len(body) == most:
        return body, True
    # The reader passes over a frame that is cut short in silence; now that the size is known, look for the end.
    unpacker = zstd.decompressobj()
    for start in range(0, len(packed), PIECE_BYTES):
        piece = packed[start : start + PIECE_BYTES]
        while piece:
            if unpacker.eof:
                unpacker = zstd.decompressobj()
            unpacker.decompress(piece)
            piece = unpacker.unused_data
    return body, unpacker.eof


def _too_large(max_bytes: int) -> Problem:
    # The rest of the body is not read: the connection cannot be used again.
    return Problem(
        413, "too_large", f"The body is larger than {max_bytes} bytes unpacked.", headers={"Connection": "close"}
    )
