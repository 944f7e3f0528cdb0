"""The error model as a table, and the sub-models of windows.

Everything is decided per component (what stands between two `^`), never per error: a component belongs to the window
in which its own earliest detector lies. Detectors beyond the window are dropped (open future). A component whose
earliest detector is in the commit region is committed: it keeps its observables, and gains one extra observable per
detector that it flips beyond the commit region. That is the seam: one decoding answers both questions.

Source: Dennis, Kitaev, Landahl, Preskill, J. Math. Phys. 43, 4452 (2002), section VI, for the two regions.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import stim
from numpy.typing import NDArray

from rtqec.errors import PlanError
from rtqec.layout import LayerLayout, bytes_for_bits
from rtqec.plan.rounds import RoundMap

Node = tuple[int, int]
"""A detector as (round, slot)."""


@dataclass(frozen=True, order=True)
class Component:
    """One part of an error: an edge of the matching graph.

    Attributes:
        detectors: One or two detectors in order of time, rounds relative to the error's anchor.
        observables: Observables that it flips.
    """

    detectors: tuple[Node, ...]
    observables: tuple[int, ...]

    @property
    def first_round(self) -> int:
        """Round of its earliest detector: the window with this round decides it."""
        return self.detectors[0][0]


Error = tuple[float, tuple[Component, ...]]
"""Probability, and the components that it flips together. Its *anchor* is the round of its earliest detector."""


@dataclass(frozen=True)
class Fragment:
    """Errors with one anchor, as a window sees them: text of a detector error model, in rounds from the anchor.

    Attributes:
        text: Lines of the model, detectors counted from the anchor or, if later, from the window's first round;
            seam detectors stand as `{round,slot}`, places for observable numbers.
        nodes: Detectors that occur inside the window.
        seam: Detectors beyond the commit region that committed components flip.
    """

    text: str
    nodes: frozenset[Node]
    seam: frozenset[Node]


class RoundErrors:
    """Errors with one anchor. Rounds with equal errors share one object, and all windows its fragments."""

    def __init__(self, errors: tuple[Error, ...], layer_bits: int) -> None:
        self.errors = errors
        self.extent = max(part.detectors[-1][0] for _, parts in errors for part in parts)
        self.span = max(part.detectors[-1][0] - part.first_round for _, parts in errors for part in parts)
        self.error_span = max(part.first_round for _, parts in errors for part in parts)
        self._layer_bits = layer_bits
        self._fragments: dict[tuple[int, int, int], Fragment] = {}

    def fragment(self, start: int, stop: int, commit_stop: int) -> Fragment:
        """What a window with these cuts, in rounds from the anchor, sees of them."""
        beyond = self.extent + 1
        cuts = (max(0, start), min(stop, beyond), min(max(commit_stop, 0), beyond))
        if cuts not in self._fragments:
            self._fragments[cuts] = self._cut(*cuts)
        return self._fragments[cuts]

    def _cut(self, start: int, stop: int, commit_stop: int) -> Fragment:
        lines, nodes, seam = [], set(), set()
        for probability, parts in self.errors:
            words = []
            for part in parts:
                if not start <= part.first_round < stop:
                    continue
                inside = [node for node in part.detectors if node[0] < stop]
                nodes.update(inside)
                word = [f"D{(t - start) * self._layer_bits + slot}" for t, slot in inside]
                if part.first_round < commit_stop:
                    beyond = [node for node in part.detectors if commit_stop <= node[0] < stop]
                    seam.update(beyond)
                    word += [f"L{o}" for o in part.observables]
                    word += [f"L{{{t},{slot}}}" for t, slot in beyond]
                words.append(" ".join(word))
            if words:
                # Twelve digits: rounds whose noise is equal but for the last bits of a float share a matcher.
                lines.append(f"error({probability:.12g}) " + " ^ ".join(words))
        return Fragment("\n".join(lines), frozenset(nodes), frozenset(seam))


@dataclass(frozen=True)
class ErrorTable:
    """A detector error model by rounds.

    Attributes:
        by_round: Errors of each anchor that has any.
        num_observables: Observables of the model.
        num_rounds: Rounds of the shot.
        dropped: Detectors of components of the graph that flip no observable; empty unless asked for.
        num_silent: Errors left out because they flip no detector.
    """

    by_round: dict[int, RoundErrors]
    num_observables: int
    num_rounds: int
    dropped: frozenset[Node]
    num_silent: int

    @cached_property
    def span(self) -> int:
        """Most rounds between the detectors of one component."""
        return max(errors.span for errors in self.by_round.values())

    @cached_property
    def error_span(self) -> int:
        """Most rounds between the first detectors of the components of one error."""
        return max(errors.error_span for errors in self.by_round.values())

    @cached_property
    def extent(self) -> int:
        """Most rounds from an error's anchor to its last detector."""
        return max(errors.extent for errors in self.by_round.values())

    @property
    def num_errors(self) -> int:
        """Errors of the whole shot."""
        return sum(len(errors.errors) for errors in self.by_round.values())

    @property
    def bulk_repeats(self) -> bool:
        """Whether all rounds between the edges have equal errors."""
        middle = range(EDGE_ROUNDS, self.num_rounds - EDGE_ROUNDS)
        return len({id(self.by_round.get(t)) for t in middle}) == 1

    def stitched(self, num_rounds: int) -> ErrorTable:
        """The same experiment with another number of rounds: its beginning, its end, and bulk in between.

        Args:
            num_rounds: At least `2 * EDGE_ROUNDS`, so that the edges do not meet.
        """
        assert num_rounds >= 2 * EDGE_ROUNDS
        assert self.bulk_repeats

        def here(t: int) -> int:
            """The round of this table that round `t` of the other one equals."""
            if t >= num_rounds - EDGE_ROUNDS:
                return t - num_rounds + self.num_rounds
            return min(t, EDGE_ROUNDS)

        rounds = range(num_rounds)
        by_round = {t: self.by_round[here(t)] for t in rounds if here(t) in self.by_round}
        slots = defaultdict(set)
        for t, slot in self.dropped:
            slots[t].add(slot)
        dropped = frozenset((t, slot) for t in rounds for slot in slots[here(t)])
        return ErrorTable(by_round, self.num_observables, num_rounds, dropped, self.num_silent)


