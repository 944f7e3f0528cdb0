"""Recorded rounds: detection events made before any clock runs, and laid into a ring as ingest would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.endless import EndlessErrors
from firmware_sim.kernels.endless import sample_errors, take_events
from firmware_sim.kernels.records import SEND_PATCH, SEND_STATE
from rtqec.kernels.fold import store_bytes
from rtqec.kernels.native import compiled
from rtqec.kernels.records import SLOT_LAST
from rtqec.plan import Plan
from rtqec.plan.schedule import windows_of_shot
from rtqec.ring import Ring

_SHOTS_AT_ONCE = 4096


@dataclass(frozen=True)
class Recorded:
    """Shots of one patch; an endless stream is one long shot.

    Attributes:
        layers_b8: uint8, shape (num_shots, num_rounds * layer_bytes).
        num_rounds: Rounds of a shot.
    """

    layers_b8: NDArray[np.uint8]
    num_rounds: int

    @property
    def total(self) -> int:
        """Rounds of all shots."""
        return len(self.layers_b8) * self.num_rounds

    def lay(self, ring: Ring, start: int, stop: int, first: int = 0, received_ns: int = 0) -> None:
        """Put rounds [start, stop) into slots of a ring's first patch, and leave its head where it is.

        Args:
            ring: Has room for them.
            start, stop: Rounds; beyond the last shot the first one follows again.
            first: Where round 0 is, counted since the ring was made.
            received_ns: When they came; 0 is so long ago that whatever is decided about them is late.
        """
        layers = self.layers_b8.reshape(self.total, -1)
        rounds = np.arange(start, stop)
        slots = (first + rounds) & int(ring.places[0]["mask"])
        of_record = rounds % self.total
        ring.events_b8.reshape(-1, layers.shape[1])[slots] = layers[of_record]
        ring.slots["shot_id"][slots] = rounds // self.num_rounds
        ring.slots["round_index"][slots] = of_record % self.num_rounds
        ring.slots["flags"][slots] = np.where(of_record % self.num_rounds == self.num_rounds - 1, SLOT_LAST, 0)
        ring.slots["received_ns"][slots] = received_ns

    def closings(self, plan: Plan) -> NDArray[np.int64]:
        """How many rounds must have come for each window to close, int64, shape (num_windows,)."""
        stops = np.array([window.stop for window in windows_of_shot(self.num_rounds, plan.window)], np.int64)
        return (stops + self.num_rounds * np.arange(len(self.layers_b8))[:, np.newaxis]).reshape(-1)


def record(plan: Plan, num_rounds: int, seed: int) -> Recorded:
    """At least `num_rounds` rounds of a plan's own error model.

    Args:
        plan: Of a finite one, whole shots; of an endless one, a single shot of `num_rounds` rounds.

    Raises:
        ConfigError: An endless stream so short that its ends would touch.
    """
    if plan.endless:
        return Recorded(_endless_layers(plan, num_rounds, seed)[np.newaxis], num_rounds)
    num_shots = -(-num_rounds // plan.rounds.num_rounds)
    sampler = plan.experiment.own_dem.compile_sampler(seed=seed)
    pieces = []
    for start in range(0, num_shots, _SHOTS_AT_ONCE):
        events, _, _ = sampler.sample(min(_SHOTS_AT_ONCE, num_shots - start))
        pieces.append(plan.rounds.layers_b8(events))
    return Recorded(np.concatenate(pieces), plan.rounds.num_rounds)


@compiled
def fill_layers(patch: Any, state: Any, errors: Any, pending: Any, events: Any, layer_bytes: Any, layers: Any) -> Any:
    """Make the detection events of an endless shot, round by round, as the simulated controller does.

    Args:
        patch, state: `SEND_PATCH`, `SEND_STATE`.
        errors, pending: See `firmware_sim.kernels.endless`.
        events: uint64, scratch, one layer.
        layers: uint8, `patch.num_rounds` layers; filled.
    """
    groups, accept, observables, flip_start, flips = errors
    for t in range(patch.num_rounds):
        sample_errors(patch, state, groups, accept, observables, flip_start, flips, pending)
        take_events(patch, state, pending, events)
        store_bytes(events, 0, layer_bytes, layers, t * layer_bytes)
        state.round_index += 1


def _endless_layers(plan: Plan, num_rounds: int, seed: int) -> NDArray[np.uint8]:
    """An endless plan's stream of `num_rounds` rounds, the readout included, uint8, flat."""
    patches, states = np.zeros(1, SEND_PATCH), np.zeros(1, SEND_STATE)
    errors = EndlessErrors()
    patches["num_rounds"], patches["layer_words"] = num_rounds, plan.layout.scratch_words
    for key, value in errors.put(plan, num_rounds).items():
        patches[key] = value
    states["random"] = np.random.SeedSequence(seed).generate_state(1, np.uint64) | np.uint64(1)
    pending = np.zeros(int(patches[0]["pending_mask"] + 1) * plan.layout.scratch_words, np.uint64)
    events = np.zeros(plan.layout.scratch_words, np.uint64)
    layers = np.zeros(num_rounds * plan.layout.layer_bytes, np.uint8)
    fill_layers(patches[0], states[0], errors.arrays(), pending, events, plan.layout.layer_bytes, layers)
    return layers
