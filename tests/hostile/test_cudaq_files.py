"""Whatever stands in a decoder file, a syndrome file or a bundle: it is read, or refused by name."""

from __future__ import annotations

import copy
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rtqec.cudaq.bundle import read_bundle, write_bundle
from rtqec.cudaq.decoder_file import load_decoder_file, parse_decoder_file
from rtqec.cudaq.decoder_model import decoder_of_bundle, make_decoder
from rtqec.cudaq.decoder_writer import bundle_of_decoder
from rtqec.cudaq.syndromes import parse_syndromes
from rtqec.errors import ConfigError
from tests.decoder_files import SMOKE, memory, table_of

MEMORY = table_of(memory(3, 2))
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 40), st.sampled_from([2**63, 10**30, -1]), st.floats(),
    st.text(max_size=5), st.lists(st.one_of(st.integers(-2, 40), st.floats(0, 1)), max_size=12), st.just({}),
    st.just([[]]),
)  # fmt: skip
KEYS = st.sampled_from([*MEMORY, "dispatch", "stim_dem_path", "dem_chunks", "error_rate_vec", "cuda_device_id", "pet"])
ARGUMENTS = st.sampled_from(["error_rate_vec", "merge_strategy", "inner_decoder_name", "window_size"])
CHANGES = st.lists(st.tuples(KEYS, VALUES), max_size=3)


def read(found: Any) -> None:
    """Read a file of these tables, as a user's, and make every decoder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decoders.yml"
        path.write_text(yaml.safe_dump(found))
        with suppress(ConfigError):
            for entry in load_decoder_file(path).decoders:
                make_decoder(entry)


@given(st.sampled_from([SMOKE, MEMORY]), CHANGES, st.dictionaries(ARGUMENTS, VALUES))
@settings(max_examples=100)
def test_decoders_with_other_values_are_read_or_refused(
    table: dict[str, Any], changes: list[tuple[str, Any]], arguments: dict[str, Any]
) -> None:
    """Any key, any value, in the table and among the arguments."""
    table = copy.deepcopy(table)
    table["decoder_custom_args"] |= arguments
    read({"decoders": [table | dict(changes)]})


@given(st.sampled_from(["H_sparse", "O_sparse", "D_sparse"]), st.integers(0, 10_000), st.integers(-2, 400))
@settings(max_examples=100)
def test_matrices_with_one_other_number_are_read_or_refused(key: str, place: int, value: int) -> None:
    """A column that is wrong, a row that ends too early or too late."""
    table = copy.deepcopy(MEMORY)
    table[key][place % len(table[key])] = value
    with suppress(ConfigError):
        make_decoder(parse_decoder_file({"decoders": [table]}, Path()).entry(0))


BUNDLE = bundle_of_decoder(make_decoder(parse_decoder_file({"decoders": [MEMORY]}, Path()).entry(0)))


@given(VALUES, VALUES)
def test_other_tops_are_read_or_refused(decoders: Any, transport: Any) -> None:
    """What is no list of decoders, and what is no transport."""
    read({"decoders": decoders, "transport": transport})
    read({"decoders": [decoders], "transport": {"args": transport}})
    read(decoders)


WORDS = ["NUM_DATA 3", "NUM_LOGICAL 1", "SHOT_START 0", "SHOT_START 1", "ROUND_START 0 2", "ROUND_START 1", "1", "0",
         "2", "CORRECTIONS_START", "CORRECTIONS_END", "# 1", "", "ROUND_START x", "\x00"]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=20))
@settings(max_examples=300)
def test_any_lines_are_syndromes_or_refused(lines: list[str]) -> None:
    """What is read has as many bits as lines of 0 and 1."""
    try:
        found = parse_syndromes("\n".join(lines))
    except ConfigError:
        return
    answers = 0 if found.corrections is None else found.corrections.size
    assert found.measurements.size + answers == sum(line in ("0", "1") for line in lines)
    assert sum(found.block_widths) == found.measurements.shape[1]


FILES = ["H_csr.bin", "O_csr.bin", "priors.bin", "D_sparse.txt"]


@given(st.sampled_from(FILES), st.integers(0, 39), st.one_of(st.none(), st.integers(0, 255)))
@settings(max_examples=100)
def test_bundles_with_one_other_byte_are_read_or_refused(name: str, place: int, octet: int | None) -> None:
    """One byte of one file is another one, or is missing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_bundle(path.parent, BUNDLE)
        octets = bytearray(path.read_bytes())
        octets[place % len(octets) : place % len(octets) + 1] = b"" if octet is None else bytes([octet])
        path.write_bytes(octets)
        with suppress(ConfigError):
            decoder_of_bundle(read_bundle(path.parent))
