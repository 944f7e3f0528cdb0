"""A door lets one peer in, only with the right, and never keeps it out for longer than a handshake may take."""

from __future__ import annotations

import asyncio
import os
import socket as sockets
from collections.abc import Iterator

import pytest
import zmq
import zmq.asyncio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from zmq.utils import z85

from rtqec.config import ClientTable
from rtqec.door import REPORT_EVERY_S, Door, Tally, caller_of
from rtqec.gate import Gate
from rtqec.security import Right, Rights
from tests.peers import WAIT_MS, Scene, client_table, new_key, own_connection_from, raw_connection, scenes

ALICE, BOB = "a" * 40, "b" * 40
RIGHTS = Rights(
    [
        ClientTable(name="alice", public_key=ALICE, feed="all", read=[0]),
        ClientTable(name="bob", public_key=BOB, feed=[1, 2], read=[0, 1, 2]),
    ]
)


@pytest.mark.parametrize(
    ("right", "patch_ids", "caller", "event", "words"),
    [
        (Right.FEED, (0, 1), ALICE, None, ()),
        (Right.FEED, (1, 2), BOB, None, ()),
        (Right.FEED, (0, 1), BOB, "key_refused", ("bob", "may not feed patches [0]", "[[patch]] lane")),
        (Right.FEED, (0,), BOB, "key_refused", ("may not feed patches [0]",)),
        (Right.READ, (0, 2), ALICE, "key_refused", ("may not read patches [2]", "lane of their own")),
        (Right.CHANGE, (0,), ALICE, "key_refused", ("may not change",)),
        (Right.FEED, (0,), "c" * 40, "key_refused", ("no [[client]]", "c" * 40)),
        (None, (), BOB, None, ()),
        (None, (), "c" * 40, "key_refused", ("no [[client]]",)),
    ],
)
def test_a_key_needs_the_right_on_every_patch(
    right: Right | None, patch_ids: tuple[int, ...], caller: str, event: str | None, words: tuple[str, ...]
) -> None:
    """Only a key with the right on all patches of the lane comes in; another one is told apart by what it lacks, and
    where it lacks only some of them, the remedy is named."""
    door = Door("[feed] endpoint", right, patch_ids, keyed=True)
    objection = door.objection(caller, b"CURVE", RIGHTS)
    if event is None:
        assert objection is None
        return
    assert objection is not None
    assert objection[0] == event
    said = " ".join(objection[1].values())
    assert all(word in said for word in words)
    assert ("remedy" in objection[1]) == ("lane" in " ".join(words))


def test_a_door_that_asks_for_keys_lets_nobody_in_without() -> None:
    """Whoever proved no key is refused, whatever it calls itself; so is a key where none is asked for."""
    for mechanism in (b"NULL", b"PLAIN", b"GSSAPI", b""):
        assert Door("[feed] endpoint", Right.FEED, (0,), keyed=True).objection(ALICE, mechanism, RIGHTS) is not None
    assert Door("[feed] endpoint").objection(ALICE, b"CURVE", RIGHTS) is not None


def test_callers_are_named_by_what_libzmq_has_proven() -> None:
    """A key by itself, a Unix socket by its user, plain tcp by its address; none of them can be taken for another."""
    public, _ = zmq.curve_keypair()
    assert caller_of(b"10.0.0.7", b"CURVE", [z85.decode(public)]) == public.decode()
    assert caller_of(b"localhost:1000:100:4711", b"NULL", []) == "local uid 1000"
    assert caller_of(b"127.0.0.1", b"NULL", []) == "plain tcp 127.0.0.1"
    assert caller_of(b"::1", b"NULL", []) == "plain tcp ::1"
    assert Rights().may("local uid 1000", Right.CHANGE, [0])
    assert not Rights().may("local", Right.CHANGE, [0])
    assert not Rights().may(ALICE, Right.CHANGE, [0])


def test_refusals_are_reported_once_in_a_while() -> None:
    """The first one, and then one in ten seconds, with how many there were."""
    tally = Tally()
    due = [tally.is_due(REPORT_EVERY_S * k / 100) for k in range(250)]
    assert [k for k, is_due in enumerate(due) if is_due] == [0, 100, 200]
    assert tally.count == 250


class DoorModel(RuleBasedStateMachine):
    """What a door says, beside who really is connected. Connections are numbered like descriptors: reused."""

    def __init__(self) -> None:
        super().__init__()
        self.door = Door("[feed] endpoint")
        self.strangers: set[int] = set()
        self.from_before: set[int] = set()
        self.peer: int | None = None

    def free_number(self) -> int:
        return next(k for k in range(1000) if k not in self.door.connections)

    @rule(times=st.integers(1, 3))
    def strangers_connect(self, times: int) -> None:
        for _ in range(times):
            number = self.free_number()
            self.door.follow(zmq.EVENT_ACCEPTED, number)
            self.strangers.add(number)

    @rule()
    def a_peer_knocks(self) -> None:
        """It connects, is asked about, and is let in or gone."""
        number = self.free_number()
        self.door.follow(zmq.EVENT_ACCEPTED, number)
        if self.door.objection("local uid 0", b"NULL", Rights()) is None:
            assert self.peer is None
            self.door.admit("local uid 0")
            self.peer, self.from_before = number, set(self.strangers)
        else:
            assert self.peer is not None or self.from_before
            self.door.follow(zmq.EVENT_DISCONNECTED, number)

    @precondition(lambda self: self.peer is not None)
    @rule()
    def the_peer_goes(self) -> None:
        self.door.follow(zmq.EVENT_DISCONNECTED, self.peer or 0)
        self.peer = None

    @precondition(lambda self: bool(self.strangers))
    @rule(choice=st.integers(0, 100))
    def a_stranger_goes(self, choice: int) -> None:
        number = sorted(self.strangers)[choice % len(self.strangers)]
        self.strangers.discard(number)
        self.from_before.discard(number)
        self.door.follow(zmq.EVENT_DISCONNECTED, number)

    @invariant()
    def it_is_taken_by_the_peer_or_by_strangers_from_before(self) -> None:
        """Strangers that came after the peer was let in never count: the place is free at most a handshake later."""
        assert bool(self.door.candidates) == (self.peer is not None or bool(self.from_before))


