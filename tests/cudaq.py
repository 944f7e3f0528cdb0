"""What tests of the CUDA-Q listener share: that of a lane in this process, and a slow, obvious model of its answers."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import stim
from numpy.typing import NDArray

from rtqec.batch import Streams
from rtqec.commit import Commit
from rtqec.config import CudaqTable, FeedTable, LadderTable, LaneTable
from rtqec.cudaq.decoder import CudaqDecoder
from rtqec.cudaq.decoder_writer import write_decoder_file
from rtqec.cudaq.frames import Response, read_response, reset_decoder
from rtqec.cudaq.listener import Listener
from rtqec.cudaq.sessions import Sessions
from rtqec.feed import Intake
from rtqec.match import Match
from rtqec.pipeline import Pipeline
from rtqec.plan import Plan, compile_plan
from rtqec.publish import Publish
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock
from rtqec.window import Window
from rtqec.windowed import WindowedDecoder
from tests.harness import Piece, make_config

OK, INVALID_DECODER, BAD_REQUEST, INTERNAL_ERROR, NOT_READY, BUSY, SYNDROMES_DROPPED = range(7)
FUNCTIONS = {0x7ED8BE82: "enqueue", 0x882D5BA1: "get", 0x977A59CF: "reset"}
ANSWER_TIMEOUT_S = 30.0
"""Only a broken listener is so slow."""


def identity_decoder(num_bits: int = 3) -> CudaqDecoder:
    """The decoder of NVIDIA's smoke test: each measurement is a detector, each error one of them and its observable."""
    dem = stim.DetectorErrorModel("\n".join(f"error(0.1) D{k} L{k}" for k in range(num_bits)))
    return CudaqDecoder(dem, tuple((k,) for k in range(num_bits)), num_bits)


def closed_decoder() -> CudaqDecoder:
    """Four detectors in a ring without a boundary: an odd number of events cannot be paired."""
    dem = stim.DetectorErrorModel("""
        error(0.1) D0 D1 L0
        error(0.1) D1 D2
        error(0.1) D2 D3
        error(0.1) D3 D0
    """)
    return CudaqDecoder(dem, ((0,), (1,), (2,), (3,)), 1)


