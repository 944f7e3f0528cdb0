"""One case, its shots, and the decoders that compete on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.cases import Case
from bench.estimates import percentiles
from bench.peers.peer import CannotDecodeError, Decoded, Peer, Shots
from bench.peers.registry import peer_class
from bench.peers.workloads import Workload, finite_workload, pieces_of, stream_workload
from bench.provenance import installed
from rtqec.reference import WholeShotMatcher
from rtqec.units import NS_PER_US

Result = dict[str, Any]
_WARM_SHOTS = 64


class Kind(StrEnum):
    """What is decoded."""

    SHOTS = "shots"
    STREAM = "stream"


@dataclass(frozen=True)
class Entry:
    """Shots, and what PyMatching says of them as whole ones.

    Attributes:
        reference: bool, shape (num_shots, num_observables); None where the whole has no matching graph.
        pieces_of: Rounds of the stream that the shots are pieces of; None where they are whole.
    """

    workload: Workload
    shots: Shots
    reference: NDArray[np.bool_] | None
    pieces_of: int | None = None

    @classmethod
    def of(cls, workload: Workload) -> Entry:
        """Decode the shots as whole ones, where that can be."""
        shots, reference = workload.shots, None
        if workload.task.whole:
            matcher = WholeShotMatcher(workload.task.experiment.own_dem, correlated=False)
            reference = matcher(np.packbits(shots.detection_events, axis=1, bitorder="little"))
        return cls(workload, shots, reference)

    def first(self, num_shots: int) -> Entry:
        """The first shots only."""
        reference = None if self.reference is None else self.reference[:num_shots]
        return replace(self, shots=self.shots.some(0, num_shots), reference=reference)


@dataclass
class Contest:
    """One case, its shots, and the decoders that are ready for them.

    Attributes:
        refused: Why some decoders do not take part.
    """

    case: Case
    kind: Kind
    workload: Workload
    seed: int
    refused: dict[str, str] = field(default_factory=dict)
    _ready: dict[str, tuple[Peer, Entry]] = field(default_factory=dict)
    _entries: dict[int | None, Entry] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case, kind: Kind, num_shots: int, num_rounds: int, seed: int) -> Contest:
        """Draw the shots.

        Raises:
            ConfigError: The case cannot be compared like this.
        """
        if kind is Kind.STREAM:
            return cls(case, kind, stream_workload(case, num_rounds, seed), seed)
        return cls(case, kind, finite_workload(case, num_shots, seed), seed)

    def measure(self, name: str) -> Result:
        """Decode with one decoder; why not, where that cannot be."""
        try:
            peer_type = peer_class(name)
        except ImportError as error:
            return self._refuse(name, None, f"not installed: {error}")
        if self.kind is Kind.STREAM and not peer_type.answers:
            num_rounds = self.workload.task.num_rounds
            return self._refuse(
                name,
                peer_type,
                f"decodes whole shots: it would answer a stream of {num_rounds:,} rounds at its end only",
            )
        try:
            peer, entry = self._prepare(name, peer_type)
            decoded = peer.decode(entry.shots)
        except CannotDecodeError as error:
            return self._refuse(name, peer_type, str(error))
        return result_of(peer_type, entry, decoded) | {"workload": self.kind.value}

    def _prepare(self, name: str, peer_type: type[Peer]) -> tuple[Peer, Entry]:
        """Make a decoder, once, and let it decode something before it counts."""
        if name not in self._ready:
            entry = self._entry(peer_type)
            peer = peer_type(entry.workload.task)
            peer.decode(entry.shots.some(0, _WARM_SHOTS))
            self._ready[name] = peer, entry
        return self._ready[name]

    def _entry(self, peer_type: type[Peer]) -> Entry:
        rounds_max = peer_type.rounds_max if self.kind is Kind.STREAM else None
        if rounds_max is not None:
            rounds_max = min(rounds_max, self.workload.task.num_rounds)
        if rounds_max not in self._entries:
            workload = self.workload
            if rounds_max is not None:
                workload = pieces_of(workload, self.case, rounds_max, self.seed)
            entry = Entry.of(workload)
            if rounds_max is not None:
                entry = replace(entry, pieces_of=self.workload.task.num_rounds)
            self._entries[rounds_max] = entry
        entry = self._entries[rounds_max]
        most = peer_type.shots_max
        return entry if most is None or self.kind is Kind.STREAM else entry.first(most)

    def _refuse(self, name: str, peer_type: type[Peer] | None, why: str) -> Result:
        self.refused[name] = why
        asked = {"workload": self.kind.value, "num_rounds": self.workload.task.num_rounds}
        return refusal_of(name, peer_type, why) | asked

    def close(self) -> None:
        """Give back what the decoders hold."""
        for peer, _ in self._ready.values():
            peer.close()


def result_of(peer_type: type[Peer], entry: Entry, decoded: Decoded) -> Result:
    """What a row says of a decoder that took part; `relative_to_rtqec` is still open."""
    num_rounds, num_shots, flips = entry.workload.task.num_rounds, len(entry.shots), decoded.observable_flips
    us_per_round = decoded.cpu_ns / NS_PER_US / (num_rounds * num_shots)
    agreement = None
    if entry.reference is not None:
        agreement = float((flips == entry.reference).all(axis=1).mean())
    return {
        "decoder": peer_type.name,
        "package": peer_type.package,
        "version": installed(peer_type.package) if peer_type.package else None,
        "available": True,
        "why": None,
        "takes": peer_type.takes,
        "given": peer_type.given,
        "method": peer_type.method,
        "shots": num_shots,
        "num_rounds": entry.pieces_of or num_rounds,
        "piece_rounds": num_rounds if entry.pieces_of not in (None, num_rounds) else None,
        "us_per_round": us_per_round,
        "wall_us_per_round": decoded.wall_ns / NS_PER_US / (num_rounds * num_shots),
        "rounds_per_s": 1e6 / us_per_round if us_per_round else None,
        "reaction_us": percentiles(decoded.reaction_ns / NS_PER_US),
        "door_us_per_call": None if decoded.door_ns is None else decoded.door_ns / NS_PER_US,
        "failures": int((flips != entry.shots.observable_flips).any(axis=1).sum()),
        "agreement": agreement,
        "relative_to_rtqec": None,
    }


_NUMBERS = (
    "shots", "num_rounds", "piece_rounds", "us_per_round", "wall_us_per_round", "rounds_per_s", "reaction_us",
    "door_us_per_call", "failures", "agreement", "relative_to_rtqec",
)  # fmt: skip


def refusal_of(name: str, peer_type: type[Peer] | None, why: str) -> Result:
    """What a row says of a decoder that does not take part."""
    package = peer_type.package if peer_type else None
    return {
        "decoder": name,
        "package": package,
        "version": installed(package) if package else None,
        "available": False,
        "why": why,
        "takes": peer_type.takes if peer_type else None,
        "given": peer_type.given if peer_type else None,
        "method": peer_type.method if peer_type else None,
    } | dict.fromkeys(_NUMBERS)
