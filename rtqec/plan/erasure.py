"""Windows that know which of their rounds was lost.

A lost round of measurements is filled so that its own detectors read 0; the next round's then carry the news of both.
For the decoder that is an erasure: each measurement of that round was flipped or not, at even odds. A window with one
lost round is decoded with a model in which these flips are free; with more than one it knows of the first. What that is
worth, and what it costs: `bench/studies/erasure.py`.

Source: for erasures in matching, Stace, Barrett and Doherty, Phys. Rev. Lett. 102, 200501 (2009).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import stim

from rtqec.plan.folding import FoldProgram
from rtqec.plan.model import Node, WindowModel

ProgramAt = Callable[[int], FoldProgram | None]
"""The fold program of a round of a shot; None behind its end, or where the feed carries detection events."""


def measurement_flips(program_at: ProgramAt, t: int, look_back: int) -> list[tuple[Node, ...]]:
    """The detectors that each measurement of round `t` flips, as (rounds after t, slot), in order of time."""
    flips: dict[int, list[Node]] = {}
    for later in range(look_back + 1):
        program = program_at(t + later)
        if program is not None:
            for slot, back, measurement in program.sources.tolist():
                if back == later:
                    flips.setdefault(measurement, []).append((later, slot))
    return [tuple(nodes) for _, nodes in sorted(flips.items())]


def with_erased_round(model: WindowModel, lost: int, flips: list[tuple[Node, ...]]) -> WindowModel | None:
    """A window's model in which one round was lost.

    Args:
        model: The window.
        lost: The round, counted from the window's first.
        flips: What its measurements flip; see `measurement_flips`.

    Returns:
        The model, or None where it would be the same: all that the round could flip is not decoded.
    """
    bits = model.layout.layer_bits
    known = np.unpackbits(model.mask_b8, bitorder="little")
    seam = {
        (model.commit_rounds + after, slot): model.num_observables + i
        for i, (after, slot) in enumerate(model.seam.tolist())
    }
    lines = []
    for nodes in flips:
        inside = [(lost + after, slot) for after, slot in nodes if lost + after < model.num_rounds]
        beyond = [node for node in inside if lost < model.commit_rounds <= node[0]]
        decoded = all(known[r * bits + slot] for r, slot in inside) and all(node in seam for node in beyond)
        if 1 <= len(inside) <= 2 and decoded:
            detectors = " ".join(f"D{r * bits + slot}" for r, slot in inside)
            lines.append(f"error(0.5) {detectors} " + " ".join(f"L{seam[node]}" for node in beyond))
    if not lines:
        return None
    return replace(model, dem=stim.DetectorErrorModel("\n".join(lines)) + model.dem)


def erased_models(
    models: list[WindowModel], program_at: ProgramAt, look_back: int, starts: dict[int, list[int]],
    last_round: int | None,
) -> dict[int, tuple[int, ...]]:  # fmt: skip
    """The models of windows of which one round was lost, appended to `models`.

    Args:
        starts: The rounds at which each window model, by its number, begins.
        last_round: The data readout, which cannot be filled.

    Returns:
        By the number of the window's own model: for each of its rounds the number of the other one, or -1.
    """
    found = {}
    for number, begins in sorted(starts.items()):
        numbers = []
        for lost in range(models[number].num_rounds):
            flips = [measurement_flips(program_at, start + lost, look_back) for start in begins]
            filled = all(start + lost > 0 and start + lost != last_round for start in begins)
            alike = all(other == flips[0] for other in flips)
            model = with_erased_round(models[number], lost, flips[0]) if filled and alike else None
            numbers.append(len(models) if model is not None else -1)
            models += [model] if model is not None else []
        found[number] = tuple(numbers)
    return found
