"""A model card says what was measured, and the daemon takes nothing else for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rtqec.errors import ConfigError
from rtqec.neural.card import FileRecord, ModelCard, file_digest, read_card, write_card
from rtqec.neural.network import residual_network


def point(distance: int, noise: float | None, thresholds: tuple[float, float], density: float = 0.05) -> dict[str, Any]:
    ratio = {"ratio": 0.8, "low": 0.75, "high": 0.86, "fixed": 300, "broken": 200, "claim": "better"}
    hard = [
        {
            "matching": matching, "threshold": threshold, "validation": {"0.0": 9, "1.0": 5}, "failures": 400,
            "against_plain": ratio, "against_correlated": None, "events_left": 0.1,
        }
        for matching, threshold in zip(("plain", "correlated"), thresholds, strict=True)
    ]  # fmt: skip
    return {
        "source": "surface_code:rotated_memory_z", "distance": distance, "rounds": distance, "noise": noise,
        "event_density": density, "shots": 1000, "validation_shots": 100, "plain_failures": 500,
        "correlated_failures": 350, "correlated_against_plain": ratio, "hard": hard,
    }  # fmt: skip


def a_card() -> dict[str, Any]:
    spec = residual_network(8, (3, 1, 3))
    return {
        "format": "rtqec.model-card/1", "name": "m", "created": "2026-11-21", "licence": "Apache-2.0",
        "origin": "a test", "frame": "own",
        "network": json.loads(json.dumps(vars(spec))),
        "weights": {"name": "m.safetensors", "sha256": "0" * 64}, "onnx": [{"name": "m.onnx", "sha256": "1" * 64}],
        "training": {
            "data": "shots",
            "volumes": [
                {"source": "s", "distance": 5, "rounds": 5, "noise": 0.006, "event_density": 0.1, "weight": 1.0}
            ],
            "shots": 10, "steps": 1, "seconds": 1.5, "seed": 1, "optimiser": "AdamW", "learning_rate": 0.003,
            "batch_cells": 100, "precision": "bf16", "start": None, "hardware": {"cpu": "a", "cores": 2, "gpu": None},
            "versions": {"torch": "2"},
        },
        "points": [
            point(5, 0.006, (1.0, 1.5)), point(7, 0.003, (2.0, 2.5)), point(7, 0.006, (3.0, 3.5), density=0.1),
        ],
    }  # fmt: skip


def load(tables: dict[str, Any], folder: Path) -> ModelCard:
    path = folder / "m.json"
    path.write_text(json.dumps(tables))
    return read_card(path)


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """What is written is read back equal, the network's shape included."""
    card = load(a_card(), tmp_path)
    write_card(card, tmp_path / "again.json")
    assert read_card(tmp_path / "again.json") == card
    assert card.network.spec == residual_network(8, (3, 1, 3))


@pytest.mark.parametrize(
    ("distance", "noise", "density", "matching", "threshold"),
    [
        (5, 0.006, None, "plain", 1.0),
        (5, 0.0001, None, "correlated", 1.5),
        (7, 0.001, None, "plain", 2.0),
        (7, 0.0043, None, "plain", 3.0),
        (13, 0.006, None, "plain", 3.0),
        (3, 0.006, None, "plain", 1.0),
        (6, 0.006, None, "plain", 3.0),
        (7, None, 0.09, "plain", 3.0),
        (7, None, 0.06, "plain", 2.0),
    ],
)
def test_the_nearest_point_is_gone_by(
    tmp_path: Path, distance: int, noise: float | None, density: float | None, matching: Any, threshold: float
) -> None:
    """Distance decides first, then noise by its logarithm, or events where there is none; of equals the larger code."""
    assert load(a_card(), tmp_path).threshold(distance, noise, density, matching) == threshold


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("frame", "rotated", ("frame = 'rotated'", "'own' or 'published'")),
        ("format", "rtqec.model-card/2", ("rtqec.model-card/2",)),
        ("points", [], ("points",)),
        ("weights", {"name": "../m", "sha256": "0" * 64}, ("weights.name",)),
        ("colour", "red", ("colour",)),
    ],
)
def test_a_card_that_is_none_is_refused(tmp_path: Path, key: str, value: object, words: tuple[str, ...]) -> None:
    """An unknown frame, format or key is refused, in words that name key, value, bound, reason and remedy."""
    with pytest.raises(ConfigError) as refused:
        load(a_card() | {key: value}, tmp_path)
    for word in (*words, "m.json", "would be guesses", "rtqec train"):
        assert word in str(refused.value)


def test_other_files_than_the_measured_ones_are_refused(tmp_path: Path) -> None:
    """A file passes only with the digest of the card; a changed, missing or unnamed one is refused."""
    weights = tmp_path / "m.safetensors"
    weights.write_bytes(b"weights")
    tables = a_card()
    tables["weights"]["sha256"] = file_digest(weights)
    card = load(tables, tmp_path)
    assert card.weights == FileRecord(name="m.safetensors", sha256=file_digest(weights))
    card.check_file(weights)
    weights.write_bytes(b"other")
    with pytest.raises(ConfigError, match="sha256"):
        card.check_file(weights)
    with pytest.raises(ConfigError, match="cannot be read"):
        card.check_file(tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="not among the files"):
        card.check_file(tmp_path / "m.pt")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_card(tmp_path / "absent.json")


def test_reading_a_card_needs_no_framework() -> None:
    """The daemon reads cards without PyTorch, ONNX or a matcher."""
    heavy = "{'torch', 'onnx', 'safetensors', 'pymatching', 'stim'}"
    code = f"import sys, rtqec.neural.card; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
