"""The shots of a comparison, and what decoders are told before they come."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import stim

from bench.cases import Case
from bench.peers.peer import Shots, Task
from rtqec.config import ENDLESS, load_config
from rtqec.errors import ConfigError
from rtqec.plan import Plan, compile_plan
from rtqec.plan.experiment import ExperimentSource
from rtqec.plan.model import EDGE_ROUNDS
from rtqec.plan.rounds import round_map


@dataclass(frozen=True)
class Workload:
    """Shots, and the task behind them."""

    task: Task
    shots: Shots

    @property
    def total_rounds(self) -> int:
        """Rounds of all shots."""
        return len(self.shots) * self.task.num_rounds


def finite_workload(case: Case, num_shots: int, seed: int) -> Workload:
    """Shots of a case as they are.

    Raises:
        ConfigError: The case is a stream, or has no circuit.
    """
    plan = case.plan()
    if plan.endless:
        raise ConfigError(
            "[plan] rounds", 'is "endless", but --workload is shots.', "A shot has an end.",
            "Add --set plan.rounds=50, or take --workload stream.",
        )  # fmt: skip
    circuit = _circuit(plan.experiment.circuit)
    task = Task(case.config, plan, plan.experiment, plan.rounds, plan.rounds.num_rounds, stream=False)
    return Workload(task, sample(task, circuit, num_shots, seed))


def stream_workload(case: Case, num_rounds: int, seed: int) -> Workload:
    """One stream of a case's circuit that ends after `num_rounds` rounds.

    Raises:
        ConfigError: The case has no circuit that can be made longer, or `num_rounds` is too short for a stream.
    """
    endless = load_config(case.path, [*case.overrides, f"plan.rounds={ENDLESS}"])
    plan = compile_plan(endless, endless.patch[0])
    commit, window = plan.window.commit_rounds, plan.window.rounds
    piece = 2 * EDGE_ROUNDS + 2 * window + 3 * commit
    piece += (num_rounds - piece) % commit
    if num_rounds < piece:
        raise ConfigError(
            "--rounds", f"is {num_rounds}, but a stream with these windows has a bulk from {piece} rounds on.",
            "Its first and last windows are not alike.", f"Ask for at least {piece} rounds, or --workload shots.",
        )  # fmt: skip
    task = _piece_task(replace(case, config=endless), plan, piece)
    circuit = stretched(_circuit(task.experiment.circuit), num_rounds - piece)
    if (np.diff(task.rounds.detector_round) < 0).any():
        raise ConfigError(
            "[plan] circuit", "does not declare its detectors in order of time.",
            "A longer stream could not be told which detector is where.", "Reorder them, or take --workload shots.",
        )  # fmt: skip
    task = replace(task, num_rounds=num_rounds)
    return Workload(task, sample(task, circuit, 1, seed))


def pieces_of(workload: Workload, case: Case, rounds: int, seed: int) -> Workload:
    """As many shorter streams as have the rounds of a long one.

    Args:
        rounds: Of each; their windows fit as those of the long stream do.
    """
    task = workload.task
    rounds -= (rounds - task.num_rounds) % task.plan.window.commit_rounds
    short = _piece_task(replace(case, config=task.config), task.plan, rounds)
    num_shots = -(-workload.total_rounds // rounds)
    return Workload(short, sample(short, _circuit(short.experiment.circuit), num_shots, seed))


def _piece_task(case: Case, plan: Plan, num_rounds: int) -> Task:
    """An endless plan with a finite experiment."""
    table = plan.table.model_copy(update={"frames": "own", "other_basis_circuit": None})
    experiment = ExperimentSource(case.config, table).of_rounds(num_rounds)
    rounds = round_map(table, experiment.circuit, experiment.dem)
    return Task(case.config, plan, experiment, rounds, num_rounds, stream=True)


def _circuit(circuit: stim.Circuit | None) -> stim.Circuit:
    if circuit is None:
        raise ConfigError(
            "[plan] dem", "is given without a circuit.", "The shots are raw measurements of the circuit.",
            "Give [plan] circuit or generated.",
        )  # fmt: skip
    return circuit


def stretched(circuit: stim.Circuit, more_rounds: int) -> stim.Circuit:
    """The circuit with its only REPEAT block turned `more_rounds` times more often, one round each.

    Raises:
        ConfigError: There is not exactly one.
    """
    blocks = [i for i, step in enumerate(circuit) if isinstance(step, stim.CircuitRepeatBlock)]
    if len(blocks) != 1:
        raise ConfigError(
            "[plan] circuit", f"has {len(blocks)} REPEAT blocks, but a stream needs one.",
            "It is made longer by turning that block more often.", "Take --workload shots.",
        )  # fmt: skip
    longer = stim.Circuit()
    for i, step in enumerate(circuit):
        if i == blocks[0]:
            block = circuit[i]
            longer.append(stim.CircuitRepeatBlock(block.repeat_count + more_rounds, block.body_copy()))
        else:
            longer.append(step)
    return longer


def sample(task: Task, circuit: stim.Circuit, num_shots: int, seed: int) -> Shots:
    """Raw measurements, and what Stim's own converter makes of them."""
    measurements = np.asarray(circuit.compile_sampler(seed=seed).sample(num_shots), np.bool_)
    events, flips = circuit.compile_m2d_converter().convert(measurements=measurements, separate_observables=True)
    by_time = events if not task.whole else events[:, np.argsort(task.rounds.detector_round, kind="stable")]
    return Shots(measurements, events, by_time, flips)
