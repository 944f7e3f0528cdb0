"""What the stages share: the lane's patches and matchers as compiled code reads them, and the batch that travels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.config import HandOver, LadderTable
from rtqec.errors import ConfigError
from rtqec.kernels.ladder import NUM_BUCKETS
from rtqec.kernels.records import (
    MODEL,
    STEP,
    STEP_CATCH_UP,
    STEP_DECODE,
    STEP_HOLD,
    WINDOW_PATCH,
    WINDOW_SLOT,
)
from rtqec.kernels.shot import HELD
from rtqec.plan import Plan
from rtqec.plan.model import WindowModel
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock
from rtqec.units import ns_from_us
from rtqec.wire import CORRECTION, Rung


class Decoding(Enum):
    """What decodes a window."""

    PLAIN = "plain"
    CORRELATED = "correlated"
    UNION_FIND = "union_find"
    PREDECODED_PLAIN = "predecoded_plain"
    """Plain matching of what a network left. Apart from `PLAIN`, as its cost is another."""
    PREDECODED_CORRELATED = "predecoded_correlated"
    SOFT = "soft"
    """Matching of all events with the weights that a network gives the edges."""

    @property
    def matching(self) -> str:
        """The way of matching whose windows it takes."""
        return "correlated" if self in (Decoding.CORRELATED, Decoding.PREDECODED_CORRELATED) else "plain"

    @property
    def predecodes(self) -> bool:
        """Whether the network goes first."""
        return self in (Decoding.PREDECODED_PLAIN, Decoding.PREDECODED_CORRELATED, Decoding.SOFT)

    @property
    def rung(self) -> Rung:
        """What corrections call it."""
        return _RUNGS[self]


_RUNGS = {
    Decoding.PLAIN: Rung.MATCH,
    Decoding.CORRELATED: Rung.CORRELATED_MATCH,
    Decoding.UNION_FIND: Rung.UNION_FIND,
    Decoding.PREDECODED_PLAIN: Rung.PREDECODED_MATCH,
    Decoding.PREDECODED_CORRELATED: Rung.PREDECODED_CORRELATED_MATCH,
    Decoding.SOFT: Rung.SOFT_MATCH,
}


@dataclass(frozen=True)
class LadderStep:
    """One step of a patch's ladder.

    Attributes:
        kind: STEP_DECODE, STEP_CATCH_UP or STEP_HOLD.
        decoding: What decodes; of a step that catches up, that of the step before it.
    """

    kind: int
    decoding: Decoding

    @property
    def name(self) -> str:
        """What operators call it."""
        if self.kind == STEP_DECODE:
            return self.decoding.rung.name.lower()
        return "catch_up" if self.kind == STEP_CATCH_UP else "hold"


def ladder_steps(plan: Plan, ladder: LadderTable, hand_over: HandOver | None = None) -> list[LadderStep]:
    """The ladder of a patch: its own matching, behind the network if it has one, then the fallbacks that are something
    else.
    """
    own = decoding = Decoding.CORRELATED if plan.correlated else Decoding.PLAIN
    steps = [LadderStep(STEP_DECODE, decoding)]
    if hand_over == "soft":
        steps.insert(0, LadderStep(STEP_DECODE, Decoding.SOFT))
    elif hand_over == "hard":
        first = Decoding.PREDECODED_CORRELATED if plan.correlated else Decoding.PREDECODED_PLAIN
        steps.insert(0, LadderStep(STEP_DECODE, first))
    for name in ladder.fallbacks:
        if name == "catch_up":
            steps.append(LadderStep(STEP_CATCH_UP, steps[-1].decoding))
        elif name == "hold":
            steps.append(LadderStep(STEP_HOLD, steps[-1].decoding))
        else:
            decoding = Decoding.UNION_FIND if name == "union_find" else Decoding.PLAIN
            if decoding is not own:
                steps.append(LadderStep(STEP_DECODE, decoding))
    return steps


class Streams:
    """The patches of a lane and the window models that they share.

    Args:
        plans: One per patch.
        patch_ids: Their ids.
        budgets_us: Service time that a window of each may take.
        ladder: `[ladder]`, as the plans were compiled with.
        ring: Where their rounds lie.
        telemetry: Its `path_counters` are written by the stages; its `patches` here.
        events: Whether the feed carries detection events.
        hand_over: How the answers of a network reach the matcher, or None where there is no network.
        aside: Whether another path still runs on this ring and block: nothing in them is touched until `step_in`.

    Attributes:
        models: The distinct models, and what decodes each.
        patch_of: Of each model, a patch that has it.
        model_records: `MODEL`, shape (num_models,).
        masks: uint8, all masks.
        seam: int64, shape (num_seam, 2), all seams.
        cost_ns: float64, shape (num_models, NUM_BUCKETS): predicted cost of one window. The path writes it.
        patches: `WINDOW_PATCH`, shape (num_patches,); in the telemetry block, as control may change budgets and steps.
        states, aheads: `WINDOW_STATE`, shape (num_patches,). The path writes them.
        streams, shelf: What compiled code takes; see `kernels.window`.

    Raises:
        ConfigError: A backlog that the ring cannot hold.
    """

    def __init__(
        self, plans: list[Plan], patch_ids: list[int], budgets_us: list[float], ladder: LadderTable, ring: Ring,
        telemetry: TelemetryBlock, events: bool = False, aside: bool = False, hand_over: HandOver | None = None,
    ) -> None:  # fmt: skip
        self._events = events
        self.models: list[tuple[WindowModel, Decoding]] = []
        self.patch_of: list[int] = []
        self._known: dict[tuple[str, Decoding, int], int] = {}
        self.quantile = ladder.quantile
        self.states, self.aheads, self.outbox = ring.states, ring.aheads, ring.outbox
        self._telemetry = telemetry
        self.patches = telemetry.patches if not aside else np.zeros(len(plans), WINDOW_PATCH)
        self.ladders = [ladder_steps(plan, ladder, hand_over) for plan in plans]
        self.multiples = np.array(plans[0].multiples, np.int64)
        open_models: list[int] = []
        closing_models: list[int] = []
        steps: list[tuple[int, int, int, int]] = []
        erased: dict[int, list[int]] = {}
        first_of: dict[int, int] = {}
        for i, (patch, plan, own_steps) in enumerate(zip(self.patches, plans, self.ladders, strict=True)):
            self._patch = first_of.setdefault(id(plan), i)
            _describe_patch(patch, plan)
            patch["patch_id"], patch["budget_ns"] = patch_ids[i], ns_from_us(budgets_us[i])
            patch["ring_rounds"] = ring.places[i]["mask"] + 1
            patch["backlog_rounds"] = _backlog_rounds(ladder, patch)
            patch["open_offset"], patch["closing_offset"] = len(open_models), len(closing_models)
            patch["step_offset"], patch["num_steps"] = len(steps), len(own_steps)
            patch["steps_mask"] = (1 << len(own_steps)) - 1
            decodings = list(dict.fromkeys(step.decoding for step in own_steps))
            patch["predecodes"] = decodings[0].predecodes
            steps += [
                (step.kind, decodings.index(step.decoding), step.decoding.rung, step.decoding.predecodes)
                for step in own_steps
            ]
            for decoding in decodings:
                self._lay_windows(plan, decoding, patch, open_models, closing_models)
            for decoding in decodings[: 1 + int(patch["predecodes"])]:
                erased |= self._lay_erased(plan, decoding)
        self._describe_models(erased)
        self.cost_ns = np.zeros((len(self.models), NUM_BUCKETS))
        self.streams = (
            self.patches, ring.places, self.states, self.aheads, ring.slots, ring.events_b8, ring.cursors,
            telemetry.path_counters,
        )  # fmt: skip
        self.shelf = (
            np.array(open_models, np.int64), np.array(closing_models, np.int64), self.model_records, self.masks,
            np.array(steps, np.int64).view(STEP).reshape(-1), self.multiples, self.cost_ns,
            np.array([number for numbers in erased.values() for number in numbers] or [HELD], np.int64),
        )  # fmt: skip

    def _lay_windows(
        self, plan: Plan, decoding: Decoding, patch: np.void, open_models: list[int], closing_models: list[int]
    ) -> None:
        """The models of all windows of one decoding, in the order in which compiled code looks them up."""
        shapes = plan.shapes[decoding.matching]
        numbers = {index: self._shelve(plan.models[index], decoding) for index in self._used(plan, decoding)}
        numbers[HELD] = HELD
        for row in range(plan.num_rows):
            for multiple in plan.multiples:
                open_models += [numbers[shapes.open.get((row, multiple, past), HELD)] for past in (False, True)]
        for row in range(plan.num_rows):
            for left in range(int(patch["left_max"]) + 1):
                closing_models += [numbers[shapes.closing.get((row, left, past), HELD)] for past in (False, True)]

    def step_in(self) -> None:
        """Take over from the path before, with the budgets and steps that control has set."""
        shared = self._telemetry.patches
        for key in ("budget_ns", "steps_mask"):
            self.patches[key] = shared[key]
        shared[:] = self.patches
        self.patches = shared
        self.streams = (shared, *self.streams[1:])

    def _lay_erased(self, plan: Plan, decoding: Decoding) -> dict[int, list[int]]:
        """The models of windows with a lost round, for the patch's own matching."""
        if self._events:
            # A lost round of detection events is no erasure of measurements: what its neighbours say still stands.
            return {}
        return {
            self._shelve(plan.models[number], decoding): [
                HELD if other < 0 else self._shelve(plan.models[other], decoding) for other in others
            ]
            for number, others in plan.erased.items()
        }

    @staticmethod
    def _used(plan: Plan, decoding: Decoding) -> list[int]:
        shapes = plan.shapes[decoding.matching]
        return sorted({*shapes.open.values(), *shapes.closing.values()})

    def _shelve(self, model: WindowModel, decoding: Decoding) -> int:
        """The lane's number of a model; equal windows share a matcher, unless a network's answers for it are looked up
        by where the plan's detectors lie.
        """
        key = (model.content, decoding, self._patch if decoding is Decoding.SOFT else -1)
        if key not in self._known:
            self._known[key] = len(self.models)
            self.models.append((model, decoding))
            self.patch_of.append(self._patch)
        return self._known[key]

    def _describe_models(self, erased: dict[int, list[int]]) -> None:
        self.model_records = np.zeros(len(self.models), MODEL)
        self.model_records["erased_offset"] = -1
        erased_at = 0
        for model_index, others in erased.items():
            self.model_records[model_index]["erased_offset"] = erased_at
            erased_at += len(others)
        mask_at = seam_at = 0
        for entry, (model, _) in zip(self.model_records, self.models, strict=True):
            entry["row_bytes"], entry["answer_bytes"] = model.row_bytes, model.answer_bytes
            entry["num_observables"], entry["mask_offset"] = model.num_observables, mask_at
            entry["seam_start"], entry["seam_stop"] = seam_at, seam_at + len(model.seam)
            mask_at += len(model.mask_b8)
            seam_at += len(model.seam)
        self.masks = np.concatenate([model.mask_b8 for model, _ in self.models])
        self.seam = np.concatenate([*(model.seam for model, _ in self.models), np.zeros((1, 2), np.int64)])


