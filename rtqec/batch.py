"""What the stages share: the lane's patches and matchers as compiled code reads them, and the batch that travels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtqec.kernels.records import MODEL, WINDOW_PATCH, WINDOW_SLOT, WINDOW_STATE
from rtqec.kernels.window import HELD
from rtqec.plan import Plan
from rtqec.plan.model import WindowModel
from rtqec.units import ns_from_us
from rtqec.wire import CORRECTION, Rung


class Streams:
    """The patches of a lane and the window models that they share.

    Args:
        plans: One per patch.
        patch_ids: Their ids.
        budget_us: Service time that a window may take.
        events: Whether the feed carries detection events.

    Attributes:
        models: The distinct models, and whether each is matched with correlations.
        model_records: `MODEL`, shape (num_models,).
        masks: uint8, all masks.
        seam: int64, shape (num_seam, 2), all seams.
        cost_ns: float64, shape (num_models,): predicted time of one window. The path writes it.
        patches: `WINDOW_PATCH`, shape (num_patches,).
        states: `WINDOW_STATE`, shape (num_patches,). The path writes them.
        open_models, closing_models: int64, models by window; see `WINDOW_PATCH`.
    """

    def __init__(self, plans: list[Plan], patch_ids: list[int], budget_us: float, events: bool) -> None:
        self.models: list[tuple[WindowModel, bool]] = []
        index_of = [self._shelve(plan) for plan in plans]
        self.model_records = np.zeros(len(self.models), MODEL)
        self._describe_models()
        self.masks = np.concatenate([model.mask_b8 for model, _ in self.models])
        self.seam = np.concatenate([*(model.seam for model, _ in self.models), np.zeros((1, 2), np.int64)])
        self.cost_ns = np.zeros(len(self.models))
        self.states = np.zeros(len(plans), WINDOW_STATE)
        self.patches = np.zeros(len(plans), WINDOW_PATCH)
        open_models: list[int] = []
        closing_models: list[int] = []
        for patch, plan, patch_id, models in zip(self.patches, plans, patch_ids, index_of, strict=True):
            _describe_patch(patch, plan)
            patch["patch_id"], patch["budget_ns"], patch["events"] = patch_id, ns_from_us(budget_us), events
            patch["open_offset"], patch["closing_offset"] = len(open_models), len(closing_models)
            held = [HELD] * (int(patch["num_open"]) - len(plan.open_windows))
            open_models += [*(models[m] for m in plan.open_windows), *held]
            for k in range(int(patch["num_open"])):
                for left in range(plan.window.rounds + 1):
                    model = plan.closing_windows.get((k, left))
                    closing_models.append(HELD if model is None else models[model])
        self.open_models = np.array(open_models, np.int64)
        self.closing_models = np.array(closing_models, np.int64)

    def _shelve(self, plan: Plan) -> list[int]:
        """The lane's number of each of a plan's models; equal windows share a matcher."""
        known = {(model.content, correlated): i for i, (model, correlated) in enumerate(self.models)}
        for model in plan.models:
            if (model.content, plan.correlated) not in known:
                known[model.content, plan.correlated] = len(self.models)
                self.models.append((model, plan.correlated))
        return [known[model.content, plan.correlated] for model in plan.models]

    def _describe_models(self) -> None:
        mask_at = seam_at = 0
        for entry, (model, _) in zip(self.model_records, self.models, strict=True):
            entry["row_bytes"], entry["answer_bytes"] = model.row_bytes, model.answer_bytes
            entry["num_observables"], entry["mask_offset"] = model.num_observables, mask_at
            entry["seam_start"], entry["seam_stop"] = seam_at, seam_at + len(model.seam)
            mask_at += len(model.mask_b8)
            seam_at += len(model.seam)


def _describe_patch(patch: np.void, plan: Plan) -> None:
    """Fill what the path knows of a plan."""
    patch["plan_tag"] = plan.tag
    patch["commit_rounds"], patch["window_rounds"] = plan.window.commit_rounds, plan.window.rounds
    patch["num_rounds"] = -1 if plan.num_rounds is None else plan.num_rounds
    patch["num_observables"] = plan.num_observables
    patch["rung"] = Rung.CORRELATED_MATCH if plan.correlated else Rung.MATCH
    # A finite shot's last window has its own row; an endless plan's last row is the bulk's.
    patch["num_open"] = len(plan.open_windows) + (0 if plan.endless else 1)


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
    """

    def __init__(self, batch_windows: int, streams: Streams) -> None:
        self.count = 0
        self.model_index = HELD
        self.windows = np.zeros(batch_windows, WINDOW_SLOT)
        self.rows_b8 = np.zeros(batch_windows * int(streams.model_records["row_bytes"].max()), np.uint8)
        self.matched = np.ones(batch_windows, np.uint8)
        self.no_answers_b8 = np.zeros((batch_windows, 1), np.uint8)
        self.answers_b8: NDArray[np.uint8] = self.no_answers_b8
        self.corrections = np.zeros(batch_windows, CORRECTION)
        self.corrections_b8 = self.corrections.view(np.uint8)
        self.models = self.windows["model"]
