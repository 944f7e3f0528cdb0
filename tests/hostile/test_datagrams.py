"""Datagrams of any length and content: the documented answer or silence, and the next request is served."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest

from rtqec.cudaq import frames
from rtqec.plan import Plan
from tests.cudaq import OK, LocalListener, Model, compiled, identity_decoder, opened
from tests.harness import make_plan

LENGTHS = range(2001)


def decoders() -> dict[int, Plan]:
    return {0: make_plan(plan__rounds=4, ladder__fallbacks=()), 1: compiled(identity_decoder())}


@pytest.fixture(scope="module", params=[256, 1500])
def local_and_model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LocalListener, Model]]:
    """With CUDA-Q's slots, and with larger ones."""
    plans = decoders()
    with opened(LocalListener(tmp_path_factory.mktemp("local"), plans, slot_bytes=request.param)) as local:
        yield local, Model(plans, request.param)


def check(local: LocalListener, model: Model, datagram: bytes) -> None:
    """Both say the same to a datagram."""
    assert local.answer_to(datagram, 1) == model.answer(datagram), datagram.hex()


def decode_one(local: LocalListener, model: Model) -> None:
    """A reset, a shot and its corrections, as if nothing had been."""
    check(local, model, frames.reset_decoder(1, local.next_id()))
    check(local, model, frames.enqueue_syndromes(1, [True, False, True], local.next_id()))
    response = local.ask(frames.get_corrections(1, 3, local.next_id()), 1)
    model.answer(frames.get_corrections(1, 3, 0))
    assert (response.status, response.bits(3).tolist()) == (OK, [True, False, True])


@pytest.mark.parametrize("kind", ["random", "enqueue", "cut", "lying"])
def test_every_length(local_and_model: tuple[LocalListener, Model], kind: str) -> None:
    """Each length from 0 to 2000: noise; so many bytes of bits; a request cut or filled; one of any announced size."""
    local, model = local_and_model
    random = np.random.default_rng(5)
    for length in LENGTHS:
        if kind == "random":
            datagram = random.bytes(length)
        elif kind == "enqueue":
            datagram = frames.enqueue_syndromes(1, random.random(8 * max(length - 56, 0)) < 0.5, local.next_id())
        elif kind == "cut":
            datagram = frames.get_corrections(1, 3, local.next_id()).ljust(length, b"\xff")[:length]
        else:
            request = bytearray(frames.enqueue_syndromes(1, [True], local.next_id()).ljust(length, b"\0")[:length])
            if length >= 12:
                struct.pack_into("<I", request, 8, int(random.integers(0, 1 << 32)))
            datagram = bytes(request)
        check(local, model, datagram)
        if length % 50 == 0:
            decode_one(local, model)
    decode_one(local, model)


def test_every_field_with_every_extreme(local_and_model: tuple[LocalListener, Model]) -> None:
    """Each word of each request replaced by what lies at the ends of its range; the next shot is decoded."""
    local, model = local_and_model
    requests = [
        frames.enqueue_syndromes(1, [1, 1, 0], 1), frames.get_corrections(1, 3, 1), frames.reset_decoder(1, 1),
    ]  # fmt: skip
    extremes = [0, 1, 7, 8, 16, 17, 31, 33, 1 << 20, (1 << 20) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
    wide = [*extremes, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 7]
    for request in requests:
        fields = [(at, "<I", extremes) for at in range(0, 16, 4)]
        fields += [(at, "<Q", wide) for at in range(16, len(request) - 7, 8)]
        for at, form, numbers in fields:
            for number in numbers:
                spoilt = bytearray(request)
                struct.pack_into(form, spoilt, at, number)
                check(local, model, bytes(spoilt))
                check(local, model, frames.padded(bytes(spoilt), model.slot_bytes))
            decode_one(local, model)


def test_what_is_dropped_is_counted(local_and_model: tuple[LocalListener, Model]) -> None:
    """Silence has a counter: of bytes that are no request, and of those longer than a slot."""
    local, model = local_and_model
    before = {name: local.count(name) for name in ("bad_magic", "bad_size", "unknown_patch")}
    assert local.answer_to(bytes(64), 1) is None
    assert local.answer_to(frames.reset_decoder(1, 1)[:6], 1) is None
    assert local.answer_to(frames.reset_decoder(1, 1).ljust(model.slot_bytes + 1, b"\0"), 1) is None
    assert local.count("bad_magic") - before["bad_magic"] == 2
    assert local.count("bad_size") - before["bad_size"] == 1
    # The request behind each of them names a decoder that does not exist.
    assert local.count("unknown_patch") - before["unknown_patch"] == 3
