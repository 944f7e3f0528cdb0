"""CUDA-Q's syndrome files: raw measurements of shots as text, one bit per line, and the corrections that they must get.

    NUM_DATA 9
    NUM_LOGICAL 1
    SHOT_START 0
    ROUND_START 0 8        optional: its number in the file, its bits
    0                      .. one line per measurement
    CORRECTIONS_START      optional
    1                      NUM_LOGICAL lines per shot
    CORRECTIONS_END

`#` begins a comment. Rounds are numbered through the whole file.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtqec.errors import ConfigError

FILE_BYTES_MAX = 1 << 30
_BITS = ("0", "1")


@dataclass(frozen=True)
class Syndromes:
    """Shots of one experiment.

    Attributes:
        measurements: bool, shape (num_shots, num_measurements).
        block_widths: Measurements of each slice of a shot; one slice where the file has no rounds.
        corrections: bool, shape (num_shots, num_observables), what the shots must be answered with; None where the
            file does not say it.
        num_data: Data qubits; a label.
        num_observables: Bits of a correction.
    """

    measurements: NDArray[np.bool_]
    block_widths: tuple[int, ...]
    corrections: NDArray[np.bool_] | None
    num_data: int
    num_observables: int

    def slices(self, shot: int) -> list[NDArray[np.bool_]]:
        """The slices of one shot."""
        stops = np.cumsum([0, *self.block_widths]).tolist()
        return [self.measurements[shot, start:stop] for start, stop in pairwise(stops)]


def read_syndromes(path: Path) -> Syndromes:
    """Read a file.

    Raises:
        ConfigError: It cannot be read, or is not of this form; the message names the line.
    """
    where = f"syndrome file {path}"
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(
                where, f"has {path.stat().st_size} bytes; the bound is {FILE_BYTES_MAX}.",
                "It is read as a whole.", "Split it into several files.",
            )  # fmt: skip
        text = path.read_text()
    except OSError as error:
        raise ConfigError(
            where, f"cannot be read: {error.strerror}.", "The shots are read from it.", "Correct the path.",
        ) from error  # fmt: skip
    except ValueError as error:
        raise ConfigError(
            where, f"is no text: {error}.", "Syndrome files have one bit per line.", "Name a syndrome file.",
        ) from error  # fmt: skip
    return parse_syndromes(text, where)


def parse_syndromes(text: str, where: str = "syndromes") -> Syndromes:
    """Read the text of a file.

    Args:
        text: All of it.
        where: How messages name it.

    Raises:
        ConfigError: It is not of this form; the message names the line.
    """
    reader = _Reader(where)
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            reader.read(number, words)
    return reader.finish()


def write_syndromes(path: Path, syndromes: Syndromes) -> None:
    """Write a file, all shots in slices of `block_widths`."""
    lines = [f"NUM_DATA {syndromes.num_data}", f"NUM_LOGICAL {syndromes.num_observables}"]
    num_slices = len(syndromes.block_widths)
    for shot in range(len(syndromes.measurements)):
        lines.append(f"SHOT_START {shot}")
        for number, bits in enumerate(syndromes.slices(shot)):
            lines.append(f"ROUND_START {shot * num_slices + number} {len(bits)}")
            lines += [_BITS[int(bit)] for bit in bits]
    if syndromes.corrections is not None:
        answers = [_BITS[int(bit)] for bit in syndromes.corrections.ravel()]
        lines += ["CORRECTIONS_START", *answers, "CORRECTIONS_END"]
    path.write_text("\n".join([*lines, ""]))


class _Reader:
    """What has been read so far."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._sizes: dict[str, int] = {}
        self._bits: list[bool] = []
        self._answers: list[bool] | None = None
        self._into: list[bool] | None = None
        self._shots: list[list[int]] = []
        """Of each shot the place of its first bit, then of each of its rounds."""
        self._announced: tuple[int, int] | None = None
        """Of the round that is read: where it begins, how many bits it says to have."""

    def read(self, number: int, words: list[str]) -> None:
        """One line that is not empty."""
        match words:
            case [bit] if bit in _BITS:
                if self._into is None:
                    raise self._wrong(number, words, "a bit outside of a shot")
                self._into.append(bit == "1")
            case ["NUM_DATA" | "NUM_LOGICAL", size] if _is_number(size) and words[0] not in self._sizes:
                self._sizes[words[0]] = int(size)
            case ["SHOT_START", count] if (
                _is_number(count) and int(count) == len(self._shots) and self._answers is None
            ):
                self._end_round(number)
                self._shots.append([len(self._bits)])
                self._into = self._bits
            case ["ROUND_START", count, *size] if (
                self._shots and self._into is self._bits and all(map(_is_number, (count, *size))) and len(size) <= 1
            ):
                self._end_round(number)
                if len(self._shots[-1]) == 1 and len(self._bits) > self._shots[-1][0]:
                    raise self._wrong(number, words, "a round in a shot that began without one")
                self._shots[-1].append(len(self._bits))
                self._announced = (len(self._bits), int(size[0])) if size else None
            case ["CORRECTIONS_START"] if self._answers is None:
                self._end_round(number)
                self._answers = self._into = []
            case ["CORRECTIONS_END"] if self._answers is not None and self._into is self._answers:
                self._into = None
            case _:
                raise self._wrong(number, words, "not a line of such a file, or not in this place")

    def finish(self) -> Syndromes:
        """All that was read."""
        self._end_round(0)
        unfinished = self._answers is not None and self._into is self._answers
        if "NUM_LOGICAL" not in self._sizes or not self._shots or not self._bits or unfinished:
            raise ConfigError(
                self._where, "has no NUM_LOGICAL, no shots, or no CORRECTIONS_END.",
                "It was cut short, or is another file.", "Name a whole syndrome file.",
            )  # fmt: skip
        return self._assembled()

    def _assembled(self) -> Syndromes:
        ends = [shot[0] for shot in self._shots[1:]] + [len(self._bits)]
        widths = {
            tuple(np.diff([*(shot[1:] or shot), end]).tolist()) for shot, end in zip(self._shots, ends, strict=True)
        }
        if len(widths) != 1:
            raise ConfigError(
                self._where, f"has shots of different rounds: {sorted(widths)[:2]}.",
                "All shots are of one experiment.", "Split it into one file per experiment.",
            )  # fmt: skip
        num_shots, num_observables = len(self._shots), self._sizes["NUM_LOGICAL"]
        if self._answers is not None and len(self._answers) != num_shots * num_observables:
            raise ConfigError(
                self._where, f"has {len(self._answers)} corrections; there must be {num_shots * num_observables}: "
                "NUM_LOGICAL for each shot.", "It was cut short.", "Name a whole syndrome file.",
            )  # fmt: skip
        answers = None
        if self._answers is not None:
            answers = np.array(self._answers, np.bool_).reshape(num_shots, num_observables)
        return Syndromes(
            np.array(self._bits, np.bool_).reshape(num_shots, -1),
            tuple(widths.pop()),
            answers,
            self._sizes.get("NUM_DATA", 0),
            num_observables,
        )

    def _end_round(self, number: int) -> None:
        """A round that said how many bits it has must have had them."""
        if self._announced is not None and len(self._bits) - self._announced[0] != self._announced[1]:
            found = len(self._bits) - self._announced[0]
            raise ConfigError(
                self._where, f"has a round of {found} bits{f' before line {number}' if number else ' at its end'}, "
                f"which says to have {self._announced[1]}.", "Bits are missing, or too many.",
                "Correct that round, or write the file anew.",
            )  # fmt: skip
        self._announced = None

    def _wrong(self, number: int, words: list[str], what: str) -> ConfigError:
        return ConfigError(
            self._where, f"has in line {number} {' '.join(words)[:60]!r}: {what}.",
            "Bits that are read as those of another round would be decoded wrongly.",
            "Correct that line; rtqec/cudaq/syndromes.py describes the form.",
        )  # fmt: skip


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
