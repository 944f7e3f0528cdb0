"""The controllers in examples/ run as they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from rtqec.cudaq.syndromes import Syndromes, write_syndromes
from tests.decoding_server import DecodingServer
from tests.integration.conftest import Start

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_controllers_are_answered(runtime_dir: Path, start_daemon: Start) -> None:
    """Both decode a surface code through the daemon of the default configuration, with few logical errors."""
    control = f"ipc://{runtime_dir}/control"
    start_daemon("d5_memory_z.toml", f"control.endpoint={control}", log=runtime_dir / "log")
    for name, shots in (("client.py", 100), ("client_asyncio.py", 20)):
        found = re.search(rf"{shots} shots, (\d+) wrong", printed := run(name, control))
        assert found, printed
        assert int(found[1]) <= shots // 10


def test_the_udp_client_is_answered(tmp_path: Path) -> None:
    """It prints the corrections of each shot of a syndrome file."""
    bits = np.random.default_rng(1).random((3, 12)) < 0.5
    write_syndromes(tmp_path / "syndromes.txt", Syndromes(bits, (4, 8), None, 8, 2))
    server = DecodingServer(12, lambda shot: shot[:2])
    try:
        printed = run("client_udp.py", *map(str, server.address), str(tmp_path / "syndromes.txt"))
    finally:
        server.close()
    assert printed.splitlines() == [f"{k} {shot[:2].astype(int).tolist()}" for k, shot in enumerate(bits)]
