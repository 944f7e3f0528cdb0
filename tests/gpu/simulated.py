"""The kernels of chunks on numba's CUDA simulator, for `test_chunks`: run as a process of its own.

    NUMBA_ENABLE_CUDASIM=1 python -m tests.gpu.simulated CASE

The simulator replaces `numba.cuda` for a whole process, when it is imported.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from rtqec.batch import Streams
from rtqec.device import gpu, gpu_chunks, gpu_kernels
from rtqec.device.chunks import INPUTS, OUTPUTS, HostChunks
from rtqec.device.engine import ChunkShape, Script, ScriptedEngine
from rtqec.device.gpu import CapturedWork, Gpu
from rtqec.device.gpu_chunks import GpuChunks
from rtqec.predecode import Predecode
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock
from tests.gpu import pretend
from tests.gpu.chunk_cases import CASES, fill, logits_of, make_tables
from tests.harness import Bench, Piece, Speaker, make_plan
from tests.predecoders import SlowPredecode, integer_network, predecoder

GPU = Gpu(0, "Pretended GPU", "12.0")


class Network:
    """A network on the pretended GPU: a function of its input."""

    name = "a script"

    def __init__(self, shape: ChunkShape, script: Script) -> None:
        self._shape, self._script = shape, script
        self.volume, self.inside, self.logits = (
            pretend.DeviceArray(np.full(size, 7, np.float32)) for size in (shape.volume, shape.inside, shape.logits)
        )

    def enqueue(self, stream: int) -> None:
        """Run, or record."""
        pretend.Stream.by_handle[stream].put(self._run)

    def capture(self, enqueue: Callable[[int], None], on: Gpu) -> CapturedWork:
        """As a graph."""
        return CapturedWork(enqueue, on)

    def _run(self) -> None:
        self.logits.values[...] = self._script(self.volume.values, self.inside.values)


@contextmanager
def pretended_gpu(threads: int) -> Iterator[None]:
    """The pretended GPU, on which launches are recorded as copies are. Fewer threads of a block are quicker here."""
    cupy = pretend.make_cupy()

    def launch(kernel: Any, shape: ChunkShape, stream: int, *arrays: Any) -> None:
        pretend.Stream.by_handle[stream].put(lambda: kernel[(shape.layers, shape.chunks), threads](*arrays))

    with (
        mock.patch.object(gpu, "cupy", return_value=cupy),
        mock.patch.object(gpu_chunks, "cupy", return_value=cupy),
        mock.patch.multiple(
            gpu_kernels, THREADS=threads, use=lambda _: None, shared=lambda array: array.values, launch=launch
        ),
    ):
        yield


def equal_to_host(distance: int, layers: int, outputs: int) -> None:
    """The network's input, changes, flips and marks of bad answers are those of the host, bit for bit, call by call."""
    rng = np.random.default_rng(distance * 10 + outputs)
    shape = ChunkShape(4, layers, distance, outputs)
    tables = make_tables(rng, distance)
    answers: list[NDArray[np.float32]] = []
    seen: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []

    def script(volume: NDArray[np.float32], inside: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append((volume.copy(), inside.copy()))
        return answers[-1]

    host = HostChunks(ScriptedEngine(shape, script), tables)
    answers.append(np.zeros(shape.logits, np.float32))
    # 64 threads take a layer of d=13 in several turns; the device's 256 take that of d=3 in one.
    with pretended_gpu(64):
        there = GpuChunks(Network(shape, script), GPU, shape, tables)
        had_bad = had_changes = False
        for _ in range(4):
            answers.append(logits_of(rng, shape, tables))
            fill(rng, shape, [getattr(host, name) for name, _ in INPUTS])
            for name, _ in INPUTS:
                getattr(there, name)[...] = getattr(host, name)
            seen.clear()
            for device in (host, there):
                device.enqueue(shape.chunks)
                assert device.wait(0)
                device.take()
            for mine, theirs in zip(*seen, strict=True):
                assert np.array_equal(mine, theirs)
            for name, _ in OUTPUTS:
                assert np.array_equal(getattr(host, name), getattr(there, name)), name
            cells = distance * distance
            assert np.array_equal(there.answers(), answers[-1].reshape(4, outputs, layers, cells), equal_nan=True)
            had_bad, had_changes = had_bad or bool(host.bad.any()), had_changes or bool(host.changes_b8.any())
        assert had_bad
        assert had_changes
        assert pretend.Graph.launches == 4


def streaming() -> None:
    """In the path, two patches at a time, every call checked: each correction is that of answers over whole shots."""
    plan = make_plan(plan__noise=0.02)
    script = integer_network(11, 2, 2)

    def make(streams: Streams, ring: Ring, telemetry: TelemetryBlock) -> Predecode:
        stage = predecoder(plan, script, 2, chunks=2, patches=2)(streams, ring, telemetry)
        stage.open(GpuChunks(Network(stage.shape, script), GPU, stage.shape, stage.tables))
        return stage

    piece = Piece.of(plan)
    with (
        pretended_gpu(32),
        tempfile.TemporaryDirectory() as folder,
        Bench(Path(folder), [plan, plan], predecoder=make) as bench,
    ):
        speakers = [Speaker(plan, patch_id=row) for row in (0, 1)]
        slow = SlowPredecode(plan, script, 2)
        for shot_id in range(2):
            measurements = piece.sample(2, seed=shot_id)
            layers = piece.layers_b8(measurements)
            for messages in zip(
                *(speakers[row].shot(piece.blocks(measurements[row]), shot_id) for row in (0, 1)), strict=True
            ):
                bench.ingest(*messages)
            corrections = bench.carry()
            for row in (0, 1):
                mine = corrections[corrections["patch_id"] == row]
                assert len(mine) > 1
                assert list(slow.flips(layers[row], mine)) == mine["flips"].tolist()
        for row in (0, 1):
            counts = bench.path_counts(row)
            assert counts["predecodings_checked"] == counts["windows"]
            assert "predecodings_wrong" not in counts


if __name__ == "__main__":
    assert os.environ.get("NUMBA_ENABLE_CUDASIM") == "1", "the simulator is chosen when numba is imported"
    # The simulator has a thread per thread of a kernel; on two cores they wait for each other twice as long.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if sys.argv[1] == "streaming":
        streaming()
    else:
        equal_to_host(*CASES[sys.argv[1]])
    print("equal")  # noqa: T201 - what the test waits for
