"""Play recorded shots to a decoding server that speaks CUDA-Q Realtime, as CUDA-Q's own programs would."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtqec.client import CudaqClient
from rtqec.cudaq.syndromes import Syndromes


@dataclass(frozen=True)
class Replayed:
    """What came of it.

    Attributes:
        shots: How many were played.
        compared: Of how many the file says what they must be answered with.
        wrong: Numbers of those that were answered with something else.
    """

    shots: int
    compared: int
    wrong: tuple[int, ...]

    def __str__(self) -> str:
        """For people."""
        if not self.compared:
            return f"{self.shots} shots answered; the file has no corrections to compare with"
        tail = f"; the first that differs is shot {self.wrong[0]}" if self.wrong else ""
        return f"{self.compared - len(self.wrong)} of {self.compared} corrections as recorded{tail}"


def replay_syndromes(syndromes: Syndromes, client: CudaqClient) -> Replayed:
    """Play every shot, one request for each of its rounds, and ask for its corrections.

    Args:
        syndromes: The shots.
        client: Of a decoder of the same experiment; what it knew before is forgotten.

    Raises:
        CudaqStatusError: The server cannot decode them.
        NoPeerError: Nobody answers.
    """
    client.reset()
    wrong = []
    for shot in range(len(syndromes.measurements)):
        for bits in syndromes.slices(shot):
            client.enqueue(bits)
        found = client.get_corrections()
        if syndromes.corrections is not None and not np.array_equal(found, syndromes.corrections[shot]):
            wrong.append(shot)
    num_shots = len(syndromes.measurements)
    return Replayed(num_shots, 0 if syndromes.corrections is None else num_shots, tuple(wrong))
