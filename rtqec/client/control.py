"""Questions and answers of the control socket, typed; see docs/control.md. No sockets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from rtqec.errors import ExitCode, RtqecError
from rtqec.wire import VERSION


class RefusedError(RtqecError):
    """The daemon answered, and refused."""

    exit_code = ExitCode.FAILED


@dataclass(frozen=True)
class PatchPlace:
    """Where a patch is to be reached.

    Attributes:
        patch_id: The patch.
        plan_tag: Of the plan that it runs; messages carry it.
        lane: The lane that carries it.
        feed: Where its rounds go.
        publish: Where its corrections come from.
    """

    patch_id: int
    plan_tag: int
    lane: str
    feed: str
    publish: str


@dataclass(frozen=True)
class LaneStatus:
    """One lane: ready, restarting .."""

    name: str
    state: str
    restarts: int


@dataclass(frozen=True)
class PatchStatus:
    """One patch.

    Attributes:
        patch_id: The patch.
        corrections: So far.
        counters: By name; see docs/metrics.md.
    """

    patch_id: int
    corrections: int
    counters: dict[str, int]


@dataclass(frozen=True)
class Status:
    """The daemon: starting, ready, draining, stopped."""

    state: str
    lanes: tuple[LaneStatus, ...]
    patches: tuple[PatchStatus, ...]


@dataclass(frozen=True)
class Frame:
    """The Pauli frame of a shot after some round.

    Attributes:
        shot_id: The shot.
        value: One bit per observable, LSB first.
        through: The round after which it holds.
        final: Whether nothing can change it any more.
        tainted_since: The round of the first guess in it; None where it is clean.
    """

    shot_id: int
    value: int
    through: int
    final: bool
    tainted_since: int | None


def pack(verb: str, arguments: dict[str, Any]) -> bytes:
    """One question."""
    packed: bytes = msgpack.packb({"verb": verb} | arguments)
    return packed


def unpack(answer: bytes) -> dict[str, Any]:
    """What the daemon answered.

    Raises:
        RefusedError: It refused, and why.
    """
    found: dict[str, Any] = msgpack.unpackb(answer)
    if not found.pop("ok"):
        raise RefusedError(found["error"])
    return found


def places(hello: dict[str, Any]) -> dict[int, PatchPlace]:
    """Its patches, by number.

    Raises:
        RefusedError: It speaks another version of the wire.
    """
    if hello["wire"] != VERSION:
        raise RefusedError(
            f"the daemon speaks version {hello['wire']} of the wire, this client version {VERSION}.\n"
            "Install the rtqec of the daemon beside the controller."
        )
    return {
        patch["id"]: PatchPlace(patch["id"], patch["plan_tag"], patch["lane"], patch["feed"], patch["publish"])
        for patch in hello["patches"]
    }


def place_of(hello: dict[str, Any], patch_id: int) -> PatchPlace:
    """One patch.

    Raises:
        RefusedError: The daemon has no such patch, does not show it to this client, or serves it to others.
    """
    known = places(hello)
    if patch_id not in known:
        raise RefusedError(f"there is no patch {patch_id} for this client; the daemon has {sorted(known)}")
    if not known[patch_id].feed:
        raise RefusedError(f"patch {patch_id} has no endpoint: CUDA-Q programs feed it over UDP; so does CudaqClient")
    return known[patch_id]


def status_of(answer: dict[str, Any]) -> Status:
    """The answer to `status`."""
    return Status(
        answer["state"],
        tuple(LaneStatus(lane["name"], lane["state"], lane["restarts"]) for lane in answer["lanes"]),
        tuple(PatchStatus(p["id"], p["corrections"], p["counters"]) for p in answer["patches"]),
    )


def frame_of(answer: dict[str, Any]) -> Frame:
    """The answer to `frame`."""
    return Frame(answer["shot"], answer["value"], answer["through"], answer["final"], answer["tainted_since"])
