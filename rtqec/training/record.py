"""A model written down: its files, its card, and the card for people."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from rtqec.neural.card import (
    BASELINE_FAILURES_MIN,
    HandOverRecord,
    ModelCard,
    NetworkRecord,
    PointRecord,
    Ratio,
    SoftRecord,
    SourceRecord,
    TrainingRecord,
    VolumeRecord,
    write_card,
)
from rtqec.neural.network import NetworkSpec
from rtqec.training.config import TrainConfig
from rtqec.training.trainer import BETAS, GRADIENT_NORM_MAX
from rtqec.training.weights import save_model

DATA = (
    "Shots sampled from the error model as they are learned, none twice. The label of an error is the smallest set of "
    "data errors and wrong outcomes with its detectors and its observables; of a shot, the XOR of its errors' labels. "
    "For the soft hand-over: which edges of the matching graph have fired an odd number of times."
)
MEASURED = (
    "Failures over failures of the matching alone, on the same fresh shots, with the paired 95 % interval. Thresholds "
    f"were chosen on other shots. Too few: that matching failed fewer than {BASELINE_FAILURES_MIN} times there. Soft: "
    "logits are the weights of plain matching's edges; those up to the threshold keep the weight of the error model."
)
_PACKAGES = ("rtqec", "torch", "numpy", "stim", "pymatching", "numba", "onnx", "safetensors")


def training_record(
    config: TrainConfig,
    sources: list[SourceRecord],
    *,
    shots: int,
    steps: int,
    seconds: float,
    precision: str,
    device: torch.device,
    processes: int = 1,
    start: str | None = None,
) -> TrainingRecord:
    """How the weights came about; `sources` are the volumes' experiments, in order."""
    table = config.training
    volumes = [
        VolumeRecord(**source.model_dump(), weight=volume.weight)
        for source, volume in zip(sources, config.volume, strict=True)
    ]
    return TrainingRecord(
        data=DATA,
        volumes=tuple(volumes),
        shots=shots,
        steps=steps,
        seconds=round(seconds, 1),
        seed=table.seed,
        optimiser=f"AdamW, betas {BETAS}, weight decay {table.weight_decay:g}, gradient norm at most "
        f"{GRADIENT_NORM_MAX:g}; warm-up {table.warmup_steps} steps, constant, linear decay over the last "
        f"{table.decay_fraction:.0%}",
        learning_rate=table.learning_rate,
        batch_cells=table.batch_cells,
        precision=precision,
        start=start,
        hardware=hardware(device) | {"processes": processes},
        versions=versions(),
    )


def write_model(
    folder: Path,
    config: TrainConfig,
    spec: NetworkSpec,
    module: nn.Module,
    training: TrainingRecord,
    points: tuple[PointRecord, ...],
    judged_by: str,
    origin: str,
) -> ModelCard:
    """Write NAME.safetensors, NAME.onnx, NAME.fp16.onnx, NAME.json and NAME.md."""
    name = config.output.name
    weights, onnx = save_model(folder, name, spec, module)
    card = ModelCard(
        name=name,
        created=datetime.now(UTC).date().isoformat(),
        licence=config.output.licence,
        origin=origin,
        frame=spec.frame,
        network=NetworkRecord.of(spec),
        weights=weights,
        onnx=onnx,
        training=training,
        judged_by=judged_by,
        points=points,
    )
    write_card(card, folder / f"{name}.json")
    (folder / f"{name}.md").write_text(as_markdown(card))
    return card


def hardware(device: torch.device) -> dict[str, str | int | None]:
    """The machine, without its name."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(), "gpu": gpu}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    """Of Python and the libraries that matter."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def as_markdown(card: ModelCard) -> str:
    """The card for people: everything that is claimed, and how it was measured."""
    spec, training = card.network.spec, card.training
    machine = ", ".join(f"{key} {value}" for key, value in training.hardware.items() if value is not None)
    libraries = ", ".join(f"{key} {value}" for key, value in training.versions.items())
    network = (
        f"{spec.family}, {len(spec.filters)} layers of {spec.filters[0]} channels, kernels in time "
        f"{list(spec.time_kernels)}, in space {list(spec.space_kernels)}; {spec.num_parameters} parameters, "
        f"{spec.macs_per_cell} multiplications per cell, looks {spec.halo} rounds back and ahead; frame: {card.frame}"
    )
    seen = (
        f"{training.shots} shots, {training.steps} steps, {training.seconds / 3600:.2f} h, seed {training.seed}, "
        f"{training.precision}; {training.optimiser}; learning rate {training.learning_rate:g}, "
        f"{training.batch_cells} cells a batch"
    )
    files = ", ".join(f"{record.name} (sha256 {record.sha256})" for record in (card.weights, *card.onnx))
    lines = [
        f"# {card.name}",
        "",
        f"Predecoder for rotated surface codes; {card.created}, {card.licence}. {card.origin}",
        "",
        f"- Network: {network}.",
        f"- Data: {training.data}",
        f"- Seen: {seen}.",
        f"- Began with: {training.start or 'fresh weights'}.",
        f"- Machine: {machine}. {libraries}.",
        f"- Files: {files}.",
        f"- Measured with: {card.judged_by}.",
        "",
        _heading("trained on", "distance", "rounds", "noise", "share"),
        *(f"| {v.source} | {v.distance} | {v.rounds} | {_noise(v)} | {v.weight:g} |" for v in training.volumes),
        "",
        MEASURED,
        "",
        _heading(
            "experiment", "distance", "rounds", "noise", "shots", "plain", "correlated", "hand-over", "threshold",
            "failures", "over plain", "over correlated", "events left",
        ),
        *(row for point in card.points for row in _rows(point)),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _heading(*names: str) -> str:
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def _rows(point: PointRecord) -> Iterator[str]:
    for hard in point.hard:
        yield _row(point, hard, f"hard + {hard.matching}", f"{hard.threshold:g}", f"{hard.events_left:.3f}")
    if point.soft is not None:
        yield _row(point, point.soft, "soft", f"{point.soft.floor:g}", "all")


def _row(point: PointRecord, found: HandOverRecord | SoftRecord, way: str, threshold: str, left: str) -> str:
    cells = (
        point.source, point.distance, point.rounds, _noise(point), point.shots, point.plain_failures,
        point.correlated_failures, way, threshold, found.failures, ratio_text(found.against_plain),
        ratio_text(found.against_correlated), left,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def ratio_text(ratio: Ratio | None) -> str:
    """A ratio with its interval, or that there is too little to claim one."""
    if ratio is None or ratio.claim == "too few":
        return "too few"
    return f"{ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def _noise(source: SourceRecord) -> str:
    return "of the file" if source.noise is None else f"{source.noise:g}"
