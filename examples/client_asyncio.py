"""A controller in an event loop: rounds leave by the clock, corrections are taken as they come.

In one terminal:  rtqec run configs/d5_memory_z.toml --set control.endpoint=ipc:///tmp/rtqec-control.ipc
In another one:   python examples/client_asyncio.py ipc:///tmp/rtqec-control.ipc
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import stim

from rtqec.client import AsyncClient, AsyncPatch

SHOTS = 20
ROUNDS = 50
PERIOD_S = 0.001


async def send(patch: AsyncPatch, shots: np.ndarray) -> None:
    """One round every millisecond."""
    for shot in shots:
        *rounds, readout = np.split(shot, range(24, 24 * ROUNDS + 1, 24))
        for bits in rounds:
            await patch.send(bits)
            await asyncio.sleep(PERIOD_S)
        await patch.send(readout, last=True)


async def follow(patch: AsyncPatch) -> list[int]:
    """The frame at the end of each shot; corrections come for every few rounds."""
    frames: list[int] = []
    while len(frames) < SHOTS:
        correction = await patch.receive()
        if correction.last_of_shot:
            frames.append(correction.frame)
    return frames


async def main(control: str) -> None:
    """Send and follow at the same time."""
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=5, rounds=ROUNDS, after_clifford_depolarization=0.003,
        before_measure_flip_probability=0.003, after_reset_flip_probability=0.003,
        before_round_data_depolarization=0.003,
    )  # fmt: skip
    measurements = circuit.compile_sampler(seed=2).sample(SHOTS)
    _, flips = circuit.compile_m2d_converter().convert(measurements=measurements, separate_observables=True)
    async with AsyncClient(control) as client:
        patch = await client.open(0)
        _, frames = await asyncio.gather(send(patch, measurements), follow(patch))
    wrong = sum(frame != int(truth[0]) for frame, truth in zip(frames, flips, strict=True))
    print(f"{SHOTS} shots, {wrong} wrong")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
