"""CUDA-Q's frames, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest

from rtqec.cudaq import frames
from rtqec.cudaq.frames import Function, Status

REQUEST = bytes.fromhex("52515543 A15B2D88 11000000 07000000 0000000000000000 0100000000000000 0300000000000000 01")
RESPONSE = bytes.fromhex("53515543 00000000 01000000 07000000 0000000000000000 05")
"""The worked example of CUDA-Q's documents: decoder 1 is asked for three observables, and they are 1, 0, 1."""


def test_functions_are_named_by_hash() -> None:
    """The hashes are those that CUDA-Q's documents list."""
    assert {function.name: int(function) for function in Function} == {
        "ENQUEUE_SYNDROMES": 0x7ED8BE82,
        "GET_CORRECTIONS": 0x882D5BA1,
        "RESET_DECODER": 0x977A59CF,
    }


def test_the_worked_example() -> None:
    """A request is built, and an answer read, exactly as documented, padded or not."""
    assert frames.get_corrections(1, 3, request_id=7) == REQUEST
    for datagram in (RESPONSE, frames.padded(RESPONSE)):
        response = frames.read_response(datagram)
        assert response == (Status.OK, 7, 0, b"\5")
        assert response.bits(3).tolist() == [True, False, True]


def test_enqueue_carries_bits_lsb_first() -> None:
    """Eleven bits take two bytes behind the arguments; the pad bits are zero; `arg_len` counts both."""
    bits = [1, 0, 1, 1, 0, 0, 0, 1, 0, 1, 1]
    request = frames.enqueue_syndromes(2, bits, request_id=9, counter=4, ptp=5)
    assert request[:24] == bytes.fromhex("52515543 82BED87E 22000000 09000000 0500000000000000")
    assert np.frombuffer(request, "<i8", 4, 24).tolist() == [2, 4, 0, 11]
    assert request[56:] == bytes([0b10001101, 0b110])


def test_reset_names_the_decoder() -> None:
    """Eight bytes behind the header."""
    request = frames.reset_decoder(-1, request_id=3)
    assert request == bytes.fromhex("52515543 CF597A97 08000000 03000000 0000000000000000 FFFFFFFFFFFFFFFF")


@pytest.mark.parametrize(
    "datagram", [b"", RESPONSE[:23], REQUEST, RESPONSE[:24]], ids=["empty", "short", "magic", "cut"]
)
def test_what_is_no_answer_is_refused(datagram: bytes) -> None:
    """Bytes that are too few, of another kind, or that announce more than comes, are no answer."""
    with pytest.raises(ValueError, match="no answer"):
        frames.read_response(datagram)


def test_a_status_of_another_server_is_its_number() -> None:
    """What `Status` does not name is read as it is."""
    assert frames.read_response(RESPONSE[:4] + (100).to_bytes(4, "little") + RESPONSE[8:]).status == 100


def test_the_ready_line() -> None:
    """The first port, the transport, then a port for each decoder: what CUDA-Q's tools look for."""
    line = frames.ready_line({3: 50003, 0: 50000})
    assert line == "QEC_DECODING_SERVER_READY port=50003 transport=udp ring3=50003 ring0=50000"
    assert frames.ended_lines({0: 4, 1: 2}) == [
        "QEC_DECODING_SERVER_RING decoder=0 dispatched=4",
        "QEC_DECODING_SERVER_RING decoder=1 dispatched=2",
        "QEC_DECODING_SERVER_DISPATCHED count=6",
    ]