EDGE_ROUNDS = 8
"""Rounds after which an experiment has forgotten its beginning, and from which it does not feel its end. Errors of
circuits that matching can decode reach over two or three; an endless plan checks that its bulk repeats."""


def error_table(dem: stim.DetectorErrorModel, rounds: RoundMap, layout: LayerLayout, drop: bool) -> ErrorTable:
    """Read a flattened detector error model.

    Args:
        dem: Errors decomposed at `^`, no loops.
        rounds: Where each detector lies.
        layout: Strides of the windows that will be cut from it.
        drop: Leave out parts of the graph that flip no observable. Plain matching only.

    Raises:
        PlanError: An error does not decompose, or equal detectors flip different observables.
    """
    places = list(zip(rounds.detector_round.tolist(), rounds.detector_slot.tolist(), strict=True))
    errors: list[Error] = []
    silent = 0
    for instruction in dem:
        if instruction.type == "error" and (probability := instruction.args_copy()[0]) > 0:
            components = _components(instruction, places)
            silent += not components
            if components:
                errors.append((probability, components))
    if not errors:
        raise PlanError(
            "[plan]", "has no errors that flip a detector.", "Without noise there is nothing to decode.",
            "Give a circuit with noise, or a detector error model with errors.",
        )  # fmt: skip
    _check_observables(errors)
    dropped = _unobservable(errors) if drop else frozenset[Node]()
    if dropped:
        kept = ((p, tuple(c for c in parts if c.detectors[0] not in dropped)) for p, parts in errors)
        errors = [(p, parts) for p, parts in kept if parts]
    return ErrorTable(_by_anchor(errors, layout), dem.num_observables, rounds.num_rounds, dropped, silent)


