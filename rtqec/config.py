"""The configuration of one deployment: one TOML file, read once, frozen.

pydantic checks each key by itself; what only the circuit can tell (a buffer shorter than the distance, a time
coordinate that is none) is refused by `plan`. Both speak as `ConfigError`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rtqec.errors import ConfigError
from rtqec.units import ns_from_us

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveTime = Annotated[float, Field(gt=0)]
ENDLESS = "endless"
LANE_PLACE = "{lane}"
"""In `[feed]` and `[publish]` endpoint: replaced by the number of the lane."""
PATCHES_MAX = 4096
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^${}]*))?\}")
"""One without another one in its default: they are replaced from within."""


class _Table(BaseModel):
    """A TOML table: unknown keys are refused, values are never guessed into another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=_Table)


class PlanTable(_Table):
    """`[plan]`: the experiment that is decoded, and how."""

    generated: str | None = None
    circuit: str | None = None
    dem: str | None = None
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
        if (self.generated is None) == (self.circuit is None and self.dem is None):
            raise ValueError(
                "needs exactly one of generated (a circuit that Stim can generate) or circuit and/or dem (files)"
            )
        if self.generated is not None and None in (self.distance, self.rounds, self.noise):
            raise ValueError("with generated also needs distance, rounds and noise")
        if self.circuit is None and self.generated is None and self.frames == "both":
            raise ValueError('frames = "both" needs a circuit: a DEM alone does not say where the other observable is')
        if self.generated is None and (self.noise is not None or isinstance(self.rounds, int)):
            raise ValueError("with circuit or dem takes no rounds = N and no noise: the file says both")
        return self


class WindowTable(_Table):
    """`[window]`: rounds that a window decides, and rounds that it only looks at."""

    commit_rounds: Positive
    buffer_rounds: NonNegative
    accept_short_buffer: bool = False
    erasures: bool = True

    @property
    def rounds(self) -> int:
        """Rounds of a whole window."""
        return self.commit_rounds + self.buffer_rounds


class FeedTable(_Table):
    """`[feed]`: where rounds come from."""

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


class PublishTable(_Table):
    """`[publish]`: where corrections go."""

    endpoint: str
    send_queue: Positive = 100_000
    journal_corrections: Annotated[int, Field(ge=16, le=1 << 22)] = 4096


class DeadlineTable(_Table):
    """`[deadline]`: the service time that a window may take."""

    budget_us: PositiveTime = 1000.0


class LadderTable(_Table):
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


class PredecodeTable(_Table):
    """`[predecode]`: the network that takes the easy part out of windows before they are matched. Without a model there
    is none.
    """

    model: str | None = None
    engine: Literal["auto", "openvino", "tensorrt", "torch", "null"] = "auto"
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    threads: Annotated[int, Field(ge=0, le=256)] = 1
    threshold: Annotated[float, Field(ge=-100, le=100)] | Literal["card"] = "card"
    timeout_us: PositiveTime | Literal["auto"] = "auto"
    build_engine: bool = True
    gpu_index: Annotated[int, Field(ge=0, le=63)] = 0


class ControlTable(_Table):
    """`[control]`: where questions are answered. Without an endpoint there is no control."""

    endpoint: str | None = None


class MetricsTable(_Table):
    """`[metrics]`: where Prometheus may scrape. Without an endpoint there are no metrics."""

    endpoint: Annotated[str, Field(pattern=r"^.+:\d{1,5}$")] | None = None


class ServiceTable(_Table):
    """`[service]`: the daemon as its operators see it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")] = "rtqec"
    runtime_dir: str = "${RUNTIME_DIRECTORY:-${XDG_RUNTIME_DIR:-/tmp}/rtqec}"
    state_dir: str = "${STATE_DIRECTORY:-${XDG_STATE_HOME:-${HOME:-/tmp}/.local/state}/rtqec}"
    cache_dir: str = "${CACHE_DIRECTORY:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/rtqec}"
    lane_timeout_ms: Annotated[float, Field(ge=300, le=60_000)] = 1000.0
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    standby: bool = True


class CoresTable(_Table):
    """`[cores]`: what each thread runs on, and how the kernel treats it."""

    lanes: list[Annotated[list[NonNegative], Field(min_length=1, max_length=3)]] = []
    supervisor: list[NonNegative] = []
    realtime_priority: Annotated[int, Field(ge=0, le=98)] = 0
    lock_memory: bool = False
    cpu_dma_latency_us: NonNegative | Literal["default"] = "default"


class SecurityTable(_Table):
    """`[security]`: who may reach the daemon over tcp."""

    server_key: str | None = None
    accept_plain_tcp: bool = False


class AuditTable(_Table):
    """`[audit]`: how long the audit log is kept."""

    retention_days: Positive = 365


Patches = Literal["all"] | list[Annotated[int, Field(ge=0, lt=PATCHES_MAX)]]


class ClientTable(_Table):
    """`[[client]]`: a key that is let in, and the patches that it may feed, read or change."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    public_key: Annotated[str, Field(min_length=40, max_length=40)]
    feed: Patches = []
    read: Patches = []
    change: Patches = []


