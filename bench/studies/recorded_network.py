"""A network on recorded hardware data: failures of both hand-overs, of matching alone, and of what was published.

    python -m bench.studies.recorded_network rtqec/models/small.json \\
        $RTQEC_DATA/google_qec3v5/surface_code_bX_d5_r05_center_5_5 --dem pij_from_even_for_odd.dem --shots odd

The error model must not have been made from the shots that are judged: pij_from_even_for_odd.dem was made from the even
ones. The threshold of the hard hand-over is the card's. Whole shots, no daemon; what the daemon does with them is
compared with whole shots elsewhere (tests/property/test_soft.py, firmware-sim loop).

Data: Google Quantum AI, Suppressing quantum errors by scaling a surface code logical qubit, Nature 614, 676 (2023),
zenodo.org/records/6804040.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import stim
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.provenance import machine, source
from rtqec.device.choose import make_engine
from rtqec.device.engine import ChunkShape
from rtqec.neural.card import read_card
from rtqec.neural.experiment import GridExperiment
from rtqec.training.answers import EngineAnswers
from rtqec.training.handover import HardHandOver
from rtqec.training.paired import Paired
from rtqec.training.soft import SoftHandOver

CHOSEN = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
AT_ONCE = 5000
Wrong = dict[str, NDArray[np.bool_]]


def read_folder(folder: Path, detectors: int, chosen: slice) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Wrong]:
    """Detection events, observable flips, and where the predictions that lie beside them are wrong."""
    events = stim.read_shot_data_file(path=folder / "detection_events.b8", format="b8", num_detectors=detectors)[chosen]
    flips = stim.read_shot_data_file(path=folder / "obs_flips_actual.01", format="01", num_observables=1)[chosen]
    prefix = "obs_flips_predicted_by_"
    published = {
        f"published: {path.stem.removeprefix(prefix)}": (
            stim.read_shot_data_file(path=path, format="01", num_observables=1)[chosen] != flips
        )[:, 0]
        for path in sorted(folder.glob(f"{prefix}*.01"))
    }
    return events, flips, published


def judge(card_path: Path, dem: Path, events: NDArray[np.bool_], flips: NDArray[np.bool_]) -> Wrong:
    """Where each way of decoding is wrong."""
    card = read_card(card_path)
    experiment = GridExperiment.of_dem(stim.DetectorErrorModel.from_file(dem))
    hard = HardHandOver(experiment)
    soft = SoftHandOver(hard)
    layout = experiment.layout
    shape = ChunkShape(1, experiment.rounds.num_rounds, layout.code.distance, card.network.outputs)
    model = card_path.with_name(card.onnx[0].name)
    card.check_file(model)
    answers = EngineAnswers(make_engine("openvino", model, shape), layout)
    parts: dict[str, list[NDArray[np.bool_]]] = {}
    for start in range(0, len(events), AT_ONCE):
        shots = hard.shots(events[start : start + AT_ONCE], flips[start : start + AT_ONCE])
        logits = answers(shots.events)
        found = {"plain": shots.wrong["plain"], "correlated": shots.wrong["correlated"]}
        for matching in ("plain", "correlated"):
            threshold = card.threshold(layout.code.distance, matching=matching)  # type: ignore[arg-type]
            found[f"hard + {matching}"] = hard.failures(shots, logits, [threshold], matching)[0][0]  # type: ignore[arg-type]
        found["soft"] = soft(shots, logits)[0]
        for name, wrong in found.items():
            parts.setdefault(name, []).append(wrong)
    return {name: np.concatenate(wrong) for name, wrong in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", type=Path)
    parser.add_argument("folder", type=Path, help="Recorded data in Google's layout.")
    parser.add_argument("--dem", default="pij_from_even_for_odd.dem", help="Error model, in the folder.")
    parser.add_argument("--shots", choices=CHOSEN, default="odd")
    parser.add_argument("--out", type=Path, default=Path("bench/results/predecoder.jsonl"))
    arguments = parser.parse_args()
    dem = arguments.folder / arguments.dem
    detectors = stim.DetectorErrorModel.from_file(dem).num_detectors
    events, flips, published = read_folder(arguments.folder, detectors, CHOSEN[arguments.shots])
    wrong = judge(arguments.card, dem, events, flips) | published
    plain = wrong["plain"]
    table = Table("decoder", "failures", "over plain, 95 %", title=f"{arguments.folder.name}: {len(flips)} shots")
    rows = {}
    for name, missed in wrong.items():
        pair = Paired(int(missed.sum()), int(plain.sum()), int((missed & plain).sum()))
        low, high = pair.interval()
        ratio = pair.failures / pair.baseline
        table.add_row(name, str(pair.failures), "1" if missed is plain else f"{ratio:.3f} ({low:.3f} to {high:.3f})")
        rows[name] = {"failures": pair.failures, "over_plain": ratio, "low": low, "high": high}
    Console().print(table)
    card = read_card(arguments.card)
    row = {
        "study": "recorded_network", "at": datetime.now(UTC).isoformat(timespec="seconds"), **source(),
        "machine": machine(), "data": arguments.folder.name, "dem": arguments.dem, "which": arguments.shots,
        "shots": len(flips), "model": card.name, "weights": card.weights.sha256, "decoders": rows,
    }  # fmt: skip
    with arguments.out.open("a") as opened:
        opened.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
