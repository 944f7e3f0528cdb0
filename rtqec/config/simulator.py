"""The simulated controller: the tables that the daemon reads past, of rounds, pace, checks and faults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rtqec.config.table import NonNegative, Positive, PositiveTime, Table


class SourceTable(Table):
    """`[source]` (firmware_sim): where the simulated controller's rounds come from."""

    kind: Literal["simulated", "recorded", "b8", "syndromes", "cudaq"] = "simulated"
    folder: str | None = None
    detection_events: str | None = None
    observables: str | None = None
    syndromes: str | None = None
    program: str | None = None
    shots: Positive = 1000
    rounds: Positive | None = None
    seed: NonNegative = 1
    rounds_per_message: Annotated[int, Field(ge=1, le=1024)] = 1
    crc: bool = True
    key_file: str | None = None
    server_key_file: str | None = None
    send_queue: Positive = 1_000_000

    @model_validator(mode="after")
    def _has_files(self) -> SourceTable:
        if self.kind == "recorded" and self.folder is None:
            raise ValueError('kind = "recorded" needs folder, a recorded experiment in Google\'s layout')
        if self.kind == "b8" and self.detection_events is None:
            raise ValueError('kind = "b8" needs detection_events, a b8 file of shots')
        if self.kind == "syndromes" and self.syndromes is None:
            raise ValueError('kind = "syndromes" needs syndromes, a syndrome file of CUDA-Q')
        if self.kind == "cudaq" and self.program is None:
            raise ValueError('kind = "cudaq" needs program, a Python file that defines EXPERIMENT')
        return self


class PaceTable(Table):
    """`[pace]` (firmware_sim): round k is due at t0 + k * period_us, whatever the daemon does."""

    period_us: PositiveTime | None = None
    burst_us: Annotated[float, Field(ge=0, le=1000)] = 0.0
    start_delay_ms: Annotated[float, Field(ge=0)] = 50.0
    rush_rounds: Annotated[list[NonNegative], Field(min_length=2, max_length=2)] = [0, 0]
    rush_factor: Annotated[float, Field(ge=1, le=1000)] = 1.0

    @model_validator(mode="after")
    def _rush_ends(self) -> PaceTable:
        if self.rush_rounds[1] < self.rush_rounds[0]:
            raise ValueError("rush_rounds ends before it begins")
        return self


class SinkTable(Table):
    """`[sink]` (firmware_sim): what is checked of the corrections."""

    compare: bool = True
    connect_timeout_s: PositiveTime = 10.0
    settle_s: PositiveTime = 10.0


Probability = Annotated[float, Field(ge=0, le=1)]


class _FaultTable(Table):
    """What all `[[fault]]` tables (firmware_sim) have in common: whom it strikes, and when."""

    patch: Annotated[list[NonNegative], Field(min_length=1)] | None = None
    seed: NonNegative | None = None
    start_round: NonNegative = 0
    stop_round: Positive | None = None

    @model_validator(mode="after")
    def _some_rounds(self) -> _FaultTable:
        if self.stop_round is not None and self.stop_round <= self.start_round:
            raise ValueError(f"stop_round ({self.stop_round}) must be greater than start_round ({self.start_round})")
        return self


class _OccasionalFault(_FaultTable):
    """A fault that strikes by chance or by the round."""

    probability: Probability | None = None
    every_rounds: Positive | None = None

    @model_validator(mode="after")
    def _one_occasion(self) -> _OccasionalFault:
        if (self.probability is None) == (self.every_rounds is None):
            raise ValueError("needs exactly one of probability (of each message) or every_rounds")
        return self


class DropFault(_FaultTable):
    """The message is not sent."""

    kind: Literal["drop"]
    probability: Probability


class ReorderFault(_FaultTable):
    """The message is held back until so many further ones have had their turn."""

    kind: Literal["reorder"]
    probability: Probability
    distance: Positive = 1


class DuplicateFault(_FaultTable):
    """The message is sent twice."""

    kind: Literal["duplicate"]
    probability: Probability


class CorruptFault(_FaultTable):
    """One bit of the message is flipped."""

    kind: Literal["corrupt"]
    probability: Probability


class WrongPlanFault(_FaultTable):
    """The message names another plan."""

    kind: Literal["wrong_plan"]
    probability: Probability


class DelayFault(_FaultTable):
    """Every message leaves so much after it is due; order is kept."""

    kind: Literal["delay"]
    distribution: Literal["exponential", "uniform", "normal"] = "exponential"
    mean_us: PositiveTime
    sigma_us: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _sigma_belongs_to_normal(self) -> DelayFault:
        if (self.sigma_us is not None) != (self.distribution == "normal"):
            raise ValueError('sigma_us belongs to distribution = "normal", which needs it')
        return self


class StallFault(_OccasionalFault):
    """The source stops for a while, then catches up."""

    kind: Literal["stall"]
    duration_ms: PositiveTime


class SkipFault(_OccasionalFault):
    """The source leaves out rounds, and counts on as if it had sent them."""

    kind: Literal["skip"]
    rounds: Positive


class RestartFault(_OccasionalFault):
    """The source falls silent within a shot, and comes back with the next one, another epoch, and sequence 0."""

    kind: Literal["restart"]
    silence_ms: PositiveTime = 100.0


class BurstFault(_FaultTable):
    """Errors near a place become more probable for a while, as after a particle impact."""

    kind: Literal["burst"]
    every_rounds: Positive
    centre: Annotated[list[float], Field(min_length=2, max_length=2)] | Literal["random"] = "random"
    radius: Annotated[float, Field(gt=0)]
    rounds: Positive
    factor: Annotated[float, Field(ge=1)]
    decay_rounds: Annotated[float, Field(gt=0)] | None = None


class DriftFault(_FaultTable):
    """All errors slowly become more and less probable, by 1 + amplitude * sin."""

    kind: Literal["drift"]
    period_rounds: Annotated[int, Field(ge=2)]
    amplitude: Annotated[float, Field(gt=0, le=1)]


FaultTable = Annotated[
    DropFault | ReorderFault | DuplicateFault | CorruptFault | WrongPlanFault | DelayFault | StallFault | SkipFault
    | RestartFault | BurstFault | DriftFault,
    Field(discriminator="kind"),
]  # fmt: skip
"""`[[fault]]` (firmware_sim): one thing that the simulated controller does wrong."""
