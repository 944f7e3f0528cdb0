"""Every decoder of a comparison gets the same shots, answers what its method promises, and is left out where its
library is missing."""

from __future__ import annotations

import gc
import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pymatching
import pytest
import stim

from bench.cases import Case, cases_of
from bench.peers import registry
from bench.peers.contest import Contest, Kind
from bench.peers.graph import BOUNDARY, edges_of, task_edges
from bench.peers.null import Null
from bench.peers.own_path import OwnPath, messages_of
from bench.peers.peer import CannotDecodeError, Decoded, Shots, Task, Watch
from bench.peers.registry import PEERS, chosen, peer_class
from bench.peers.sliding_python import SlidingPython
from bench.peers.workloads import Workload, finite_workload, pieces_of, stream_workload, stretched
from rtqec.errors import ConfigError
from rtqec.plan.rounds import round_map
from rtqec.reference import WholeShotMatcher
from rtqec.windowed import WindowedDecoder
from tests.harness import Speaker

CONFIG = Path(__file__).parents[2] / "configs" / "d5_memory_z.toml"
SEED = 11
SHOTS = 300
STREAM_ROUNDS = 104
SMALL = [
    "plan.distance=3", "plan.rounds=12", "plan.noise=0.003", "window.commit_rounds=3", "window.buffer_rounds=3",
    "window.erasures=false", "ladder.fallbacks=[]",
]  # fmt: skip
AGREEMENT_MIN = {"pymatching_correlated": 0.9, "ldpc_union_find": 0.9, "ldpc_bplsd": 0.9, "null": 0.0}
"""What is not matching need not agree with it; the rest may differ in ties, and where a window ends."""
MATCHING_AGREEMENT_MIN = 0.98


@cache
def small_case() -> Case:
    return cases_of(CONFIG, SMALL, [])[0]


@cache
def shots_workload() -> Workload:
    return finite_workload(small_case(), SHOTS, SEED)


@cache
def stream() -> Workload:
    return stream_workload(small_case(), STREAM_ROUNDS, SEED)


def whole_shot(workload: Workload) -> np.ndarray:
    matcher = WholeShotMatcher(workload.task.experiment.own_dem, correlated=False)
    return matcher(np.packbits(workload.shots.detection_events, axis=1, bitorder="little"))


def imported(name: str) -> type:
    """The class of a decoder whose library is installed; else the test is skipped."""
    module = PEERS[name].partition(":")[0]
    pytest.importorskip(f"bench.peers.{module}", exc_type=ImportError)
    return peer_class(name)


def decoded(name: str, workload: Workload) -> tuple[Decoded, Shots]:
    peer_type = imported(name)
    shots = workload.shots.some(0, peer_type.shots_max or len(workload.shots))
    peer = peer_type(workload.task)
    try:
        return peer.decode(shots), shots
    finally:
        peer.close()


@pytest.mark.parametrize("name", PEERS)
def test_every_decoder_agrees_with_matching_as_its_method_promises(name: str) -> None:
    """On finite shots of distance 3 a decoder differs from whole-shot matching only as its method allows."""
    found, shots = decoded(name, shots_workload())
    expected = whole_shot(shots_workload())[: len(shots)]
    assert found.observable_flips.shape == expected.shape
    assert found.observable_flips.dtype == np.bool_
    agreement = (found.observable_flips == expected).all(axis=1).mean()
    assert agreement >= AGREEMENT_MIN.get(name, MATCHING_AGREEMENT_MIN)
    assert found.cpu_ns > 0
    assert found.wall_ns > 0
    assert len(found.reaction_ns) == (0 if peer_class(name).takes == "batch" else len(shots))


def test_null_answers_zeros() -> None:
    """The null decoder flips nothing, and says so after every round was handed over."""
    found, shots = decoded("null", shots_workload())
    assert not found.observable_flips.any()
    assert len(found.reaction_ns) == len(shots)


def test_own_path_is_the_windowed_decoder() -> None:
    """What the compared path publishes is, shot by shot, what the slow windows of the same plan say."""
    workload = shots_workload()
    layers = workload.task.rounds.layers_b8(workload.shots.detection_events)
    expected = WindowedDecoder(workload.task.plan)(layers)
    peer = OwnPath(workload.task)
    for _ in range(2):  # Messages of a second run go on from those of the first.
        assert (peer.decode(workload.shots).observable_flips == expected).all()
    peer.close()


