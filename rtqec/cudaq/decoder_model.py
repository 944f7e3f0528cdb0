"""From a decoder of a file to what is decoded: its error model, its folding, and its rounds."""

from __future__ import annotations

import stim

from rtqec.cudaq.bundle import Bundle
from rtqec.cudaq.decoder import CudaqDecoder
from rtqec.cudaq.decoder_file import DecoderEntry
from rtqec.cudaq.model import (
    MERGED_INDEPENDENTLY,
    UNWEIGHTED_PROBABILITY,
    Column,
    columns_of_model,
    decomposed_model,
    model_of_columns,
)
from rtqec.cudaq.rounds import (
    Blocks,
    blocks_that_repeat,
    rounds_from_blocks,
    rounds_from_coordinates,
)
from rtqec.cudaq.sparse import Rows, rows_of, transposed
from rtqec.errors import ConfigError, PlanError

MEASUREMENTS_MAX = 1 << 24
_RATE_MAX = 0.5
Widths = int | list[int] | None


def make_decoder(entry: DecoderEntry, time_index: int = -1, widths: Widths = None) -> CudaqDecoder:
    """The model of one decoder, its rounds found.

    Args:
        entry: As read.
        time_index: With `stim_dem_path`, the coordinate that counts rounds.
        widths: How the record is cut into rounds: measurements of each round, or of all but the data readout, which
            detectors must then repeat; None where that is to be found.

    Raises:
        ConfigError: Sizes do not agree, or a file is missing.
        PlanError: Matching cannot decode it.
    """
    model = _model_of_file(entry) if "stim_dem_path" in entry.table else _model_of_matrices(entry)
    measurements = rows_of(
        f"{entry.where} D_sparse", entry.table["D_sparse"], model.num_detectors, MEASUREMENTS_MAX, "of one shot"
    )
    _check_rows_filled(f"{entry.where} D_sparse", measurements)
    decoder = CudaqDecoder(model, measurements, model.num_observables)
    if widths is not None:
        return decoder.with_rounds(*_rounds_as_told(decoder, widths))
    found = rounds_from_coordinates(measurements, model.get_detector_coordinates(), time_index)
    if found is not None:
        return CudaqDecoder(model, measurements, model.num_observables, *found)
    found = rounds_from_blocks(measurements, blocks_that_repeat(measurements))
    return decoder if found is None else decoder.with_rounds(*found)


def decoder_of_bundle(bundle: Bundle) -> CudaqDecoder:
    """The decoder of a bundle of matrices, its rounds read off D.

    Raises:
        PlanError: It has no D, or matching cannot decode it.
    """
    if bundle.measurements_of is None:
        raise PlanError(
            "bundle", "has no D_sparse.txt.", "D says which measurements make a detector.",
            "Take the bundle of a decoding server, or feed detection events.",
        )  # fmt: skip
    _check_rows_filled("bundle D_sparse.txt", bundle.measurements_of)
    num_errors = len(bundle.priors)
    flips = zip(
        transposed(bundle.checks, num_errors),
        transposed(bundle.observables, num_errors),
        bundle.priors.tolist(),
        strict=True,
    )
    columns = [Column(*flipped) for flipped in flips]
    sizes = len(bundle.checks), len(bundle.observables)
    model = model_of_columns("bundle H_csr.bin", columns, MERGED_INDEPENDENTLY, *sizes)
    decoder = CudaqDecoder(model, bundle.measurements_of, model.num_observables)
    found = rounds_from_blocks(decoder.measurements_of, blocks_that_repeat(decoder.measurements_of))
    return decoder if found is None else decoder.with_rounds(*found)


def _rounds_as_told(decoder: CudaqDecoder, widths: int | list[int]) -> tuple[tuple[int, ...], Blocks]:
    """Rounds where the configuration cuts the record."""
    least, rows = decoder.num_measurements, decoder.measurements_of
    blocks = blocks_that_repeat(rows, widths) if isinstance(widths, int) else tuple(widths)
    found = rounds_from_blocks(rows, blocks if blocks and sum(blocks) >= least else None)
    if found is None:
        raise PlanError(
            "[plan] measurements_per_round", f"is {widths!r}, which does not cut the {least} measurements of D_sparse "
            "into rounds that have detectors.",
            "A detector belongs to the round of its last measurement; rounds follow each other without holes.",
            'Give the measurements of one round, or the list of all blocks, or "auto".',
        )  # fmt: skip
    return found


