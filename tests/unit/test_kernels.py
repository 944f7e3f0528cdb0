"""Each compiled kernel says what its slow and obvious twin says."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtqec.histogram import NUM_BINS, SUB_BINS, bin_edges, percentile
from rtqec.kernels.commit import answer_flips
from rtqec.kernels.crc32c import TABLES, crc32c_words
from rtqec.kernels.fold import load_bits, store_bytes
from rtqec.kernels.histogram import bin_of
from tests.harness import crc32c_slow, word, words_of

KEEP_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


def crc_of(octets: bytes) -> int:
    words = np.frombuffer(octets, np.uint64)
    return int(crc32c_words(words, len(words), -1, KEEP_ALL))


@pytest.mark.parametrize(
    ("octets", "checksum"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (
            bytes.fromhex(
                "01c00000 00000000 00000000 00000000 14000000 00000400"
                "00000014 00000018 28000000 00000000 02000000 00000000"
            ),
            0xD9963A56,
        ),
    ],
)  # fmt: skip
def test_crc32c_gives_the_vectors_of_rfc_3720(octets: bytes, checksum: int) -> None:
    """The checksum is CRC-32C: the vectors of RFC 3720, appendix B.4."""
    assert crc_of(octets) == crc32c_slow(octets) == checksum


def test_the_slow_crc_has_the_known_check_value() -> None:
    """The twin is CRC-32C: its value for the nine digits is the catalogue's."""
    assert crc32c_slow(b"123456789") == 0xE3069283
    assert TABLES.shape == (8, 256)


@given(octets=st.binary(min_size=8, max_size=120), skipped=st.integers(0, 14))
def test_crc32c_says_what_its_twin_says(octets: bytes, skipped: int) -> None:
    """Any words, with or without a masked one, have the twin's checksum."""
    octets = octets[: len(octets) // 8 * 8]
    words = np.frombuffer(octets, np.uint64)
    assert crc_of(octets) == crc32c_slow(octets)
    masked = bytearray(octets)
    if skipped < len(words):
        masked[8 * skipped : 8 * skipped + 4] = bytes(4)
    high = np.uint64(0xFFFFFFFF00000000)
    assert int(crc32c_words(words, len(words), skipped, high)) == crc32c_slow(bytes(masked))


@given(bits=st.lists(st.booleans(), max_size=200), start=st.integers(0, 9), noise=st.integers(0, 255))
def test_bits_are_loaded_as_numpy_packs_them(bits: list[bool], start: int, noise: int) -> None:
    """Packed bytes become whole words, LSB first; bits beyond the last are dropped, other words left alone."""
    packed = np.packbits(np.array(bits, np.bool_), bitorder="little")
    if len(bits) % 8:
        packed[-1] |= np.uint8((noise << len(bits) % 8) & 0xFF)
    message = np.concatenate([np.full(start, noise, np.uint8), packed, np.full(9, noise, np.uint8)])
    words = np.full(2 + (len(bits) + 63) // 64, KEEP_ALL)
    load_bits(message, start, len(bits), words, 1)
    if bits:
        assert np.array_equal(words[1:-1], words_of(np.array(bits)))
    assert words[0] == words[-1] == KEEP_ALL


@given(octets=st.binary(max_size=40), at=st.integers(0, 2), start=st.integers(0, 5))
def test_words_are_stored_as_their_bytes(octets: bytes, at: int, start: int) -> None:
    """Whole words become their little-endian bytes, and nothing else is written."""
    words = np.zeros(at + 6, np.uint64)
    words[at : at + 5].view(np.uint8)[: len(octets)] = np.frombuffer(octets, np.uint8)
    packed = np.full(start + len(octets) + 3, 0xAA, np.uint8)
    store_bytes(words, at, len(octets), packed, start)
    assert packed.tobytes() == b"\xaa" * start + octets + b"\xaa" * 3


@given(bits=st.lists(st.booleans(), max_size=300))
def test_loading_and_storing_are_inverse(bits: list[bool]) -> None:
    """Bits packed, loaded and stored are the bytes that they were."""
    packed = np.packbits(np.array(bits, np.bool_), bitorder="little")
    words = np.zeros((len(bits) + 63) // 64 + 1, np.uint64)
    load_bits(packed, 0, len(bits), words, 0)
    back = np.zeros_like(packed)
    store_bytes(words, 0, len(packed), back, 0)
    assert np.array_equal(back, packed)


@given(octets=st.binary(min_size=9, max_size=9), num_observables=st.integers(1, 64))
def test_an_answer_gives_its_observables_as_one_word(octets: bytes, num_observables: int) -> None:
    """The first bits of a row are the flips, LSB first; the seam behind them does not leak in."""
    answers = np.stack([np.zeros(9, np.uint8), np.frombuffer(octets, np.uint8)])
    bits = np.unpackbits(answers[1], bitorder="little")[:num_observables]
    assert int(answer_flips(answers, 1, num_observables)) == word(bits.astype(bool))


def slow_bin(value: int) -> int:
    """The last bin whose smallest value is not larger."""
    return int(np.searchsorted(bin_edges(), max(value, 0), side="right")) - 1


@given(value=st.one_of(st.integers(-10, 300), st.integers(0, 1 << 50)))
def test_a_value_falls_into_the_bin_that_begins_below_it(value: int) -> None:
    """The compiled bin is the twin's, over the whole range and beyond its end."""
    assert bin_of(value) == slow_bin(value)


def test_bins_are_narrow_and_follow_each_other() -> None:
    """Bin edges increase; a bin is exact below 64 and at most 1/64 of its value wide."""
    edges = bin_edges()
    widths = np.diff(edges)
    assert len(edges) == NUM_BINS
    assert (widths > 0).all()
    assert (widths[:SUB_BINS] == 1).all()
    assert (widths <= np.maximum(edges[:-1] // SUB_BINS, 1)).all()


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.99])
def test_a_percentile_lies_within_a_bin_of_numpys(fraction: float) -> None:
    """A histogram's percentile is that of the samples, up to the width of a bin."""
    samples = np.random.default_rng(4).lognormal(10, 1, 20_000).astype(np.int64)
    counts = np.bincount([bin_of(int(x)) for x in samples], minlength=NUM_BINS)
    exact = float(np.quantile(samples, fraction, method="inverted_cdf"))
    assert percentile(counts, fraction) == pytest.approx(exact, rel=1 / 64)


@pytest.mark.parametrize(
    ("samples", "fraction", "known"),
    [(0, 0.5, False), (1, 0.5, True), (99, 0.9, False), (100, 0.9, True), (999, 0.99, False), (1001, 0.99, True),
     (9_000, 0.999, False), (10_001, 0.999, True)],
)  # fmt: skip
def test_a_percentile_that_samples_do_not_carry_is_none(samples: int, fraction: float, known: bool) -> None:
    """A percentile with fewer than ten samples above it is not stated, but for the median."""
    counts = np.zeros(NUM_BINS, np.int64)
    counts[5] = samples
    assert percentile(counts, fraction) == (5.0 if known else None)


def test_a_message_of_the_wire_has_the_checksum_of_its_bytes() -> None:
    """Words of a message are its little-endian bytes: the checksum does not depend on how they are held."""
    octets = struct.pack("<QIIHHQ", 1, 2, 3, 4, 5, 6) + bytes(4)
    assert crc_of(octets) == crc32c_slow(octets)
