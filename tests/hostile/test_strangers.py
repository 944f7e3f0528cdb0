"""Strangers at the daemon's sockets are refused, whatever they do, and the good client is served meanwhile."""

from __future__ import annotations

import os
import random
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import zmq

from rtqec.endpoints import bind_alone, lock_beside
from rtqec.security import Right, Rights
from tests.peers import Scene, client_table, new_key, raw_connection, scenes, wait_until_closed

TCP = "tcp://127.0.0.1:*"
HANDSHAKE_MS = 300
"""Instead of three seconds, so that these tests do not wait for strangers."""
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00"


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Guarded sockets, and peers."""
    monkeypatch.setattr("rtqec.gate.HANDSHAKE_MS", HANDSHAKE_MS)
    yield from scenes(lambda log: monkeypatch.setattr("rtqec.gate.get_logger", lambda: log))


@pytest.fixture
def socket_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a short path: an ipc path has at most 107 bytes."""
    return tmp_path_factory.mktemp("s")


def greeting(mechanism: bytes) -> bytes:
    """The 64 bytes with which a ZMTP 3.0 client begins."""
    return GREETING + mechanism.ljust(20, b"\0") + bytes(32)


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n" * 20,
    "noise": random.Random(1).randbytes(5000),
    "old": b"\xff" + bytes(7) + b"\x01\x7f\x00\x00\x00\x01x" * 10,
    "plain": greeting(b"PLAIN") + b"\x04\x1a\x05HELLO\x05admin\x05admin" * 10,
    "hello": greeting(b"CURVE") + b"\x04\xc8\x05HELLO\x01\x00" + bytes(192),
    "short": greeting(b"CURVE") + b"\x04\x06\x05HELLO",
    "huge": greeting(b"CURVE") + b"\x06" + (1 << 62).to_bytes(8, "big") + bytes(4096),
    "null": greeting(b"NULL") + b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH",
    "half": GREETING,
    "nothing": b"",
}


@pytest.mark.parametrize("kind", ["no key", "unknown key", "wrong server key", "no right", "half the rights"])
@pytest.mark.parametrize("right", [Right.FEED, Right.READ])
def test_a_stranger_is_refused_and_the_good_client_served(scene: Scene, kind: str, right: Right) -> None:
    """Without a key, with one that nobody knows, for another daemon, or without the right on every patch of the lane:
    no handshake, before the good client comes and while it is there; its messages arrive."""
    bob = new_key()
    rights = Rights(
        [
            client_table("alice", scene.alice, feed=[0, 1], read="all"),
            client_table("bob", bob, **({"change": "all"} if kind == "no right" else {right.value: [1]})),
        ]
    )
    ours, theirs = (zmq.PULL, zmq.PUSH) if right is Right.FEED else (zmq.PUSH, zmq.PULL)
    [(daemon, endpoint)] = scene.open((ours, TCP, right), rights=rights, patch_ids=(0, 1))
    key, server = {
        "no key": (None, None),
        "unknown key": (new_key(), None),
        "wrong server key": (scene.alice, new_key().public),
    }.get(kind, (bob, None))
    stranger = scene.peer(theirs, endpoint, key, server)
    # libzmq gives up after one attempt where the two sides speak differently; otherwise it tries for ever.
    times = 1 if kind == "no key" else 2
    stranger.check_refused(times)
    good = scene.peer(theirs, endpoint, scene.alice)
    good.wait_until_in()
    stranger.check_refused(times - 1)
    sender, receiver = (good.socket, daemon) if right is Right.FEED else (daemon, good.socket)
    for k in range(50):
        sender.send(b"%d" % k)
    assert [receiver.recv() for _ in range(50)] == [b"%d" % k for k in range(50)]
    if right is Right.READ:
        assert not stranger.socket.poll(0)
    if kind == "half the rights":
        assert "[[patch]] lane" in scene.log.details("key_refused")[0]["remedy"]


def test_an_impostor_gets_no_rounds(scene: Scene) -> None:
    """A client that was given the daemon's public key sends nothing to whoever else sits at its address."""
    [(daemon, endpoint)] = scene.open((zmq.PULL, TCP, Right.FEED))
    victim = scene.peer(zmq.PUSH, endpoint, scene.alice, server_public=new_key().public)
    victim.check_refused()
    assert not daemon.poll(0)