def test_plain_windows_fail_as_often_as_ours() -> None:
    """The plain Python windows and rtqec's differ on next to no shot: both cut the same windows."""
    workload = shots_workload()
    layers = workload.task.rounds.layers_b8(workload.shots.detection_events)
    ours = WindowedDecoder(workload.task.plan)(layers)
    theirs = SlidingPython(workload.task).decode(workload.shots).observable_flips
    assert (ours != theirs).any(axis=1).sum() <= 1
    truth = workload.shots.observable_flips
    assert abs(int((ours != truth).sum()) - int((theirs != truth).sum())) <= 1


@pytest.mark.parametrize("name", [name for name in PEERS if name != "null"])
def test_streams_are_decoded_like_whole_shots(name: str) -> None:
    """A stream, or pieces of it where a decoder cannot hold more, is decoded as matching decodes it as a whole."""
    if not imported(name).answers:
        pytest.skip("answers at the end of a shot only")
    workload = pieces_of(stream(), small_case(), 40, SEED) if name.startswith("cudaq") else stream()
    found, shots = decoded(name, workload)
    piece = workload if workload.task.whole else pieces_of(workload, small_case(), STREAM_ROUNDS, SEED)
    same = piece.task
    matcher = WholeShotMatcher(same.experiment.own_dem, correlated=False)
    expected = matcher(np.packbits(shots.detection_events, axis=1, bitorder="little"))
    assert same.num_rounds == workload.task.num_rounds
    assert (found.observable_flips == expected).all()


def test_a_stream_is_its_circuit_made_longer() -> None:
    """Rounds of a long stream, told from a short piece, are those of a circuit of that length."""
    task = stream().task
    long = pieces_of(stream(), small_case(), STREAM_ROUNDS, SEED).task
    assert not task.whole
    assert task.num_rounds == long.num_rounds == STREAM_ROUNDS
    assert task.detector_starts.tolist() == long.detector_starts.tolist()
    assert task.block_starts.tolist() == long.block_starts.tolist()
    assert stream().shots.detection_events.shape == (1, long.detector_starts[-1])


def test_pieces_have_the_rounds_of_the_stream() -> None:
    """Pieces of a stream are at most as long as asked, end as it does within a window, and have all of its rounds."""
    pieces = pieces_of(stream(), small_case(), 40, SEED)
    assert pieces.task.num_rounds <= 40
    assert (pieces.task.num_rounds - STREAM_ROUNDS) % 3 == 0
    assert len(pieces.shots) * pieces.task.num_rounds >= STREAM_ROUNDS


def test_one_repeat_block_is_turned_more_often() -> None:
    """A circuit is made longer by its only REPEAT block, and refused where there is none."""
    circuit = stim.Circuit("R 0\nREPEAT 3 {\n M 0\n}\nM 0")
    assert stretched(circuit, 4).num_measurements == 8
    with pytest.raises(ConfigError, match="has 0 REPEAT blocks"):
        stretched(stim.Circuit("M 0"), 1)


def test_workloads_refuse_what_they_cannot_be() -> None:
    """An endless plan has no finite shots, and a stream shorter than its windows is none."""
    endless = cases_of(CONFIG, [*SMALL, "plan.rounds=endless"], [])[0]
    with pytest.raises(ConfigError, match="--workload is shots"):
        finite_workload(endless, 10, SEED)
    with pytest.raises(ConfigError, match="--rounds is 20"):
        stream_workload(small_case(), 20, SEED)


def test_messages_are_those_of_the_wire() -> None:
    """The messages that are handed over are byte for byte those that tests build from the wire's declaration."""
    workload = shots_workload()
    task, shot = workload.task, workload.shots.some(0, 1)
    starts = task.block_starts.tolist()
    blocks = [shot.measurements[0, a:b] for a, b in itertools.pairwise(starts)]
    expected = Speaker(task.plan).shot(blocks)
    tape, sizes = messages_of(task, shot, 0, 0)
    assert [row.tobytes()[:size] for row, size in zip(tape, sizes.tolist(), strict=True)] == expected


