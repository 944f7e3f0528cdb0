"""Whatever CUDA-Q's decoders are asked, in whatever order: the answers are those of a slow, obvious model."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from rtqec.cudaq import frames
from rtqec.plan import Plan
from tests.cudaq import LocalListener, Model, compiled, identity_decoder, opened
from tests.harness import make_plan

SMOKE, SURFACE, LONG = 1, 0, 4
NAMES = st.sampled_from([SMOKE, SURFACE, LONG])
PIECES = st.sampled_from([8, 3, 1, 17, 9, 40])


def decoders() -> dict[int, Plan]:
    """One round of three bits; a shot that is one window; and one of several windows."""
    return {
        SURFACE: make_plan(plan__rounds=4, ladder__fallbacks=()),
        SMOKE: compiled(identity_decoder()),
        LONG: make_plan(plan__rounds=12, ladder__fallbacks=()),
    }


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalListener]:
    with opened(LocalListener(tmp_path_factory.mktemp("local"), decoders())) as local:
        yield local


class Client(RuleBasedStateMachine):
    """Somebody who asks what comes into its mind, and knows what must be answered."""

    local: LocalListener

    def __init__(self) -> None:
        super().__init__()
        self.plans = decoders()
        self.model = Model(self.plans)
        self.random, self.decoder = np.random.default_rng(0), SMOKE

    @initialize(seed=st.integers(0, 2**32 - 1), decoder=NAMES)
    def begin(self, seed: int, decoder: int) -> None:
        """A listener that nobody has asked anything."""
        self.random, self.decoder = np.random.default_rng(seed), decoder
        for decoder in self.plans:
            self.ask(frames.reset_decoder(decoder, self.local.next_id()), decoder, padded=False)

    def ask(self, request: bytes, port: int, padded: bool) -> None:
        datagram = frames.padded(request) if padded else request
        assert self.local.answer_to(datagram, port) == self.model.answer(datagram)

    @rule(decoder=NAMES)
    def turn_to(self, decoder: int) -> None:
        """Go on with another decoder."""
        self.decoder = decoder

    def enqueue_bits(self, count: int, padded: bool) -> None:
        """The next measurements of a shot. Half of them 1 make many events, and corrections of both kinds."""
        bits = self.random.random(count) < 0.5
        self.ask(frames.enqueue_syndromes(self.decoder, bits, self.local.next_id(), ptp=77), self.decoder, padded)

    @rule(part=st.floats(0, 1), padded=st.booleans())
    def enqueue(self, part: float, padded: bool) -> None:
        """Some of the measurements that are missing."""
        model = self.model.decoders[self.decoder]
        left = model.num_measurements - len(model.bits)
        self.enqueue_bits(max(round(part * left), 1), padded)

    @rule(padded=st.booleans(), piece=PIECES)
    def finish_shot(self, padded: bool, piece: int) -> None:
        """All measurements that are missing, in pieces; after a failure, of a new shot."""
        model = self.model.decoders[self.decoder]
        if model.state == "failed":
            self.ask(frames.reset_decoder(self.decoder, self.local.next_id()), self.decoder, padded)
        left = model.num_measurements - len(model.bits)
        while left > 0:
            self.enqueue_bits(min(piece, left), padded)
            left -= piece

    @rule(more=st.integers(1, 30))
    def enqueue_too_many(self, more: int) -> None:
        """Measurements beyond the end of the shot: a failure of which only the next question hears."""
        model = self.model.decoders[self.decoder]
        self.enqueue_bits(model.num_measurements - len(model.bits) + more, padded=False)

    @rule(reset=st.booleans(), padded=st.booleans())
    def get_corrections(self, reset: bool, padded: bool) -> None:
        """As a client should."""
        asked = self.plans[self.decoder].num_observables
        self.ask(frames.get_corrections(self.decoder, asked, self.local.next_id(), reset, ptp=5), self.decoder, padded)

    @rule(reset=st.booleans(), size=st.sampled_from([1, 3, 0, -1, 64]))
    def get_another_size(self, reset: bool, size: int) -> None:
        """Mostly of the wrong size."""
        self.ask(frames.get_corrections(self.decoder, size, self.local.next_id(), reset), self.decoder, padded=False)

    @rule()
    def reset_decoder(self) -> None:
        """Forget all."""
        self.ask(frames.reset_decoder(self.decoder, self.local.next_id()), self.decoder, padded=True)

    @rule(spoilt=st.sampled_from(["mapping", "empty", "huge", "negative", "short", "lying"]))
    def enqueue_nonsense(self, spoilt: str) -> None:
        """What no client should say, which latches a failure."""
        request = bytearray(frames.enqueue_syndromes(self.decoder, [True, False], self.local.next_id()))
        at, number = {
            "mapping": (40, 1), "empty": (48, 0), "huge": (48, (1 << 20) + 1), "negative": (48, -1),
            "short": (8, 32), "lying": (8, 5000),
        }[spoilt]  # fmt: skip
        struct.pack_into("<I" if at == 8 else "<q", request, at, number)
        self.ask(bytes(request), self.decoder, padded=False)

    @rule(port=NAMES, decoder=st.sampled_from([SMOKE, SURFACE, LONG, 2, -1, 2**62]))
    def ask_through_another_port(self, port: int, decoder: int) -> None:
        """Requests name their decoder, whatever port they come to; ids that are not there are none."""
        self.ask(frames.get_corrections(decoder, 1, self.local.next_id(), reset=False), port, padded=False)


def test_answers_are_those_of_the_model(local: LocalListener) -> None:
    """Any sequence is answered as CUDA-Q documents it, byte for byte; corrections are those of the slow windows."""
    Client.local = local
    run_state_machine_as_test(Client, settings=settings(max_examples=150, stateful_step_count=40))
