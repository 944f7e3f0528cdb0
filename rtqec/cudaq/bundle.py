"""Bundles of matrices, as NVIDIA's Ising decoding writes them for CUDA-Q's C++ programs. Little-endian.

    detectors.bin, observables.bin     u32 rows, u32 columns, rows x columns int32 of 0 and 1
    H_csr.bin, O_csr.bin               u32 rows, u32 columns, u32 entries, int32 starts[rows + 1], indices[entries]
    priors.bin                         u32 errors, float64[errors]
    D_sparse.txt                       the measurements of each detector, -1 ends a row
    metadata.txt                       key=value lines; labels that nothing reads

What a header says is compared with the size of its file before anything is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtqec.cudaq.sparse import Rows, flat_of, rows_of
from rtqec.errors import ConfigError

_U32 = np.dtype("<u4")
_I32 = np.dtype("<i4")
_F64 = np.dtype("<f8")
_DENSE_AT_ONCE = 1 << 22
"""Entries that are converted at a time: a whole file can be larger than memory as int32."""


@dataclass(frozen=True)
class Bundle:
    """One experiment with its shots. What a folder does not have is None.

    Attributes:
        checks: H: the errors of each detector.
        observables: O: the errors of each observable.
        priors: float64, shape (num_errors,): the probability of each error.
        measurements_of: D: the measurements of each detector.
        detectors: bool, shape (num_shots, num_detectors): detection events.
        observable_flips: bool, shape (num_shots, num_observables): the truth.
        metadata: Labels.
    """

    checks: Rows
    observables: Rows
    priors: NDArray[np.float64]
    measurements_of: Rows | None = None
    detectors: NDArray[np.bool_] | None = None
    observable_flips: NDArray[np.bool_] | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def read_bundle(folder: Path) -> Bundle:
    """Read a folder: H, O and priors, and what else is there.

    Raises:
        ConfigError: A file is missing, or is not of its form.
    """
    priors = read_priors(folder / "priors.bin")
    checks, observables = (read_rows(folder / name, len(priors)) for name in ("H_csr.bin", "O_csr.bin"))
    mapped, shots, truth = (folder / name for name in ("D_sparse.txt", "detectors.bin", "observables.bin"))
    labels = folder / "metadata.txt"
    return Bundle(
        checks,
        observables,
        priors,
        read_measurements(mapped, len(checks)) if mapped.exists() else None,
        read_bits(shots, len(checks)) if shots.exists() else None,
        read_bits(truth, len(observables)) if truth.exists() else None,
        read_metadata(labels) if labels.exists() else {},
    )


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write a folder; what the bundle does not have is not written."""
    folder.mkdir(parents=True, exist_ok=True)
    write_priors(folder / "priors.bin", bundle.priors)
    write_rows(folder / "H_csr.bin", bundle.checks, len(bundle.priors))
    write_rows(folder / "O_csr.bin", bundle.observables, len(bundle.priors))
    if bundle.measurements_of is not None:
        write_measurements(folder / "D_sparse.txt", bundle.measurements_of)
    if bundle.detectors is not None:
        write_bits(folder / "detectors.bin", bundle.detectors)
    if bundle.observable_flips is not None:
        write_bits(folder / "observables.bin", bundle.observable_flips)
    if bundle.metadata:
        write_metadata(folder / "metadata.txt", bundle.metadata)


def read_bits(path: Path, num_columns: int | None = None) -> NDArray[np.bool_]:
    """A file of shots, bool, shape (rows, columns).

    Args:
        path: The file.
        num_columns: How many it must have; None where anything goes.

    Raises:
        ConfigError: It is missing, not of this form, or holds something else than 0 and 1.
    """
    rows, columns = _header(path, 2)
    _check_size(path, 2 * _U32.itemsize + rows * columns * _I32.itemsize)
    if num_columns is not None and columns != num_columns:
        raise _unfit(path, f"has {columns} columns; the matrices beside it ask for {num_columns}")
    bits = np.empty(rows * columns, np.bool_)
    entries = np.memmap(path, _I32, "r", 2 * _U32.itemsize, (len(bits),)) if len(bits) else np.empty(0, _I32)
    for start in range(0, len(bits), _DENSE_AT_ONCE):
        part = entries[start : start + _DENSE_AT_ONCE]
        if ((part != 0) & (part != 1)).any():
            raise _unfit(path, "holds something else than 0 and 1")
        bits[start : start + len(part)] = part
    return bits.reshape(rows, columns)


def write_bits(path: Path, bits: NDArray[np.bool_]) -> None:
    """Write a file of shots, bool, shape (rows, columns)."""
    with path.open("wb") as file:
        file.write(np.array(bits.shape, _U32).tobytes())
        for row in bits:
            file.write(row.astype(_I32).tobytes())


