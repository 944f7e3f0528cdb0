"""The soft hand-over in the path: the weights of whole shots, and plain matching where the network is silent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtqec.wire import Rung
from tests.harness import BenchMaker, Piece, Speaker, check_cover, make_plan
from tests.predecoders import SlowSoft, integer_network, predecoder

pytest.importorskip("fusion_blossom")
PLANS = {
    "d3": ({}, 2),
    "d3 commit one": ({"window__commit_rounds": 1, "window__buffer_rounds": 3}, 3),
    "d3 one window": ({"window__commit_rounds": 30, "window__buffer_rounds": 3}, 2),
    "d3 memory x": ({"plan__generated": "surface_code:rotated_memory_x"}, 2),
    "d3 both kinds": ({"plan__drop_unobservable": False}, 2),
    "d3 endless": ({"plan__rounds": "endless"}, 2),
    "d5": ({"plan__distance": 5, "plan__rounds": 17, "window__commit_rounds": 3, "window__buffer_rounds": 5}, 4),
}  # fmt: skip


def carry(bench: Any, plan: Any, shots: int) -> list[tuple[Any, Any]]:
    """Carry shots; of each its layers and corrections."""
    piece, speaker = Piece.of(plan, 14 if plan.endless else None), Speaker(plan)
    measurements = piece.sample(shots, seed=3)
    layers = piece.layers_b8(measurements)
    carried = []
    for shot_id, shot in enumerate(measurements):
        for message in speaker.shot(piece.blocks(shot), shot_id):
            bench.ingest(message)
            if shot_id % 2:
                while bench.pipeline.step():
                    pass
        corrections = bench.carry()
        check_cover(corrections)
        carried.append((layers[shot_id], corrections))
    return carried


@pytest.mark.parametrize("name", PLANS)
def test_streaming_equals_whole_shots(make_bench: BenchMaker, name: str) -> None:
    """With a network of whole numbers every correction is, bit for bit, that of answers over the whole volume."""
    tables, halo = PLANS[name]
    plan = make_plan(plan__noise=0.02, **tables)
    script = integer_network(11, halo, 9, 0.2, (-4.0, 1.0))
    bench = make_bench(plan, predecoder=predecoder(plan, script, halo, 9, soft=True), hand_over="soft")
    carried = carry(bench, plan, 12)
    slow = SlowSoft(plan, script, halo)
    for layers, corrections in carried:
        assert set(corrections["rung"]) == {Rung.SOFT_MATCH}
        assert list(slow.flips(layers, corrections)) == corrections["flips"].tolist()
    counts = bench.path_counts()
    assert counts["rounds_predecoded"] == counts["rounds_committed"]
    assert not {name for name in counts if name.startswith("bypassed")}


@pytest.mark.parametrize("trouble", ["late", "nan", "raises", "all of them"])
def test_a_silent_network_leaves_plain_matching(make_bench: BenchMaker, trouble: str) -> None:
    """Engines that are late, answer no number or fail, at random: those windows are matched plainly and say so, all
    others with the network's weights.
    """
    plan, halo = make_plan(plan__noise=0.02), 2
    honest = integer_network(21, halo, 9, 0.2, (-4.0, 1.0))
    rng = np.random.default_rng(99)

    def broken(volume: Any, inside: Any) -> Any:
        logits = honest(volume, inside)
        dice = rng.random()
        if trouble in ("raises", "all of them") and dice < 0.2:
            raise RuntimeError("an engine that fails")
        if trouble in ("nan", "all of them") and dice > 0.8:
            logits[..., 1, 1] = np.nan
        return logits

    late = (lambda: bool(rng.random() < 0.3)) if trouble in ("late", "all of them") else None
    bench = make_bench(plan, predecoder=predecoder(plan, broken, halo, 9, late=late, soft=True), hand_over="soft")
    carried = carry(bench, plan, 25)
    slow, rungs = SlowSoft(plan, honest, halo), []
    for layers, corrections in carried:
        rungs += corrections["rung"].tolist()
        assert list(slow.flips(layers, corrections)) == corrections["flips"].tolist()
    assert {Rung.MATCH, Rung.SOFT_MATCH} == set(rungs)
    bypassed = {name: n for name, n in bench.path_counts().items() if name.startswith("bypassed")}
    assert sum(bypassed.values()) == rungs.count(Rung.MATCH)
