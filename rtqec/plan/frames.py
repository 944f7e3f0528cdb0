"""Both Pauli frames of an idle logical qubit in one error model.

A memory experiment measures one logical operator; its sibling in the other basis has the same stabilisers and
measures the other one. In the bulk the two have the same detectors, so that the sibling's model says which edges of
this one flip the other observable. At the open ends an edge of this experiment can stand for several of the sibling's
(the first outcomes of the opposite type are random, and in no detector): there the more probable answer is taken.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import stim

from rtqec.errors import PlanError

Edge = frozenset[int]


def with_other_frame(own: stim.DetectorErrorModel, sibling: stim.DetectorErrorModel) -> stim.DetectorErrorModel:
    """Add the sibling's observables to a model.

    Args:
        own: Flattened, decomposed model of this experiment; its observables keep their numbers.
        sibling: The same for the experiment in the other basis, with as many rounds.

    Returns:
        `own` with observables `own.num_observables ..` for those of `sibling`.

    Raises:
        PlanError: The two have too few detectors in common to be siblings.
    """
    flips = _flips_by_edge(own, sibling)
    both = stim.DetectorErrorModel()
    for instruction in own:
        if instruction.type != "error":
            both.append(instruction)
            continue
        targets: list[stim.DemTarget] = []
        for group in instruction.target_groups():
            edge = frozenset(target.val for target in group if target.is_relative_detector_id())
            extra = [stim.target_logical_observable_id(own.num_observables + o) for o in flips.get(edge, ())]
            separator = [stim.target_separator()] if targets else []
            targets += [*separator, *group, *extra]
        both.append("error", instruction.args_copy(), targets)
    both.append("logical_observable", [], [stim.target_logical_observable_id(
        own.num_observables + sibling.num_observables - 1)])  # fmt: skip
    return both


def _flips_by_edge(own: stim.DetectorErrorModel, sibling: stim.DetectorErrorModel) -> dict[Edge, tuple[int, ...]]:
    """The sibling's observables that an edge of `own` flips, by its detectors."""
    own_number = {tuple(place): number for number, place in own.get_detector_coordinates().items()}
    renumbered = {
        number: own_number[tuple(place)]
        for number, place in sibling.get_detector_coordinates().items()
        if tuple(place) in own_number
    }
    if 2 * len(renumbered) < sibling.num_detectors:
        raise PlanError(
            "[plan] frames", f'is "both", but only {len(renumbered)} of {sibling.num_detectors} detectors of the '
            "other experiment have the coordinates of one of this experiment.",
            "The other frame is carried by the detectors that the two experiments share.",
            "Give the sibling of the same patch: same qubits, same coordinates, same rounds, other basis.",
        )  # fmt: skip
    votes: dict[Edge, Counter[tuple[int, ...]]] = defaultdict(Counter)
    for instruction in sibling:
        if instruction.type != "error":
            continue
        for group in instruction.target_groups():
            edge = frozenset(
                renumbered[target.val]
                for target in group
                if target.is_relative_detector_id() and target.val in renumbered
            )
            flipped = tuple(target.val for target in group if target.is_logical_observable_id())
            votes[edge][flipped] += instruction.args_copy()[0]
    return {edge: counter.most_common(1)[0][0] for edge, counter in votes.items() if edge}
