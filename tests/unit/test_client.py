"""The client's messages are those of the wire, and its conversations those of CUDA-Q, to the byte."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtqec.client import (
    AsyncCudaqClient,
    Client,
    Correction,
    CudaqClient,
    CudaqStatus,
    CudaqStatusError,
    RefusedError,
    RoundsEncoder,
)
from rtqec.client.control import frame_of, place_of, status_of, unpack
from rtqec.client.conversation import Conversation
from rtqec.client.messages import crc32c
from rtqec.errors import NoPeerError
from rtqec.plan import Plan
from rtqec.wire import CORRECTION, MESSAGE_BYTES_MAX, RESPONSE_MAGIC, VERSION, CorrectionFlag, Reason, Rung
from tests.decoding_server import DecodingServer
from tests.harness import Speaker, crc32c_slow


@pytest.mark.parametrize("crc", [False, True])
@pytest.mark.parametrize("events", [False, True])
def test_messages_are_those_of_the_wire(plan_d3: Plan, crc: bool, events: bool) -> None:
    """Two shots of several messages, byte by byte what the tests' own speaker builds from the header."""
    speaker, encoder = Speaker(plan_d3, patch_id=5, events=events, crc=crc), RoundsEncoder(
        5, plan_d3.tag, detection_events=events, crc=crc, source_epoch=1
    )  # fmt: skip
    random = np.random.default_rng(1)
    for shot in range(2):
        rounds = random.random((3, 21)) < 0.5
        sweep = random.random(9) < 0.5
        expected = speaker.message(rounds, shot_id=shot, first_round=0, sweep=sweep, sent_ns=77)
        assert encoder.encode(rounds, sweep=sweep, sent_ns=77) == expected
        expected = speaker.message(rounds[0, :8], shot_id=shot, first_round=3, last=True, sent_ns=78)
        assert encoder.encode(rounds[0, :8], last=True, sent_ns=78) == expected
    assert (encoder.shot_id, encoder.next_round) == (2, 0)


def test_what_a_message_cannot_carry_is_refused() -> None:
    """Empty, too long, wrong shapes, late sweep bits: an exception, and the next message counts on from the last."""
    encoder = RoundsEncoder(0, 0, source_epoch=1)
    for rounds in (np.zeros((0, 8)), np.zeros((2, 0)), np.zeros((1025, 1)), np.zeros((1, 2, 3))):
        with pytest.raises(ValueError, match="shape"):
            encoder.encode(rounds)
    with pytest.raises(ValueError, match="exceed"):
        encoder.encode(np.zeros((1, 8 * MESSAGE_BYTES_MAX)))
    encoder.encode([0, 1])
    with pytest.raises(ValueError, match="sweep bits go with round 0"):
        encoder.encode([0, 1], sweep=[1])
    assert encoder.next_round == 1


def test_the_checksum_is_crc32c() -> None:
    """As RFC 3720 defines it: its check value, and the slow one."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(range(256))) == crc32c_slow(bytes(range(256)))


def test_a_correction_is_read() -> None:
    """Every field, and its names for flags and status."""
    record = np.zeros(1, CORRECTION)
    values = {
        "magic": RESPONSE_MAGIC, "version": VERSION, "patch_id": 3, "plan_tag": 0xABCD, "shot_id": 4, "window_index": 9,
        "first_round": 12, "num_rounds": 6, "num_observables": 2, "flips": 1, "frame": 2, "rung": Rung.UNION_FIND,
        "reason": Reason.DEADLINE, "flags": CorrectionFlag.LATE | CorrectionFlag.LAST_OF_SHOT, "tainted_since": 7,
        "received_ns": 100, "published_ns": 150,
    }  # fmt: skip
    for name, value in values.items():
        record[name] = value
    found = Correction.parse(record.tobytes())
    assert (found.shot_id, found.window_index, found.first_round, found.num_rounds) == (4, 9, 12, 6)
    assert (found.patch_id, found.plan_tag, found.flips, found.frame) == (3, 0xABCD, 1, 2)
    assert (found.rung, found.reason) == (Rung.UNION_FIND, Reason.DEADLINE)
    assert (found.late, found.last_of_shot, found.degraded) == (True, True, False)
    assert found.frame_bits.tolist() == [False, True]
    assert (found.received_ns, found.published_ns, found.tainted_since) == (100, 150, None)
    record["frame_status"] = 1
    assert Correction.parse(record.tobytes()).tainted_since == 7
    with pytest.raises(ValueError, match="bytes"):
        Correction.parse(b"x")


def test_answers_of_control_are_typed() -> None:
    """hello, status and frame; a refusal is an exception with the daemon's words."""
    hello: dict[str, Any] = {
        "wire": VERSION,
        "patches": [{"id": 2, "plan_tag": 9, "digest": "", "lane": "lane0", "feed": "ipc://a", "publish": "ipc://b"}],
    }
    assert place_of(hello, 2).feed == "ipc://a"
    with pytest.raises(RefusedError, match="no patch 0"):
        place_of(hello, 0)
    with pytest.raises(RefusedError, match="over UDP"):
        place_of(hello | {"patches": [hello["patches"][0] | {"feed": ""}]}, 2)
    with pytest.raises(RefusedError, match="version 99"):
        place_of(hello | {"wire": 99}, 2)
    answer = {
        "state": "ready", "lanes": [{"name": "lane0", "state": "ready", "pid": 1, "restarts": 0}],
        "patches": [{"id": 2, "corrections": 5, "counters": {"rounds": 50}}],
    }  # fmt: skip
    status = status_of(answer)
    assert (status.state, status.lanes[0].name, status.patches[0].counters) == ("ready", "lane0", {"rounds": 50})
    frame = frame_of({"shot": 1, "value": 3, "through": 8, "final": True, "tainted_since": None, "status": "clean"})
    assert (frame.shot_id, frame.value, frame.through, frame.final) == (1, 3, 8, True)
    with pytest.raises(RefusedError, match="no verb"):
        unpack(b"\x82\xa2ok\xc2\xa5error\xa7no verb")


