"""Decoder files of CUDA-Q become the models that they describe, or are refused with the reason."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pymatching
import pytest
import stim
from hypothesis import given
from hypothesis import strategies as st

from rtqec.config import CudaqTable, load_config
from rtqec.cudaq.decoder_file import Transport, load_decoder_file, parse_decoder_file
from rtqec.cudaq.decoder_model import make_decoder
from rtqec.cudaq.model import Column, model_of_columns
from rtqec.cudaq.rounds import blocks_that_repeat, rounds_from_coordinates
from rtqec.errors import ConfigError, PlanError
from rtqec.plan import compile_plans
from rtqec.windowed import WindowedDecoder
from tests.decoder_files import SMOKE, flat, measurements_of, memory, recorded_folder, shots, table_of, write_file

HERE = Path()


def changed(**keys: Any) -> dict[str, Any]:
    """The smoke file's decoder with some keys replaced, or with `None` removed."""
    return {key: value for key, value in (SMOKE | keys).items() if value is not None}


def refusal(*tables: Any, **top: Any) -> str:
    """What is said of a file."""

    def make() -> None:
        for entry in parse_decoder_file({"decoders": list(tables)} | top, HERE).decoders:
            make_decoder(entry)

    with pytest.raises(ConfigError) as caught:
        make()
    return str(caught.value)


def test_the_smoke_file_is_read() -> None:
    """Three bits, each its own observable; no round is known, so that the shot is one."""
    decoder = make_decoder(parse_decoder_file({"decoders": [SMOKE]}, HERE).entry(0))
    assert str(decoder.dem).startswith("error(0.1000000000000000056) D0 L0\nerror(0.1000000000000000056) D1 L1\n")
    assert decoder.measurements_of == ((0,), (1,), (2,))
    assert (decoder.num_observables, decoder.num_measurements, decoder.rounds) == (3, 3, None)
    assert decoder.in_rounds.rounds == (0, 0, 0)
    assert decoder.in_rounds.block_widths == (3,)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]),
            st.sampled_from([(), (0,)]),
            st.floats(0.001, 0.5),
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(["independent", "smallest_weight", "keep_original", "replace"]),
)
def test_parallel_edges_are_merged_as_pymatching_merges_them(
    errors: list[tuple[tuple[int, ...], tuple[int, ...], float]], strategy: str
) -> None:
    """For each strategy the model has the edges, weights and observables that PyMatching's own graph gets."""
    graph = pymatching.Matching()
    for detectors, observables, p in errors:
        add = graph.add_edge if len(detectors) == 2 else graph.add_boundary_edge
        add(
            *detectors,
            fault_ids=set(observables),
            weight=math.log((1 - p) / p),
            merge_strategy=strategy.replace("_", "-"),
        )
    model = model_of_columns("H", [Column(*error) for error in errors], strategy, 3, 1)
    ours = pymatching.Matching.from_detector_error_model(model)

    def edges(matching: pymatching.Matching) -> list[Any]:
        found = [(u, -1 if v is None else v, how["fault_ids"], how["weight"]) for u, v, how in matching.edges()]
        return sorted(((*sorted(edge[:2]), *edge[2:]) for edge in found), key=lambda edge: edge[:2])

    for one, other in zip(edges(graph), edges(ours), strict=True):
        assert one[:3] == other[:3]
        assert one[3] == pytest.approx(other[3], abs=1e-6)


def test_a_file_without_probabilities_weighs_all_errors_alike() -> None:
    """PyMatching's weight is then 1."""
    arguments: dict[str, Any] = {}
    decoder = make_decoder(parse_decoder_file({"decoders": [changed(decoder_custom_args=arguments)]}, HERE).entry(0))
    edges = pymatching.Matching.from_detector_error_model(decoder.dem).edges()
    assert [how["weight"] for _, _, how in edges] == [pytest.approx(1.0)] * 3


def test_an_error_of_more_detectors_is_decomposed_into_edges_that_are_there() -> None:
    """Its parts are disjoint edges of the file, and flip exactly its observables."""
    columns = [
        Column((0, 1), (0,), 0.1), Column((2, 3), (), 0.1), Column((0, 2), (), 0.1), Column((1, 3), (), 0.1),
        Column((0, 1, 2, 3), (0,), 0.01), Column((0, 1, 2, 3), (), 0.02),
    ]  # fmt: skip
    text = str(model_of_columns("H", columns, "independent", 4, 1))
    assert "error(0.01000000000000000021) D0 D1 L0 ^ D2 D3\n" in text
    assert "error(0.02000000000000000042) D0 D2 ^ D1 D3\n" in text


