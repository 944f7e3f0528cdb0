"""`rtqec train`: from a configuration to a measured model, in one go or in pieces."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from rich.console import Console

from rtqec.errors import ConfigError
from rtqec.neural.card import ModelCard, SourceRecord
from rtqec.training.checkpoint import NAME as CHECKPOINT
from rtqec.training.checkpoint import load_checkpoint, save_checkpoint
from rtqec.training.config import TrainConfig
from rtqec.training.curve import Curve
from rtqec.training.evaluation import Point
from rtqec.training.group import Group, training_group
from rtqec.training.mixture import Mixture
from rtqec.training.progress import Progress
from rtqec.training.record import ratio_text, training_record, write_model
from rtqec.training.session import (
    Start,
    answers_of,
    judge,
    make_network,
    open_points,
    open_volumes,
    precision_on,
    read_start,
)
from rtqec.training.trainer import Trainer

SCALARS_EVERY = 100
"""Steps between losses: each is a wait for the device."""
ORIGIN = "Trained by rtqec train."


class Stop:
    """Whether to end soon: asked once a step, set by a signal, or by whoever runs the training."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Whether to end now."""
        return self.asked


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM ask to stop; the second SIGINT interrupts as usual."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, _frame: object) -> None:
        stop.asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(config: TrainConfig, resume: bool, console: Console, stop: Stop | None = None) -> ModelCard | None:
    """Train, measure and write a model.

    Args:
        config: What, on what, for how long.
        resume: Go on from the checkpoint in the output folder.
        console: Where progress is shown.
        stop: Asked after every step; by default SIGINT and SIGTERM.

    Returns:
        The model's card; None where training was stopped, or where another process of the group writes it.

    Raises:
        ConfigError: The configuration cannot work, or the output folder holds another run.
    """
    folder = config.output_folder
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    with training_group(config.training.device) as group:
        _check_folder(folder, resume)
        group.wait()
        if group.leads:
            folder.mkdir(parents=True, exist_ok=True)
        with stop_on_signals() if stop is None else nullcontext(stop) as asked, Progress(console) as progress:
            return _Run(config, group, folder, resume, progress).go(asked)


def _check_folder(folder: Path, resume: bool) -> None:
    if not resume and (folder / CHECKPOINT).exists():
        raise ConfigError(
            "[output] folder", f"is {str(folder)!r}, which holds {CHECKPOINT} of a run before.",
            "It would be overwritten.", "Go on with --resume, name another folder, or remove that one.",
        )  # fmt: skip


class _Run:
    """One call of `train`: everything opened."""

    def __init__(self, config: TrainConfig, group: Group, folder: Path, resume: bool, progress: Progress) -> None:
        self.config, self.group, self.folder, self.progress = config, group, folder, progress
        self.start: Start = read_start(config)
        volumes, self.sources = open_volumes(config, self.start.spec.weighs_edges)
        self.points: list[Point] = open_points(config, self.start.spec.weighs_edges) if group.leads else []
        self.precision = precision_on(group.device, config.training.precision)
        module = make_network(self.start, config, volumes).to(group.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload, unused-ignore]
        self.trainer = Trainer(config.training, module, group, self.precision)
        self.mixture = Mixture(volumes, config.training.batch_cells, config.training.seed, group.rank)
        if resume:
            self.trainer.restore(load_checkpoint(folder, config))
        self.curve = Curve(folder, self.trainer.shots, self.trainer.step) if group.leads else None
        self._loss = math.nan

    def go(self, stop: Stop) -> ModelCard | None:
        """Train to the end of the budget, or until asked to stop."""
        if self.group.leads:
            spec, on = self.start.spec, f"{self.group.size} x {self.group.device.type}"
            self.progress.say(
                f"{spec.num_parameters} parameters, {len(self.sources)} volumes, {on}, {self.precision}; "
                f"{self.trainer.fraction:.0%} of the budget is spent."
            )
        try:
            finished = self._learn(stop)
            self._save()
            if not self.group.leads:
                return None
            if not finished:
                self.progress.say(
                    f"Stopped after {self.trainer.shots} shots; {self.folder / CHECKPOINT} is written. "
                    "Go on with --resume."
                )
                return None
            return self._finish()
        finally:
            if self.curve is not None:
                self.curve.close()
            self.trainer.close()

    def _learn(self, stop: Stop) -> bool:
        """Whether the budget was spent."""
        trainer, table = self.trainer, self.config.training
        batches = self.mixture.batches(trainer.step, table.workers)
        saved = time.monotonic()
        try:
            while trainer.fraction < 1:
                began = time.monotonic()
                shots_before = trainer.shots
                trainer.learn(next(batches))
                spent = trainer.seconds + time.monotonic() - began
                trainer.seconds, stopped = self.group.agree(spent, float(stop()))
                if trainer.step % SCALARS_EVERY == 0:
                    self._tell()
                every = self.config.evaluation.every_shots
                if trainer.shots // every > shots_before // every and not stopped:
                    self._look()
                if time.monotonic() - saved > table.checkpoint_minutes * 60:
                    self._save()
                    saved = time.monotonic()
                if stopped:
                    return trainer.fraction >= 1
        finally:
            batches.close()
        return True

    def _tell(self) -> None:
        trainer = self.trainer
        loss = trainer.take_loss()
        self._loss = self._loss if math.isnan(loss) else loss
        if self.curve is not None:
            rate = trainer.shots / max(trainer.seconds, 1e-9)
            self.curve.scalars(
                trainer.step, loss=self._loss, **{"learning rate": trainer.rate, "shots per second": rate}
            )
            self.progress.show("training", trainer.fraction, f"loss {self._loss:.4g}, {rate:.0f} shots/s")

    def _look(self) -> None:
        """An early evaluation, for the curve."""
        self._tell()
        if self.curve is not None:
            trainer = self.trainer
            found = [
                (point, point.choose(answers_of(trainer.module, point.hand_over, self.precision)))
                for point in self.points
            ]
            self.progress.say(self.curve.add(trainer.shots, trainer.step, trainer.seconds, self._loss, found))
        self.group.wait()

    def _save(self) -> None:
        if self.group.leads:
            save_checkpoint(self.folder, self.config, self.trainer.state())

    def _finish(self) -> ModelCard:
        """Measure on fresh shots, and write everything down."""
        trainer = self.trainer
        sources: list[SourceRecord] = self.sources
        points, judged_by = judge(
            trainer.module, self.start.spec, self.points, self.precision, self.progress.point
        )  # fmt: skip
        training = training_record(
            self.config, sources, shots=trainer.shots, steps=trainer.step, seconds=trainer.seconds,
            precision=self.precision, device=self.group.device, processes=self.group.size, start=self.start.digest,
        )  # fmt: skip
        card = write_model(
            self.folder, self.config, self.start.spec, trainer.module, training, points, judged_by, ORIGIN
        )
        for point in card.points:
            noise = "" if point.noise is None else f", p={point.noise:g}"
            self.progress.say(
                f"d={point.distance}, {point.rounds} rounds{noise}: failures over plain matching's "
                f"{ratio_text(point.hand_over('plain').against_plain)} at threshold "
                f"{point.hand_over('plain').threshold:g}"
            )
        self.progress.say(f"{self.folder / card.name}.json, .md, .safetensors and .onnx are written.")
        return card
