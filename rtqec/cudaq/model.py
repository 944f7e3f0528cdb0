"""Columns of H to a detector error model, and back to edges.

A column is one error: the detectors and the observables that it flips. Matching wants edges, of one or two detectors.
Parallel edges are merged here, by the strategy that the file names, so that what decodes needs no strategy:

    independent      both may happen: p = p1 (1 - p2) + p2 (1 - p1); the first one's observables (CUDA-Q's default)
    smallest_weight  the more probable one; the first of equal ones
    keep_original    the first one
    replace          the last one
    disallow         there may be none

So does PyMatching's `Matching.add_edge`, through which cudaq-qec builds its graph. An error of more detectors is
decomposed into edges that are there, as Stim does it: disjoint detectors, and together exactly its observables.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import stim

from rtqec.errors import PlanError

MERGED_INDEPENDENTLY = "independent"
MERGE_STRATEGIES = (MERGED_INDEPENDENTLY, "smallest_weight", "keep_original", "replace", "disallow")
UNWEIGHTED_PROBABILITY = 1 / (1 + math.e)
"""Of every error where a file names no probabilities: PyMatching's weight is then 1."""
DETECTORS_MAX = 15
"""Of an error that is decomposed; Stim's bound as well."""

Edge = tuple[int, ...]
"""One or two detectors, ascending."""


@dataclass(frozen=True)
class Column:
    """One error.

    Attributes:
        detectors: Ascending.
        observables: Ascending.
    """

    detectors: tuple[int, ...]
    observables: tuple[int, ...]
    probability: float


@dataclass(frozen=True)
class Edges:
    """A matching graph: for each edge what it flips and how probable it is. In order of first appearance."""

    observables: dict[Edge, tuple[int, ...]]
    probabilities: dict[Edge, float]


def model_of_columns(
    where: str, columns: Iterable[Column], strategy: str, num_detectors: int, num_observables: int
) -> stim.DetectorErrorModel:
    """The detector error model of some errors, parallel edges merged, larger errors decomposed.

    Args:
        where: What the errors are columns of, for the message.
        columns: In order, on which the strategies depend.
        strategy: One of `MERGE_STRATEGIES`.
        num_detectors: Of the model, also those that no error flips.
        num_observables: The same.

    Raises:
        PlanError: An error does not decompose, or there are parallel edges where there may be none.
    """
    edges, others = merged(where, columns, strategy)
    model = stim.DetectorErrorModel()
    # By detectors, so that rounds with equal errors have them in equal order, and their windows share a matcher.
    for edge in sorted(edges.probabilities):
        model.append("error", edges.probabilities[edge], _targets([(edge, edges.observables[edge])]))
    neighbours = _neighbours(edges.observables)
    for number, column in others:
        parts = [(column.detectors, column.observables)]
        if column.detectors:
            parts = _decomposed(f"{where} column {number}", column, edges.observables, neighbours)
        model.append("error", column.probability, _targets(parts))
    for detector in range(num_detectors):
        model.append("detector", [], [stim.target_relative_detector_id(detector)])
    for observable in range(num_observables):
        model.append("logical_observable", [], [stim.target_logical_observable_id(observable)])
    return model


def merged(where: str, columns: Iterable[Column], strategy: str) -> tuple[Edges, list[tuple[int, Column]]]:
    """The edges of some errors, and the errors that are none, each with its number: of no or of many detectors."""
    edges, others = Edges({}, {}), []
    for number, column in enumerate(columns):
        if not 1 <= len(column.detectors) <= 2:
            others.append((number, column))
        elif column.detectors not in edges.probabilities:
            _keep(edges, column)
        elif strategy == MERGED_INDEPENDENTLY:
            before, more = edges.probabilities[column.detectors], column.probability
            edges.probabilities[column.detectors] = before * (1 - more) + more * (1 - before)
        elif strategy == "disallow":
            raise PlanError(
                where, f"has a second error on the detectors {column.detectors}, column {number}; merge_strategy is "
                '"disallow".', "Matching keeps one edge between two detectors.",
                f"Set merge_strategy to one of {', '.join(MERGE_STRATEGIES[:-1])}.",
            )  # fmt: skip
        elif strategy == "replace" or (
            strategy == "smallest_weight" and column.probability > edges.probabilities[column.detectors]
        ):
            _keep(edges, column)
    return edges, others


def _keep(edges: Edges, column: Column) -> None:
    edges.observables[column.detectors] = column.observables
    edges.probabilities[column.detectors] = column.probability