def model_file(folder: Path, model: stim.DetectorErrorModel, circuit: stim.Circuit) -> dict[str, Any]:
    """A decoder whose errors are in a file of their own."""
    model.to_file(folder / "memory.dem")
    rows = flat(measurements_of(circuit))
    return {"id": 0, "type": "nv-fusion-decoder", "stim_dem_path": "memory.dem", "D_sparse": rows}


def test_a_file_of_its_own_model_is_read(tmp_path: Path) -> None:
    """`stim_dem_path` is relative to the decoder file, and a decomposed model stays as it is."""
    circuit = memory()
    model = circuit.detector_error_model(decompose_errors=True)
    decoder = make_decoder(load_decoder_file(write_file(tmp_path, model_file(tmp_path, model, circuit))).entry(0))
    assert str(decoder.dem) == str(model.flattened())


def test_a_model_that_is_not_decomposed_is_decomposed(tmp_path: Path) -> None:
    """Into edges that are there. Without the circuit that is not the best way: it may cost a third more failures."""
    circuit = memory(noise=0.005)
    table = model_file(tmp_path, circuit.detector_error_model(), circuit)
    decoder = make_decoder(load_decoder_file(write_file(tmp_path, table)).entry(0))
    events, flips = circuit.compile_detector_sampler(seed=1).sample(20_000, separate_observables=True)
    models = (circuit.detector_error_model(decompose_errors=True), decoder.dem)
    stims, ours = (
        (pymatching.Matching.from_detector_error_model(model).decode_batch(events) != flips).sum() for model in models
    )
    assert 0 < ours < 1.35 * stims


def test_probabilities_can_replace_those_of_the_model(tmp_path: Path) -> None:
    """One for each error of the file, and with a strategy for parallel ones, as in matrices."""
    (tmp_path / "memory.dem").write_text("error(0.1) D0 L0\nerror(0.2) D0 D1\nerror(0.3) D0 D1\ndetector(3) D1\n")
    arguments = {"error_rate_vec": [0.4, 0.05, 0.01], "merge_strategy": "smallest_weight"}
    table = {"id": 0, "type": "pymatching", "stim_dem_path": "memory.dem", "D_sparse": [0, -1, 0, 1, -1]}
    path = write_file(tmp_path, table | {"decoder_custom_args": arguments})
    errors = [i for i in make_decoder(load_decoder_file(path).entry(0)).dem if i.type == "error"]
    assert [error.args_copy() for error in errors] == [[0.4], [0.05]]


def test_rounds_are_read_off_the_coordinates_or_off_the_blocks(tmp_path: Path) -> None:
    """Both say what the circuit says; where neither can, there are none."""
    circuit = memory(rounds=5)
    circuit.detector_error_model(decompose_errors=True).to_file(tmp_path / "memory.dem")
    table = table_of(circuit)
    with_model = {"id": 1, "type": "pymatching", "stim_dem_path": "memory.dem", "D_sparse": table["D_sparse"]}
    file = load_decoder_file(write_file(tmp_path, table, with_model))
    times = [int(place[-1]) for _, place in sorted(circuit.get_detector_coordinates().items())]
    for entry in file.decoders:
        decoder = make_decoder(entry)
        assert decoder.rounds == tuple(times)
        assert decoder.block_widths == (8, 8, 8, 8, 8, 9)
    for widths in (8, [8, 8, 8, 8, 8, 9]):
        told = make_decoder(file.entry(0), widths=widths)
        assert (told.rounds, told.block_widths) == (tuple(times), (8, 8, 8, 8, 8, 9))
    assert blocks_that_repeat(((0,), (1,), (0, 1, 2))) is None
    assert rounds_from_coordinates(((0,), (1,)), {0: [5.0], 1: [2.0]}, -1) is None
    assert rounds_from_coordinates(((0,), (1,)), {0: [0.5], 1: [1.0]}, -1) is None


def test_a_decoder_file_is_a_plan(tmp_path: Path) -> None:
    """Measurements are folded by D and decoded in windows, as PyMatching decodes the whole shot."""
    circuits = [memory(3, 12), memory(5, 3)]
    path = write_file(tmp_path, *(table_of(circuit, number) for number, circuit in enumerate(circuits)))
    config = load_config(path)
    assert [patch.id for patch in config.patch] == [0, 1]
    for circuit, plan in zip(circuits, compile_plans(config), strict=True):
        _, events = shots(circuit, 500, seed=5)
        whole = pymatching.Matching.from_detector_error_model(circuit.detector_error_model(decompose_errors=True))
        flips = WindowedDecoder(plan)(plan.rounds.layers_b8(events))
        assert (flips != whole.decode_batch(events)).sum() <= 2


