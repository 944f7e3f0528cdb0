"""Labels to learn from: of each error of the model, the fewest answers that do what it does.

An error that happened has many equivalent descriptions; which of them is the label decides whether there is anything
to learn. Here it is a fixed one: of all sets of answers with the same detectors *and* the same observables the
smallest, and among those the first in order of time, data before check, row, column. A shot's label is the XOR of the
labels of its errors, so that by construction it explains every event and flips the right observables.

Why not the errors themselves, canonicalised afterwards by homological moves, as the published models do: those moves
are the bottleneck of making data, and leave what they do not reach. Labels made once per error cost nothing per shot.
"""

from __future__ import annotations

from rtqec.errors import PlanError
from rtqec.neural.effects import Cause, Effects, Mechanism, Spot

WEIGHT_MAX = 4
"""Most answers that one error may need. Circuit noise on a surface code needs at most 3."""

Label = tuple[Cause, ...]


class Labeller:
    """Finds labels; errors that differ only in time share their search.

    Args:
        effects: What answers do.
    """

    def __init__(self, effects: Effects) -> None:
        self._effects = effects
        self._known: dict[tuple[frozenset[Spot], int], Label | None] = {}

    def label(self, mechanism: Mechanism) -> Label:
        """The answers that do what an error does: those of each channel apart, the observables with the own one.

        Raises:
            PlanError: There are none of at most `WEIGHT_MAX`.
        """
        own = self._effects.layout.own
        answers: list[Cause] = []
        for channel in (own, 1 - own):
            spots = frozenset(spot for spot in mechanism.spots if spot[0] == channel)
            found = self._smallest(spots, mechanism.observables if channel == own else 0)
            if found is None:
                raise PlanError(
                    "[predecode]", f"is given, but an error of [plan] flips {sorted(spots)} (channel, round, cell) and "
                    f"observables {mechanism.observables:b}, which {WEIGHT_MAX} data errors and wrong outcomes cannot.",
                    "The network can only answer with those.", "Remove [predecode], or the long-range errors.",
                )  # fmt: skip
            answers += found
        return tuple(answers)

    def _smallest(self, spots: frozenset[Spot], observables: int) -> Label | None:
        if not spots:
            return () if not observables else None
        first = min(t for _, t, _ in spots)
        last = self._effects.num_layers - 1
        # Near its ends a shot has other detectors; between them only differences of time matter.
        shift = first - 2 if first > 2 and max(t for _, t, _ in spots) < last - 2 else 0
        key = frozenset((channel, t - shift, cell) for channel, t, cell in spots), observables
        if key not in self._known:
            found = (self._search(key[0], observables, weight) for weight in range(1, WEIGHT_MAX + 1))
            self._known[key] = next((label for label in found if label is not None), None)
        known = self._known[key]
        return None if known is None else tuple((t + shift, kind, channel, cell) for t, kind, channel, cell in known)

    def _search(self, spots: frozenset[Spot], observables: int, weight: int) -> Label | None:
        """A set of exactly `weight` answers: one of them must flip the first detector."""
        if not spots:
            return () if weight == 0 and not observables else None
        if weight == 0:
            return None
        for cause in self._effects.causes(min(spots, key=lambda spot: (spot[1], spot[2]))):
            flipped = self._effects.detectors(cause)
            rest = self._search(spots ^ flipped, observables ^ self._effects.observables(cause), weight - 1)
            if rest is not None:
                return (cause, *rest)
        return None
