"""What `rtqec train` and `rtqec.training.adopt` share: a configuration opened, a network made, judged and written."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from rtqec.device.choose import make_engine
from rtqec.device.engine import ChunkShape
from rtqec.device.options import EngineOptions
from rtqec.errors import ConfigError
from rtqec.neural.card import PointRecord, SourceRecord, file_digest
from rtqec.neural.network import HARD_OUTPUTS, NetworkSpec
from rtqec.training.answers import EngineAnswers, NetworkAnswers
from rtqec.training.config import NetworkTable, TrainConfig
from rtqec.training.evaluation import Effort, Point, evaluate
from rtqec.training.export import write_onnx
from rtqec.training.handover import Answers, HardHandOver
from rtqec.training.mixture import Volume
from rtqec.training.module import make_module
from rtqec.training.soft import SoftHandOver, can_judge_soft
from rtqec.training.sources import open_source
from rtqec.training.weights import load_weights


@dataclass(frozen=True)
class Start:
    """A network to begin with.

    Attributes:
        spec: Its shape.
        state: Weights by name; None for fresh ones. Those of a network without edges where `spec` has some.
        digest: sha256 of the file that they came from.
    """

    spec: NetworkSpec
    state: dict[str, torch.Tensor] | None
    digest: str | None


def open_volumes(config: TrainConfig, edges: bool) -> tuple[list[Volume], list[SourceRecord]]:
    """The experiments to train on, with labels of edges or without, and what the card says of them."""
    volumes, records = [], []
    for number, table in enumerate(config.volume, start=1):
        experiment, record = open_source(config, table, f"[[volume]] number {number}")
        volumes.append(Volume(experiment, table.weight, edges))
        records.append(record)
    return volumes, records


def open_points(config: TrainConfig, edges: bool) -> list[Point]:
    """The experiments to judge by; the soft hand-over too, where the network answers for edges."""
    table = config.evaluation
    effort = Effort(table.thresholds, table.validation_shots, table.shots, table.failures, config.training.seed)
    kind = "[[point]]" if config.point else "[[volume]]"
    points = []
    for number, source in enumerate(config.points, start=1):
        experiment, record = open_source(config, source, f"{kind} number {number}")
        hard = HardHandOver(experiment)
        soft = SoftHandOver(hard) if edges and can_judge_soft() else None
        points.append(Point(record, hard, effort, number, soft))
    return points


def read_start(config: TrainConfig) -> Start:
    """The network that training begins with: fresh, or that of `[training] start`.

    Raises:
        ConfigError: The weights are not those of `[network]`, or of a network in another frame.
    """
    table = config.training
    if table.start is None:
        return Start((config.network or NetworkTable()).spec, None, None)
    path = config.path("[training] start", table.start)
    spec, state = load_weights(path)
    if spec.frame != "own":
        raise ConfigError(
            "[training] start", f"is {table.start!r}, a network of the {spec.frame} frame; only own ones are trained.",
            "Labels are made for the own kind of checks, in the frame that it is channel 0 of.",
            "Start from weights that rtqec train wrote.",
        )  # fmt: skip
    wanted = config.network.spec if config.network is not None else spec
    if wanted != spec and not (wanted.weighs_edges and replace(wanted, outputs=HARD_OUTPUTS) == spec):
        raise ConfigError(
            "[network]", f"is {wanted}, but [training] start = {table.start!r} holds {spec}.",
            "Weights fit one network only, or the same one with edges.",
            "Leave [network] out: it is that of the weights.",
        )  # fmt: skip
    return Start(wanted, state, file_digest(path))


def make_network(start: Start, config: TrainConfig, volumes: list[Volume]) -> nn.Module:
    """The network, with the weights to begin with. One that learns to answer for edges too goes on answering the rest
    as before, and begins with the mean rates of edges.
    """
    torch.manual_seed(config.training.seed)
    module = make_module(start.spec, volumes[0].densities(config.training.seed))
    known = module.state_dict()
    for key, tensor in (start.state or {}).items():
        known[key][: len(tensor)] = tensor
        if key.endswith("weight"):
            known[key][len(tensor) :] = 0
    return module


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
    spec: NetworkSpec,
    points: list[Point],
    precision: str,
    progress: Callable[[Point, float], None] = lambda _point, _done: None,
) -> tuple[tuple[PointRecord, ...], str]:
    """Measure a network at all points: on a CPU with OpenVINO where that is installed, else with PyTorch.

    Returns:
        What was measured; what ran the network.
    """
    on_cpu = next(module.parameters()).device.type == "cpu"
    if not on_cpu or importlib.util.find_spec("openvino") is None:
        found = evaluate(lambda hand_over: answers_of(module, hand_over, precision), points, progress)
        return found, f"PyTorch {torch.__version__}, {precision}"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(path, spec, module)
        options = EngineOptions("auto" if precision == "bf16" else "float32", torch.get_num_threads())
        names = set()

        def answers(hand_over: HardHandOver) -> Answers:
            experiment = hand_over.experiment
            layout = experiment.layout
            shape = ChunkShape(1, experiment.rounds.num_rounds, layout.code.distance, spec.outputs)
            engine = make_engine("openvino", path, shape, options)
            names.add(engine.name)
            return EngineAnswers(engine, layout)

        return evaluate(answers, points, progress), ", ".join(sorted(names))
