"""What a training has reached when: one row per evaluation, in a file, and as scalars for TensorBoard.

A row's thresholds are chosen on the shots that it counts, the same ones every time: a curve shows progress. What a
model is worth stands in its card, measured on fresh shots.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from rtqec.training.evaluation import Choice, Point
from rtqec.training.handover import MATCHINGS

NAME = "curve.jsonl"


class Curve:
    """The rows of one training, and its scalars.

    Args:
        folder: Of the output.
        shots, step: Where training stands: rows that an interrupted run wrote beyond that are dropped.
    """

    def __init__(self, folder: Path, shots: int, step: int) -> None:
        self._path = folder / NAME
        if self._path.exists():
            rows = [json.loads(line) for line in self._path.read_text().splitlines()]
            kept = [row for row in rows if row["shots"] <= shots]
            self._path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def scalars(self, step: int, **values: float) -> None:
        """Numbers of a step, for TensorBoard."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def add(self, shots: int, step: int, seconds: float, loss: float, found: list[tuple[Point, Choice]]) -> str:
        """Append the row of an evaluation; returns it in a line for people."""
        row = {
            "shots": shots, "step": step, "seconds": round(seconds, 1), "loss": loss,
            "points": [_point(point, choice) for point, choice in found],
        }  # fmt: skip
        with self._path.open("a") as opened:
            opened.write(json.dumps(row) + "\n")
        words = []
        for point, choice in found:
            name = _name(point)
            pair = choice.pair["plain"]
            if pair.baseline:
                self.scalars(step, **{f"failures over plain/{name}": pair.failures / pair.baseline})
            best = point.effort.thresholds.index(choice.threshold["plain"])
            self.scalars(step, **{f"events left/{name}": float(choice.events_left[best])})
            soft = "" if choice.soft is None else f", soft {choice.soft.failures}"
            words.append(f"{name} {pair.failures}/{pair.baseline} (threshold {choice.threshold['plain']:g}){soft}")
            if choice.soft is not None and pair.baseline:
                self.scalars(step, **{f"soft over plain/{name}": choice.soft.failures / pair.baseline})
        return f"{shots} shots, loss {loss:.4g}; failures over plain matching's: {', '.join(words)}"

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _point(point: Point, choice: Choice) -> dict[str, Any]:
    source = point.source
    row: dict[str, Any] = {
        "distance": source.distance, "rounds": source.rounds, "noise": source.noise,
        "shots": point.effort.validation_shots,
        "alone": {matching: choice.alone[matching] for matching in MATCHINGS},
        "thresholds": list(point.effort.thresholds),
        "failures": {matching: choice.failures[matching].tolist() for matching in MATCHINGS},
        "events_left": [round(float(left), 5) for left in choice.events_left],
    }  # fmt: skip
    for matching in MATCHINGS:
        pair = choice.pair[matching]
        low, high = pair.interval()
        row[f"hard_{matching}"] = {
            "threshold": choice.threshold[matching],
            "over_plain": pair.failures / pair.baseline if pair.baseline else None,
            "interval": [low, high] if pair.baseline else None,
        }
    if choice.soft is not None:
        pair = choice.soft
        low, high = pair.interval()
        row["soft"] = {
            "failures": pair.failures,
            "over_plain": pair.failures / pair.baseline if pair.baseline else None,
            "interval": [low, high] if pair.baseline else None,
        }
    return row


def _name(point: Point) -> str:
    source = point.source
    return f"d{source.distance} r{source.rounds}" + ("" if source.noise is None else f" p{source.noise:g}")
