"""A predecoder in the path: the same answers as over whole shots, and the same decoding problem whatever it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rtqec.device.engine import ChunkShape, Script
from rtqec.neural.restate import Restatement
from rtqec.plan import Plan
from rtqec.plan.schedule import windows_of_shot
from rtqec.predecode import Predecode, patch_filter
from rtqec.windowed import WindowedDecoder
from rtqec.wire import Reason, Rung
from tests.harness import BenchMaker, Piece, Speaker, check_cover, check_decoded, expected_flips, make_plan
from tests.predecoders import SlowPredecode, effects_of, integer_network, predecoder

PLANS = {
    "d3": ({}, 2, 2),
    "d3 commit one": ({"window__commit_rounds": 1, "window__buffer_rounds": 3}, 3, 2),
    "d3 halo one": ({"window__commit_rounds": 4, "window__buffer_rounds": 3}, 1, 2),
    "d3 one window": ({"window__commit_rounds": 30, "window__buffer_rounds": 3}, 2, 2),
    "d3 memory x": ({"plan__generated": "surface_code:rotated_memory_x"}, 2, 2),
    "d3 both kinds": ({"plan__drop_unobservable": False}, 2, 4),
    "d3 memory x, both kinds": (
        {"plan__generated": "surface_code:rotated_memory_x", "plan__drop_unobservable": False}, 2, 4,
    ),
    "d5": ({"plan__distance": 5, "plan__rounds": 17, "window__commit_rounds": 3, "window__buffer_rounds": 5}, 4, 2),
}  # fmt: skip


def run_shots(
    make_bench: BenchMaker, plan: Plan, script: Script, halo: int, outputs: int, *, shots: int = 12, seed: int = 3,
    late: Callable[[], bool] | None = None,
) -> tuple[Any, list[tuple[Any, Any]]]:  # fmt: skip
    """Carry shots; the bench, and of each shot its layers and corrections."""
    piece = Piece.of(plan, 14 if plan.endless else None)
    bench = make_bench(plan, predecoder=predecoder(plan, script, halo, outputs, late=late))
    speaker = Speaker(plan)
    carried = []
    measurements = piece.sample(shots, seed=seed)
    layers = piece.layers_b8(measurements)
    for shot_id, shot in enumerate(measurements):
        for message in speaker.shot(piece.blocks(shot), shot_id):
            bench.ingest(message)
            if shot_id % 2:
                while bench.pipeline.step():
                    pass
        corrections = bench.carry()
        check_cover(corrections)
        carried.append((layers[shot_id], corrections))
    return bench, carried


@pytest.mark.parametrize("name", PLANS)
def test_streaming_equals_whole_shots(make_bench: BenchMaker, name: str) -> None:
    """With a network of whole numbers every correction is, bit for bit, that of answers over the whole volume."""
    tables, halo, outputs = PLANS[name]
    plan = make_plan(plan__noise=0.02, **tables)
    script = integer_network(11, halo, outputs)
    bench, carried = run_shots(make_bench, plan, script, halo, outputs)
    slow = SlowPredecode(plan, script, halo, outputs)
    for layers, corrections in carried:
        assert set(corrections["rung"]) == {Rung.PREDECODED_MATCH}
        assert list(slow.flips(layers, corrections)) == corrections["flips"].tolist()
        assert int(corrections[-1]["frame"]) == int(np.bitwise_xor.reduce(corrections["flips"]))
    counts = bench.path_counts()
    assert counts["rounds_predecoded"] == counts["rounds_committed"]
    assert counts["predecodings_checked"] == counts["windows"]
    assert not {name for name in counts if name.startswith("bypassed")} | {"predecodings_wrong"} & set(counts)


def test_an_endless_stream_is_predecoded_as_a_whole(make_bench: BenchMaker) -> None:
    """The same of an endless plan, whose windows go on past every chunk."""
    plan = make_plan(plan__noise=0.02, plan__rounds="endless")
    script = integer_network(5, 3, 2)
    bench, carried = run_shots(make_bench, plan, script, 3, 2)
    slow = SlowPredecode(plan, script, 3)
    for layers, corrections in carried:
        assert list(slow.flips(layers, corrections)) == corrections["flips"].tolist()
    assert bench.path_counts()["predecodings_checked"] > len(carried)


@pytest.mark.parametrize("trouble", ["late", "nan", "raises", "all of them"])
@pytest.mark.parametrize("yes", [0.1, 0.5, 1.0])
def test_bypass_at_any_chunk_keeps_the_problem(make_bench: BenchMaker, trouble: str, yes: float) -> None:
    """Engines that are late, answer no number or fail, at random, with answers from few to all yes: each window is
    what the twin makes of the chunks that were taken, and says whether its own was.
    """
    halo = 2
    plan = make_plan(plan__noise=0.02)
    honest = integer_network(21, halo, 2, yes)
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
    bench, carried = run_shots(make_bench, plan, broken, halo, 2, shots=25, late=late)
    slow = SlowPredecode(plan, honest, halo)
    rungs = []
    for layers, corrections in carried:
        rungs += corrections["rung"].tolist()
        assert list(slow.flips(layers, corrections)) == corrections["flips"].tolist()
        bypassed = corrections["rung"] == Rung.MATCH
        assert (corrections["reason"][bypassed] == Reason.ENGINE).all()
    assert {Rung.MATCH, Rung.PREDECODED_MATCH} == set(rungs)
    causes = {"late": {"late"}, "nan": {"nan"}, "raises": {"failed"}, "all of them": {"late", "nan", "failed"}}[trouble]
    bypassed = {name: n for name, n in bench.path_counts().items() if name.startswith("bypassed")}
    assert set(bypassed) == {f"bypassed_{cause}" for cause in causes}
    assert sum(bypassed.values()) == rungs.count(Rung.MATCH)
    assert "unexplained" not in bench.path_counts()


@pytest.mark.parametrize("yes", [0.05, 0.3, 1.0])
def test_what_is_left_can_always_be_paired(plan_d3: Plan, yes: float) -> None:
    """The residual of any answers is a syndrome of the same code: its windows' edges explain every event of it, and
    taking the answers back gives the events.
    """
    effects = effects_of(plan_d3, 13)
    rng = np.random.default_rng(1)
    restate = Restatement(effects, (0,))
    n = effects.layout.code.distance
    events = np.zeros((20, 2, 13, n, n), np.uint8)
    answers = rng.random((20, 2, 13, n, n)) < yes
    residual, flips = restate(events, answers)
    again, same = restate(residual, answers)
    assert not again.any()
    assert np.array_equal(flips, same)
    rounds, cells = plan_d3.rounds, n * n
    detectors = np.zeros((20, len(rounds.detector_round)), np.bool_)
    for detector, (t, slot) in enumerate(zip(rounds.detector_round, rounds.detector_slot, strict=True)):
        place = effects.layout.places(int(t), 13)[int(slot)]
        detectors[:, detector] = residual.reshape(20, 2, 13, cells)[:, place // cells, t, place % cells]
    assert WindowedDecoder(plan_d3).unexplained(rounds.layers_b8(detectors)) == 0
    assert len(windows_of_shot(13, plan_d3.window)) > 1


def test_without_an_engine_every_window_goes_on_and_says_so(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """A predecoder that is missing changes no correction but its rung and reason."""
    one = patch_filter(effects_of(plan_d3, 13), 2, 0.0, 0.0)
    piece = Piece.of(plan_d3)
    measurements = piece.sample(10, seed=5)
    shape = ChunkShape(1, plan_d3.window.rounds + 2, 3, 2)
    bench = make_bench(plan_d3, predecoder=lambda *of_lane: Predecode(*of_lane, [one], shape, 0))
    speaker, expected = Speaker(plan_d3), expected_flips(plan_d3, measurements)
    for shot_id, shot in enumerate(measurements):
        bench.ingest(*speaker.shot(piece.blocks(shot), shot_id))
        corrections = bench.carry()
        check_decoded(corrections, shot_id, expected[shot_id])
        assert set(corrections["reason"]) == {Reason.ENGINE}
        assert set(corrections["rung"]) == {Rung.MATCH}
