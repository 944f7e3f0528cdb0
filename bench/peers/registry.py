"""Which decoders there are, and where. A module is imported when its decoder is wanted."""

from __future__ import annotations

import importlib
from typing import cast

from bench.peers.peer import Peer
from rtqec.errors import ConfigError

PEERS = {
    "null": "null:Null",
    "rtqec": "own_path:OwnPath",
    "sliding_script": "sliding_script:SlidingScript",
    "sliding_python": "sliding_python:SlidingPython",
    "pymatching": "whole_shot:Plain",
    "pymatching_batch": "whole_shot:Batch",
    "pymatching_correlated": "whole_shot:Correlated",
    "cudaq_realtime": "cudaq_realtime:RealtimeMatching",
    "cudaq_realtime_fusion": "cudaq_realtime:RealtimeFusion",
    "cudaq_realtime_sliding": "cudaq_realtime:RealtimeSliding",
    "cudaq_pymatching": "cudaq_decoders:CudaqMatching",
    "cudaq_nv_fusion": "cudaq_decoders:CudaqFusion",
    "cudaq_sliding_window": "cudaq_decoders:CudaqSliding",
    "fusion_blossom": "fusion_blossom:FusionBlossom",
    "ldpc_union_find": "ldpc:UnionFind",
    "ldpc_bplsd": "ldpc:LocalisedStatistics",
    "deltakit_decode": "deltakit_decode:Deltakit",
}
"""Module and class of each, in `bench.peers`."""
OURS = "rtqec"


def chosen(names: str | None) -> list[str]:
    """The decoders asked for, in their order here.

    Args:
        names: Separated by commas, or None for all.

    Raises:
        ConfigError: There is no such decoder.
    """
    asked = list(PEERS) if names is None else names.split(",")
    for name in asked:
        if name not in PEERS:
            raise ConfigError(
                "--peers", f"names {name!r}, but the decoders are {', '.join(PEERS)}.",
                "Each has an adapter of its own.", "Name some of them, or leave --peers out for all.",
            )  # fmt: skip
    return [name for name in PEERS if name in asked]


def peer_class(name: str) -> type[Peer]:
    """The class of a decoder.

    Raises:
        ImportError: Its library is not installed.
    """
    module, _, attribute = PEERS[name].partition(":")
    return cast(type[Peer], getattr(importlib.import_module(f"bench.peers.{module}"), attribute))
