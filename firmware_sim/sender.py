"""The sender: what each patch sends, and the thread that sends it by the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import zmq
from numpy.typing import NDArray

from firmware_sim.endless import EndlessErrors
from firmware_sim.faults import Faults
from firmware_sim.kernels.faulty import send_faulty_rounds
from firmware_sim.kernels.records import (
    LATE_BOUND_NS,
    LATE_MAX_NS,
    LATE_ROUNDS,
    MESSAGES,
    PROGRESS_WORDS,
    ROUNDS,
    SEND_PATCH,
    SEND_STATE,
    UNSENT,
)
from firmware_sim.kernels.send import send_rounds
from firmware_sim.shots import Shots
from firmware_sim.sources import finite_shots
from rtqec.config import Config
from rtqec.errors import ConfigError
from rtqec.kernels.native import precise_timers, timespec
from rtqec.kernels.records import CONTROL_WORDS, STOP
from rtqec.plan import Plan
from rtqec.plan.tables import FoldTables
from rtqec.units import NS_PER_US, ns_from_us
from rtqec.wire import MESSAGE_BYTES_MAX, rounds_message_bytes

_EPOCHS = 1 << 16
ENDLESS_ROUNDS_DEFAULT = 1_000_000
LATE_BOUND_PERIODS = 10
LATE_BOUND_US_MIN = 1000.0
"""A round that leaves later than that counts as late: a scheduler's slice is what any shared machine may take."""


