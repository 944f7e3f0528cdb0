"""A decoding server as CUDA-Q documents it, slow and obvious: one decoder behind one UDP port."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ENQUEUE, GET, RESET = 0x7ED8BE82, 0x882D5BA1, 0x977A59CF
OK, BAD_REQUEST, INTERNAL_ERROR, NOT_READY = 0, 2, 3, 4
Decode = Callable[[NDArray[np.bool_]], NDArray[np.bool_]]


class DecodingServer:
    """Answers in a thread of its own until it is closed.

    Args:
        num_measurements: Of a shot.
        decode: Measurements of a shot to its corrections.
        padded_bytes: Answers are padded to so many, as NVIDIA's server does; 0 for none.

    Attributes:
        requests: Function and bytes of each datagram that came.
        swallow: Answers that are not sent: the next so many.
    """

    def __init__(self, num_measurements: int, decode: Decode, padded_bytes: int = 256) -> None:
        self._num_measurements, self._decode, self._padded_bytes = num_measurements, decode, padded_bytes
        self._bits: list[bool] = []
        self._corrections: NDArray[np.bool_] | None = None
        self._failed = False
        self.requests: list[tuple[int, int]] = []
        self.swallow = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._socket.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self.address)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            datagram, sender = self._socket.recvfrom(65_535)
            if not datagram:
                return
            _, function, arg_len, request_id, stamp = struct.unpack_from("<IIIIQ", datagram)
            self.requests.append((function, len(datagram)))
            status, result = self._answer(function, datagram[24 : 24 + arg_len])
            answer = struct.pack("<IiIIQ", 0x43555153, status, len(result), request_id, stamp) + result
            if self.swallow:
                self.swallow -= 1
            else:
                self._socket.sendto(answer.ljust(self._padded_bytes, b"\0"), sender)

    def _answer(self, function: int, arguments: bytes) -> tuple[int, bytes]:
        if function == RESET:
            self._bits, self._corrections, self._failed = [], None, False
        elif function == GET:
            _, size, reset = struct.unpack("<qqB", arguments)
            if self._failed:
                return INTERNAL_ERROR, b""
            if self._corrections is None:
                return NOT_READY, b""
            if size != len(self._corrections):
                return BAD_REQUEST, b""
            octets = np.packbits(self._corrections, bitorder="little").tobytes()
            self._corrections = None if reset else self._corrections
            return OK, octets
        elif function == ENQUEUE:
            _, _, _, size = struct.unpack_from("<qqqq", arguments)
            octets = np.frombuffer(arguments[32:], np.uint8)
            self._bits += [bool(bit) for bit in np.unpackbits(octets, count=size, bitorder="little")]
            self._failed |= len(self._bits) > self._num_measurements
            if len(self._bits) == self._num_measurements:
                self._corrections, self._bits = self._decode(np.array(self._bits)), []
        else:
            return BAD_REQUEST, b""
        return OK, b""
