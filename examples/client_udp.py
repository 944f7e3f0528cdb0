"""A controller that speaks CUDA-Q Realtime over UDP: plays a syndrome file of CUDA-Q to a decoding server.

The server may be rtqec's listener or NVIDIA's own:  python examples/client_udp.py 127.0.0.1 50000 syndromes.txt
(`firmware-sim replay-cudaq` does the same.)
"""

from __future__ import annotations

import sys
from pathlib import Path

from rtqec.client import CudaqClient
from rtqec.cudaq.syndromes import read_syndromes


def main(host: str, port: str, path: str) -> None:
    """Send each round as it is measured, then ask for the corrections of the shot."""
    syndromes = read_syndromes(Path(path))
    with CudaqClient((host, int(port)), num_observables=syndromes.num_observables) as client:
        client.reset()
        for shot in range(len(syndromes.measurements)):
            for bits in syndromes.slices(shot):
                client.enqueue(bits)
            print(shot, client.get_corrections().astype(int).tolist())


if __name__ == "__main__":
    main(*sys.argv[1:])