@pytest.mark.recorded
def test_the_recorded_file_is_answered_as_recorded() -> None:
    """NVIDIA's fixture: the 100 shots of its syndrome file, 100 of 100 corrections."""
    from rtqec.cudaq.syndromes import read_syndromes

    folder = recorded_folder()
    decoder = make_decoder(load_decoder_file(folder / "config_pymatching.yml").entry(0))
    syndromes = read_syndromes(folder / "syndromes_pymatching.txt")
    assert decoder.block_widths == syndromes.block_widths == (8, 8, 8, 8, 9)
    events = np.stack([syndromes.measurements[:, list(row)].sum(axis=1) % 2 for row in decoder.measurements_of], axis=1)
    found = pymatching.Matching.from_detector_error_model(decoder.dem).decode_batch(events.astype(np.uint8))
    assert np.array_equal(found, syndromes.corrections)
    make_decoder(load_decoder_file(folder / "decoding_server_config.yaml").entry(0))


def test_what_does_not_follow_the_schema_is_refused() -> None:
    """The message names the key and what the schema says of it, and not a whole matrix."""
    assert "decoders.0" in refusal(changed(H_sparse=None))
    assert "'colour' was unexpected" in refusal(changed(colour="red"))
    assert "decoders.0.block_size" in refusal(changed(block_size="three"))
    assert len(refusal(changed(D_sparse=["x"] * 100_000))) < 1000
    assert "'decoders' is a required property" in _refused_whole({})
    assert "the file" in _refused_whole([1, 2])


