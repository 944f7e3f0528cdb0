"""Drawing shots and decoding them both ways, by sinter's worker processes.

The shots come from the system's entropy: a run that goes on must not draw the same shots again, and two worker
processes must not draw the same either.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import sinter
from numpy.typing import NDArray

from bench.provenance import installed, source
from rtqec.config import Config, PatchTable
from rtqec.plan import Plan, compile_plan
from rtqec.reference import WholeShotMatcher
from rtqec.windowed import WindowedDecoder
from rtqec.wire import Rung

FLUSH_S = 10
"""Workers report at least so often, so that Ctrl-C loses little."""


@dataclass(frozen=True)
class Way:
    """A way to decode: windows on a rung, or whole shots (None)."""

    matching: Literal["plain", "correlated"]
    rung: Rung | None


WAYS = {
    "pymatching": Way("plain", None),
    "pymatching_correlated": Way("correlated", None),
    "rtqec": Way("plain", Rung.MATCH),
    "rtqec_correlated": Way("correlated", Rung.CORRELATED_MATCH),
    "rtqec_union_find": Way("plain", Rung.UNION_FIND),
}
"""By name, windows as in `rtqec.sinter_decoders`."""
WHOLE_SHOT = {way.matching: name for name, way in WAYS.items() if way.rung is None}


@dataclass(frozen=True)
class Goal:
    """When a task has been sampled enough: so many shots, or so many errors."""

    max_shots: int
    max_errors: int

    def share(self, stats: sinter.TaskStats | None) -> float:
        """How much of it is done, 0 to 1."""
        return 0.0 if stats is None else min(1.0, max(stats.shots / self.max_shots, stats.errors / self.max_errors))


def plan_of(config: Config, matching: str) -> Plan:
    """The plan of the first patch, matched this way, without what only a ladder or a loss needs.

    Neither is in a plan's digest: that of the configured matching is the one that the daemon says.
    """
    patch = config.patch[0]
    plan, window = config.tables_of(patch)
    bare = config.model_copy(
        update={
            "plan": plan.model_copy(update={"matching": matching}),
            "window": window.model_copy(update={"erasures": False}),
            "ladder": config.ladder.model_copy(update={"fallbacks": []}),
            "patch": [PatchTable(id=patch.id)],
        }
    )
    return compile_plan(bare, bare.patch[0])


def paired_counts(whole_wrong: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> Counter[str]:
    """What two decoders make of the same shots; bool, shape (num_shots,): where each is wrong."""
    return Counter(
        whole_errors=int(whole_wrong.sum()),
        worse=int((wrong & ~whole_wrong).sum()),
        better=int((~wrong & whole_wrong).sum()),
    )


@dataclass(frozen=True)
class PairedSampler(sinter.Sampler):  # type: ignore[misc]  # sinter has no types
    """Draws shots and decodes them in windows and as whole shots. Goes to worker processes by pickle.

    Attributes:
        config: Of the case. The worker compiles the plan from it, so that it is the daemon's.
        way: How. Of whole shots there is nothing to pair.
        seed: None: the system's entropy.
    """

    config: Config
    way: Way
    seed: int | None = None

    def compiled_sampler_for_task(self, task: sinter.Task) -> sinter.CompiledSampler:
        """What sinter calls once per task and worker process."""
        return CompiledPair(self, task)


class CompiledPair(sinter.CompiledSampler):  # type: ignore[misc]  # sinter has no types
    """A `PairedSampler` at work on one task."""

    def __init__(self, sampler: PairedSampler, task: sinter.Task) -> None:
        way = sampler.way
        self._sampler = task.circuit.compile_detector_sampler(seed=sampler.seed)
        self._whole = WholeShotMatcher(task.detector_error_model, way.matching == "correlated")
        self._windows = None
        if way.rung is not None:
            plan = plan_of(sampler.config, way.matching)
            assert plan.digest == task.json_metadata["plan"]
            self._windows = WindowedDecoder(plan, way.rung)

    def sample(self, suggested_shots: int) -> sinter.AnonTaskStats:
        """Draw and decode so many shots; sinter suggests at most 1024."""
        began = time.perf_counter()
        events, truth = self._sampler.sample(suggested_shots, separate_observables=True)
        wrong = (self._whole(np.packbits(events, axis=1, bitorder="little")) != truth).any(axis=1)
        counts: Counter[str] = Counter()
        if self._windows is not None:
            # Of both frames the circuit's own comes first, and is the one of which its shots tell the truth.
            flips = self._windows(self._windows.plan.rounds.layers_b8(events))[:, : truth.shape[1]]
            whole_wrong, wrong = wrong, (flips != truth).any(axis=1)
            counts = paired_counts(whole_wrong, wrong)
        seconds, errors = time.perf_counter() - began, int(wrong.sum())
        return sinter.AnonTaskStats(shots=len(events), errors=errors, seconds=seconds, custom_counts=counts)


def task_of(plan: Plan, name: str, repeat: int) -> sinter.Task:
    """What sinter is asked for.

    A task's name (sinter's strong id) holds all that decides its counts: circuit, model, decoder, plan, versions, and
    which repeat it is. Whole shots know no windows: cases that differ only in those share them.
    """
    metadata = {
        "d": plan.distance,
        "p": plan.table.noise,
        "r": plan.rounds.num_rounds,
        "repeat": repeat,
        "rtqec": f"{installed('rtqec')} {source()['commit']}",
        "pymatching": installed("pymatching"),
    }
    if WAYS[name].rung is not None:
        window = plan.window
        metadata |= {"commit": window.commit_rounds, "buffer": window.buffer_rounds, "plan": plan.digest}
    experiment = plan.experiment
    return sinter.Task(
        circuit=experiment.circuit, detector_error_model=experiment.own_dem, decoder=name, json_metadata=metadata
    )


def collect(
    tasks: list[sinter.Task],
    samplers: dict[str, PairedSampler],
    path: Path,
    goal: Goal,
    workers: int,
    advance: Callable[[float], None],
) -> None:
    """Let sinter take what is missing in its CSV file.

    Args:
        advance: Told by how much more of a task is done, as soon as that is known.
    """
    known = stats_of(path)
    shares = {task.strong_id(): goal.share(known.get(task.strong_id())) for task in tasks}
    missing = [task for task in tasks if shares[task.strong_id()] < 1]
    advance(sum(shares.values()))

    def show(progress: sinter.Progress) -> None:
        for new in progress.new_stats:
            known[new.strong_id] = known[new.strong_id] + new if new.strong_id in known else new
            share = goal.share(known[new.strong_id])
            advance(share - shares[new.strong_id])
            shares[new.strong_id] = share

    if not missing:
        return  # Without this, worker processes would start only to learn that there is nothing to do.
    sinter.collect(
        num_workers=workers,
        tasks=missing,
        save_resume_filepath=path,
        max_shots=goal.max_shots,
        max_errors=goal.max_errors,
        max_batch_seconds=FLUSH_S,
        custom_decoders=samplers,
        # Else sinter pins its workers to any core of the machine, also to one that this process may not use.
        allowed_cpu_affinity_ids=os.sched_getaffinity(0),
        progress_callback=show,
    )


def stats_of(path: Path) -> dict[str, sinter.TaskStats]:
    """What sinter's CSV file holds, by strong id."""
    return {stats.strong_id: stats for stats in sinter.read_stats_from_csv_files(path)} if path.exists() else {}