def read_rows(path: Path, num_columns: int) -> Rows:
    """A sparse matrix.

    Args:
        path: The file.
        num_columns: How many columns it must have.

    Raises:
        ConfigError: It is missing, not of this form, or its indices contradict each other.
    """
    rows, columns, entries = _header(path, 3)
    _check_size(path, 3 * _U32.itemsize + (rows + 1 + entries) * _I32.itemsize)
    if columns != num_columns:
        raise _unfit(path, f"has {columns} columns; priors.bin has {num_columns} errors")
    numbers = np.fromfile(path, _I32, offset=3 * _U32.itemsize)
    starts, indices = numbers[: rows + 1], numbers[rows + 1 :]
    if starts[0] != 0 or starts[-1] != entries or (np.diff(starts) < 0).any():
        raise _unfit(path, f"has rows that do not begin at 0, grow, and end at {entries}")
    if entries and not 0 <= indices.min() <= indices.max() < columns:
        raise _unfit(path, f"has an index outside of 0 to {columns - 1}")
    found = tuple(tuple(sorted(row.tolist())) for row in np.split(indices, starts[1:-1]))
    if any(len(set(row)) != len(row) for row in found):
        raise _unfit(path, "has an index twice in a row")
    return found[:rows]


def write_rows(path: Path, rows: Rows, num_columns: int) -> None:
    """Write a sparse matrix."""
    starts = np.cumsum([0, *(len(row) for row in rows)])
    header = np.array([len(rows), num_columns, starts[-1]], _U32)
    indices = np.array([index for row in rows for index in row], _I32)
    path.write_bytes(header.tobytes() + starts.astype(_I32).tobytes() + indices.tobytes())


def read_priors(path: Path) -> NDArray[np.float64]:
    """The probability of each error, float64.

    Raises:
        ConfigError: It is missing, not of this form, or holds something else than probabilities.
    """
    (errors,) = _header(path, 1)
    _check_size(path, _U32.itemsize + errors * _F64.itemsize)
    priors = np.fromfile(path, _F64, offset=_U32.itemsize).astype(np.float64)
    if not ((priors >= 0) & (priors <= 1)).all():
        raise _unfit(path, "holds something else than probabilities")
    return priors


def write_priors(path: Path, priors: NDArray[np.float64]) -> None:
    """Write the probability of each error."""
    path.write_bytes(np.array([len(priors)], _U32).tobytes() + priors.astype(_F64).tobytes())


def read_measurements(path: Path, num_detectors: int) -> Rows:
    """D of a decoding server's bundle.

    Raises:
        ConfigError: It is missing, or not of this form.
    """
    words = _read_text(path).split()
    if not all(word.lstrip("-").isdigit() and len(word) < 10 for word in words):
        raise _unfit(path, "holds something else than whole numbers")
    return rows_of(str(path), [int(word) for word in words], num_detectors, 1 << 24, "of one shot")


def write_measurements(path: Path, measurements_of: Rows) -> None:
    """Write D, a line for each detector."""
    path.write_text("".join(" ".join(map(str, flat_of([row]))) + "\n" for row in measurements_of))


def read_metadata(path: Path) -> dict[str, str]:
    """Labels.

    Raises:
        ConfigError: It is missing, or a line is no key=value.
    """
    found = {}
    for line in _read_text(path).splitlines():
        key, equals, value = line.partition("=")
        if line.strip() and not equals:
            raise _unfit(path, f"has the line {line[:60]!r}, which is no key=value")
        if equals:
            found[key.strip()] = value.strip()
    return found


def write_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Write labels."""
    path.write_text("".join(f"{key}={value}\n" for key, value in metadata.items()))


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _header(path: Path, size: int) -> list[int]:
    try:
        found = np.fromfile(path, _U32, size)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(found) < size:
        raise _unfit(path, f"has fewer than the {size * _U32.itemsize} bytes of its header")
    return [int(number) for number in found]


def _check_size(path: Path, num_bytes: int) -> None:
    found = path.stat().st_size
    if found != num_bytes:
        raise _unfit(path, f"has {found} bytes, but its header speaks of {num_bytes}")


def _unreadable(path: Path, error: Exception) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ConfigError(
        str(path), f"cannot be read: {reason}.", "A bundle has it beside the others.", "Restore the file.",
    )  # fmt: skip


def _unfit(path: Path, what: str) -> ConfigError:
    return ConfigError(
        str(path), f"{what}.", "It was cut short, damaged, or belongs to another experiment.",
        "Write the bundle anew.",
    )  # fmt: skip