def test_equal_edges_are_merged_and_ordered_by_time() -> None:
    """Parts between `^` become edges, equal ones merged as independent errors, the earlier detector first."""
    dem = stim.DetectorErrorModel("""
        error(0.1) D0 D2 ^ D1 L0
        error(0.2) D1 L0
        error(0) D0 D1
        detector(0) D0
        detector(0) D1
        detector(0) D2
    """)
    edges = edges_of(dem, np.array([1, 0, 0]), by_time=True)  # In order of time D1, D2, D0 are 0, 1, 2.
    assert edges.detectors.tolist() == [[0, BOUNDARY], [1, 2]]
    assert edges.observables.tolist() == [[True], [False]]
    assert edges.probabilities == pytest.approx([0.1 * 0.8 + 0.2 * 0.9, 0.1])
    assert edges.check_matrix().toarray().tolist() == [[1, 0], [0, 1], [0, 1]]
    with pytest.raises(CannotDecodeError, match="more than two"):
        edges_of(stim.DetectorErrorModel("error(0.1) D0 D1 D2"), np.zeros(3, np.int64), by_time=False)


def test_edges_say_what_the_model_says() -> None:
    """Matching on the edges of an error model decodes like matching on the model."""
    workload = shots_workload()
    edges = task_edges(workload.task, by_time=False)
    dem = stim.DetectorErrorModel(edges.as_dem())
    found = pymatching.Matching.from_detector_error_model(dem).decode_batch(workload.shots.detection_events)
    assert (found == whole_shot(workload)).mean() >= MATCHING_AGREEMENT_MIN


def test_names_of_decoders_are_checked() -> None:
    """All decoders are chosen by default, in one order whatever was asked, and an unknown name is refused with them."""
    assert chosen(None) == list(PEERS)
    assert chosen("rtqec,null") == ["null", "rtqec"]
    with pytest.raises(ConfigError, match=r"'nil'.*pymatching"):
        chosen("nil")
    assert all(imported(name).name == name for name in ("null", "rtqec", "sliding_python", "pymatching"))


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder whose library is not installed gives a row that says so, and is not tried again."""
    monkeypatch.setitem(registry.PEERS, "ghost", "ghost:Ghost")
    contest = Contest(small_case(), Kind.SHOTS, shots_workload(), SEED)
    result = contest.measure("ghost")
    assert (result["decoder"], result["available"]) == ("ghost", False)
    assert "not installed" in result["why"]
    assert "ghost" in contest.refused


def test_whole_shots_take_no_stream() -> None:
    """A decoder that answers at the end of a shot only is left out of a stream, with the reason."""
    contest = Contest(small_case(), Kind.STREAM, stream(), SEED)
    result = contest.measure("pymatching")
    assert not result["available"]
    assert result["num_rounds"] == STREAM_ROUNDS
    assert "at its end only" in result["why"]


def test_a_decoder_that_cannot_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a decoder refuses is a row with its reason, not an error."""

    def refuse(_: Null, task: Task) -> None:
        raise CannotDecodeError(f"not {task.num_rounds} rounds")

    monkeypatch.setattr(Null, "__init__", refuse)
    result = Contest(small_case(), Kind.SHOTS, shots_workload(), SEED).measure("null")
    assert (result["available"], result["why"]) == (False, "not 13 rounds")


def test_clocks_run_without_garbage_collection() -> None:
    """Within a watch nothing is collected, afterwards as before, and its times add up."""
    watch = Watch()
    assert gc.isenabled()
    with watch:
        assert not gc.isenabled()
    once = watch.wall_ns
    with watch:
        pass
    assert gc.isenabled()
    assert watch.wall_ns > once > 0


def test_rounds_are_found_in_a_piece_as_in_the_whole() -> None:
    """The piece that stands for a stream has the rounds that its own circuit says."""
    task = stream().task
    found = round_map(task.plan.table, task.experiment.circuit, task.experiment.dem)
    assert found.num_rounds == task.rounds.num_rounds < STREAM_ROUNDS
