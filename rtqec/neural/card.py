"""The model card: what a network is, what it was trained on, and what it is worth where; written by `rtqec train`.

One JSON file beside the weights. The daemon reads it, without any framework, to know the network's frame and shape,
that the files are those that were measured, and above which logit an answer is yes at its own distance and noise.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rtqec.errors import ConfigError
from rtqec.neural.network import NetworkSpec

FORMAT: Literal["rtqec.model-card/1"] = "rtqec.model-card/1"
BASELINE_FAILURES_MIN = 500
"""A ratio is claimed only where plain matching fails so often: its 95 % interval is then about 0.1 wide."""

Claim = Literal["better", "no difference", "worse", "too few"]
Matching = Literal["plain", "correlated"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    """A part of a card: unknown keys are refused, values are never guessed into another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class NetworkRecord(_Record):
    """The network's shape; see `NetworkSpec`."""

    family: Literal["residual", "published"]
    filters: Annotated[tuple[int, ...], Field(min_length=1)]
    time_kernels: Annotated[tuple[int, ...], Field(min_length=1)]
    space_kernels: Annotated[tuple[int, ...], Field(min_length=1)]
    outputs: Literal[2, 4, 9]

    @classmethod
    def of(cls, spec: NetworkSpec) -> NetworkRecord:
        """The record of a shape."""
        return cls(**vars(spec))

    @property
    def spec(self) -> NetworkSpec:
        """The shape."""
        return NetworkSpec(self.family, self.filters, self.time_kernels, self.space_kernels, self.outputs)


