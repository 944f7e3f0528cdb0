"""What is trained on: batches of labelled shots, of several experiments in turn, made while the last one is learned.

A batch is a function of the seed, the step and the rank alone, whoever makes it and when: so a resumed run goes on
exactly where the interrupted one was, and any number of workers makes the same data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rtqec.neural.edges import EdgeMap
from rtqec.neural.experiment import GridExperiment
from rtqec.neural.restate import Restatement
from rtqec.neural.sampling import LabelledShots

_DENSITY_SHOTS = 2000
"""Shots that the first answers' rates are counted on: thousands of labels even at low noise."""
_CHOICE, _SHOTS, _DENSITY = 0, 1, 2
"""Streams of random numbers of one seed."""


class Volume:
    """One experiment to train on.

    Args:
        experiment: On the grid, in the own frame.
        weight: Its share of the batches.
        edges: Whether edges are learned too.
    """

    def __init__(self, experiment: GridExperiment, weight: float, edges: bool = False) -> None:
        self.experiment, self.weight = experiment, weight
        layout, num_layers, size = experiment.layout, experiment.rounds.num_rounds, experiment.layout.code.distance
        self.shots: LabelledShots = experiment.labelled_shots(edges=edges)
        self.cells = num_layers * size * size
        self.presence = torch.from_numpy(layout.presence(num_layers))
        answered = _answered(experiment, edges)
        self.mask = torch.from_numpy(answered.reshape(-1, num_layers, size, size))
        """bool: the cells whose answer does anything; the others are not learned."""

    def batch_size(self, batch_cells: int) -> int:
        """Shots of a batch of about so many cells."""
        return max(1, batch_cells // self.cells)

    def densities(self, seed: int) -> tuple[float, ...]:
        """How often each answer is yes in the cells that are learned."""
        _, labels, _ = self.shots.sample(_DENSITY_SHOTS, np.random.default_rng([seed, _DENSITY]))
        mask = self.mask.numpy()
        # At least half a label, so that a logit exists; of what is not there, half a label in one cell.
        return tuple(
            float((labels[:, k][:, mask[k]].sum() + 0.5) / (len(labels) * max(1, mask[k].sum())))
            for k in range(len(mask))
        )


@dataclass(frozen=True)
class Batch:
    """Labelled shots of one volume.

    Attributes:
        volume: Of which experiment.
        events: uint8, shape (batch, 2, layers, distance, distance).
        labels: uint8, shape (batch, outputs, layers, distance, distance).
    """

    volume: Volume
    events: torch.Tensor
    labels: torch.Tensor


class Mixture:
    """Batches without end.

    Args:
        volumes: What is trained on.
        batch_cells: Cells of a batch, of each rank.
        seed: Of everything.
        rank: Of this process among those that train together: all have the same volume at a time, each its own shots.
    """

    def __init__(self, volumes: list[Volume], batch_cells: int, seed: int, rank: int = 0) -> None:
        self.volumes, self.batch_cells, self.seed, self.rank = volumes, batch_cells, seed, rank
        weights = np.array([volume.weight for volume in volumes])
        self._shares = weights / weights.sum()

    def volume_at(self, step: int) -> Volume:
        """Whose turn it is."""
        rng = np.random.default_rng([self.seed, _CHOICE, step])
        return self.volumes[int(rng.choice(len(self.volumes), p=self._shares))]

    def draw(self, step: int) -> Batch:
        """The batch of a step."""
        volume = self.volume_at(step)
        rng = np.random.default_rng([self.seed, _SHOTS, step, self.rank])
        events, labels, _ = volume.shots.sample(volume.batch_size(self.batch_cells), rng)
        return Batch(volume, _tensor(events), _tensor(labels))

    def batches(self, first_step: int, workers: int) -> Generator[Batch, None, None]:
        """Batches from a step on, made ahead of time by so many threads; with none, when asked."""
        step = first_step
        if workers == 0:
            while True:
                yield self.draw(step)
                step += 1
        # Sampling is compiled and holds no lock of Python's.
        pool = ThreadPoolExecutor(workers, thread_name_prefix="sample")
        try:
            ahead: deque[Future[Batch]] = deque()
            while True:
                while len(ahead) < 2 * workers:
                    ahead.append(pool.submit(self.draw, step))
                    step += 1
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _answered(experiment: GridExperiment, edges: bool) -> NDArray[np.bool_]:
    """Where answers of the own kind do anything: bool, shape (outputs, layers, cells)."""
    answered: NDArray[np.bool_] = Restatement(experiment.effects, (experiment.layout.own,)).answered[:, 0]
    if edges:
        there = EdgeMap(experiment.layout).exist(experiment.mechanisms, experiment.rounds.num_rounds)
        answered = np.concatenate([answered, there])
    return answered


def _tensor(values: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