@pytest.mark.parametrize("kind", sorted(GARBAGE))
@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_garbage_is_cut_off(scene: Scene, kind: str, transport: str, socket_folder: Path) -> None:
    """Whatever comes instead of a handshake, the connection is closed in bounded time, and the good client is served
    before, between and after."""
    written = TCP if transport == "tcp" else f"ipc://{socket_folder}/rounds"
    [(daemon, endpoint)] = scene.open((zmq.PULL, written, Right.FEED))
    if transport == "ipc" and kind == "null":
        pytest.skip("there it is a client: whoever may open the file needs no key")
    with raw_connection(endpoint) as before:
        before.sendall(GARBAGE[kind])
        good = scene.peer(zmq.PUSH, endpoint, scene.alice)
        good.socket.send(b"first")
        assert daemon.recv() == b"first"
        with raw_connection(endpoint) as between, suppress(ConnectionResetError, BrokenPipeError):
            between.sendall(GARBAGE[kind])
            good.socket.send(b"second")
            assert daemon.recv() == b"second"
            wait_until_closed(between)
        wait_until_closed(before)
    good.socket.send(b"third")
    assert daemon.recv() == b"third"


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_those_who_connect_and_say_nothing_do_not_keep_the_good_client_out(
    scene: Scene, transport: str, socket_folder: Path
) -> None:
    """With a crowd of silent connections the good client comes in, goes, and comes back; the crowd is cut off, in
    bounded time, and its descriptors are free again."""
    written = TCP if transport == "tcp" else f"ipc://{socket_folder}/rounds"
    [(daemon, endpoint)] = scene.open((zmq.PULL, written, Right.FEED))
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with ExitStack() as stack:
        crowd = [stack.enter_context(raw_connection(endpoint)) for _ in range(100)]
        for attempt in range(4):
            good = scene.peer(zmq.PUSH, endpoint, scene.alice)
            good.socket.send(b"%d" % attempt)
            assert daemon.recv() == b"%d" % attempt
            good.close()
            crowd += [stack.enter_context(raw_connection(endpoint)) for _ in range(50)]
        for connection in crowd:
            wait_until_closed(connection)
    # A few are libzmq's own.
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 10
    assert scene.gate.refusals["handshake_refused"] >= 100


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_flood_of_garbage_does_not_keep_messages_out(scene: Scene, transport: str, socket_folder: Path) -> None:
    """While strangers connect, shout and leave as fast as they can, every message of the good client arrives, in order,
    and it comes back in after it has left."""
    written = TCP if transport == "tcp" else f"ipc://{socket_folder}/rounds"
    [(daemon, endpoint)] = scene.open((zmq.PULL, written, Right.FEED))
    shouts = [shout for kind, shout in GARBAGE.items() if (transport, kind) != ("ipc", "null")]
    stop = threading.Event()
    connections = [0, 0]

    def shout(index: int) -> None:
        dice = random.Random(index)
        while not stop.is_set():
            with suppress(OSError), raw_connection(endpoint) as stranger:
                stranger.sendall(dice.choice(shouts))
                connections[index] += 1

    threads = [threading.Thread(target=shout, args=(index,)) for index in range(len(connections))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            good = scene.peer(zmq.PUSH, endpoint, scene.alice)
            while min(connections) < 300 or good.socket.poll(0, zmq.POLLOUT) == 0:
                good.socket.send(b"-")
                assert daemon.recv() == b"-"
            for k in range(100):
                good.socket.send(b"%d" % k)
                assert daemon.recv() == b"%d" % k
            good.close()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_second_client_waits_for_the_first(scene: Scene) -> None:
    """Of two keys with the right the one that came first is served alone; the other gets in when it has gone."""
    bob = new_key()
    rights = Rights([client_table("alice", scene.alice, feed="all"), client_table("bob", bob, feed="all")])
    [(daemon, endpoint)] = scene.open((zmq.PULL, TCP, Right.FEED), rights=rights)
    first = scene.peer(zmq.PUSH, endpoint, scene.alice)
    first.wait_until_in()
    second = scene.peer(zmq.PUSH, endpoint, bob)
    second.check_refused()
    first.socket.send(b"first")
    assert daemon.recv() == b"first"
    first.close()
    second.wait_until_in()
    second.socket.send(b"second")
    assert daemon.recv() == b"second"
    [refused] = scene.log.details("second_peer_refused")
    assert refused["caller"].startswith("bob ")
    assert refused["connected"].startswith("alice ")


def test_control_serves_good_clients_among_strangers(scene: Scene) -> None:
    """The control socket has room for many: those with a key are answered, those without are not heard."""
    bob = new_key()
    rights = Rights([client_table("alice", scene.alice), client_table("bob", bob)])
    [(router, endpoint)] = scene.open((zmq.ROUTER, TCP, None), rights=rights, alone=False)
    strangers = [scene.peer(zmq.REQ, endpoint), scene.peer(zmq.REQ, endpoint, new_key())]
    for stranger in strangers:
        stranger.check_refused(times=1)
    good = [scene.peer(zmq.REQ, endpoint, key) for key in (scene.alice, bob)]
    for peer in good:
        peer.socket.send(b"hello")
    for _ in good:
        *address, request = router.recv_multipart()
        router.send_multipart([*address, request + b" yourself"])
    assert [peer.socket.recv() for peer in good] == [b"hello yourself"] * 2
    assert not router.poll(0)


def test_a_message_beyond_all_bounds_ends_only_its_sender(scene: Scene) -> None:
    """Nobody, a key or not, makes the daemon take memory for a message that cannot be one; the next peer is served."""
    [(daemon, endpoint)] = scene.open((zmq.PULL, TCP, Right.FEED))
    peer = scene.peer(zmq.PUSH, endpoint, scene.alice)
    peer.wait_until_in()
    peer.socket.send(bytes(1 << 20))
    peer.wait_until_out()
    peer.wait_until_in()
    peer.socket.send(b"good again")
    assert daemon.recv() == b"good again"


def test_a_key_on_an_endpoint_that_asks_for_none_is_refused(scene: Scene) -> None:
    """A client that insists on a key does not talk to a daemon that cannot prove its own."""
    [(daemon, endpoint)] = scene.open((zmq.PULL, TCP, Right.FEED), keyed=False)
    careful = scene.peer(zmq.PUSH, endpoint, scene.alice)
    careful.check_refused(times=1)
    plain = scene.peer(zmq.PUSH, endpoint)
    plain.socket.send(b"plain")
    assert daemon.recv() == b"plain"
    [admitted] = scene.log.details("peer_admitted")
    assert admitted["caller"] == "plain tcp 127.0.0.1"


def test_nobody_comes_in_before_ready(scene: Scene) -> None:
    """A daemon that is bound but has not started its gate lets no key in; afterwards it does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rtqec.gate.Gate.start", lambda _gate: None)
        [(daemon, endpoint)] = scene.open((zmq.PULL, TCP, Right.FEED))
    peer = scene.peer(zmq.PUSH, endpoint, scene.alice)
    peer.check_refused(times=1)
    scene.gate.start()
    peer.socket.send(b"ready")
    assert daemon.recv() == b"ready"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_sockets_and_locks_are_for_owner_and_group(umask: int, socket_folder: Path) -> None:
    """Whatever the umask: a socket 0660, its lock 0600, from the moment that they can be found; the umask is as
    before."""
    before = os.umask(umask)
    try:
        with zmq.Context() as context, context.socket(zmq.PULL) as socket:
            lock = bind_alone(socket, "[feed] endpoint", f"ipc://{socket_folder}/rounds")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in socket_folder.iterdir()}
            assert lock is not None
            lock.close()
    finally:
        assert os.umask(before) == umask
    # Only ever less than these.
    assert modes == {"rounds": 0o660, "rounds.lock": 0o600}


def test_a_lock_is_no_way_to_another_file(socket_folder: Path) -> None:
    """In a folder where others write, a link with the lock's name is not followed."""
    precious = socket_folder / "precious"
    precious.write_text("kept")
    (socket_folder / "rounds.lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        lock_beside(socket_folder / "rounds")
    assert precious.read_text() == "kept"
