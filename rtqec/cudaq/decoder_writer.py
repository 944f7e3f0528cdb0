"""Write decoder files of CUDA-Q."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rtqec.cudaq.bundle import Bundle
from rtqec.cudaq.decoder import CudaqDecoder
from rtqec.cudaq.decoder_file import parse_decoder_file
from rtqec.cudaq.model import MERGED_INDEPENDENTLY, edges_of_model
from rtqec.cudaq.sparse import flat_of, transposed
from rtqec.errors import PlanError

_LINE = 120


def decoder_table(decoder: CudaqDecoder, decoder_id: int, dem_name: str | None = None) -> dict[str, Any]:
    """One entry of a decoder file.

    Args:
        decoder: What it describes.
        decoder_id: From 0 on.
        dem_name: The file of its model, for `stim_dem_path`: the model then stays as it is. (CUDA-Q's own `pymatching`
            takes no errors of several parts, so that the entry names `nv-fusion-decoder`; to rtqec both are matching.)
            Without it the entry holds the edges of the matching graph, and nothing ties the parts of an error together.

    Raises:
        PlanError: There is what such a file cannot say.
    """
    where = f"decoder {decoder_id}"
    for detector, measurements in enumerate(decoder.measurements_of):
        if not measurements:
            raise PlanError(
                where, f"has detector D{detector}, which no measurement makes.",
                "CUDA-Q takes no empty rows of D_sparse.", "Remove that detector from the circuit.",
            )  # fmt: skip
    kind = "pymatching" if dem_name is None else "nv-fusion-decoder"
    table: dict[str, Any] = {"id": decoder_id, "type": kind}
    if dem_name is not None:
        table["stim_dem_path"] = dem_name
    else:
        table |= _matrices(decoder, where)
    table["D_sparse"] = flat_of(decoder.measurements_of)
    if dem_name is None:
        table["decoder_custom_args"] = {
            "merge_strategy": MERGED_INDEPENDENTLY,
            "error_rate_vec": list(edges_of_model(where, decoder.dem).probabilities.values()),
        }
    return table


def write_decoder_file(path: Path, decoders: Sequence[CudaqDecoder], with_models: bool = False) -> list[Path]:
    """Write a decoder file, and check that it is one.

    Args:
        path: The file.
        decoders: Numbered from 0 on.
        with_models: Write each model to a file beside it (NAME.0.dem ..) instead of matrices.

    Returns:
        All files that were written.

    Raises:
        PlanError: There is what such a file cannot say.
    """
    names = [f"{path.stem}.{number}.dem" if with_models else None for number in range(len(decoders))]
    tables = [decoder_table(*each) for each in zip(decoders, range(len(decoders)), names, strict=True)]
    found = {"decoders": tables}
    parse_decoder_file(found, path.parent, str(path))
    written = [path]
    for decoder, name in zip(decoders, names, strict=True):
        if name is not None:
            decoder.dem.to_file(path.parent / name)
            written.append(path.parent / name)
    path.write_text(yaml.dump(found, sort_keys=False, width=_LINE, default_flow_style=None))
    return written


def bundle_of_decoder(decoder: CudaqDecoder) -> Bundle:
    """The matrices of a decoder, without shots: the edges of its matching graph."""
    edges = edges_of_model("bundle", decoder.dem)
    return Bundle(
        transposed(tuple(edges.probabilities), len(decoder.measurements_of)),
        transposed(tuple(edges.observables.values()), decoder.num_observables),
        np.array(list(edges.probabilities.values())),
        decoder.measurements_of,
    )


def _matrices(decoder: CudaqDecoder, where: str) -> dict[str, Any]:
    edges = edges_of_model(where, decoder.dem)
    num_edges, num_detectors = len(edges.probabilities), len(decoder.measurements_of)
    flipped = transposed(tuple(edges.observables.values()), decoder.num_observables)
    if any(not row for row in flipped):
        raise PlanError(
            where, f"has observable L{flipped.index(())}, which no error flips.",
            "CUDA-Q drops empty rows of O_sparse, and corrections would be too short.",
            "Remove that observable, or add the errors that flip it.",
        )  # fmt: skip
    return {
        "block_size": num_edges,
        "syndrome_size": num_detectors,
        "H_sparse": flat_of(transposed(tuple(edges.probabilities), num_detectors)),
        "O_sparse": flat_of(flipped),
    }