def columns_of_model(model: stim.DetectorErrorModel) -> list[Column]:
    """The errors of a flattened model, what stands between `^` taken together: each detector an odd number of times."""
    return [
        _column(instruction.targets_copy(), instruction.args_copy()[0])
        for instruction in model
        if instruction.type == "error"
    ]


def edges_of_model(where: str, model: stim.DetectorErrorModel) -> Edges:
    """The matching graph of a flattened, decomposed model, as PyMatching reads it: each part of an error is an edge,
    and parallel ones are merged as independent errors.
    """
    parts = [
        _column(group, instruction.args_copy()[0])
        for instruction in model
        if instruction.type == "error" and instruction.args_copy()[0] > 0
        for group in instruction.target_groups()
    ]
    edges, _ = merged(where, [part for part in parts if part.detectors], MERGED_INDEPENDENTLY)
    return edges


def decomposed_model(where: str, model: stim.DetectorErrorModel) -> stim.DetectorErrorModel:
    """A flattened model with every part of an error that flips more than two detectors decomposed.

    Raises:
        PlanError: One does not decompose.
    """
    edges = _known_edges(model)
    neighbours = _neighbours(edges)
    found = stim.DetectorErrorModel()
    for instruction in model:
        if instruction.type != "error":
            found.append(instruction)
            continue
        parts: list[tuple[Edge, tuple[int, ...]]] = []
        for group in instruction.target_groups():
            column = _column(group, instruction.args_copy()[0])
            if len(column.detectors) > 2:
                parts += _decomposed(f"{where} `{instruction}`", column, edges, neighbours)
            else:
                parts.append((column.detectors, column.observables))
        found.append("error", instruction.args_copy(), _targets(parts))
    return found


def _column(targets: Sequence[stim.DemTarget], probability: float) -> Column:
    detectors, observables = set[int](), set[int]()
    for target in targets:
        if target.is_relative_detector_id():
            detectors ^= {target.val}
        elif target.is_logical_observable_id():
            observables ^= {target.val}
    return Column(tuple(sorted(detectors)), tuple(sorted(observables)), probability)


def _known_edges(model: stim.DetectorErrorModel) -> dict[Edge, tuple[int, ...]]:
    """The observables of each edge that a part of an error is; of parallel ones the first."""
    known: dict[Edge, tuple[int, ...]] = {}
    for instruction in model:
        if instruction.type == "error":
            for group in instruction.target_groups():
                column = _column(group, 0.0)
                if 1 <= len(column.detectors) <= 2:
                    known.setdefault(column.detectors, column.observables)
    return known


def _neighbours(edges: Iterable[Edge]) -> dict[int, list[Edge]]:
    """The edges of each detector."""
    found: dict[int, list[Edge]] = defaultdict(list)
    for edge in edges:
        for detector in edge:
            found[detector].append(edge)
    return found


def _decomposed(
    where: str, column: Column, edges: dict[Edge, tuple[int, ...]], neighbours: dict[int, list[Edge]]
) -> list[tuple[Edge, tuple[int, ...]]]:
    """Disjoint edges that together flip what the error flips."""

    def search(left: frozenset[int], flipped: frozenset[int]) -> list[Edge] | None:
        if not left:
            return [] if not flipped else None
        for edge in neighbours.get(min(left), ()):
            if left.issuperset(edge):
                rest = search(left.difference(edge), flipped.symmetric_difference(edges[edge]))
                if rest is not None:
                    return [edge, *rest]
        return None

    size = len(column.detectors)
    found = search(frozenset(column.detectors), frozenset(column.observables)) if size <= DETECTORS_MAX else None
    if found is None:
        raise PlanError(
            where, f"flips {size} detectors, {column.detectors[: DETECTORS_MAX + 1]}, and observables "
            f"{column.observables}; the bound is 2, and no errors of one or two detectors make it up.",
            "Matching pairs detection events. Leaving such errors out would decode another code in silence.",
            "Use a matchable code (surface, repetition), or let Stim decompose the errors of the circuit.",
        )  # fmt: skip
    return [(edge, edges[edge]) for edge in found]


def _targets(parts: Sequence[tuple[Edge, tuple[int, ...]]]) -> list[stim.DemTarget]:
    targets: list[stim.DemTarget] = []
    for detectors, observables in parts:
        separator = [stim.target_separator()] if targets else []
        flipped = [stim.target_logical_observable_id(observable) for observable in observables]
        targets += [*separator, *(stim.target_relative_detector_id(detector) for detector in detectors), *flipped]
    return targets
