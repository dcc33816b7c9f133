"""Unpacking a body: whole or refused, and never more than may be held."""

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pulsewatch.intake.edge import unpack
from pulsewatch.problems import Problem

MOST = 100_000

Pack = Callable[[bytes], bytes]


def zstd_streamed(body: bytes) -> bytes:
    """As a client writes that does not know the size beforehand: in blocks, without it in the header."""
    packer = zstandard.ZstdCompressor().compressobj()
    half = len(body) // 2
    packed = packer.compress(body[:half]) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return packed + packer.compress(body[half:]) + packer.flush()


PACKS: dict[str, tuple[str, Pack]] = {
    "gzip": ("gzip", gzip.compress),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd streamed": ("zstd", zstd_streamed),
}
each_pack = pytest.mark.parametrize(("encoding", "pack"), PACKS.values(), ids=PACKS)


def refusal(packed: bytes, encoding: str, most: int = MOST) -> tuple[int, str]:
    with pytest.raises(Problem) as refused:
        unpack(packed, encoding, most)
    return refused.value.status, refused.value.code


def test_a_body_that_is_not_packed_is_left_alone() -> None:
    assert unpack(b"[]", "identity", MOST) == b"[]"


@each_pack
@pytest.mark.parametrize("size", [0, 1, MOST - 1, MOST])
def test_a_body_of_up_to_the_limit_is_unpacked_whole(encoding: str, pack: Pack, size: int) -> None:
    body = bytes(number % 251 for number in range(size))
    assert unpack(pack(body), encoding, MOST) == body


@each_pack
def test_one_byte_over_the_limit_is_too_large(encoding: str, pack: Pack) -> None:
    assert refusal(pack(b"x" * (MOST + 1)), encoding) == (413, "too_large")


@each_pack
def test_a_bomb_is_cut_off_while_unpacking(encoding: str, pack: Pack) -> None:
    assert refusal(pack(bytes(200_000_000)), encoding) == (413, "too_large")


@each_pack
def test_members_that_follow_one_another_are_one_body(encoding: str, pack: Pack) -> None:
    packed = b"".join(pack(part) for part in (b"one\n" * 3000, b"", b"two\n" * 5, b"three\n" * 3000))
    assert unpack(packed, encoding, MOST) == b"one\n" * 3000 + b"two\n" * 5 + b"three\n" * 3000


@each_pack
def test_the_limit_holds_over_all_members_together(encoding: str, pack: Pack) -> None:
    assert refusal(pack(b"x" * 60_000) * 2, encoding) == (413, "too_large")


@each_pack
@pytest.mark.parametrize("cut", [1, 4, 9, 13])
def test_a_body_that_was_cut_short_is_refused_and_not_taken_in_part(encoding: str, pack: Pack, cut: int) -> None:
    lines = b"".join(b'{"number": %d}\n' % number for number in range(3000))
    assert refusal(pack(lines)[:-cut], encoding) == (400, "invalid_encoding")
    assert refusal(pack(lines) + pack(lines)[:-cut], encoding) == (400, "invalid_encoding")


@each_pack
def test_what_follows_the_last_member_must_be_a_member(encoding: str, pack: Pack) -> None:
    assert refusal(pack(b"[]") + b"more", encoding) == (400, "invalid_encoding")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@given(body=st.binary(max_size=60))
def test_bytes_that_are_not_packed_are_refused(encoding: str, body: bytes) -> None:
    assert refusal(b"{" + body, encoding) == (400, "invalid_encoding")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_an_empty_packed_body_is_refused(encoding: str) -> None:
    assert refusal(b"", encoding) == (400, "invalid_encoding")


def test_zlib_without_the_header_of_gzip_is_refused() -> None:
    assert refusal(zlib.compress(b"[]"), "gzip") == (400, "invalid_encoding")


def test_a_zstd_frame_that_needs_a_large_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    assert refusal(packer.compress(b"[]") + packer.flush(), "zstd") == (400, "invalid_encoding")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_very_many_empty_members_are_passed_over(encoding: str) -> None:
    empty = gzip.compress(b"") if encoding == "gzip" else zstandard.ZstdCompressor().compress(b"")
    assert unpack(empty * 100_000, encoding, MOST) == b""
