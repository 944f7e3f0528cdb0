"""CUDA-Q's syndrome files and bundles are read as they were written, and hostile ones are refused by name."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtqec.cudaq.bundle import (
    Bundle,
    read_bits,
    read_bundle,
    read_metadata,
    read_priors,
    read_rows,
    write_bits,
    write_bundle,
)
from rtqec.cudaq.syndromes import Syndromes, parse_syndromes, read_syndromes, write_syndromes
from rtqec.errors import ConfigError
from tests.decoder_files import recorded_folder

TEXT = """# two shots of two rounds
NUM_DATA 3
NUM_LOGICAL 1
SHOT_START 0
ROUND_START 0 2
1
0
ROUND_START 1 3
1
1  # of the readout
0
SHOT_START 1
ROUND_START 2 2
0
0
ROUND_START 3 3
0
0
1
CORRECTIONS_START
1
0
CORRECTIONS_END
"""


def test_a_syndrome_file_is_read() -> None:
    """Shots, slices, corrections and labels of a file written by hand."""
    found = parse_syndromes(TEXT)
    assert found.measurements.astype(int).tolist() == [[1, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    assert found.block_widths == (2, 3)
    assert [bits.astype(int).tolist() for bits in found.slices(0)] == [[1, 0], [1, 1, 0]]
    assert found.corrections is not None
    assert found.corrections.tolist() == [[True], [False]]
    assert (found.num_data, found.num_observables) == (3, 1)


def test_rounds_and_corrections_may_be_missing() -> None:
    """One slice then; and nothing to compare with."""
    found = parse_syndromes("NUM_LOGICAL 2\nSHOT_START 0\n1\n0\n1\n")
    assert (found.block_widths, found.corrections, found.num_data) == ((3,), None, 0)


@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.integers(0, 2**32))
def test_a_syndrome_file_comes_back(num_shots: int, widths: list[int], answered: bool, seed: int) -> None:
    """What is written is read as the same."""
    random = np.random.default_rng(seed)
    bits = random.random((num_shots, sum(widths))) < 0.5
    answers = random.random((num_shots, 2)) < 0.5 if answered else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "syndromes.txt"
        write_syndromes(path, Syndromes(bits, tuple(widths), answers, 9, 2))
        found = read_syndromes(path)
    assert np.array_equal(found.measurements, bits)
    assert found.block_widths == tuple(widths)
    assert answers is None if found.corrections is None else np.array_equal(found.corrections, answers)


@pytest.mark.recorded
def test_the_recorded_syndromes_come_back(tmp_path: Path) -> None:
    """NVIDIA's fixture is written line by line as it was, without its comments."""
    original = recorded_folder() / "syndromes_pymatching.txt"
    found = read_syndromes(original)
    assert found.measurements.shape == (100, 41)
    write_syndromes(tmp_path / "again.txt", found)
    lines = [line for line in original.read_text().splitlines() if not line.startswith("#")]
    assert (tmp_path / "again.txt").read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ROUND_START 0 2\n1\n0\n|ROUND_START 0 2\n1\n", "a round of 1 bits before line 7, which says to have 2"),
        ("ROUND_START 3 3\n0\n0\n1\n|ROUND_START 3 3\n0\n0\n", "which says to have 3"),
        ("SHOT_START 1\n|SHOT_START 5\n", "'SHOT_START 5'"),
        ("SHOT_START 0\n|", "'ROUND_START 0 2'"),
        ("NUM_LOGICAL 1\n|", "no NUM_LOGICAL"),
        ("CORRECTIONS_END\n|", "no CORRECTIONS_END"),
        ("CORRECTIONS_END\n|CORRECTIONS_END\n1\n", "a bit outside of a shot"),
        ("1\n0\nCORRECTIONS_END|1\nCORRECTIONS_END", "has 1 corrections; there must be 2"),
        ("0\n0\nROUND_START 3|2\n0\nROUND_START 3", "has in line 14 '2'"),
        ("ROUND_START 2 2\n0\n0\n|", "shots of different rounds"),
        ("NUM_DATA 3|NUM_DATA -3", "'NUM_DATA -3'"),
        ("NUM_DATA 3|NUM_DATA 3\nNUM_DATA 3", "has in line 3"),
        ("NUM_DATA 3|NUM_DATA 99999999999999999999", "has in line 2"),
    ],
)
def test_a_damaged_syndrome_file_is_refused(line: str, said: str) -> None:
    """The message says what is wrong, and where."""
    before, _, after = line.partition("|")
    assert before in TEXT
    with pytest.raises(ConfigError) as caught:
        parse_syndromes(TEXT.replace(before, after, 1))
    assert said in str(caught.value)


