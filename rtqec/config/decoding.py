"""What is decoded, and how: the tables that decide about corrections and their times."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rtqec.config.table import NonNegative, Positive, PositiveTime, Table
from rtqec.units import ns_from_us

ENDLESS = "endless"
PATCHES_MAX = 4096


HandOver = Literal["hard", "soft"]
"""How a network's answers reach the matcher: decided, as events that are left, or as weights of the graph's edges."""


class PlanTable(Table):
    """`[plan]`: the experiment that is decoded, and how."""

    generated: str | None = None
    circuit: str | None = None
    dem: str | None = None
    cudaq: str | None = None
    cudaq_decoder: NonNegative = 0
    distance: Positive | None = None
    rounds: Positive | Literal["endless"] | None = None
    noise: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    time_coordinate: int = -1
    measurements_per_round: Positive | list[Positive] | Literal["auto"] = "auto"
    frames: Literal["own", "both"] = "own"
    other_basis_circuit: str | None = None
    matching: Literal["plain", "correlated"] = "plain"
    drop_unobservable: bool = True

    @model_validator(mode="after")
    def _one_source(self) -> PlanTable:
        sources = (self.generated, self.dem if self.circuit is None else self.circuit, self.cudaq)
        if sum(source is not None for source in sources) != 1:
            raise ValueError(
                "needs exactly one of generated (a circuit that Stim can generate), circuit and/or dem (files), or "
                "cudaq (a decoder file of CUDA-Q)"
            )
        if self.generated is not None and None in (self.distance, self.rounds, self.noise):
            raise ValueError("with generated also needs distance, rounds and noise")
        if self.circuit is None and self.generated is None and self.frames == "both":
            raise ValueError('frames = "both" needs a circuit: a DEM alone does not say where the other observable is')
        if self.generated is None and (self.noise is not None or isinstance(self.rounds, int)):
            raise ValueError("with circuit, dem or cudaq takes no rounds = N and no noise: the file says both")
        return self


class WindowTable(Table):
    """`[window]`: rounds that a window decides, and rounds that it only looks at."""

    commit_rounds: Positive
    buffer_rounds: NonNegative
    accept_short_buffer: bool = False
    erasures: bool = True

    @property
    def rounds(self) -> int:
        """Rounds of a whole window."""
        return self.commit_rounds + self.buffer_rounds


class FeedTable(Table):
    """`[feed]`: where rounds come from. Needs no endpoint where `[listen]` says who sends them."""

    endpoint: str
    payload: Literal["measurements", "detection_events"] = "measurements"
    round_period_us: PositiveTime
    ring_rounds: Annotated[int, Field(ge=16, le=1 << 24)] = 16384
    receive_queue: Positive = 100_000
    require_crc: bool = False
    reorder_depth: Annotated[int, Field(ge=0, le=256)] = 0
    gap_wait_us: Annotated[float, Field(ge=0, le=1_000_000)] = 1000.0
    round_timeout_ms: Annotated[float, Field(ge=0)] = 0.0
    takeover_ms: Annotated[float, Field(ge=0)] = 50.0


class PublishTable(Table):
    """`[publish]`: where corrections go. Needs no endpoint where `[listen]` says who asks for them."""

    endpoint: str
    send_queue: Positive = 100_000
    journal_corrections: Annotated[int, Field(ge=16, le=1 << 22)] = 4096


class DeadlineTable(Table):
    """`[deadline]`: the service time that a window may take."""

    budget_us: PositiveTime = 1000.0


class LadderTable(Table):
    """`[ladder]`: what a window may step down to when its own matching would be late, and when rounds pile up."""

    fallbacks: list[Literal["match", "catch_up", "union_find", "hold"]] = ["match", "catch_up", "union_find"]
    catch_up: Annotated[list[Annotated[int, Field(ge=2, le=16)]], Field(max_length=4)] = [2, 4]
    backlog_rounds: Positive | Literal["auto"] = "auto"
    quantile: Annotated[float, Field(ge=0.5, le=0.9999)] = 0.999

    @model_validator(mode="after")
    def _orderly(self) -> LadderTable:
        if len(set(self.fallbacks)) != len(self.fallbacks):
            raise ValueError("fallbacks names a rung twice")
        if "hold" in self.fallbacks[:-1]:
            raise ValueError("fallbacks has rungs after hold, which always fits")
        if self.catch_up != sorted(set(self.catch_up)):
            raise ValueError("catch_up must grow")
        return self

    @property
    def multiples(self) -> tuple[int, ...]:
        """Commit regions, in units of `[window] commit_rounds`."""
        return (1, *(self.catch_up if "catch_up" in self.fallbacks else ()))


class PredecodeTable(Table):
    """`[predecode]`: the network that takes the easy part out of windows before they are matched, or says how they are
    to be matched. Without a model there is none.
    """

    model: str | None = None
    hand_over: HandOver = "hard"
    engine: Literal["auto", "openvino", "tensorrt", "torch", "null"] = "auto"
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    threads: Annotated[int, Field(ge=0, le=256)] = 1
    threshold: Annotated[float, Field(ge=-100, le=100)] | Literal["card"] = "card"
    timeout_us: PositiveTime | Literal["auto"] = "auto"
    build_engine: bool = True
    gpu_index: Annotated[int, Field(ge=0, le=63)] = 0


class LaneTable(Table):
    """`[lane]`: the processes that carry the patches."""

    count: Annotated[int, Field(ge=1, le=256)] = 1
    spin_us: Annotated[float, Field(ge=0, le=1000)] = 0.0
    coalesce_us: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    batch_windows: Annotated[int, Field(ge=1, le=1024)] = 64

    @property
    def waiting_ns(self) -> tuple[int, int]:
        """How threads wait, as compiled code takes it: look again without sleeping for so long; then every so often."""
        return ns_from_us(self.spin_us), ns_from_us(self.coalesce_us)


class PatchTable(Table):
    """`[[patch]]`: one logical qubit. `plan` and `window` override single keys of the tables of that name."""

    id: Annotated[int, Field(ge=0, lt=PATCHES_MAX)]
    lane: NonNegative | None = None
    plan: dict[str, Any] = Field(default_factory=dict)
    window: dict[str, Any] = Field(default_factory=dict)
    budget_us: PositiveTime | None = None


class VerifyTable(Table):
    """`[verify]`: how much accuracy windows may cost before `rtqec verify` fails."""

    shots: Positive = 20_000
    seed: NonNegative = 1
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    worse_minus_better_max: Annotated[float, Field(gt=0)] = 0.05
    """Upper confidence bound of (worse - better), as a fraction of whole-shot failures."""