def _by_anchor(errors: list[Error], layout: LayerLayout) -> dict[int, RoundErrors]:
    """Errors by anchor, in rounds from it; equal rounds share one object."""
    table: dict[int, list[Error]] = defaultdict(list)
    for probability, parts in errors:
        anchor = min([part.first_round for part in parts])
        moved = [
            Component(tuple([(t - anchor, slot) for t, slot in part.detectors]), part.observables) for part in parts
        ]
        table[anchor].append((float(f"{probability:.12g}"), tuple(moved)))
    distinct: dict[tuple[Error, ...], RoundErrors] = {}
    by_anchor = {}
    for anchor, found in sorted(table.items()):
        key = tuple(found)
        if key not in distinct:
            distinct[key] = RoundErrors(key, layout.layer_bits)
        by_anchor[anchor] = distinct[key]
    return by_anchor


def _components(instruction: stim.DemInstruction, places: list[Node]) -> tuple[Component, ...]:
    """The edges of one error, those without detectors left out."""
    components = []
    for group in instruction.target_groups():
        detectors = sorted(places[target.val] for target in group if target.is_relative_detector_id())
        observables = sorted(target.val for target in group if target.is_logical_observable_id())
        if len(detectors) > 2:
            raise PlanError(
                "[plan]", f"has the error `{instruction}`, a part of which flips {len(detectors)} detectors; "
                "the bound is 2.",
                "Matching pairs detection events. Leaving such errors out would decode another code in silence.",
                "Use a matchable code, or decompose the errors (stim analyze_errors --decompose_errors).",
            )  # fmt: skip
        if detectors:
            components.append(Component(tuple(detectors), tuple(observables)))
    return tuple(components)


def _check_observables(errors: list[Error]) -> None:
    """Equal detectors must flip equal observables, or no decoder can tell which."""
    seen: dict[tuple[Node, ...], tuple[int, ...]] = {}
    for _, parts in errors:
        for part in parts:
            known = seen.setdefault(part.detectors, part.observables)
            if known != part.observables:
                raise PlanError(
                    "[plan]", f"has two errors that flip the same detectors (round, slot) {part.detectors}, but "
                    f"observables {known} and {part.observables}.",
                    "Matching keeps one edge between two detectors, so that one of the two would be decoded wrongly.",
                    "The code has distance 2 or less there: add detectors, or remove the ambiguous errors.",
                )  # fmt: skip


def _unobservable(errors: list[Error]) -> frozenset[Node]:
    """Detectors of connected parts of the graph in which no edge flips an observable."""
    parent: dict[Node, Node] = {}

    def root(node: Node) -> Node:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for _, parts in errors:
        for part in parts:
            parent[root(part.detectors[0])] = root(part.detectors[-1])
    observed = {root(part.detectors[0]) for _, parts in errors for part in parts if part.observables}
    return frozenset(node for node in parent if root(node) not in observed)


@dataclass(frozen=True)
class WindowModel:
    """What one kind of window decodes with. Detector `r * layer_bits + slot` is slot `slot` of its round `r`.

    Attributes:
        phase: "first", "bulk", "last" or "whole"; "resumed" with an open past.
        num_rounds: Rounds that it looks at.
        past_rounds: Layers behind them, always 0, that stand for rounds before the window.
        commit_rounds: Rounds that it decides.
        num_observables: Observables of the plan; they come first in an answer.
        dem: The sub-model, its seam as observables `num_observables ..`.
        seam: int64, shape (num_seam, 2): rounds after the first undecided one, and slot, of each seam detector.
        mask_b8: uint8, shape (row_bytes,): detectors that the model knows; all others are zeroed.
    """

    phase: str
    num_rounds: int
    past_rounds: int
    commit_rounds: int
    num_observables: int
    layout: LayerLayout
    dem: stim.DetectorErrorModel
    seam: NDArray[np.int64]
    mask_b8: NDArray[np.uint8]

    @property
    def row_bytes(self) -> int:
        """Bytes of one window's detection events."""
        return (self.num_rounds + self.past_rounds) * self.layout.layer_bytes

    @property
    def answer_bytes(self) -> int:
        """Bytes of one answer: observables, then one bit per seam detector."""
        return bytes_for_bits(self.num_observables + len(self.seam))

    @cached_property
    def content(self) -> str:
        """sha256 of what decides the answer; equal windows share a matcher. Phase is a name and does not count."""
        digest = hashlib.sha256()
        digest.update(np.array([self.num_rounds, self.commit_rounds, self.num_observables], np.int64).tobytes())
        digest.update(self.seam.tobytes())
        digest.update(self.mask_b8.tobytes())
        digest.update(str(self.dem).encode())
        return digest.hexdigest()