class LaneTable(_Table):
    """`[lane]`: the processes that carry the patches."""

    count: Annotated[int, Field(ge=1, le=256)] = 1
    spin_us: Annotated[float, Field(ge=0, le=1000)] = 0.0
    coalesce_us: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    batch_windows: Annotated[int, Field(ge=1, le=1024)] = 64

    @property
    def waiting_ns(self) -> tuple[int, int]:
        """How threads wait, as compiled code takes it: look again without sleeping for so long; then every so often."""
        return ns_from_us(self.spin_us), ns_from_us(self.coalesce_us)


class LogTable(_Table):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class PatchTable(_Table):
    """`[[patch]]`: one logical qubit. `plan` and `window` override single keys of the tables of that name."""

    id: Annotated[int, Field(ge=0, lt=PATCHES_MAX)]
    lane: NonNegative | None = None
    plan: dict[str, Any] = Field(default_factory=dict)
    window: dict[str, Any] = Field(default_factory=dict)
    budget_us: PositiveTime | None = None


class VerifyTable(_Table):
    """`[verify]`: how much accuracy windows may cost before `rtqec verify` fails."""

    shots: Positive = 20_000
    seed: NonNegative = 1
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    worse_minus_better_max: Annotated[float, Field(gt=0)] = 0.05
    """Upper confidence bound of (worse - better), as a fraction of whole-shot failures."""


class SourceTable(_Table):
    """`[source]` (firmware_sim): where the simulated controller's rounds come from."""

    kind: Literal["simulated", "recorded", "b8"] = "simulated"
    folder: str | None = None
    detection_events: str | None = None
    observables: str | None = None
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
        return self


class PaceTable(_Table):
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


class SinkTable(_Table):
    """`[sink]` (firmware_sim): what is checked of the corrections."""

    compare: bool = True
    connect_timeout_s: PositiveTime = 10.0
    settle_s: PositiveTime = 10.0


Probability = Annotated[float, Field(ge=0, le=1)]


class _FaultTable(_Table):
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


