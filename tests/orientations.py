"""Memory experiments in the four orientations of the published models, to lay on the grid.

Supports, orders of CNOTs and noise as in NVIDIA's Ising-Decoding (Apache-2.0), its "simple" noise; written anew.
"""

from __future__ import annotations

import stim

from rtqec.neural.code import FIRST, SurfaceCode, surface_code

ORIENTATIONS = ("XV", "XH", "ZV", "ZH")
_ORDERS = {
    # Corners of a plaquette in the order in which its ancilla meets them: (row, column) from its upper left.
    True: {"X": ((0, 1), (1, 1), (0, 0), (1, 0)), "Z": ((0, 1), (0, 0), (1, 1), (1, 0))},
    False: {"X": ((0, 1), (0, 0), (1, 1), (1, 0)), "Z": ((0, 1), (1, 1), (0, 0), (1, 0))},
}


def memory_circuit(
    distance: int, rounds: int, orientation: str, basis: str, noise: float, noisy_end: bool = True
) -> stim.Circuit:
    """A memory experiment; without a noisy end its last round and its data readout are perfect."""
    code = surface_code(distance)
    mirrored, swapped = orientation in ("XH", "ZH"), orientation in ("ZV", "ZH")
    checks = []
    for kind in (0, 1):
        letter = "X" if (kind == FIRST) != swapped else "Z"
        checks += [(letter, _place(corner, distance, mirrored)) for corner in code.corners[kind]]
    checks.sort()
    return _Writer(code, checks, orientation in ("XV", "ZH"), basis, noise).write(rounds, noisy_end, orientation)


def _place(corner: tuple[int, int], distance: int, mirrored: bool) -> tuple[int, int]:
    i, j = corner
    return (distance - j, distance - i) if mirrored else (i, j)


class _Writer:
    def __init__(
        self, code: SurfaceCode, checks: list[tuple[str, tuple[int, int]]], upright: bool, basis: str, noise: float
    ) -> None:
        self.code, self.checks, self.basis, self.noise = code, checks, basis, noise
        self.orders = _ORDERS[upright]
        self.data = list(range(code.num_cells))
        self.ancillas = {"X": [], "Z": []}
        for number, (letter, _) in enumerate(checks):
            self.ancillas[letter].append(code.num_cells + number)
        self.circuit = stim.Circuit()

    def write(self, rounds: int, noisy_end: bool, orientation: str) -> stim.Circuit:
        circuit, size, p = self.circuit, self.code.distance, self.noise
        circuit.append(f"R{self.basis}", self.data)
        circuit.append("Z_ERROR" if self.basis == "X" else "X_ERROR", self.data, 2 * p / 3)
        for t in range(rounds):
            noisy = noisy_end or t < rounds - 1
            self._round(p if noisy else 0.0, first=t == 0)
            self._detectors(t)
        if noisy_end:
            circuit.append("Z_ERROR" if self.basis == "X" else "X_ERROR", self.data, 2 * p / 3)
        circuit.append(f"M{self.basis}", self.data)
        self._readout(rounds)
        row = (orientation in ("XV", "ZH")) == (self.basis == "X")
        logical = [n if row else n * size for n in range(size)]
        circuit.append("OBSERVABLE_INCLUDE", [stim.target_rec(n - size * size) for n in logical], 0)
        return circuit

    def _round(self, p: float, first: bool) -> None:
        circuit = self.circuit
        if p and not first:
            circuit.append("DEPOLARIZE1", self.data, p)
        for letter, flip in (("X", "Z_ERROR"), ("Z", "X_ERROR")):
            circuit.append(f"R{letter}", self.ancillas[letter])
            if p:
                circuit.append(flip, self.ancillas[letter], 2 * p / 3)
        for step in range(4):
            pairs = []
            for number, (letter, (i, j)) in enumerate(self.checks):
                down, right = self.orders[letter][step]
                row, column = i - 1 + down, j - 1 + right
                if 0 <= row < self.code.distance and 0 <= column < self.code.distance:
                    ancilla, qubit = self.code.num_cells + number, row * self.code.distance + column
                    pairs += [ancilla, qubit] if letter == "X" else [qubit, ancilla]
            circuit.append("CX", pairs)
            if p:
                circuit.append("DEPOLARIZE2", pairs, p)
                idle = [q for q in range(self.code.num_cells + len(self.checks)) if q not in pairs]
                circuit.append("DEPOLARIZE1", idle, p)
        for letter, flip in (("X", "Z_ERROR"), ("Z", "X_ERROR")):
            if p:
                circuit.append(flip, self.ancillas[letter], 2 * p / 3)
            circuit.append(f"M{letter}", self.ancillas[letter])
        if p:
            circuit.append("DEPOLARIZE1", self.data, p)

    def _detectors(self, t: int) -> None:
        count = len(self.checks)
        for number, (letter, (i, j)) in enumerate(self.checks):
            if t == 0 and letter != self.basis:
                continue
            records = [stim.target_rec(number - count)] + ([stim.target_rec(number - 2 * count)] if t else [])
            self.circuit.append("DETECTOR", records, (2 * j, 2 * i, t))

    def _readout(self, t: int) -> None:
        count, size = len(self.checks), self.code.distance
        for number, (letter, (i, j)) in enumerate(self.checks):
            if letter == self.basis:
                rows, columns = [r for r in (i - 1, i) if 0 <= r < size], [c for c in (j - 1, j) if 0 <= c < size]
                records = [stim.target_rec(r * size + c - size * size) for r in rows for c in columns]
                records.append(stim.target_rec(number - count - size * size))
                self.circuit.append("DETECTOR", records, (2 * j, 2 * i, t))