def _describe_patch(patch: np.void, plan: Plan) -> None:
    """Fill what the path knows of a plan."""
    patch["plan_tag"] = plan.tag
    patch["commit_rounds"], patch["window_rounds"] = plan.window.commit_rounds, plan.window.rounds
    patch["num_rounds"] = -1 if plan.num_rounds is None else plan.num_rounds
    patch["look_back"] = plan.look_back
    patch["num_observables"] = plan.num_observables
    patch["num_rows"], patch["num_multiples"] = plan.num_rows, len(plan.multiples)
    patch["left_max"] = max(left for shapes in plan.shapes.values() for _, left, _ in shapes.closing)


def _backlog_rounds(ladder: LadderTable, patch: np.void) -> int:
    """Rounds that may wait for an answer. The ring keeps as many again, and a window, for those that are held."""
    ring_rounds, window_rounds = int(patch["ring_rounds"]), int(patch["window_rounds"])
    if ladder.backlog_rounds == "auto":
        return max(ring_rounds // 4, window_rounds)
    if not window_rounds <= ladder.backlog_rounds <= ring_rounds // 2 - window_rounds:
        raise ConfigError(
            "[ladder] backlog_rounds", f"is {ladder.backlog_rounds}, but the window has {window_rounds} rounds and the "
            f"ring {ring_rounds}; the bounds are {window_rounds} and {ring_rounds // 2 - window_rounds}.",
            "A window must be able to wait until it closes, and rounds that are held need room in the ring.",
            "Set it within the bounds, or a larger [feed] ring_rounds.",
        )  # fmt: skip
    return ladder.backlog_rounds


@dataclass(frozen=True)
class Weighing:
    """A network's answers for the edges of a batch's windows.

    Attributes:
        chunk_of: int64, shape (batch_windows,): the chunk of each window, or -1 where it has no answers.
        answers: float32, shape (chunks, outputs, layers, num_cells): logits.
        spans: int32, shape (chunks, 2): first and stop layer that count.
        behind: Layers of a chunk before its window's first.
    """

    chunk_of: NDArray[np.int64]
    answers: NDArray[np.float32]
    spans: NDArray[np.int32]
    behind: int


class WindowBatch:
    """Windows that travel together from `Window` to `Publish`. Allocated once.

    Args:
        batch_windows: Most windows in it.
        streams: The lane's patches and models.

    Attributes:
        count: Windows in it.
        model_index: Their matcher, or -1 where they are held.
        windows: `WINDOW_SLOT`, shape (batch_windows,).
        rows_b8: uint8, their detection events, `count` rows of the matcher's `row_bytes`.
        matched: uint8, shape (batch_windows,): 1 where there is an answer. All ones but while `Match` says otherwise.
        answers_b8: uint8, shape (count, answer_bytes): what the matcher said.
        corrections: `wire.CORRECTION`, shape (batch_windows,); `corrections_b8` is the same memory.
        models: `windows["model"]`.
        weighing: What a network said of the windows, for the soft hand-over; None where there is none.
    """

    def __init__(self, batch_windows: int, streams: Streams) -> None:
        self.count = 0
        self.model_index = HELD
        self.windows = np.zeros(batch_windows, WINDOW_SLOT)
        self.rows_b8 = np.zeros(batch_windows * int(streams.model_records["row_bytes"].max()), np.uint8)
        self.matched = np.ones(batch_windows, np.uint8)
        self.no_answers_b8 = np.zeros((batch_windows, 1), np.uint8)
        self.answers_b8: NDArray[Any] = self.no_answers_b8
        self.corrections = np.zeros(batch_windows, CORRECTION)
        self.corrections_b8 = self.corrections.view(np.uint8)
        self.models = self.windows["model"]
        self.weighing: Weighing | None = None
