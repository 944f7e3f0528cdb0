"""Requests and answers of CUDA-Q Realtime's decoding server: sizes, names, and functions that build and read them.

Little-endian, packed; bits are LSB first, pad bits zero. A request is `REQUEST`, then the arguments of its function,
then for `enqueue_syndromes` the bits; an answer is `RESPONSE`, then for `get_corrections` the bits. Every request has
exactly one answer, in the order in which the requests came. Over UDP each travels in a datagram of its own, padded with
zeros to the size of a slot; a shorter datagram stands for one that is filled up with zeros.

Source: NVIDIA/cudaqx, `libs/qec/include/cudaq/qec/realtime/decoder_rpc_wire_format.h` and
`libs/qec/lib/realtime/decoding-server-cqr`; NVIDIA/cuda-quantum, `realtime/lib/cpu_transport/udp_transceiver.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtqec.layout import bytes_for_bits
from rtqec.wire import REQUEST_MAGIC, RESPONSE_MAGIC, fnv1a32

REQUEST = np.dtype(
    [("magic", "<u4"), ("function_id", "<u4"), ("arg_len", "<u4"), ("request_id", "<u4"), ("ptp_timestamp", "<u8")]
)
"""What every request begins with. `arg_len`: bytes that follow, padding not counted."""
RESPONSE = np.dtype(
    [("magic", "<u4"), ("status", "<i4"), ("result_len", "<u4"), ("request_id", "<u4"), ("ptp_timestamp", "<u8")]
)
"""What every answer begins with; `request_id` and `ptp_timestamp` are those of the request."""
ENQUEUE = np.dtype([("decoder_id", "<i8"), ("counter", "<i8"), ("mapping_id", "<i8"), ("num_bits", "<i8")])
"""Arguments of `enqueue_syndromes`, before the bits. They are raw measurements, not detectors. `counter` means nothing;
the only mapping is 0."""
GET = np.dtype([("decoder_id", "<i8"), ("return_size", "<i8"), ("reset", "u1")])
"""Arguments of `get_corrections`: `return_size` is the number of observables, `reset` whether to clear them."""
RESET = np.dtype([("decoder_id", "<i8")])
"""Arguments of `reset_decoder`."""
assert (REQUEST.itemsize, RESPONSE.itemsize, ENQUEUE.itemsize, GET.itemsize, RESET.itemsize) == (24, 24, 32, 17, 8)

HEADER_BYTES = REQUEST.itemsize
BITS_OFFSET = HEADER_BYTES + ENQUEUE.itemsize
"""Where the bits of `enqueue_syndromes` begin."""
SLOT_BYTES = 256
"""CUDA-Q's default."""
PORT_MAX = 65535
SLOT_BYTES_MIN, SLOT_BYTES_MAX = 64, 65507
"""Room for the arguments of any function and a word of observables; the most that a datagram over IPv4 carries."""
BITS_MAX = 1 << 20
"""Of one `enqueue_syndromes`."""


class Function(IntEnum):
    """What can be asked, by the hash of its name."""

    ENQUEUE_SYNDROMES = fnv1a32("enqueue_syndromes")
    GET_CORRECTIONS = fnv1a32("get_corrections")
    RESET_DECODER = fnv1a32("reset_decoder")


class Status(IntEnum):
    """What an answer says."""

    OK = 0
    INVALID_DECODER = 1
    """No decoder has this id."""
    BAD_REQUEST = 2
    """It cannot be read, or asks for another number of observables than there are."""
    INTERNAL_ERROR = 3
    """What came since the last reset cannot be decoded; only `reset_decoder` helps."""
    NOT_READY = 4
    """The measurements of a shot are not complete."""
    BUSY = 5
    """Reserved by CUDA-Q; only with `late_is_busy`."""
    SYNDROMES_DROPPED = 6
    """Reserved by CUDA-Q; only with `gaps_are_drops`."""


