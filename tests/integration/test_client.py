"""A controller that is written with `rtqec.client` gets from a running daemon what PyMatching says of whole shots."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pymatching
import pytest
from numpy.typing import NDArray

from rtqec.client import AsyncClient, AsyncPatch, Client, RefusedError
from rtqec.cudaq.syndromes import read_syndromes
from rtqec.errors import NoPeerError
from rtqec.wire import Rung
from tests.decoder_files import memory, recorded_folder, shots, table_of, write_file
from tests.integration.conftest import Start, daemons, short_folder

NUM_SHOTS = 60
CIRCUITS = {0: memory(3, 9), 1: memory(5, 3)}
ROUNDS = {0: [8] * 9 + [9], 1: [24] * 3 + [25]}
"""Measurements of each round, the data readout last."""


def cut(patch_id: int, shot: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """A shot as the hardware sends it."""
    return np.split(shot, np.cumsum(ROUNDS[patch_id])[:-1])


def shots_of(patch_id: int, seed: int) -> tuple[NDArray[np.bool_], list[int]]:
    """Measurements, and what PyMatching makes of the whole shots."""
    circuit = CIRCUITS[patch_id]
    measurements, events = shots(circuit, NUM_SHOTS, seed)
    whole = pymatching.Matching.from_detector_error_model(circuit.detector_error_model(decompose_errors=True))
    return measurements, whole.decode_batch(events)[:, 0].tolist()


DEPLOYMENT = """
plan = {{ cudaq = "{file}" }}
window = {{ commit_rounds = 5, buffer_rounds = 5 }}
feed = {{ endpoint = "ipc://{folder}/rounds", round_period_us = 100.0 }}
publish = {{ endpoint = "ipc://{folder}/corrections" }}
control = {{ endpoint = "ipc://{folder}/control" }}
patch = [{patches}]
"""


def deployment(folder: Path, file: Path, num_decoders: int) -> str:
    """A configuration of all decoders of a file."""
    patches = ", ".join(f"{{ id = {k}, plan = {{ cudaq_decoder = {k} }} }}" for k in range(num_decoders))
    path = folder / "lab.toml"
    path.write_text(DEPLOYMENT.format(folder=folder, file=file, patches=patches))
    return str(path)


@pytest.fixture(scope="module")
def control() -> Iterator[str]:
    """Where a daemon answers that runs a decoder file of CUDA-Q with both memories."""
    with pytest.MonkeyPatch.context() as environment, short_folder() as folder, short_folder() as state:
        environment.setenv("XDG_RUNTIME_DIR", str(folder))
        environment.setenv("XDG_STATE_HOME", str(state))
        path = write_file(folder, *(table_of(circuit, number) for number, circuit in CIRCUITS.items()))
        with daemons(folder) as start:
            start(deployment(folder, path, len(CIRCUITS)), log=folder / "log")
            yield f"ipc://{folder}/control"


def test_shots_are_decoded(control: str) -> None:
    """Patch by patch, round by round, over ZeroMQ; and what the daemon says of itself agrees."""
    with Client(control) as client:
        for patch_id in CIRCUITS:
            measurements, expected = shots_of(patch_id, seed=1)
            patch = client.open(patch_id)
            before = {status.patch_id: status.counters for status in client.status().patches}[patch_id]
            corrections = [patch.decode(cut(patch_id, shot)) for shot in measurements]
            assert sum(c.frame != e for c, e in zip(corrections, expected, strict=True)) <= 1
            assert {c.rung for c in corrections} <= {Rung.MATCH, Rung.UNION_FIND}
            assert [c.shot_id for c in corrections] == list(range(NUM_SHOTS))
            counters = {status.patch_id: status.counters for status in client.status().patches}[patch_id]
            assert counters["rounds"] - before["rounds"] == NUM_SHOTS * len(ROUNDS[patch_id])
            frame = client.frame(patch_id, len(ROUNDS[patch_id]) - 1)
            assert (frame.shot_id, frame.value, frame.final) == (NUM_SHOTS - 1, corrections[-1].frame, True)
        assert client.status().state == "ready"


def test_shots_are_decoded_from_an_event_loop(control: str) -> None:
    """Both patches of one lane at the same time, each awaiting its own corrections."""

    async def decode(patch: AsyncPatch, seed: int) -> int:
        patch_id = patch.place.patch_id
        measurements, expected = shots_of(patch_id, seed)
        frames = [(await patch.decode(cut(patch_id, shot))).frame for shot in measurements]
        return sum(frame != e for frame, e in zip(frames, expected, strict=True))

    async def talk() -> list[int]:
        async with AsyncClient(control) as client:
            patches = [await client.open(patch_id) for patch_id in CIRCUITS]
            found = await asyncio.gather(*(decode(patch, seed=2) for patch in patches))
            assert (await client.status()).state == "ready"
            assert (await client.frame(0, len(ROUNDS[0]) - 1)).shot_id == NUM_SHOTS - 1
            with pytest.raises(TimeoutError):
                await patches[0].receive(timeout_s=0.01)
            return list(found)

    assert max(asyncio.run(talk())) <= 1


def test_what_cannot_be_is_said(control: str) -> None:
    """No such patch, a place that is taken, no correction, a verb that is none: exceptions, and the client goes on."""
    with Client(control, timeout_s=10) as client:
        with pytest.raises(RefusedError, match="there is no patch 5"):
            client.open(5)
        with pytest.raises(RefusedError, match="needs a verb"):
            client.ask("nonsense")
        patch = client.open(0)
        with Client(control, timeout_s=0.3) as second, pytest.raises(NoPeerError, match="another controller"):
            second.open(0)
        with pytest.raises(TimeoutError):
            patch.receive(timeout_s=0.01)
        measurements, expected = shots_of(0, seed=3)
        assert patch.decode(cut(0, measurements[0])).frame == expected[0]


@pytest.mark.recorded
def test_the_recorded_shots_are_answered_as_recorded(runtime_dir: Path, start_daemon: Start) -> None:
    """NVIDIA's decoder file is decoded as it is, and the 100 shots of its syndromes get 100 of 100 corrections."""
    folder = recorded_folder()
    start_daemon(deployment(runtime_dir, folder / "config_pymatching.yml", 1), log=runtime_dir / "log")
    syndromes = read_syndromes(folder / "syndromes_pymatching.txt")
    assert syndromes.corrections is not None
    with Client(f"ipc://{runtime_dir}/control") as client:
        patch = client.open(0)
        found = [patch.decode(syndromes.slices(shot)).frame_bits for shot in range(len(syndromes.measurements))]
    assert np.array_equal(found, syndromes.corrections)