def bundle() -> Bundle:
    return Bundle(
        checks=((0, 2), (), (1, 2)),
        observables=((1,),),
        priors=np.array([0.1, 1e-14, 0.25]),
        measurements_of=((0,), (0, 1), (1, 2)),
        detectors=np.array([[1, 0, 1], [0, 1, 1]], np.bool_),
        observable_flips=np.array([[1], [0]], np.bool_),
        metadata={"distance": "3", "noise_model": "simple"},
    )


def test_a_bundle_has_the_documented_bytes(tmp_path: Path) -> None:
    """Headers, types and order, written out by hand."""
    write_bundle(tmp_path, bundle())
    words = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    as_u32 = {name: np.frombuffer(octets, "<u4").tolist() for name, octets in words.items() if name.endswith(".bin")}
    assert as_u32["H_csr.bin"] == [3, 3, 4, 0, 2, 2, 4, 0, 2, 1, 2]
    assert as_u32["O_csr.bin"] == [1, 3, 1, 0, 1, 1]
    assert as_u32["detectors.bin"] == [2, 3, 1, 0, 1, 0, 1, 1]
    assert as_u32["observables.bin"] == [2, 1, 1, 0]
    assert as_u32["priors.bin"][0] == 3
    assert np.frombuffer(words["priors.bin"][4:], "<f8").tolist() == [0.1, 1e-14, 0.25]
    assert words["D_sparse.txt"] == b"0 -1\n0 1 -1\n1 2 -1\n"
    assert words["metadata.txt"] == b"distance=3\nnoise_model=simple\n"


def test_a_bundle_comes_back(tmp_path: Path) -> None:
    """Everything; and what is not there is None."""
    write_bundle(tmp_path, bundle())
    found = read_bundle(tmp_path)
    for name in Bundle.__dataclass_fields__:
        assert np.array_equal(getattr(found, name), getattr(bundle(), name)) or getattr(found, name) == getattr(
            bundle(), name
        ), name
    for name in ("detectors.bin", "observables.bin", "D_sparse.txt", "metadata.txt"):
        (tmp_path / name).unlink()
    found = read_bundle(tmp_path)
    assert (found.detectors, found.observable_flips, found.measurements_of, found.metadata) == (None, None, None, {})


def test_lying_headers_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    """Sizes are compared with the file's own; four thousand million rows cost nothing."""
    path = tmp_path / "file.bin"
    huge = 2**32 - 1
    for words, read in (
        ([huge, huge, 1], lambda: read_bits(path)),
        ([huge, 3, huge, 0], lambda: read_rows(path, 3)),
        ([huge], lambda: read_priors(path)),
        ([], lambda: read_priors(path)),
        ([1], lambda: read_bits(path)),
    ):
        path.write_bytes(np.array(words, "<u4").tobytes())
        with pytest.raises(ConfigError, match="header"):
            read()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_bits(tmp_path / "none.bin")


def test_contradictions_in_a_bundle_are_refused(tmp_path: Path) -> None:
    """Values, starts, indices, columns: each by name."""
    path = tmp_path / "file.bin"

    def refused(words: list[int], columns: int | None = 3) -> str:
        path.write_bytes(np.array(words, "<i4").tobytes())
        with pytest.raises(ConfigError) as caught:
            read_rows(path, 3 if columns is None else columns) if columns else read_bits(path)
        return str(caught.value)

    assert "something else than 0 and 1" in refused([1, 2, 0, 2], 0)
    assert "do not begin at 0" in refused([2, 3, 1, 0, 2, 1, 0])
    assert "do not begin at 0" in refused([1, 3, 1, 0, 2, 0])
    assert "outside of 0 to 2" in refused([1, 3, 1, 0, 1, 3])
    assert "outside of 0 to 2" in refused([1, 3, 1, 0, 1, -1])
    assert "twice in a row" in refused([1, 3, 2, 0, 2, 1, 1])
    assert "has 4 columns" in refused([1, 4, 1, 0, 1, 3])
    write_bits(path, np.zeros((2, 3), np.bool_))
    with pytest.raises(ConfigError, match="ask for 4"):
        read_bits(path, 4)
    path.write_bytes(np.array([1], "<u4").tobytes() + np.array([1.5]).tobytes())
    with pytest.raises(ConfigError, match="probabilities"):
        read_priors(path)
    path.write_text("distance: 3\n")
    with pytest.raises(ConfigError, match="no key=value"):
        read_metadata(path)
    write_bundle(tmp_path, bundle())
    for text, said in (("0 -1\n0 x -1\n", "whole numbers"), ("0 -1\n", "has 1 rows"), ("0 -1 5 -1 6", "ends with 6")):
        (tmp_path / "D_sparse.txt").write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_bundle(tmp_path)