def _refused_whole(found: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_decoder_file(found, HERE)
    return str(caught.value)


def test_what_does_not_fit_together_is_refused() -> None:
    """Sizes, indices and ids; each message names value, bound and remedy."""
    assert "must be 0 to 1, each once" in refusal(SMOKE, changed(id=0))
    assert "they must be 0 to 0" in refusal(changed(id=-1))
    assert "has 2 rows; it must have 3" in refusal(changed(D_sparse=[0, -1, 1, -1]))
    assert "has nothing in row 1" in refusal(changed(D_sparse=[0, -1, -1, 2, -1]))
    assert "has nothing in row 0" in refusal(changed(O_sparse=[-1]))
    assert "ends with 2" in refusal(changed(O_sparse=[0, -1, 1, -1, 2]))
    assert "index 7" in refusal(changed(H_sparse=[0, -1, 1, -1, 7, -1]))
    assert "index twice" in refusal(changed(H_sparse=[0, 0, -1, 1, -1, 2, -1]))
    assert "column 3 of 4" in refusal(changed(block_size=4))
    assert "column 3 of 1000000000000" in refusal(changed(block_size=10**12))
    rates = {"error_rate_vec": [0.1, 0.1]}
    assert "2 probabilities for 3 errors" in refusal(changed(decoder_custom_args=rates))
    for rate in (0.0, 0.6, float("nan")):
        assert "at place 2" in refusal(changed(decoder_custom_args={"error_rate_vec": [0.1, 0.1, rate]}))


def test_what_matching_cannot_do_is_refused() -> None:
    """Errors of many detectors, other decoders, other dispatches, other descriptions."""
    hyper = changed(H_sparse=[0, -1, 0, 1, -1, 0, 2, -1], O_sparse=[0, -1])
    assert "column 0 flips 3 detectors" in refusal(hyper)
    parallel = changed(
        block_size=4, H_sparse=[0, 3, -1, 1, -1, 2, -1], decoder_custom_args={"merge_strategy": "disallow"}
    )
    assert "a second error" in refusal(parallel)
    assert "merge_strategy is 'both'" in refusal(changed(decoder_custom_args={"merge_strategy": "both"}))
    assert "single_error_lut" in refusal(changed(type="single_error_lut", decoder_custom_args=None))
    assert "device_graph" in refusal(changed(dispatch="device_graph"))
    assert "stim_dem_path as well" in refusal(changed(stim_dem_path="x.dem"))
    assert "Stim cannot read" in refusal({"id": 0, "type": "pymatching", "stim_dem_path": "x.dem", "D_sparse": [0, -1]})
    chunks = {"seam": {}, "connections": [], "phases": []}
    assert "dem_chunks" in refusal({"id": 0, "type": "pymatching", "dem_chunks": chunks})
    assert "rtqec has udp" in refusal(SMOKE, transport={"provider": "cpu_roce"})
    assert "'--port=x'" in refusal(SMOKE, transport={"args": ["--port=x"]})


def test_the_transport_is_read() -> None:
    """Port, slots and their size; by default as CUDA-Q has them. What is out of bounds is refused."""
    assert parse_decoder_file({"decoders": [SMOKE]}, HERE).transport == Transport(0, 8, 256)
    arguments = ["--port=50000", "--num-slots=4", "--slot-size=512", "--unified"]
    found = parse_decoder_file({"decoders": [SMOKE], "transport": {"provider": "udp", "args": arguments}}, HERE)
    assert found.transport == Transport(50000, 4, 512)
    for argument in ("--port=65536", "--port=-1", "--slot-size=63", "--slot-size=65508", "--num-slots=0", "--host=::"):
        message = refusal(SMOKE, transport={"args": [argument]})
        assert repr(argument) in message
        assert "--port=0..65535, --num-slots=1..1048576, --slot-size=64..65507" in message


def test_a_decoder_file_listens_as_its_server_would(tmp_path: Path) -> None:
    """`transport` becomes `[listen.cudaq]`; without one any port that is free. `--set` changes it as any key."""
    table = SMOKE | {"id": 1}
    path = write_file(tmp_path, SMOKE, table)
    config = load_config(path)
    assert config.listen.cudaq == CudaqTable(port=0, slot_bytes=256)
    assert (config.feed.endpoint, config.publish.endpoint) == ("", "")
    arguments = ["--port=50000", "--slot-size=1500"]
    path = write_file(tmp_path, SMOKE, table, transport={"provider": "udp", "args": arguments})
    cudaq = load_config(path).listen.cudaq
    assert cudaq == CudaqTable(port=50000, slot_bytes=1500)
    assert [cudaq.port_of(patch.id) for patch in config.patch] == [50000, 50001]
    assert load_config(path, ["listen.cudaq.port=7"]).listen.cudaq == CudaqTable(port=7, slot_bytes=1500)
    path = write_file(tmp_path, SMOKE, transport={"provider": "gpu_roce"})
    with pytest.raises(ConfigError, match=r"transport.provider is 'gpu_roce'; rtqec has udp"):
        load_config(path)


def test_windows_of_theirs_become_windows_of_ours() -> None:
    """`sliding_window` with matching inside has the same errors; its own window sizes are not read."""
    arguments = {
        "error_rate_vec": [0.1, 0.2, 0.3], "inner_decoder_name": "pymatching", "window_size": 1,
        "inner_decoder_params": {"merge_strategy": "independent"},
    }  # fmt: skip
    table = changed(type="sliding_window", decoder_custom_args=arguments)
    decoder = make_decoder(parse_decoder_file({"decoders": [table]}, HERE).entry(0))
    assert [instruction.args_copy()[0] for instruction in decoder.dem if instruction.type == "error"] == [0.1, 0.2, 0.3]


def test_rates_beside_the_matrices_are_read() -> None:
    """As version 0.9 writes them; not in both places."""
    table = changed(error_rate_vec=[0.3, 0.1, 0.1], decoder_custom_args={})
    decoder = make_decoder(parse_decoder_file({"decoders": [table]}, HERE).entry(0))
    assert str(decoder.dem).startswith("error(0.29999999999999998")
    assert "error_rate_vec twice" in refusal(changed(error_rate_vec=[0.3, 0.1, 0.1]))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """Missing, no YAML, no text: each says so."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_decoder_file(tmp_path / "none.yml")
    path = tmp_path / "broken.yml"
    for octets in (b"decoders: [", b"\xff\xfe\xff", b"[" * 10_000):
        path.write_bytes(octets)
        with pytest.raises(ConfigError, match=r"is not YAML|does not follow"):
            load_decoder_file(path)


def test_a_decoder_is_chosen_by_number(tmp_path: Path) -> None:
    """`[plan] cudaq_decoder` beyond the file is refused; measurements_per_round that do not fit as well."""
    path = write_file(tmp_path, table_of(memory()))
    with pytest.raises(ConfigError, match="cudaq_decoder is 3, but the file has 1"):
        load_decoder_file(path).entry(3)
    for widths in (7, [8, 8], [8, 8, 8, 8, 1, 8, 0]):
        with pytest.raises(PlanError, match="measurements_per_round"):
            make_decoder(load_decoder_file(path).entry(0), widths=widths)


def test_measurements_are_those_of_the_circuit() -> None:
    """The tests' own reading of a circuit agrees with Stim's converter."""
    circuit = memory()
    measurements, events = shots(circuit, 50, seed=1)
    folded = np.stack([measurements[:, row].sum(axis=1) % 2 for row in measurements_of(circuit)], axis=1)
    assert np.array_equal(folded, events)