class Config(_Table):
    """A whole file."""

    plan: PlanTable
    window: WindowTable
    feed: FeedTable
    publish: PublishTable
    deadline: DeadlineTable = DeadlineTable()
    ladder: LadderTable = LadderTable()
    predecode: PredecodeTable = PredecodeTable()
    control: ControlTable = ControlTable()
    metrics: MetricsTable = MetricsTable()
    service: ServiceTable = ServiceTable()
    lane: LaneTable = LaneTable()
    cores: CoresTable = CoresTable()
    security: SecurityTable = SecurityTable()
    audit: AuditTable = AuditTable()
    log: LogTable = LogTable()
    verify: VerifyTable = VerifyTable()
    source: SourceTable = SourceTable()
    pace: PaceTable = PaceTable()
    sink: SinkTable = SinkTable()
    fault: list[FaultTable] = []
    patch: Annotated[list[PatchTable], Field(min_length=1)] = [PatchTable(id=0)]
    client: list[ClientTable] = []
    folder: str = Field(default=".", exclude=True)
    lane_index: int = Field(default=0, exclude=True)
    """Of a configuration that `of_lane` has narrowed to one lane."""

    @model_validator(mode="after")
    def _measurements_can_be_folded(self) -> Config:
        folded = self.plan.generated is not None or self.plan.circuit is not None
        if self.feed.payload == "measurements" and not folded:
            raise ValueError(
                '[feed] payload = "measurements" needs [plan] circuit or generated: a DEM alone does not say which '
                'measurements make a detector; set payload = "detection_events"'
            )
        return self

    @model_validator(mode="after")
    def _patches_differ(self) -> Config:
        ids = [patch.id for patch in self.patch]
        if len(set(ids)) != len(ids):
            raise ValueError(f"[[patch]] id must differ from patch to patch, found {ids}")
        return self

    @model_validator(mode="after")
    def _lanes_fit(self) -> Config:
        for key, endpoint in (("[feed]", self.feed.endpoint), ("[publish]", self.publish.endpoint)):
            if self.lane.count > 1 and LANE_PLACE not in endpoint:
                raise ValueError(
                    f"{key} endpoint is {endpoint!r}, but [lane] count is {self.lane.count}, and each lane needs an "
                    f"endpoint of its own: write {LANE_PLACE} where the number of the lane belongs"
                )
        for patch in self.patch:
            if patch.lane is not None and patch.lane >= self.lane.count:
                raise ValueError(f"[[patch]] id = {patch.id} lane is {patch.lane}; [lane] count is {self.lane.count}")
        if self.lane.count > len(self.patch):
            raise ValueError(f"[lane] count is {self.lane.count}, but there are only {len(self.patch)} patches")
        if self.cores.lanes and len(self.cores.lanes) != self.lane.count:
            raise ValueError(
                f"[cores] lanes names cores of {len(self.cores.lanes)} lanes; [lane] count is {self.lane.count}"
            )
        return self

    @model_validator(mode="after")
    def _clients_differ(self) -> Config:
        for what in ("name", "public_key"):
            found = [getattr(client, what) for client in self.client]
            if len(set(found)) != len(found):
                raise ValueError(f"[[client]] {what} must differ from client to client, found {found}")
        known = {patch.id for patch in self.patch}
        for client in self.client:
            named = {p for rights in (client.feed, client.read, client.change) if rights != "all" for p in rights}
            if named - known:
                raise ValueError(f"[[client]] {client.name} names patches {sorted(named - known)}, which do not exist")
        return self

    @property
    def period_us(self) -> float:
        """The period at which the simulated controller sends."""
        return self.pace.period_us or self.feed.round_period_us

    def tables_of(self, patch: PatchTable) -> tuple[PlanTable, WindowTable]:
        """`[plan]` and `[window]` with the overrides of one patch."""
        where = f"[[patch]] id = {patch.id}"
        return (
            _validated(PlanTable, self.plan.model_dump() | patch.plan, f"{where} plan"),
            _validated(WindowTable, self.window.model_dump() | patch.window, f"{where} window"),
        )

    def path(self, key: str, value: str) -> Path:
        """A file or folder named in the configuration.

        Args:
            key: The key, as `[table] key`, for the message.
            value: As written: `${NAME}` and `${NAME:-default}` are replaced; relative to the file's own folder.

        Raises:
            ConfigError: A variable is not set, or nothing is there.
        """
        path = Path(self.folder) / expand_variables(key, value)
        if not path.exists():
            raise ConfigError(
                key, f"is {value!r}, but {path} does not exist.",
                "The plan and the recorded rounds are read from there.", "Correct the path, or restore the file.",
            )  # fmt: skip
        return path

    @property
    def runtime_dir(self) -> Path:
        """The folder of telemetry blocks, locks and the daemon's own description of itself."""
        return Path(expand_variables("[service] runtime_dir", self.service.runtime_dir))

    @property
    def state_dir(self) -> Path:
        """The folder of what outlives the daemon: the audit log."""
        return Path(expand_variables("[service] state_dir", self.service.state_dir))

    @property
    def cache_dir(self) -> Path:
        """Where built engines are kept."""
        return Path(expand_variables("[service] cache_dir", self.service.cache_dir))

    @property
    def lane_name(self) -> str:
        """What logs, metrics and files call the lane of a configuration that `of_lane` made."""
        return f"lane{self.lane_index}"

    def of_lane(self, index: int, patch_ids: Collection[int]) -> Config:
        """The configuration of one lane: its patches, its endpoints, and its number."""

        def endpoint(table: Any) -> Any:
            return table.model_copy(update={"endpoint": table.endpoint.replace(LANE_PLACE, str(index))})

        return self.model_copy(
            update={
                "feed": endpoint(self.feed),
                "publish": endpoint(self.publish),
                "patch": [patch for patch in self.patch if patch.id in patch_ids],
                "lane_index": index,
            }
        )