def compiled(decoder: CudaqDecoder, commit_rounds: int = 3, buffer_rounds: int = 3) -> Plan:
    """The plan of its decoder file, without a ladder below matching: what is answered does not depend on the machine's
    speed.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "decoder.yml"
        write_decoder_file(path, [decoder], with_models=True)
        config = make_config(
            plan={"cudaq": str(path), "distance": decoder.distance or 1},
            window={"commit_rounds": commit_rounds, "buffer_rounds": buffer_rounds},
            ladder={"fallbacks": []},
        )
        return compile_plan(config, config.patch[0])


class LocalListener:
    """The CUDA-Q listener of a lane: every stage is the real one, and a thread serves it.

    Args:
        folder: For the telemetry block.
        decoders: Plans by decoder id.
        budget_us: Of all.
        fallbacks: Of the ladder.
        spin_us: How long to look for the next request without sleeping.
        table: Keys of `[listen.cudaq]`.
    """

    def __init__(
        self, folder: Path, decoders: dict[int, Plan], budget_us: float = 1e12, fallbacks: tuple[str, ...] = (),
        spin_us: float = 0, **table: Any,
    ) -> None:  # fmt: skip
        ids, plans = list(decoders), list(decoders.values())
        ladder = LadderTable(fallbacks=list(fallbacks))
        self.telemetry = TelemetryBlock.create(folder / "local.telemetry", ids, 64)
        self.ring = Ring(plans, 64)
        self.streams = Streams(plans, ids, [budget_us] * len(ids), ladder, self.ring, self.telemetry)
        intake = Intake(plans, ids, self.ring, self.telemetry, FeedTable(endpoint="", round_period_us=1.0))
        self.sessions = Sessions(plans, ids)
        self._address = table.get("address", "127.0.0.1")
        waiting = np.array(LaneTable(spin_us=spin_us).waiting_ns, np.int64)
        self.listener = Listener(
            CudaqTable(**table), self.sessions, intake.feed, self.ring, self.telemetry, waiting,
            (intake.events, intake.times),
        )  # fmt: skip
        pipeline = Pipeline(
            self.streams,
            self.ring,
            Window(self.streams, self.ring, waiting, 0),
            Match(self.streams.models, 1),
            Commit(self.streams, self.telemetry),
            Publish(None, self.streams, self.telemetry),
            1,
        )
        pipeline.warm()
        self.listener.warm()
        self._pipeline = pipeline
        self._thread = threading.Thread(target=self._run)
        self._fault: BaseException | None = None
        self._clients = {decoder: self.client(decoder) for decoder in ids}
        self._request_id = 0

    def start(self) -> None:
        """Begin to serve."""
        self.listener.open()
        self._thread.start()

    def client(self, decoder: int) -> socket.socket:
        """A socket that is connected to the port of a decoder."""
        found = socket.socket(socket.AF_INET6 if ":" in self._address else socket.AF_INET, socket.SOCK_DGRAM)
        found.connect((self._address, self.listener.ports[decoder]))
        found.settimeout(ANSWER_TIMEOUT_S)
        return found

    def next_id(self) -> int:
        """A request id that was not used before."""
        self._request_id += 1
        return self._request_id

    def send(self, datagram: bytes, decoder: int) -> None:
        """To the port of a decoder."""
        self._clients[decoder].send(datagram)

    def receive(self, decoder: int) -> bytes:
        """The next answer from there."""
        return self._clients[decoder].recv(1 << 16)

    def ask(self, request: bytes, decoder: int = 0) -> Response:
        """Send a request, and wait for its answer."""
        self.send(request, decoder)
        return read_response(self.receive(decoder))

    def answer_to(self, datagram: bytes, decoder: int = 0) -> bytes | None:
        """What comes back, or None where the next answer is that of a request behind it.

        That one is for a decoder that does not exist, so that it changes nothing.
        """
        probe = reset_decoder(-7, 0xFFFFFFFF)
        self.send(datagram, decoder)
        self.send(probe, decoder)
        found = self.receive(decoder)
        response = read_response(found)
        if (response.request_id, response.status) == (0xFFFFFFFF, INVALID_DECODER):
            return None
        assert read_response(self.receive(decoder)).request_id == 0xFFFFFFFF
        return found

    def count(self, name: str, decoder: int | None = None) -> int:
        """A counter of a decoder; without one, of requests of no decoder."""
        row = -1 if decoder is None else self.telemetry.patch_ids.tolist().index(decoder)
        return self.telemetry.counters_of(row)[name]

    def stop(self) -> None:
        """End the thread."""
        self.ring.stop()
        self._thread.join()
        for client in self._clients.values():
            client.close()
        self.listener.close()
        assert self._fault is None, self._fault

    def _run(self) -> None:
        try:
            self.listener.run(self._pipeline.step)
        except BaseException as error:
            self._fault = error


OpenListener = Callable[..., LocalListener]


@contextmanager
def opened(local: LocalListener) -> Iterator[LocalListener]:
    """Serve while the block runs."""
    local.start()
    try:
        yield local
    finally:
        local.stop()


def flips_of(plan: Plan, measurements: NDArray[np.bool_]) -> int:
    """What one shot's measurements are decoded to, by Stim's converter and the slow windows; observables, LSB first."""
    found = WindowedDecoder(plan)(Piece.of(plan).layers_b8(measurements[np.newaxis]))[0]
    return sum(int(bit) << k for k, bit in enumerate(found))


@dataclass
class ModelDecoder:
    """One decoder, as CUDA-Q's documents tell it."""

    plan: Plan
    num_measurements: int
    bits: list[bool] = field(default_factory=list)
    state: str = "collecting"
    corrections: int = 0

    def enqueue(self, arguments: bytes, arg_len: int) -> int:
        """The status."""
        _, _, mapping, count = struct.unpack_from("<qqqQ", arguments)
        room = len(arguments)
        if not (32 <= arg_len <= room and 1 <= count <= 1 << 20 and (count + 7) // 8 <= arg_len - 32) or mapping != 0:
            self.fail()
            return BAD_REQUEST
        if self.state == "failed":
            return OK
        self.state = "collecting"
        if len(self.bits) + count > self.num_measurements:
            self.fail()
            return OK
        self.bits += [bool(arguments[32 + k // 8] >> k % 8 & 1) for k in range(count)]
        if len(self.bits) == self.num_measurements:
            self.corrections ^= flips_of(self.plan, np.array(self.bits))
            self.bits = []
            self.state = "ready"
        return OK

    def get(self, arguments: bytes, arg_len: int) -> tuple[int, bytes]:
        """The status and the result."""
        _, size, reset = struct.unpack_from("<qqB", arguments)
        if not 17 <= arg_len <= len(arguments) or size <= 0:
            return BAD_REQUEST, b""
        if self.state == "failed":
            return INTERNAL_ERROR, b""
        if size != self.plan.num_observables:
            return BAD_REQUEST, b""
        if self.state != "ready":
            return NOT_READY, b""
        result = self.corrections.to_bytes((size + 7) // 8, "little")
        if reset:
            self.corrections, self.state = 0, "collecting"
        return OK, result

    def reset(self, arguments: bytes, arg_len: int) -> int:
        """The status."""
        if not 8 <= arg_len <= len(arguments):
            return BAD_REQUEST
        self.bits, self.corrections, self.state = [], 0, "collecting"
        return OK

    def fail(self) -> None:
        """What came is not to be decoded."""
        self.bits, self.state = [], "failed"


class Model:
    """The listener, as CUDA-Q's documents tell it.

    Args:
        decoders: Plans by decoder id.
        slot_bytes: Of its slots.
    """

    def __init__(self, decoders: dict[int, Plan], slot_bytes: int = 256) -> None:
        self.decoders = {key: ModelDecoder(plan, int(plan.rounds.block_starts[-1])) for key, plan in decoders.items()}
        self.slot_bytes = slot_bytes

    def answer(self, datagram: bytes) -> bytes | None:
        """The whole datagram that comes back; None where nothing does."""
        if not 0 < len(datagram) <= self.slot_bytes:
            return None
        frame = datagram.ljust(self.slot_bytes, b"\0")
        magic, function, arg_len, request_id, ptp = struct.unpack_from("<IIIIQ", frame)
        if magic != 0x43555152 or function not in FUNCTIONS:
            return None
        status, result = self._serve(FUNCTIONS[function], arg_len, frame[24:])
        header = struct.pack("<IiIIQ", 0x43555153, status, len(result), request_id, ptp)
        return (header + result).ljust(self.slot_bytes, b"\0")

    def _serve(self, function: str, arg_len: int, arguments: bytes) -> tuple[int, bytes]:
        if arg_len < 8:
            return BAD_REQUEST, b""
        (decoder_id,) = struct.unpack_from("<q", arguments)
        if decoder_id not in self.decoders:
            return INVALID_DECODER, b""
        decoder = self.decoders[decoder_id]
        if function == "get":
            return decoder.get(arguments, arg_len)
        return (decoder.enqueue if function == "enqueue" else decoder.reset)(arguments, arg_len), b""