class FileRecord(_Record):
    """A file beside the card."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    sha256: Digest


class SourceRecord(_Record):
    """An experiment: a circuit of Stim's generator, or a file by its digest.

    Attributes:
        source: The generator's task, or "circuit sha256:.." or "dem sha256:..".
        distance: Of the code.
        rounds: Rounds of syndrome; the data readout is one layer more.
        noise: Probability of each of the generator's four kinds of errors; None where a file says it.
        event_density: Share of detectors that fire: what noise is to be compared by where it has no number.
    """

    source: str
    distance: Annotated[int, Field(ge=3)]
    rounds: Annotated[int, Field(ge=1)]
    noise: Annotated[float, Field(gt=0, lt=0.5)] | None
    event_density: Annotated[float, Field(ge=0, le=1)]


class VolumeRecord(SourceRecord):
    """An experiment that was trained on, and the share of the batches that it had."""

    weight: Annotated[float, Field(gt=0)]


class TrainingRecord(_Record):
    """How the weights came about.

    Attributes:
        data: What a shot and its labels are, in words.
        shots: Seen, of all volumes together; `steps` the updates.
        seconds: Spent on training, evaluations not counted.
        start: sha256 of the weights that training began with; None for fresh ones.
        hardware, versions: Of the machine and the libraries.
    """

    data: str
    volumes: Annotated[tuple[VolumeRecord, ...], Field(min_length=1)]
    shots: Count
    steps: Count
    seconds: Annotated[float, Field(ge=0)]
    seed: int
    optimiser: str
    learning_rate: float
    batch_cells: int
    precision: str
    start: Digest | None
    hardware: dict[str, str | int | None]
    versions: dict[str, str]


class Ratio(_Record):
    """Failures over failures of another decoder on the same shots.

    Attributes:
        ratio, low, high: With its paired 95 % interval.
        fixed, broken: Shots that only the other one, or only this one, gets wrong.
        claim: What may be said of it.
    """

    ratio: float
    low: float
    high: float
    fixed: Count
    broken: Count
    claim: Claim


class HandOverRecord(_Record):
    """Network and matching at one operating point.

    Attributes:
        threshold: Logit from which an answer is yes; chosen on other shots, `validation`.
        validation: Failures on those shots, by threshold.
        failures: On the fresh shots of the point.
        events_left: Share of the events of the answered kinds of checks that are left to the matching.
    """

    matching: Matching
    threshold: float
    validation: dict[str, Count]
    failures: Count
    against_plain: Ratio | None
    against_correlated: Ratio | None
    events_left: Annotated[float, Field(ge=0)]


class SoftRecord(_Record):
    """A network that weighs the edges of plain matching, at one operating point.

    Attributes:
        floor: Logits up to it left the edge the error model's weight.
        failures: On the fresh shots of the point.
        edges_weighed: Edges of a shot whose weight was the network's, on average.
    """

    floor: float
    failures: Count
    against_plain: Ratio | None
    against_correlated: Ratio | None
    edges_weighed: Annotated[float, Field(ge=0)]


class PointRecord(SourceRecord):
    """An operating point: what matching alone and what the network with it do there, on the same fresh shots.

    Attributes:
        hard, soft: The two hand-overs; None where the network answers for no edges, or fusion-blossom is not installed.
    """

    shots: Count
    validation_shots: Count
    plain_failures: Count
    correlated_failures: Count
    correlated_against_plain: Ratio | None
    hard: Annotated[tuple[HandOverRecord, ...], Field(min_length=1)]
    soft: SoftRecord | None = None

    def hand_over(self, matching: Matching) -> HandOverRecord:
        """The row of one kind of matching, or the first one where it was not measured."""
        return next((row for row in self.hard if row.matching == matching), self.hard[0])


class ModelCard(_Record):
    """A whole card.

    Attributes:
        judged_by: What ran the network when it was measured.
    """

    format: Literal["rtqec.model-card/1"] = FORMAT
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    created: str
    licence: str
    origin: str
    frame: Literal["own", "published"]
    network: NetworkRecord
    weights: FileRecord
    onnx: tuple[FileRecord, ...] = ()
    training: TrainingRecord
    judged_by: str = "PyTorch"
    points: Annotated[tuple[PointRecord, ...], Field(min_length=1)]

    def nearest(self, distance: int, noise: float | None = None, event_density: float | None = None) -> PointRecord:
        """The operating point to go by: of the nearest distance, and among those of the nearest noise.

        Args:
            distance: Of the patch.
            noise: Its error probability, where it has one number.
            event_density: Share of its detectors that fire; used where it, or a point, has no noise.
        """

        def far(point: PointRecord) -> tuple[int, float, int]:
            apart = 0.0
            if noise and point.noise:
                apart = abs(math.log(noise / point.noise))
            elif event_density and point.event_density:
                apart = abs(math.log(event_density / point.event_density))
            # Of two as near, the larger distance: it was measured on more of the same cells.
            return abs(point.distance - distance), apart, -point.distance

        return min(self.points, key=far)

    def threshold(
        self,
        distance: int,
        noise: float | None = None,
        event_density: float | None = None,
        matching: Matching = "plain",
    ) -> float:
        """The logit from which an answer is yes; see `nearest`."""
        return self.nearest(distance, noise, event_density).hand_over(matching).threshold

    def check_file(self, path: Path) -> None:
        """Refuse a file that is not the one that was measured.

        Raises:
            ConfigError: The card does not name it, it is not there, or its digest differs.
        """
        records = {record.name: record for record in (self.weights, *self.onnx)}
        if path.name not in records:
            raise _refusal(path, f"is not among the files of the model card {self.name}: {', '.join(records)}")
        try:
            found = file_digest(path)
        except OSError as error:
            raise _refusal(path, f"cannot be read: {error.strerror}") from error
        if found != records[path.name].sha256:
            raise _refusal(path, f"has sha256 {found}, but the model card {self.name} says {records[path.name].sha256}")


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_card(path: Path) -> ModelCard:
    """Read and check a card.

    Raises:
        ConfigError: It is missing, no card, or of a frame that this version does not know.
    """
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole file"
        shown = f"{key} = {first['input']!r}"[:200] if first["loc"] else key
        raise _refusal(path, f"is no model card of format {FORMAT}: {shown}: {first['msg']}") from None


def write_card(card: ModelCard, path: Path) -> None:
    """Write a card as JSON that people can read."""
    path.write_text(card.model_dump_json(indent=1) + "\n")


def _refusal(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"model {path}", f"{found}.",
        "Thresholds and accuracy are those of the card; with other files they would be guesses.",
        "Restore the three files of the model together, or train and measure it again with rtqec train.",
    )  # fmt: skip