def expand_variables(key: str, value: str) -> str:
    """Replace `${NAME}` and `${NAME:-default}` by the environment's values; a default may hold variables itself."""

    def replace(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        if name not in os.environ and default is None:
            raise ConfigError(
                key, f"is {value!r}, but the environment variable {name} is not set.",
                "The path cannot be completed without it.", f"Set it: export {name}=/path/to/folder",
            )  # fmt: skip
        return os.environ.get(name, default or "")

    expanded = value
    for _ in range(value.count("${")):
        expanded = _VARIABLE.sub(replace, expanded)
    return expanded


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read and check a configuration file.

    Args:
        path: The TOML file.
        overrides: `table.key=value` pairs; the value is TOML, or a bare string.

    Raises:
        ConfigError: The file is missing or no TOML, a key is unknown, a value out of bounds.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"configuration {path}", f"cannot be read: {error.strerror}.",
            "Everything the daemon does is said there.", "Name an existing file, for example configs/d5_memory_z.toml.",
        ) from error  # fmt: skip
    except (ValueError, RecursionError) as error:  # Of TOML, of UTF-8, of numbers with thousands of digits, of depth.
        raise ConfigError(
            f"configuration {path}", f"is not TOML: {error}.",
            "Nothing can be read from it.", "Correct that line; configs/reference.toml shows every key.",
        ) from error  # fmt: skip
    for override in overrides:
        _apply_override(tables, override)
    tables["folder"] = str(path.parent)
    config = _validated(Config, tables, "")
    for patch in config.patch:
        config.tables_of(patch)
    return config


def with_faults(config: Config, faults: list[dict[str, Any]]) -> Config:
    """The configuration with further `[[fault]]` tables.

    Raises:
        ConfigError: A table has an unknown key, or a value out of bounds.
    """
    if not faults:
        return config
    tables = config.model_dump() | {"folder": config.folder}
    return _validated(Config, tables | {"fault": [*tables["fault"], *faults]}, "")


def _apply_override(tables: dict[str, Any], override: str) -> None:
    """Set one `table.key=value` pair, or say what is wrong with it."""
    name, equals, text = override.partition("=")
    table, dot, key = name.strip().partition(".")
    if not equals or not dot or not key:
        raise ConfigError(
            "--set", f"is {override!r}, but must be table.key=value.",
            "Without the table it is not clear which key is meant.", "For example --set feed.round_period_us=10.",
        )  # fmt: skip
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()
    target = tables.setdefault(table, {})
    if not isinstance(target, dict):
        raise ConfigError(
            "--set", f"is {override!r}, but [[{table}]] is a list of tables.",
            "It is not clear which of them is meant.", "Change that key in the file.",
        )  # fmt: skip
    target[key] = value


def _validated(model: type[Model], tables: dict[str, Any], where: str) -> Model:
    """pydantic's first complaint in our own words."""
    try:
        return model.model_validate(tables)
    except ValidationError as error:
        first, *others = error.errors()
        # pydantic names the alternatives of a key that takes several types, each with its own complaint.
        loc = tuple(part for part in first["loc"] if isinstance(part, int) or part.isidentifier())
        texts = [first["msg"], *(e["msg"] for e in others if e["loc"][: len(loc)] == loc != e["loc"])]
        raise _config_error(loc, first["type"], " or ".join(texts), first.get("input"), where) from None


def _config_error(loc: tuple[int | str, ...], kind: str, text: str, value: object, where: str) -> ConfigError:
    """One pydantic error as key, value, bound, reason, remedy."""
    table, *keys = [str(part) for part in loc] or ["configuration"]
    key = where or f"[{table}] {'.'.join(keys)}".strip()
    if table == "fault" and keys and keys[0].isdigit():
        key = f"[[fault]] number {int(keys[0]) + 1} {'.'.join(keys[1:])}".strip()
    if where:
        key = f"{where}.{'.'.join([table, *keys])}"
    see = "configs/reference.toml shows every key with its bounds."
    if kind == "extra_forbidden":
        return ConfigError(
            key, f"is {value!r}, but no key or table has that name.",
            "A key that is misspelt would otherwise be ignored in silence.", f"Remove or correct it; {see}",
        )  # fmt: skip
    if kind == "missing":
        return ConfigError(
            key, "is missing, but has no default.", "The daemon cannot guess it.", f"Set it; {see}",
        )  # fmt: skip
    bound = text.removeprefix("Value error, ")
    shown = f"is {value!r}, but: " if not isinstance(value, dict) else ""
    return ConfigError(
        key, f"{shown}{bound[0].lower()}{bound[1:]}.", "The value is outside what the daemon can work with.",
        f"Set a value within that bound; {see}",
    )  # fmt: skip
