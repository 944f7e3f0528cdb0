"""One run of the simulated controller against a daemon that listens: send, receive, check."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import zmq
from numpy.typing import NDArray

from firmware_sim.account import PatchAccount
from firmware_sim.backlog import BacklogSummary, summarise
from firmware_sim.expected import expected_counts
from firmware_sim.sender import Sender
from firmware_sim.shots import words_from_bits
from firmware_sim.sink import Sink
from rtqec.config import Config, expand_variables
from rtqec.errors import NoPeerError
from rtqec.plan import Plan
from rtqec.reference import WholeShotMatcher
from rtqec.units import MS_PER_S, NS_PER_MS, NS_PER_S

SAMPLE_PERIOD_S = 0.005
AMENDMENTS_QUIET_S = 0.5
"""Rounds that were held are amended one window after the other; after so long without one, no more will come."""
_SAMPLES_PER_CHECK = 8


@dataclass(frozen=True)
class ShotComparison:
    """Own observables of all finished shots of all patches.

    Attributes:
        shots: Shots whose last correction came.
        logical_errors: Of them, frame differs from the truth; None where the truth is not known.
        logical_errors_whole_shot: The same for PyMatching on whole shots.
        disagreements: Frame differs from PyMatching on whole shots.
        worse, better: Of those, which of the two was right.
    """

    shots: int
    logical_errors: int | None
    logical_errors_whole_shot: int | None
    disagreements: int | None
    worse: int | None
    better: int | None


class Controller:
    """Sender and sink of one run.

    Args:
        config: The deployment.
        plans: One per patch.
        keep: Whether to keep every correction; see `PatchAccount.corrections`.
    """

    def __init__(self, config: Config, plans: list[Plan], keep: bool = False) -> None:
        self.config, self.plans = config, plans
        self.sender = Sender(config, plans)
        shots_of = [shots.num_shots if shots else 1 for shots in self.sender.shots]
        self.accounts = [
            PatchAccount(patch.id, plan.tag, num_shots, keep)
            for patch, plan, num_shots in zip(config.patch, plans, shots_of, strict=True)
        ]
        self.sink = Sink(self.accounts, self.sender.shot_rounds)
        self._times_s: list[float] = []
        self._backlogs: list[int] = []
        self._context = zmq.Context(io_threads=1)
        self.seconds = 0.0

    def run(self, on_sample: Callable[[], None]) -> None:
        """Connect, send everything, wait for what must come back.

        Args:
            on_sample: Called every few milliseconds; may raise to end the run.

        Raises:
            NoPeerError: Nobody listens.
        """
        sockets: list[zmq.Socket[bytes]] = []
        # Ctrl-C between the start of a compiled loop and the note that it runs would leave it on a closed socket.
        interrupted = threading.Event()
        previous = signal.signal(signal.SIGINT, lambda _number, _frame: interrupted.set())

        def look() -> None:
            if interrupted.is_set():
                raise KeyboardInterrupt
            on_sample()

        try:
            rounds = self._connect(zmq.PUSH, "[feed] endpoint", self.config.feed.endpoint)
            sockets.append(rounds)
            corrections = self._connect(zmq.PULL, "[publish] endpoint", self.config.publish.endpoint)
            sockets.append(corrections)
            self.sink.start(corrections)
            start_ns = time.monotonic_ns() + round(self.config.pace.start_delay_ms * NS_PER_MS)
            self.sender.start(rounds, start_ns)
            while self.sender.sending:
                self._sample()
                if len(self._times_s) % _SAMPLES_PER_CHECK == 0:
                    look()
            self.seconds = (time.monotonic_ns() - start_ns) / NS_PER_S
            self._settle(look)
        finally:
            self.sender.stop()
            self.sink.stop()
            for socket in sockets:
                socket.close(linger=0)
            self._context.term()
            signal.signal(signal.SIGINT, previous)

    @property
    def expected(self) -> int:
        """Corrections of an undisturbed run: fewer come where windows are joined to catch up, more with amendments."""
        return sum(
            account.num_shots * len(plan.window_indices(int(rounds)))
            for account, plan, rounds in zip(self.accounts, self.plans, self.sender.shot_rounds, strict=True)
        )

    def expected_counts(self) -> dict[str, int] | None:
        """What the daemon must count after a run with faults; None without faults, or where the log overflowed."""
        faults = self.sender.faults
        if faults is None or faults.fates_overflowed:
            return None
        return expected_counts(self.config, self.plans, self.sender)

    @property
    def complete(self) -> bool:
        """Whether the last shot of every patch has been answered; one of them always is, whatever the faults."""
        return all(bool(account.finished[-1]) for account in self.sink.accounts)

    @property
    def backlog(self) -> BacklogSummary:
        """Sampled while the source sent."""
        return summarise(self._times_s, self._backlogs)

    def compare(self) -> ShotComparison:
        """Compare frames with the truth and, unless switched off, with PyMatching on whole shots."""
        totals = np.zeros(6, np.int64)
        known_truth = known_whole = True
        for index, account in enumerate(self.accounts):
            finished = account.finished
            frames = account.frames[finished] & self._own_mask(index)
            totals[0] += len(frames)
            truth = self._truth(index)
            whole = self._whole_shot(index)
            known_truth &= truth is not None
            known_whole &= whole is not None
            wrong = frames != truth[finished] if truth is not None else None
            if wrong is not None:
                totals[1] += wrong.sum()
            if whole is not None:
                totals[3] += (frames != whole[finished]).sum()
            if wrong is not None and whole is not None and truth is not None:
                whole_wrong = whole[finished] != truth[finished]
                totals[[2, 4, 5]] += [whole_wrong.sum(), (wrong & ~whole_wrong).sum(), (~wrong & whole_wrong).sum()]
        both = known_truth and known_whole
        shots, errors, whole_errors, disagreements, worse, better = totals.tolist()
        return ShotComparison(
            shots,
            errors if known_truth else None,
            whole_errors if both else None,
            disagreements if known_whole else None,
            worse if both else None,
            better if both else None,
        )

    def _own_mask(self, index: int) -> np.uint64:
        return np.uint64((1 << self.plans[index].experiment.own_dem.num_observables) - 1)

    def _truth(self, index: int) -> NDArray[np.uint64] | None:
        shots = self.sender.shots[index]
        if shots is None:
            return np.array([self.sender.endless_observables(index)], np.uint64)
        return shots.observable_flips

    def _whole_shot(self, index: int) -> NDArray[np.uint64] | None:
        shots = self.sender.shots[index]
        if shots is None or not self.config.sink.compare:
            return None
        plan = self.plans[index]
        predicted = WholeShotMatcher(plan.experiment.own_dem, plan.correlated)(shots.detection_events_b8)
        return words_from_bits(predicted)

    def _sample(self) -> None:
        """One backlog sample, and a look at what has come."""
        time.sleep(SAMPLE_PERIOD_S)
        if self.sender.rounds_sent and self.sender.sending:
            self._times_s.append(time.monotonic())
            covered = self.sink.covered.tolist()
            self._backlogs.append(max(self.sender.rounds_sent_of(p) - done for p, done in enumerate(covered)))
        if len(self._times_s) % _SAMPLES_PER_CHECK == 0:
            self.sink.check()

    def _settle(self, on_sample: Callable[[], None]) -> None:
        """Wait for the corrections that are still on their way, amendments included."""
        give_up = time.monotonic() + self.config.sink.settle_s
        received, quiet_since = self.sink.received, time.monotonic()
        while time.monotonic() < give_up:
            awaited = any(account.awaits_amendments for account in self.sink.accounts)
            quiet = time.monotonic() - quiet_since >= AMENDMENTS_QUIET_S
            if self.complete and (quiet or not awaited):
                return
            time.sleep(SAMPLE_PERIOD_S)
            self.sink.check()
            on_sample()
            if self.sink.received != received:
                received, quiet_since = self.sink.received, time.monotonic()

    def _connect(self, kind: int, key: str, written: str) -> zmq.Socket[bytes]:
        """Connect one socket and wait until the daemon has accepted it."""
        endpoint = expand_variables(key, written)
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.set_hwm(self.config.source.send_queue)
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        socket.connect(endpoint)
        timeout_s = self.config.sink.connect_timeout_s
        answered = bool(monitor.poll(round(timeout_s * MS_PER_S)))
        socket.disable_monitor()
        monitor.close(linger=0)
        if not answered:
            socket.close(linger=0)
            raise NoPeerError(
                f"{key} is {endpoint!r}, but no daemon answered there within {timeout_s:g} s. "
                "Rounds would be sent to nobody. Start it: rtqec run CONFIG, or use firmware-sim loop CONFIG. "
                "(A daemon that already serves another controller does not answer either; its log says so.)"
            )
        return socket