class Sender:
    """Everything that is sent in one run, made before it starts.

    Args:
        config: `[source]`, `[pace]`, `[[fault]]` and `[feed]` are read here.
        plans: One per patch.

    Attributes:
        shots: The finite shots of each patch, or None for an endless one.
        rounds_total: Rounds of all patches.
        shot_rounds: int64, rounds of a shot of each patch.
        faults: What goes wrong, and its log; None where nothing does.
    """

    def __init__(self, config: Config, plans: list[Plan]) -> None:
        self._pace = _pace(config)
        self._burst_ns = ns_from_us(config.pace.burst_us)
        self._tables = FoldTables(plans, [p.id for p in config.patch], config.feed.payload == "detection_events")
        seeds = np.random.SeedSequence(config.source.seed).generate_state(len(plans), np.uint64)
        self.shots: list[Shots | None] = []
        self._patches = np.zeros(len(plans), SEND_PATCH)
        self._states = np.zeros(len(plans), SEND_STATE)
        self._states["random"] = seeds | np.uint64(1)
        self._patches["crc"] = config.source.crc
        self._patches["source_epoch"] = time.time_ns() % _EPOCHS
        self._patches["rounds_per_message"] = config.source.rounds_per_message
        errors = EndlessErrors()
        pending_words = 0
        for patch, plan, seed in zip(self._patches, plans, seeds.tolist(), strict=True):
            patch["layer_words"] = plan.layout.scratch_words
            if plan.endless:
                self._check_endless(config, plan)
                patch["pending_offset"] = pending_words
                self._describe_endless(patch, config, plan, errors)
                pending_words += int((patch["pending_mask"] + 1) * plan.layout.scratch_words)
                self.shots.append(None)
            else:
                self.shots.append(finite_shots(config, plan, seed % (1 << 62)))
        self._errors = errors.arrays()
        self.faults = Faults(config, plans, errors.places()) if config.fault else None
        self._pending = np.zeros(pending_words + 1, np.uint64)
        self._lay_tapes()
        self.rounds_total = int((self._patches["num_shots"] * self._patches["num_rounds"]).sum())
        self.shot_rounds = self._patches["num_rounds"].astype(np.int64)
        self.progress = np.zeros(PROGRESS_WORDS, np.int64)
        self.progress[LATE_BOUND_NS] = ns_from_us(max(LATE_BOUND_PERIODS * config.period_us, LATE_BOUND_US_MIN))
        self.control = np.zeros(CONTROL_WORDS, np.int64)
        self._words = np.zeros(MESSAGE_BYTES_MAX // 8, np.uint64)
        self._scratch = [np.zeros(max(plan.layout.scratch_words for plan in plans), np.uint64) for _ in range(2)]
        self._sockets = np.zeros(len(plans), np.uint64)
        self._thread: threading.Thread | None = None
        self._run(0, stopped=True)

    def start(self, socket: zmq.Socket[bytes] | Sequence[zmq.Socket[bytes]], start_ns: int) -> None:
        """Send in a thread of its own.

        Args:
            socket: A PUSH socket: of all patches, or one for each, which patches of one lane share.
            start_ns: CLOCK_MONOTONIC of the beginning.
        """
        sockets = [socket] * len(self._patches) if isinstance(socket, zmq.Socket) else socket
        self._sockets[:] = [one.underlying for one in sockets]
        self._thread = threading.Thread(target=self._run, args=(start_ns,), name="sender", daemon=True)
        self._thread.start()

    @property
    def sending(self) -> bool:
        """Whether there is more to send."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End early."""
        self.control[STOP] = 1
        if self._thread is not None:
            self._thread.join()

    @property
    def rounds_sent(self) -> int:
        """Rounds that the patches have made: handed to the transport, lost there, or withheld by a fault."""
        return int(self.progress[ROUNDS])

    @property
    def messages_sent(self) -> int:
        """Messages that the patches have made: handed to the transport, lost there, or withheld by a fault."""
        return int(self.progress[MESSAGES])

    @property
    def rounds_unsent(self) -> int:
        """Rounds that the transport did not take."""
        return int(self.progress[UNSENT])

    @property
    def late_ns_max(self) -> int:
        """The latest that a message left, after it was due and injected delays had passed."""
        return int(self.progress[LATE_MAX_NS])

    @property
    def late_bound_ns(self) -> int:
        """How late a round may leave; may be set before the start."""
        return int(self.progress[LATE_BOUND_NS])

    @late_bound_ns.setter
    def late_bound_ns(self, bound_ns: int) -> None:
        self.progress[LATE_BOUND_NS] = bound_ns

    @property
    def rounds_late(self) -> int:
        """Rounds that left later than that."""
        return int(self.progress[LATE_ROUNDS])

    def rounds_sent_of(self, patch_index: int) -> int:
        """Rounds of one patch, counted as in `rounds_sent`."""
        return int(self._states[patch_index]["rounds_sent"])

    def endless_observables(self, patch_index: int) -> int:
        """Observables that all errors of an endless shot flipped so far: the truth, one bit per own observable."""
        return int(self._states[patch_index]["observables"])

    def lost_rounds(self, patch_index: int) -> NDArray[np.int64]:
        """Rounds of a patch that a fault kept from the daemon, int64, shape (n, 2): shot and round, in order."""
        return self.faults.lost_rounds(patch_index) if self.faults else np.zeros((0, 2), np.int64)

    def epoch_of(self, patch_index: int) -> tuple[int, int]:
        """The patch's source epoch, and its next sequence number."""
        return int(self._patches[patch_index]["source_epoch"]), int(self._states[patch_index]["sequence"])

    def shots_begun(self, patch_index: int) -> int:
        """Shots of a patch that were made, or cut off, up to now."""
        state = self._states[patch_index]
        return int(state["shot"]) + bool(state["round_index"])

    def _run(self, start_ns: int, stopped: bool = False) -> None:
        """The thread; with `stopped` only compiles."""
        precise_timers()
        control = np.ones_like(self.control) if stopped else self.control
        everything = (
            self._sockets, self._tables.patches, self._patches, self._states, self._tables.layers, self._tables.program,
            self._messages, self._tape, self._sweep_tape, self._errors, self._pending, self._pace, self._burst_ns,
            start_ns, self._words.view(np.uint8), self._words, self._scratch[0], self._scratch[1], self.progress,
            control, timespec(),
        )  # fmt: skip
        if self.faults is None:
            send_rounds(*everything)
        else:
            send_faulty_rounds(*everything, self.faults.arrays())

    def _describe_endless(self, patch: np.void, config: Config, plan: Plan, errors: EndlessErrors) -> None:
        num_rounds = config.source.rounds or ENDLESS_ROUNDS_DEFAULT
        patch["endless"], patch["num_shots"], patch["num_rounds"] = 1, 1, num_rounds
        for key, value in errors.put(plan, num_rounds).items():
            patch[key] = value

    def _check_endless(self, config: Config, plan: Plan) -> None:
        """Refuse what an endless source cannot make."""
        if config.source.kind != "simulated":
            raise ConfigError(
                "[source] kind", f'is {config.source.kind!r}, but [plan] rounds is "endless".',
                "A file has an end.", 'Set kind = "simulated", or a finite [plan].',
            )  # fmt: skip
        layers = [*plan.first_layers, plan.last_layer, *([plan.bulk_layer] if plan.bulk_layer else [])]
        raw = config.feed.payload == "measurements"
        if raw and any(layer.program is None or not len(layer.program.fixes) for layer in layers):
            raise ConfigError(
                "[feed] payload", 'is "measurements", but the detectors of some round of this endless circuit are not '
                "independent.", "Raw measurements are made by solving for them.",
                'Set payload = "detection_events".',
            )  # fmt: skip

    def _lay_tapes(self) -> None:
        """All finite shots in flat arrays."""
        messages: list[NDArray[np.int64]] = [np.zeros((1, 5), np.int64)]
        tapes: list[NDArray[np.uint8]] = [np.zeros(1, np.uint8)]
        sweeps: list[NDArray[np.uint8]] = [np.zeros(1, np.uint8)]
        at = [1, 1, 1]
        for patch, shots in zip(self._patches, self.shots, strict=True):
            if shots is None:
                continue
            patch["num_shots"], patch["num_rounds"] = shots.num_shots, shots.num_rounds
            patch["message_offset"], patch["tape_offset"], patch["sweep_offset"] = at
            patch["messages_per_shot"] = len(shots.messages)
            patch["shot_bytes"], patch["sweep_bytes"] = shots.rounds_b8.shape[1], shots.sweep_b8.shape[1]
            messages.append(shots.messages)
            tapes.append(shots.rounds_b8.reshape(-1))
            sweeps.append(shots.sweep_b8.reshape(-1))
            at = [at[0] + len(shots.messages), at[1] + shots.rounds_b8.size, at[2] + shots.sweep_b8.size]
            longest = max(rounds_message_bytes(int(m[1]), int(m[4]), 64) for m in shots.messages)
            assert longest < MESSAGE_BYTES_MAX
        self._messages = np.concatenate(messages)
        self._tape, self._sweep_tape = np.concatenate(tapes), np.concatenate(sweeps)


def _pace(config: Config) -> NDArray[np.float64]:
    """The clock of the rounds; see `kernels.send.elapsed_ns`."""
    start, stop = config.pace.rush_rounds
    return np.array([config.period_us * NS_PER_US, start, stop, config.pace.rush_factor])