def _model_of_matrices(entry: DecoderEntry) -> stim.DetectorErrorModel:
    table, where = entry.table, entry.where
    num_detectors, num_errors = int(table["syndrome_size"]), int(table["block_size"])
    checks = rows_of(f"{where} H_sparse", table["H_sparse"], num_detectors, num_errors, "block_size - 1")
    observables = rows_of(f"{where} O_sparse", table["O_sparse"], None, num_errors, "block_size - 1")
    _check_rows_filled(f"{entry.where} O_sparse", observables)
    seen = {column for row in checks for column in row}
    if len(seen) != num_errors:
        unseen = next(column for column in range(num_errors) if column not in seen)
        raise PlanError(
            f"{where} H_sparse", f"has no detector in column {unseen} of {num_errors} (block_size).",
            "An error that nobody sees cannot be corrected; CUDA-Q refuses it, too.",
            "Leave that error out, or correct block_size.",
        )  # fmt: skip
    rates = _rates(entry, num_errors) or [UNWEIGHTED_PROBABILITY] * num_errors
    flips = zip(transposed(checks, num_errors), transposed(observables, num_errors), rates, strict=True)
    columns = [Column(*flipped) for flipped in flips]
    return model_of_columns(f"{where} H_sparse", columns, entry.merge_strategy, num_detectors, len(observables))


def _model_of_file(entry: DecoderEntry) -> stim.DetectorErrorModel:
    key, path = f"{entry.where} stim_dem_path", entry.folder / entry.table["stim_dem_path"]
    try:
        model = stim.DetectorErrorModel.from_file(path).flattened()
    except (ValueError, OSError) as error:
        raise ConfigError(
            key, f"is {str(path)!r}, which Stim cannot read: {str(error).splitlines()[0]}",
            "The errors are read from there.", "Correct the path, relative to the decoder file, or the file.",
        ) from error  # fmt: skip
    rates = _rates(entry, model.num_errors)
    if rates is None and entry.merge_strategy == MERGED_INDEPENDENTLY:
        return decomposed_model(key, model)
    columns = columns_of_model(model)
    if rates is not None:
        columns = [Column(c.detectors, c.observables, rate) for c, rate in zip(columns, rates, strict=True)]
    found = model_of_columns(key, columns, entry.merge_strategy, model.num_detectors, model.num_observables)
    for instruction in model:
        if instruction.type == "detector":
            found.append(instruction)
    return found


def _rates(entry: DecoderEntry, num_errors: int) -> list[float] | None:
    rates = entry.arguments.get("error_rate_vec")
    if rates is None:
        return None
    key = f"{entry.where} error_rate_vec"
    if len(rates) != num_errors:
        raise ConfigError(
            key, f"has {len(rates)} probabilities for {num_errors} errors.",
            "Each column of H_sparse, or each error of stim_dem_path, has one.", "Write both from one experiment.",
        )  # fmt: skip
    for number, rate in enumerate(rates):
        if not 0 < rate <= _RATE_MAX:
            raise ConfigError(
                key, f"has {rate} at place {number}; the bounds are 0, excluded, and {_RATE_MAX}.",
                "Its weight log((1 - p) / p) would be infinite or negative; CUDA-Q refuses that, too.",
                "Leave out errors that cannot happen.",
            )  # fmt: skip
    return [float(rate) for rate in rates]


def _check_rows_filled(where: str, rows: Rows) -> None:
    """CUDA-Q drops empty rows of O and D, or refuses them."""
    empty = [number for number, row in enumerate(rows) if not row]
    if empty or not rows:
        raise PlanError(
            where, f"has nothing in row {empty[0] if empty else 0}.",
            "A detector without measurements, or an observable that no error flips, is never anything; CUDA-Q does "
            "not take it either.", "Leave that row out, also in the other matrices.",
        )  # fmt: skip