def window_model(
    table: ErrorTable, layout: LayerLayout, start: int, stop: int, commit_stop: int, open_past: bool = False
) -> WindowModel:
    """The sub-model of the window of rounds [start, stop) that commits [start, commit_stop).

    Args:
        table: The whole experiment.
        layout: Strides of the rows.
        start: Its first round; earlier ones act only through the incoming seam.
        stop: The first round that it does not see.
        commit_stop: The first round that it does not decide.
        open_past: The rounds before are not known, nor what they would have handed on. What reaches into the window
            from there has an end that may have fired or not: extra detectors behind the last layer, always 0, each
            of which can be flipped for nothing.
    """
    anchors = [t for t in range(max(0, start - table.error_span), stop) if t in table.by_round]
    fragments = {t: table.by_round[t].fragment(start - t, stop - t, commit_stop - t) for t in anchors}
    seam_nodes = sorted({(t + dt, slot) for t, fragment in fragments.items() for dt, slot in fragment.seam})
    seam_index = {node: table.num_observables + i for i, node in enumerate(seam_nodes)}
    past_rounds = table.span if open_past else 0
    lines, at = _past_lines(table, layout, start, stop, past_rounds), start
    for t, fragment in fragments.items():
        text = fragment.text
        for dt, slot in fragment.seam:
            text = text.replace(f"{{{dt},{slot}}}", str(seam_index[t + dt, slot]))
        if t > at:
            lines.append(f"shift_detectors {(t - at) * layout.layer_bits}")
            at = t
        lines.append(text)
    used = [
        (t + dt - start) * layout.layer_bits + slot for t, fragment in fragments.items() for dt, slot in fragment.nodes
    ]
    num_detectors = (stop - start + past_rounds) * layout.layer_bits
    lines.append(f"detector D{(stop - at + past_rounds) * layout.layer_bits - 1}")
    if table.num_observables + len(seam_nodes):
        lines.append(f"logical_observable L{table.num_observables + len(seam_nodes) - 1}")
    mask = np.zeros(num_detectors, np.bool_)
    mask[used] = True
    seam = np.array([(t - commit_stop, slot) for t, slot in seam_nodes], np.int64).reshape(-1, 2)
    return WindowModel(
        "resumed" if open_past else _phase(start, stop, table.num_rounds),
        stop - start,
        past_rounds,
        commit_stop - start,
        table.num_observables,
        layout,
        stim.DetectorErrorModel("\n".join(lines)),
        seam,
        np.packbits(mask, bitorder="little"),
    )


def _past_lines(table: ErrorTable, layout: LayerLayout, start: int, stop: int, past_rounds: int) -> list[str]:
    """The errors that reach into a window from the rounds before it. They decide nothing: those rounds are gone."""
    lines, ends = [], set()
    for t in range(start - table.extent, start) if past_rounds else ():
        for probability, parts in table.by_round[t].errors if t in table.by_round else ():
            for part in parts:
                nodes = [(t + dt, slot) for dt, slot in part.detectors]
                if nodes[0][0] < start <= nodes[-1][0] < stop:
                    past = (stop - start + start - 1 - nodes[0][0]) * layout.layer_bits + nodes[0][1]
                    inside = (nodes[-1][0] - start) * layout.layer_bits + nodes[-1][1]
                    lines.append(f"error({probability:.12g}) D{past} D{inside}")
                    ends.add(past)
    return [*lines, *(f"error(0.5) D{end}" for end in sorted(ends))]


def _phase(start: int, stop: int, num_rounds: int) -> str:
    """The name of a window by the ends that it touches."""
    if stop == num_rounds:
        return "whole" if start == 0 else "last"
    return "first" if start == 0 else "bulk"
