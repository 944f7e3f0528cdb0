"""The configuration of one training: one TOML file, read once, frozen; words and refusals as in `rtqec.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rtqec.config import Table, expand_variables, read_tables, validated
from rtqec.errors import ConfigError
from rtqec.neural.network import NetworkSpec, residual_network

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
OddKernel = Literal[1, 3, 5, 7]
SHOWN = "configs/train_reference.toml"


class NetworkTable(Table):
    """`[network]`: the shape of the network; kernels are 3 wide in space."""

    channels: Annotated[int, Field(ge=4, le=1024)] = 32
    time_kernels: Annotated[tuple[OddKernel, ...], Field(min_length=1, max_length=64, strict=False)] = (
        3, 1, 3, 1, 3, 1, 3, 1, 3, 1,
    )  # fmt: skip
    edges: bool = True

    @property
    def spec(self) -> NetworkSpec:
        """The shape."""
        return residual_network(self.channels, self.time_kernels, self.edges)


class SourceTable(Table):
    """An experiment: a circuit of Stim's generator, a circuit, or a device's own error model."""

    generated: str | None = None
    circuit: str | None = None
    dem: str | None = None
    distance: Annotated[int, Field(ge=3)] | None = None
    rounds: Annotated[int, Field(ge=2)] | None = None
    noise: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    time_coordinate: int = -1

    @model_validator(mode="after")
    def _one_source(self) -> SourceTable:
        if sum(source is not None for source in (self.generated, self.circuit, self.dem)) != 1:
            raise ValueError("needs exactly one of generated (a task of Stim's generator), circuit or dem (files)")
        if self.generated is not None and None in (self.distance, self.rounds, self.noise):
            raise ValueError("with generated also needs distance, rounds and noise")
        if self.generated is None and (self.distance is not None or self.rounds is not None):
            raise ValueError("with circuit or dem takes no distance and no rounds: the file says both")
        return self


class VolumeTable(SourceTable):
    """`[[volume]]`: an experiment to train on."""

    weight: Annotated[float, Field(gt=0)] = 1.0


class PointTable(SourceTable):
    """`[[point]]`: an experiment to judge by. Without any, those that are trained on."""


class TrainingTable(Table):
    """`[training]`: how long, how, and with what."""

    shots: Positive | None = None
    hours: Annotated[float, Field(gt=0)] | None = None
    batch_cells: Annotated[int, Field(ge=100)] = 50_000
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-3
    warmup_steps: NonNegative = 200
    decay_fraction: Annotated[float, Field(ge=0, le=1)] = 0.3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    seed: NonNegative = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    threads: NonNegative = 0
    workers: Annotated[int, Field(ge=0, le=64)] = 1
    start: str | None = None
    checkpoint_minutes: Annotated[float, Field(gt=0, le=1440)] = 5.0

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingTable:
        if (self.shots is None) == (self.hours is None):
            raise ValueError("needs exactly one of shots or hours: how long to train")
        return self


class EvaluationTable(Table):
    """`[evaluation]`: how a network is judged, while it is trained and at the end."""

    every_shots: Positive = 1_000_000
    validation_shots: Positive = 20_000
    shots: Positive = 1_000_000
    failures: Annotated[int, Field(ge=1)] = 2000
    thresholds: Annotated[tuple[float, ...], Field(min_length=1, max_length=64, strict=False)] = (
        0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0,
    )  # fmt: skip

    @model_validator(mode="after")
    def _thresholds_grow(self) -> EvaluationTable:
        if list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds must grow, found {list(self.thresholds)}")
        return self


class OutputTable(Table):
    """`[output]`: where the model goes, and what it is called."""

    folder: str
    name: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")] = "model"
    licence: str = "Apache-2.0"


class TrainConfig(Table):
    """A whole file."""

    network: NetworkTable | None = None
    volume: Annotated[list[VolumeTable], Field(min_length=1)]
    training: TrainingTable
    evaluation: EvaluationTable = EvaluationTable()
    point: list[PointTable] = Field(default_factory=list)
    output: OutputTable
    folder: str = Field(default=".", exclude=True)

    @property
    def points(self) -> list[SourceTable]:
        """Where the network is judged."""
        return list(self.point or self.volume)

    @property
    def output_folder(self) -> Path:
        """Where the model goes: relative to the working folder, like any output."""
        return Path(expand_variables("[output] folder", self.output.folder))

    def path(self, key: str, value: str) -> Path:
        """A file named in the configuration, relative to the configuration's own folder.

        Args:
            key: The key, as `[table] key`, for the message.
            value: As written: `${NAME}` and `${NAME:-default}` are replaced.

        Raises:
            ConfigError: A variable is not set, or nothing is there.
        """
        path = Path(self.folder) / expand_variables(key, value)
        if not path.is_file():
            raise ConfigError(
                key, f"is {value!r}, but {path} is no file.",
                "Training begins with what is read from there.", "Correct the path, or restore the file.",
            )  # fmt: skip
        return path


def load_train_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> TrainConfig:
    """Read and check a configuration file.

    Args:
        path: The TOML file.
        overrides: `table.key=value` pairs; the value is TOML, or a bare string.

    Raises:
        ConfigError: The file is missing or no TOML, a key is unknown, a value out of bounds.
    """
    tables = read_tables(
        Path(path), overrides, "What is trained, on what and for how long is said there.", SHOWN, SHOWN
    )
    try:
        return validated(TrainConfig, tables, "")
    except ConfigError as error:
        # The sentences are the daemon's; here they speak of training, and of its own reference.
        reason = error.reason.replace("The daemon", "Training").replace("the daemon", "training")
        remedy = error.remedy.replace("configs/reference.toml", SHOWN)
        raise ConfigError(error.where, error.found, reason, remedy) from None