class TestDoor(DoorModel.TestCase):  # type: ignore[name-defined,misc]
    """However peers and strangers come and go: never two peers, and room as soon as it can be known."""

    settings = settings(max_examples=300, stateful_step_count=30, deadline=None)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Guarded sockets, and peers."""
    yield from scenes(lambda log: monkeypatch.setattr("rtqec.gate.get_logger", lambda: log))


def test_a_new_allow_list_takes_effect_at_once(scene: Scene) -> None:
    """A connected peer whose key is taken off the list is hung up on and not let in again; a key that is put on it is
    let in; messages go on."""
    bob = new_key()
    [(rounds, endpoint)] = scene.open((zmq.PULL, "tcp://127.0.0.1:*", Right.FEED))
    first = scene.peer(zmq.PUSH, endpoint, scene.alice)
    first.socket.send(b"from alice")
    assert rounds.recv() == b"from alice"
    first.wait_until_in()
    scene.gate.admit_only(Rights([client_table("bob", bob, feed="all")]))
    first.wait_until_out()
    first.check_refused()
    second = scene.peer(zmq.PUSH, endpoint, bob)
    second.socket.send(b"from bob")
    assert rounds.recv() == b"from bob"
    [hung_up] = scene.log.details("peer_hung_up")
    assert hung_up["reason"] == "no [[client]] has this public_key"
    assert "second_peer_refused" not in scene.gate.refusals


def test_an_allow_list_that_keeps_a_peer_does_not_disturb_it(scene: Scene) -> None:
    """Whoever keeps the right stays connected, and no message of theirs is lost."""
    [(rounds, endpoint)] = scene.open((zmq.PULL, "tcp://127.0.0.1:*", Right.FEED))
    peer = scene.peer(zmq.PUSH, endpoint, scene.alice)
    for k in range(20):
        peer.socket.send(b"%d" % k)
        scene.gate.admit_only(Rights([client_table("alice-now", scene.alice, feed=[0])]))
    assert [rounds.recv() for _ in range(20)] == [b"%d" % k for k in range(20)]
    assert not scene.log.details("peer_hung_up")
    assert len(scene.log.details("peer_admitted")) == 1


def test_an_accepted_connection_is_given_up_when_its_host_is_gone(scene: Scene) -> None:
    """The kernel asks a silent peer whether it is still there, and gives up what it cannot deliver."""
    [(_, endpoint)] = scene.open((zmq.PULL, "tcp://127.0.0.1:*", None), keyed=False)
    with raw_connection(endpoint) as stranger:
        assert stranger.recv(10)  # Of libzmq's greeting: it has accepted.
        with own_connection_from(stranger) as accepted:
            assert accepted.getsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_KEEPIDLE) == 5
            assert accepted.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_USER_TIMEOUT) == 10_000


@pytest.mark.parametrize("kind", ["tcp", "ipc"])
def test_a_request_says_who_asks(scene: Scene, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A ROUTER has room for many clients, and every request carries the key, or the user, that it came from."""
    bob = new_key()
    rights = Rights([client_table("alice", scene.alice), client_table("bob", bob)])
    written = "tcp://127.0.0.1:*" if kind == "tcp" else f"ipc://{tmp_path_factory.mktemp('c')}/control"
    [(router, endpoint)] = scene.open((zmq.ROUTER, written, None), rights=rights, alone=False)
    for name, key in ((b"alice", scene.alice), (b"bob", bob)):
        scene.peer(zmq.REQ, endpoint, key).socket.send(name)
    callers = {}
    for _ in range(2):
        *_, request = router.recv_multipart(copy=False)
        callers[request.bytes] = str(request["User-Id"])
    keys = [scene.alice.public.decode(), bob.public.decode()]
    user = f"local uid {os.getuid()}"
    assert callers == dict(zip((b"alice", b"bob"), keys if kind == "tcp" else [user] * 2, strict=True))
    assert rights.describe(callers[b"alice"]) == (f"alice {keys[0]}" if kind == "tcp" else user)


def test_a_gate_guards_sockets_of_asyncio(scene: Scene) -> None:
    """The supervisor's control socket is served by asyncio, and its gate by a thread."""

    async def ask() -> str:
        context = zmq.asyncio.Context()
        gate = Gate(context, Rights([client_table("alice", scene.alice)]), scene.server)
        router = context.socket(zmq.ROUTER)
        gate.guard(router, "[control] endpoint", "tcp://127.0.0.1:*", alone=False, message_bytes=4096)
        router.bind("tcp://127.0.0.1:*")
        gate.start()
        peer = scene.peer(zmq.REQ, router.getsockopt_string(zmq.LAST_ENDPOINT), scene.alice)
        peer.socket.send(b"who am I")
        frames = await asyncio.wait_for(router.recv_multipart(copy=False), WAIT_MS / 1000)
        gate.stop([router])
        context.destroy(linger=0)
        return str(frames[-1]["User-Id"])

    assert asyncio.run(ask()) == scene.alice.public.decode()
