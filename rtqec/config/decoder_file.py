"""A decoder file of CUDA-Q as a whole configuration: what it does not say is chosen here, and can be set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DECODER_FILE_SUFFIXES = (".yml", ".yaml")
ROUND_PERIOD_US = 100.0
"""Such a file says nothing of time. The playback of CUDA-Q's FPGA sends a window every 120 us, and a window of its
tests is a few rounds; who has a faster source sets [feed] round_period_us."""
_CONTROL = "ipc://${XDG_RUNTIME_DIR:-/tmp}/rtqec-cudaq-control.ipc"


def tables_of_decoder_file(path: Path) -> dict[str, Any]:
    """The tables of a configuration with one patch for each decoder of a file, over UDP as CUDA-Q's server has them.

    Windows commit and look ahead by the distance of the code, or by the longest error where that is more.

    Args:
        path: The file.

    Raises:
        ConfigError: It cannot be read, does not follow CUDA-Q's schema, or describes what matching cannot decode.
    """
    # Here, because status and ask read configurations as well, and need no models.
    from rtqec.cudaq.decoder_file import load_decoder_file
    from rtqec.cudaq.decoder_model import make_decoder

    file = load_decoder_file(path)
    entries = file.decoders
    decoders = [make_decoder(entry) for entry in entries]
    distances = [decoder.distance or 1 for decoder in decoders]
    sizes = [max(distance, decoder.span) for distance, decoder in zip(distances, decoders, strict=True)]
    windows = [{"commit_rounds": size, "buffer_rounds": size} for size in sizes]
    patches: list[dict[str, Any]] = [
        {"id": entry.decoder_id, "plan": {"cudaq_decoder": entry.decoder_id}} for entry in entries
    ]
    # Only what differs stands with the patch, where --set does not reach.
    for patch, distance, window in zip(patches, distances, windows, strict=True):
        patch["plan"] |= {"distance": distance} if distance != distances[0] else {}
        patch["window"] = window if window != windows[0] else {}
    return {
        "plan": {"cudaq": path.name, "distance": distances[0]},
        "window": windows[0],
        **_doors(file.transport.port, file.transport.slot_bytes),
        "control": {"endpoint": _CONTROL},
        "patch": patches,
    }


def _doors(port: int, slot_bytes: int) -> dict[str, Any]:
    """Where measurements come from and corrections are asked for."""
    return {
        "feed": {"round_period_us": ROUND_PERIOD_US},
        "listen": {"cudaq": {"port": port, "slot_bytes": slot_bytes}},
    }
