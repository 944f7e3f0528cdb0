"""What `rtqec train` and `rtqec.training.adopt` share: a configuration opened, a network made, judged and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from rtqec.errors import ConfigError
from rtqec.neural.card import PointRecord, SourceRecord, file_digest
from rtqec.neural.network import NetworkSpec
from rtqec.training.answers import NetworkAnswers
from rtqec.training.config import NetworkTable, TrainConfig
from rtqec.training.evaluation import Effort, Point, evaluate
from rtqec.training.handover import Answers, HardHandOver
from rtqec.training.mixture import Volume
from rtqec.training.module import make_module
from rtqec.training.sources import open_source
from rtqec.training.weights import load_weights


@dataclass(frozen=True)
class Start:
    """A network to begin with.

    Attributes:
        spec: Its shape.
        module: With its weights.
        digest: sha256 of the file that these came from; None for fresh ones.
    """

    spec: NetworkSpec
    module: nn.Module
    digest: str | None


def open_volumes(config: TrainConfig) -> tuple[list[Volume], list[SourceRecord]]:
    """The experiments to train on, and what the card says of them."""
    volumes, records = [], []
    for number, table in enumerate(config.volume, start=1):
        experiment, record = open_source(config, table, f"[[volume]] number {number}")
        volumes.append(Volume(experiment, table.weight))
        records.append(record)
    return volumes, records


def open_points(config: TrainConfig) -> list[Point]:
    """The experiments to judge by."""
    table = config.evaluation
    effort = Effort(table.thresholds, table.validation_shots, table.shots, table.failures, config.training.seed)
    kind = "[[point]]" if config.point else "[[volume]]"
    points = []
    for number, source in enumerate(config.points, start=1):
        experiment, record = open_source(config, source, f"{kind} number {number}")
        points.append(Point(record, HardHandOver(experiment), effort, number))
    return points


def make_start(config: TrainConfig, volumes: list[Volume]) -> Start:
    """The network that training begins with: fresh, or that of `[training] start`.

    Raises:
        ConfigError: The weights are not those of `[network]`, or of a network in another frame.
    """
    table = config.training
    if table.start is None:
        spec = (config.network or NetworkTable()).spec
        torch.manual_seed(table.seed)
        return Start(spec, make_module(spec, volumes[0].densities(table.seed)), None)
    path = config.path("[training] start", table.start)
    spec, state = load_weights(path)
    if config.network is not None and config.network.spec != spec:
        raise ConfigError(
            "[network]", f"is {config.network.spec}, but [training] start = {table.start!r} holds {spec}.",
            "Weights fit one network only.", "Leave [network] out: it is that of the weights.",
        )  # fmt: skip
    if spec.frame != "own":
        raise ConfigError(
            "[training] start", f"is {table.start!r}, a network of the {spec.frame} frame; only own ones are trained.",
            "Labels are made for the own kind of checks, in the frame that it is channel 0 of.",
            "Start from weights that rtqec train wrote.",
        )  # fmt: skip
    module = make_module(spec)
    module.load_state_dict(state)
    return Start(spec, module, file_digest(path))


def precision_on(device: torch.device, wanted: str) -> str:
    """ "bf16" or "fp32": as wanted, or what the device is made for."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def answers_of(module: nn.Module, hand_over: HardHandOver, precision: str) -> Answers:
    """A network's answers in one experiment."""
    experiment = hand_over.experiment
    return NetworkAnswers(module, experiment.layout, experiment.rounds.num_rounds, precision)


def judge(
    module: nn.Module,
    points: list[Point],
    precision: str,
    progress: Callable[[Point, float], None] = lambda _point, _done: None,
) -> tuple[PointRecord, ...]:
    """Measure a network at all points."""
    return evaluate(lambda hand_over: answers_of(module, hand_over, precision), points, progress)
