"""How rounds lie in memory: the one place where strides are decided.

A *layer* is the detection events of one round, bit-packed (LSB first, Stim's b8) and padded to whole bytes, so that
a window of rounds is a plain byte copy. The pad bits are detectors without edges: they cost the matcher nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


def bytes_for_bits(num_bits: int) -> int:
    """Bytes that hold `num_bits` bit-packed bits."""
    return (num_bits + 7) // 8


def words_for_bytes(num_bytes: int) -> int:
    """64-bit words that hold `num_bytes` bytes."""
    return (num_bytes + 7) // 8


def words_for_bits(num_bits: int) -> int:
    """64-bit words that hold `num_bits` bit-packed bits."""
    return (num_bits + 63) // 64


@dataclass(frozen=True)
class LayerLayout:
    """The stride of one layer of a plan.

    Attributes:
        detectors_max: Detectors in the widest layer.
        measurements_max: Measurements in the widest block; 0 where the feed carries detection events only.
    """

    detectors_max: int
    measurements_max: int

    @property
    def layer_bytes(self) -> int:
        """Bytes from one layer to the next, in a ring slot and in a matcher's row."""
        return max(1, bytes_for_bits(self.detectors_max))

    @property
    def layer_bits(self) -> int:
        """Detector numbers from one layer to the next, in a window's model."""
        return 8 * self.layer_bytes

    @property
    def scratch_words(self) -> int:
        """64-bit words that hold one layer, or one block of measurements."""
        return words_for_bits(max(self.detectors_max, self.measurements_max, 1))


def ring_capacity(rounds_asked: int, window_rounds: int) -> int:
    """Slots of a ring: a power of two, at least two windows, so that a slot is found by a mask."""
    return 1 << (max(rounds_asked, 2 * window_rounds) - 1).bit_length()
