"""Between supervisor and lane: messages come whole, with their descriptors, and the end of one side is seen."""

from __future__ import annotations

import os

import pytest

from rtqec.channel import Channel


@pytest.mark.parametrize("size", [0, 1, 1 << 15, 1 << 15 | 1, 1 << 20])
def test_a_message_of_any_size_comes_whole_with_its_descriptors(size: int) -> None:
    """Also one that no datagram could hold, and the descriptor refers to the same file."""
    ours, theirs = Channel.pair()
    fd = os.memfd_create("test")
    os.write(fd, b"here")
    assert ours.send({"text": "x" * size}, [fd])
    message, fds = theirs.receive()
    assert message == {"text": "x" * size}
    (received,) = fds
    assert os.pread(received, 9, 0) == b"here"
    for descriptor in (fd, received):
        os.close(descriptor)
    ours.close()
    assert theirs.receive() == (None, [])
    assert not theirs.send({"text": ""})
    theirs.close()


def test_messages_keep_their_order_and_their_bounds() -> None:
    """Two messages are never read as one."""
    ours, theirs = Channel.pair()
    for k in range(20):
        ours.send({"k": k, "text": "y" * (k * 4000)})
    found = [theirs.receive()[0] for _ in range(20)]
    assert [message["k"] for message in found if message is not None] == list(range(20))
    ours.close()
    theirs.close()
