"""One run of the simulated controller against a daemon that listens: send, receive, check."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import zmq

from firmware_sim.account import PatchAccount
from firmware_sim.backlog import BacklogSummary, summarise
from firmware_sim.comparison import ShotComparison, compare_shots
from firmware_sim.connection import client_keys, connect
from firmware_sim.expected import expected_counts
from firmware_sim.journal import Journal
from firmware_sim.lanes import lanes_of
from firmware_sim.sender import Sender
from firmware_sim.sink import Sink
from rtqec.config import Config
from rtqec.errors import ConfigError
from rtqec.plan import Plan
from rtqec.units import NS_PER_MS, NS_PER_S

SAMPLE_PERIOD_S = 0.005
AMENDMENTS_QUIET_S = 0.5
"""Rounds that were held are amended one window after the other; after so long without one, no more will come."""
_SAMPLES_PER_CHECK = 8


class Controller:
    """Sender and sink of one run.

    Args:
        config: The deployment.
        plans: One per patch.
        keep: Whether to keep every correction; see `PatchAccount.corrections`.

    Attributes:
        lanes_may_die: Whether a correction that does not come is no fault, as long as it is in the journal.

    Raises:
        ConfigError: The daemon listens to CUDA-Q programs instead.
    """

    def __init__(self, config: Config, plans: list[Plan], keep: bool = False) -> None:
        if config.listen.cudaq is not None:
            raise ConfigError(
                "[listen.cudaq]", "is there, but this controller speaks rtqec's own wire only.",
                "With it the daemon has neither [feed] nor [publish] endpoint: there is nothing to connect to.",
                "Use a CUDA-Q program, or a configuration without it.",
            )  # fmt: skip
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
        self.lanes_may_die = False

    def use_journal(self, journal: Journal) -> None:
        """Look up corrections that do not come: lanes may die.

        Args:
            journal: Where.
        """
        self.lanes_may_die = True
        for account in self.accounts:
            account.journal = journal

    def run(self, on_sample: Callable[[], None]) -> None:
        """Connect, send everything, wait for what must come back.

        Args:
            on_sample: Called every few milliseconds; may raise to end the run.

        Raises:
            ConfigError: It is not known which lane carries a patch, or a key cannot be read.
            NoPeerError: Nobody listens.
        """
        lanes, keys = lanes_of(self.config), client_keys(self.config)
        sockets: list[zmq.Socket[bytes]] = []
        # Ctrl-C between the start of a compiled loop and the note that it runs would leave it on a closed socket.
        interrupted = threading.Event()
        previous = signal.signal(signal.SIGINT, lambda _number, _frame: interrupted.set())

        def look() -> None:
            if interrupted.is_set():
                raise KeyboardInterrupt
            on_sample()

        try:
            feeds: dict[int, zmq.Socket[bytes]] = {}
            for lane in lanes:
                feed = [lane.feed.endpoint]
                sockets.append(connect(self._context, zmq.PUSH, "[feed] endpoint", feed, lane, keys))
                feeds |= {patch.id: sockets[-1] for patch in lane.patch}
            published = [lane.publish.endpoint for lane in lanes]
            sockets.append(connect(self._context, zmq.PULL, "[publish] endpoint", published, self.config, keys))
            self.sink.start(sockets[-1])
            start_ns = time.monotonic_ns() + round(self.config.pace.start_delay_ms * NS_PER_MS)
            self.sender.start([feeds[patch.id] for patch in self.config.patch], start_ns)
            while self.sender.sending:
                self._sample()
                if len(self._times_s) % _SAMPLES_PER_CHECK == 0:
                    look()
            self.seconds = (time.monotonic_ns() - start_ns) / NS_PER_S
            self._settle(look)
            if self.lanes_may_die:
                self.sink.stop()
                for account in self.accounts:
                    account.look_up_rest()
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
        """Compare frames with the truth; unless switched off with whole shots; with windows, where lanes may die."""
        return compare_shots(self.plans, self.sender, self.accounts, self.config.sink.compare, self.lanes_may_die)

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
