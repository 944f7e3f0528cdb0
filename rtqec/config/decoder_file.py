"""A decoder file of CUDA-Q as a whole configuration: what it does not say is chosen here, and can be set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DECODER_FILE_SUFFIXES = (".yml", ".yaml")
ROUND_PERIOD_US = 100.0
"""Such a file says nothing of time. The playback of CUDA-Q's FPGA sends a window every 120 us, and a window of its
tests is a few rounds; who has a faster source sets [feed] round_period_us."""
_ENDPOINTS = "ipc://${XDG_RUNTIME_DIR:-/tmp}/rtqec-cudaq"


def tables_of_decoder_file(path: Path) -> dict[str, Any]:
    """The tables of a configuration with one patch for each decoder of a file.

    Windows commit and look ahead by the distance of the code, or by the longest error where that is more.

    Args:
        path: The file.

    Raises:
        ConfigError: It cannot be read, does not follow CUDA-Q's schema, or describes what matching cannot decode.
    """
    # Here, because status and ask read configurations as well, and need no models.
    from rtqec.cudaq.decoder_file import load_decoder_file
    from rtqec.cudaq.decoder_model import make_decoder

    entries = load_decoder_file(path).decoders
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
        **_doors(),
        "control": {"endpoint": f"{_ENDPOINTS}-control.ipc"},
        "patch": patches,
    }


def _doors() -> dict[str, Any]:
    """Where rounds come from and corrections go to."""
    return {
        "feed": {"endpoint": f"{_ENDPOINTS}-rounds.ipc", "round_period_us": ROUND_PERIOD_US},
        "publish": {"endpoint": f"{_ENDPOINTS}-corrections.ipc"},
    }
