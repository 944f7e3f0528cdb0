"""The networks that come with the package: whole, licensed, and worth their place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rtqec import predecoder
from rtqec.config import load_config
from rtqec.device.engine import EngineError
from rtqec.log import get_logger
from rtqec.neural.card import read_card
from rtqec.predecoder import SHIPPED, find_model, network_file

CONFIGS = Path(__file__).parents[2] / "configs"
CARDS = sorted(SHIPPED.glob("*.json"))


def test_there_is_one() -> None:
    """At least one network comes with the package."""
    assert CARDS


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_files_are_those_of_the_card(path: Path) -> None:
    """Weights and ONNX files have the digests that were measured; nothing else lies beside them."""
    card = read_card(path)
    assert card.licence == "Apache-2.0"
    names = [card.weights.name, *(record.name for record in card.onnx)]
    for name in names:
        card.check_file(path.with_name(name))
    assert {p.name for p in SHIPPED.glob(f"{path.stem}.*")} == {*names, path.name, f"{path.stem}.md"}
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) < 8_000_000


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_no_operating_point_loses(path: Path) -> None:
    """At no operating point of a card is either hand-over worse than plain matching; the hard one before correlated
    matching is not asked: it may be worse than correlated matching alone.
    """
    points = read_card(path).points
    for point in points:
        assert point.soft is not None
        for ratio in (point.hand_over("plain").against_plain, point.soft.against_plain):
            assert ratio is None or ratio.claim != "worse", (point.distance, point.noise, ratio)
    assert any((found := p.hand_over("plain").against_plain) and found.claim == "better" for p in points)


@pytest.mark.parametrize("name", ["d5_predecoder_cpu.toml", "d13_predecoder_gpu.toml"])
def test_configurations_find_their_network(name: str) -> None:
    """The configurations with a predecoder name a network that is there, and whose file fits their engine."""
    config = load_config(CONFIGS / name)
    table = config.predecode
    assert table.model is not None
    folder, card = find_model(config, table.model)
    found = network_file(folder, card, table.engine, table.precision)
    assert found.name.endswith(".fp16.onnx") == (table.engine == "tensorrt")


@pytest.mark.parametrize("refused", [{"tensorrt"}, {"tensorrt", "openvino"}])
def test_auto_tries_the_next_engine(refused: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that does not take the network or the GPU is not the last word; where none does, windows go without."""
    config = load_config(CONFIGS / "d5_predecoder_cpu.toml", ["predecode.engine=auto", "predecode.hand_over=hard"])
    opened: list[Any] = []
    tried = []

    def make_chunks(kind: str, *_: object) -> Any:
        tried.append(kind)
        if kind in refused:
            raise EngineError(f"{kind} does not run here")
        return SimpleNamespace(name=kind, warm=lambda: None)

    monkeypatch.setattr(predecoder, "possible_kinds", lambda _: ["tensorrt", "openvino"])
    monkeypatch.setattr(predecoder, "make_chunks", make_chunks)
    stage: Any = SimpleNamespace(shape=SimpleNamespace(layers=1, chunks=1), tables=None, open=opened.append)
    predecoder.open_engine(config, stage, get_logger())
    assert tried == ["tensorrt", "openvino"]
    assert [device.name for device in opened] == sorted({"openvino"} - refused)