def test_answers_come_in_order() -> None:
    """Each request is awaited once; strangers are passed by, a lost one is noticed, another status is an exception."""
    talk = Conversation(0, 3, slot_bytes=57)
    requests = talk.enqueue(np.ones(10, np.bool_))
    assert [len(request) for request in requests] == [57, 57]
    assert talk.awaited == 2

    def answer(request_id: int, status: int = 0) -> bytes:
        return bytes.fromhex("53515543") + b"".join(v.to_bytes(4, "little") for v in (status, 0, request_id)) + bytes(8)

    assert talk.take(answer(77)) is None
    with pytest.raises(ValueError, match="to 1 was lost"):
        talk.take(answer(2))
    assert talk.take(answer(1)) is not None
    with pytest.raises(CudaqStatusError, match="INTERNAL_ERROR") as caught:
        talk.take(answer(2, 3))
    assert caught.value.status == CudaqStatus.INTERNAL_ERROR
    assert "status 99 (unknown)" in str(CudaqStatusError(99))
    with pytest.raises(ValueError, match="slot_bytes"):
        Conversation(0, 1, slot_bytes=56)


def halves(bits: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Corrections that depend on every bit: the parities of three parts."""
    return np.array([part.sum() % 2 for part in np.array_split(bits, 3)], np.bool_)


@pytest.fixture(params=[0, 256], ids=["as they are", "padded"])
def server(request: pytest.FixtureRequest) -> Iterator[DecodingServer]:
    server = DecodingServer(2000, halves, padded_bytes=request.param)
    yield server
    server.close()


def test_shots_travel_over_udp(server: DecodingServer) -> None:
    """Long records in several requests, none beyond the slot; corrections as the server has them; errors as status."""
    random = np.random.default_rng(3)
    with CudaqClient(server.address, num_observables=3) as client:
        for shot in random.random((20, 2000)) < 0.5:
            assert client.decode(shot).tolist() == halves(shot).tolist()
        assert max(size for _, size in server.requests) == 256
        with pytest.raises(CudaqStatusError, match="NOT_READY"):
            client.get_corrections()
        client.enqueue(np.zeros(1999))
        client.enqueue([1, 1])
        with pytest.raises(CudaqStatusError, match="INTERNAL_ERROR"):
            client.get_corrections()
        client.reset()
        client.enqueue(shot)
        assert client.get_corrections(reset=False).tolist() == client.get_corrections().tolist()


def test_shots_travel_over_udp_from_an_event_loop(server: DecodingServer) -> None:
    """The same with `await`."""

    async def talk() -> None:
        random = np.random.default_rng(4)
        async with AsyncCudaqClient(server.address, num_observables=3) as client:
            for shot in random.random((20, 2000)) < 0.5:
                assert (await client.decode(shot)).tolist() == halves(shot).tolist()
            with pytest.raises(CudaqStatusError, match="NOT_READY"):
                await client.get_corrections()
            await client.reset()

    asyncio.run(talk())


def test_a_lost_answer_is_noticed_and_reset_begins_anew(server: DecodingServer) -> None:
    """Nobody answers, says the client; after `reset` the next shot is served."""
    shot = np.ones(2000, np.bool_)
    with CudaqClient(server.address, num_observables=3, timeout_s=0.05) as client:
        server.swallow = 1
        with pytest.raises((NoPeerError, ValueError)):
            client.decode(shot)
        server.swallow = 0
        client.reset()
        assert client.decode(shot).tolist() == halves(shot).tolist()


def test_nobody_there_is_said() -> None:
    """On both wires, with the address that was tried."""
    server = DecodingServer(1, halves)
    server.close()
    with CudaqClient(server.address, timeout_s=0.05) as client, pytest.raises(NoPeerError, match=r"127\.0\.0\.1:\d+"):
        client.decode([1])
    with pytest.raises(NoPeerError, match="ipc:///nowhere"):
        Client("ipc:///nowhere/control", timeout_s=0.05)


def test_the_client_needs_little() -> None:
    """It imports numpy, zmq and msgpack, and nothing that decodes."""
    heavy = ("numba", "stim", "pymatching", "scipy", "pydantic", "structlog", "typer", "jsonschema", "yaml")
    code = f"import sys, rtqec.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