class Response(NamedTuple):
    """An answer. `status`: a `Status`, or what another server has beside them; `result`: without the padding."""

    status: int
    request_id: int
    ptp_timestamp: int
    result: bytes

    def bits(self, count: int) -> NDArray[np.bool_]:
        """The first bits of the result, bool, shape (count,)."""
        packed = np.frombuffer(self.result, np.uint8)
        return np.unpackbits(packed, count=count, bitorder="little").astype(np.bool_)


def enqueue_syndromes(
    decoder_id: int, measurements: ArrayLike, request_id: int, counter: int = 0, mapping_id: int = 0, ptp: int = 0
) -> bytes:
    """Ask a decoder to take measurements.

    Args:
        measurements: bool, shape (num_bits,): the next ones of the shot, in the order of the circuit.
    """
    bits = np.asarray(measurements, np.bool_)
    arguments = np.array([(decoder_id, counter, mapping_id, len(bits))], ENQUEUE)
    packed = np.packbits(bits, bitorder="little").tobytes()
    return _request(Function.ENQUEUE_SYNDROMES, arguments.tobytes() + packed, request_id, ptp)


def get_corrections(decoder_id: int, num_observables: int, request_id: int, reset: bool = True, ptp: int = 0) -> bytes:
    """Ask a decoder which observables are flipped; with `reset`, clear them."""
    arguments = np.array([(decoder_id, num_observables, reset)], GET)
    return _request(Function.GET_CORRECTIONS, arguments.tobytes(), request_id, ptp)


def reset_decoder(decoder_id: int, request_id: int, ptp: int = 0) -> bytes:
    """Ask a decoder to forget everything."""
    return _request(Function.RESET_DECODER, np.array([(decoder_id,)], RESET).tobytes(), request_id, ptp)


def padded(frame: bytes, slot_bytes: int = SLOT_BYTES) -> bytes:
    """A frame in its slot."""
    return frame.ljust(slot_bytes, b"\0")


def read_response(datagram: bytes) -> Response:
    """An answer, padded or not.

    Raises:
        ValueError: These bytes are no answer.
    """
    if len(datagram) < RESPONSE.itemsize:
        raise ValueError(f"{len(datagram)} bytes are no answer: its header has {RESPONSE.itemsize}")
    header = np.frombuffer(datagram, RESPONSE, 1)[0]
    result = datagram[RESPONSE.itemsize : RESPONSE.itemsize + int(header["result_len"])]
    if header["magic"] != RESPONSE_MAGIC or len(result) != header["result_len"]:
        raise ValueError(f"no answer: magic {header['magic']:#x}, {header['result_len']} bytes of result announced")
    return Response(int(header["status"]), int(header["request_id"]), int(header["ptp_timestamp"]), result)


def result_bytes(num_observables: int) -> int:
    """Bytes of the result of `get_corrections`."""
    return bytes_for_bits(num_observables)


def ready_line(ports: Mapping[int, int]) -> str:
    """What CUDA-Q's decoding server prints when it can be reached, and its tools wait for.

    Args:
        ports: By decoder id, in the order of the configuration.
    """
    first = next(iter(ports.values()))
    rings = " ".join(f"ring{decoder}={port}" for decoder, port in ports.items())
    return f"QEC_DECODING_SERVER_READY port={first} transport=udp {rings}"


def ended_lines(dispatched: Mapping[int, int]) -> list[str]:
    """What it prints when it ends.

    Args:
        dispatched: By decoder id: how many requests it answered.
    """
    rings = [f"QEC_DECODING_SERVER_RING decoder={decoder} dispatched={n}" for decoder, n in dispatched.items()]
    return [*rings, f"QEC_DECODING_SERVER_DISPATCHED count={sum(dispatched.values())}"]


def _request(function: Function, arguments: bytes, request_id: int, ptp: int) -> bytes:
    header = np.array([(REQUEST_MAGIC, function, len(arguments), request_id, ptp)], REQUEST)
    return header.tobytes() + arguments
