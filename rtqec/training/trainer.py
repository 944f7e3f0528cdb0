"""One network, its optimiser, and how far they have come: a step, a rate, a state to keep."""

from __future__ import annotations

import gc
import math
from typing import Any

import torch
from torch import nn

from rtqec.errors import ConfigError
from rtqec.neural.network import HARD_OUTPUTS
from rtqec.training.answers import autocast, volume_of
from rtqec.training.config import TrainingTable
from rtqec.training.group import Group
from rtqec.training.mixture import Batch

GRADIENT_NORM_MAX = 1.0
BETAS = (0.9, 0.98)
RATE_LAST = 0.01
"""Of the learning rate, at the end of its decay."""


class Trainer:
    """Learns batches.

    Args:
        table: `[training]`.
        module: The network, on the group's device.
        group: Who trains together.
        precision: "bf16" or "fp32".

    Attributes:
        step, shots: Updates made; shots seen, by all ranks.
        seconds: Spent on them.
    """

    def __init__(self, table: TrainingTable, module: nn.Module, group: Group, precision: str) -> None:
        self.table, self.module, self._group, self._precision = table, module, group, precision
        self._wrapped = group.wrap(module)
        self.optimiser = torch.optim.AdamW(
            module.parameters(), lr=table.learning_rate, betas=BETAS, weight_decay=table.weight_decay
        )
        self.step, self.shots, self.seconds = 0, 0, 0.0
        device = group.device
        self._constants: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._losses, self._num_losses = torch.zeros((), device=device), 0

    @property
    def fraction(self) -> float:
        """How much of the budget is spent."""
        if self.table.shots is not None:
            return self.shots / self.table.shots
        assert self.table.hours is not None
        return self.seconds / (self.table.hours * 3600)

    @property
    def rate(self) -> float:
        """The learning rate now: a rise, a plateau, and a straight decay at the end.

        Source: Haegele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations (2024).
        """
        rise = min(1.0, (self.step + 1) / max(1, self.table.warmup_steps))
        fall = 1.0
        if self.fraction > 1 - self.table.decay_fraction:
            fall = max((1 - self.fraction) / self.table.decay_fraction, RATE_LAST)
        return self.table.learning_rate * rise * fall

    def learn(self, batch: Batch) -> None:
        """One update."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.module.train()
        device = self._group.device
        presence, weight = self._of(batch)
        events, labels = batch.events.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
        with autocast(device, self._precision):
            logits = self._wrapped(volume_of(events, presence))
        total = nn.functional.binary_cross_entropy_with_logits(
            logits.float(), labels.float(), weight=weight.expand_as(logits), reduction="sum"
        )
        loss = total / len(events)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        nn.utils.clip_grad_norm_(self.module.parameters(), GRADIENT_NORM_MAX)
        self.optimiser.step()
        self._losses += loss.detach()
        self._num_losses += 1
        self.step += 1
        self.shots += len(events) * self._group.size

    def close(self) -> None:
        """Let go of what belongs to the group, before that ends: its threads must not outlive it."""
        del self._wrapped
        gc.collect()

    def take_loss(self) -> float:
        """The mean loss since it was last taken; NaN where nothing was learned since.

        Raises:
            ConfigError: The loss is not a number any more: nothing is learned from then on.
        """
        mean = float(self._losses) / self._num_losses if self._num_losses else math.nan
        if self._num_losses and not math.isfinite(mean):
            raise ConfigError(
                "[training] learning_rate", f"is {self.table.learning_rate}, and by step {self.step} the loss is "
                f"{mean}.", "The weights have left the range of numbers, and do not come back.",
                "Lower learning_rate, raise warmup_steps, or set precision = \"fp32\"; resume from the checkpoint.",
            )  # fmt: skip
        self._losses.zero_()
        self._num_losses = 0
        return mean

    def _of(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """What stays the same for a volume, on the device: presence, and what each answer weighs.

        The loss is the mean over what is decided, and over edges, where there are any.
        """
        key = id(batch.volume)
        if key not in self._constants:
            weight = batch.volume.mask.float()
            for part in (slice(None, HARD_OUTPUTS), slice(HARD_OUTPUTS, None)):
                weight[part] /= weight[part].sum().clamp(min=1)
            self._constants[key] = (batch.volume.presence.to(self._group.device), weight.to(self._group.device))
        return self._constants[key]

    def state(self) -> dict[str, Any]:
        """All that the next step depends on; batches follow from the seed and the step."""
        return {
            "network": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.step,
            "shots": self.shots,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.module.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"].cpu())
        self.step, self.shots, self.seconds = state["step"], state["shots"], state["seconds"]
