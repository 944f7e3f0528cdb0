"""CRC-32C (Castagnoli), eight bytes a step.

Source: polynomial 0x1EDC6F41 reflected, as in RFC 3720 appendix B.4; slicing-by-8 after Kounavis and Berry, 2005.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.kernels.native import compiled

_REFLECTED = 0x82F63B78


def _tables() -> NDArray[np.uint32]:
    """uint32, shape (8, 256)."""
    tables = np.zeros((8, 256), np.uint32)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_REFLECTED if value & 1 else 0)
        tables[0, byte] = value
    for k in range(1, 8):
        tables[k] = (tables[k - 1] >> 8) ^ tables[0][tables[k - 1] & 0xFF]
    return tables


TABLES = _tables()


@compiled
def crc32c_words(words: Any, num_words: Any, skip_word: Any, skip_mask: Any) -> Any:
    """CRC-32C of whole 64-bit words.

    Args:
        words: uint64, little-endian memory of a message.
        num_words: How many.
        skip_word: Index of the word that holds the checksum itself.
        skip_mask: Bits of that word that count; the others are taken as zero.
    """
    crc = np.uint64(0xFFFFFFFF)
    low = np.uint64(0xFF)
    for i in range(num_words):
        word = words[i]
        if i == skip_word:
            word &= skip_mask
        word ^= crc
        crc = np.uint64(
            TABLES[7, word & low]
            ^ TABLES[6, (word >> np.uint64(8)) & low]
            ^ TABLES[5, (word >> np.uint64(16)) & low]
            ^ TABLES[4, (word >> np.uint64(24)) & low]
            ^ TABLES[3, (word >> np.uint64(32)) & low]
            ^ TABLES[2, (word >> np.uint64(40)) & low]
            ^ TABLES[1, (word >> np.uint64(48)) & low]
            ^ TABLES[0, word >> np.uint64(56)]
        )
    return crc ^ np.uint64(0xFFFFFFFF)
