"""Whether a message says nothing impossible. A message is judged whole, before anything of it is placed."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.crc32c import crc32c_words
from rtqec.kernels.native import compiled
from rtqec.kernels.records import FeedCounter
from rtqec.wire import (
    CRC_OFFSET_ROUNDS,
    REQUEST_MAGIC,
    ROUND_FLAGS_KNOWN,
    ROUNDS_FUNCTION,
    ROUNDS_HEADER_BYTES,
    ROUNDS_PER_MESSAGE_MAX,
    RPC_HEADER_BYTES,
    VERSION,
    RoundFlag,
)

_MAGIC_AND_FUNCTION = np.uint64(REQUEST_MAGIC | ROUNDS_FUNCTION << 32)
_LOW16 = np.uint64(0xFFFF)
_LOW32 = np.uint64(0xFFFFFFFF)
_HIGH32 = np.uint64(0xFFFFFFFF00000000)
_CRC_WORD = CRC_OFFSET_ROUNDS // 8
_VERSION = VERSION
_HEADER_BYTES = ROUNDS_HEADER_BYTES
_ROUNDS_MAX = ROUNDS_PER_MESSAGE_MAX
_NUMBER_MAX = np.uint64(1 << 62)
"""Numbers of rounds and messages are signed inside; a stream of 10 MHz reaches this after 14,000 years."""
_KNOWN = ROUND_FLAGS_KNOWN
_EVENTS = int(RoundFlag.DETECTION_EVENTS)
_FIRST = int(RoundFlag.FIRST)
_LAST = int(RoundFlag.LAST)
_SWEEP = int(RoundFlag.SWEEP)
_CRC = int(RoundFlag.CRC)
_RPC_BYTES = RPC_HEADER_BYTES
ACCEPTED = -1


@compiled
def layer_index(patch: Any, round_index: Any, last: Any) -> Any:
    """The layer of a round, or -1 where the plan has no such round."""
    if patch.num_rounds >= 0 and last != (round_index == patch.num_rounds - 1):
        return -1
    if last:
        return patch.last_layer
    if round_index < patch.num_first_layers:
        return patch.first_layer + round_index
    return patch.bulk_layer


@compiled
def layer_width(patch: Any, layer: Any) -> Any:
    """Bits that a message carries for a round of this layer."""
    return layer.num_detectors if patch.events else layer.num_measurements


@compiled
def find_patch(patches: Any, patch_id: Any) -> Any:
    """The row of a patch, or -1."""
    for p in range(len(patches)):
        if patches[p].patch_id == patch_id:
            return p
    return -1


@compiled
def check_header(words: Any, size: Any, buffer_bytes: Any) -> Any:
    """Whether the bytes are a rounds message of this version at all: -1, or the `FeedCounter` of what is wrong."""
    if size < _HEADER_BYTES or size > buffer_bytes or size % 8:
        return FeedCounter.BAD_SIZE
    if words[0] != _MAGIC_AND_FUNCTION:
        return FeedCounter.BAD_MAGIC
    if words[3] & _LOW16 != _VERSION:
        return FeedCounter.BAD_VERSION
    if words[1] & _LOW32 != size - _RPC_BYTES or (words[1] >> np.uint64(32)) != (words[4] & _LOW32):
        return FeedCounter.BAD_SIZE
    return ACCEPTED


@compiled
def check_message(patch: Any, layers: Any, words: Any, size: Any) -> Any:
    """Whether a message of a known patch says nothing impossible.

    Args:
        patch: `FEED_PATCH` record.
        layers: `LAYER` records.
        words: uint64, the message.
        size: Its bytes, a multiple of 8, at least a header.

    Returns:
        -1, or the `FeedCounter` of the first thing that is wrong.
    """
    flags = np.int64((words[3] >> np.uint64(16)) & _LOW16)
    num_rounds = np.int64(words[8] & _LOW16)
    bits = np.int64(words[8] >> np.uint64(32))
    if flags & ~_KNOWN or ((flags & _EVENTS) != 0) != (patch.events != 0):
        return FeedCounter.BAD_FLAGS
    tag = np.int64(words[9] >> np.uint64(32))
    if tag != patch.plan_tag and tag != patch.other_tag:
        return FeedCounter.BAD_PLAN_TAG
    if flags & _CRC:
        if crc32c_words(words, size // 8, _CRC_WORD, _HIGH32) != (words[_CRC_WORD] & _LOW32):
            return FeedCounter.BAD_CRC
    elif patch.require_crc:
        return FeedCounter.BAD_CRC
    if num_rounds < 1 or num_rounds > _ROUNDS_MAX or words[6] >= _NUMBER_MAX or words[4] >= _NUMBER_MAX:
        return FeedCounter.BAD_ROUND
    first_round = np.int64(words[6])
    if ((flags & _FIRST) != 0) != (first_round == 0) or (flags & _SWEEP and not flags & _FIRST):
        return FeedCounter.BAD_FLAGS
    for i in range(num_rounds):
        last = (flags & _LAST) != 0 and i == num_rounds - 1
        index = layer_index(patch, first_round + i, last)
        if index < 0:
            return FeedCounter.BAD_ROUND
        if layer_width(patch, layers[index]) != bits:
            return FeedCounter.BAD_WIDTH
    sweep_bytes = (patch.num_sweep_bits + 63) // 64 * 8 if flags & _SWEEP else 0
    if size != _HEADER_BYTES + sweep_bytes + (num_rounds * ((bits + 7) // 8) + 7) // 8 * 8:
        return FeedCounter.BAD_SIZE
    return ACCEPTED
