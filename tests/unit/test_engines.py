"""Engines answer as PyTorch does, stay on this machine, and refuse what is not what was built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtqec.device import choose, gpu, tensorrt_build
from rtqec.device.cache import EngineCache, key_of
from rtqec.device.choose import make_engine
from rtqec.device.engine import ChunkShape, Engine, EngineError
from rtqec.device.options import EngineOptions
from rtqec.neural.network import residual_network
from tests.networks import answer, make_input, make_trained

SPEC = residual_network(8, (3, 1, 3))
SHAPE = ChunkShape(chunks=3, layers=9, distance=5, outputs=2)
SECOND = 1_000_000_000

FLOAT32_BOUND = 1e-4
"""|engine - PyTorch| <= this x (1 + |logit|); see `test_export`."""

BFLOAT16_BOUND = 0.2
"""The same for bfloat16. Found: at most 0.16 with random weights of trained size (ten convolutions, d=13, 104 layers);
0.05 with trained ones, d=5 to 13, whose bits differed in at most 3e-5 of the cells, within 0.03 of the threshold."""


@pytest.fixture(scope="module")
def module() -> Any:
    """A network in PyTorch."""
    pytest.importorskip("torch", reason="needs the extra train")
    return make_trained(SPEC)


@pytest.fixture(scope="module")
def model(module: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as ONNX."""
    pytest.importorskip("onnx", reason="needs the extra train")
    from rtqec.training.export import write_onnx

    path = tmp_path_factory.mktemp("model") / "model.onnx"
    write_onnx(path, SPEC, module)
    return path


@pytest.fixture(params=["openvino", "torch"])
def kind(request: pytest.FixtureRequest) -> choose.EngineKind:
    """Engines of a machine without a GPU."""
    pytest.importorskip(request.param, reason="needs the extras cpu and train")
    return request.param  # type: ignore[no-any-return]


MakeEngine = Callable[..., Engine]


@pytest.fixture
def make_float32(kind: choose.EngineKind, model: Path) -> MakeEngine:
    """Make an engine that computes in float32 on one thread."""
    return lambda shape=SHAPE: make_engine(kind, model, shape, EngineOptions(precision="float32", num_threads=1))


def fill(engine: Engine) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give an engine input of its shape; returns it."""
    shape = engine.shape
    volume, inside = make_input(shape.chunks, shape.layers, shape.distance)
    engine.volume[...], engine.inside[...] = volume, inside
    return volume, inside


def run(engine: Engine, count: int) -> NDArray[np.float32]:
    """One call; returns a copy of the answers."""
    engine.enqueue(count)
    assert engine.wait(60 * SECOND)
    engine.take()
    return engine.logits[:count].copy()


def relative(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The largest difference, against 1 + |logit|."""
    return float(np.max(np.abs(found - wanted) / (1 + np.abs(wanted))))


def test_answers_as_pytorch_does(make_float32: MakeEngine, module: Any) -> None:
    """Any number of chunks of the batch, in place, the others untouched; layers beyond the ends included."""
    engine = make_float32()
    engine.warm()
    wanted = answer(module, *fill(engine))
    logits = engine.logits
    for count in (1, 3, 2):
        logits[...] = 77
        run(engine, count)
        assert engine.logits is logits
        assert relative(logits[:count], wanted[:count]) <= FLOAT32_BOUND
        assert (logits[count:] == 77).all()


def test_reads_its_input_at_each_call(make_float32: MakeEngine, module: Any) -> None:
    """What is written into the arrays between two calls is what the second one answers."""
    engine = make_float32()
    volume, inside = fill(engine)
    first = run(engine, 3)
    engine.volume[...] = np.flip(volume, axis=3)
    assert relative(run(engine, 3), answer(module, np.ascontiguousarray(engine.volume), inside)) <= FLOAT32_BOUND
    engine.volume[...] = volume
    assert np.array_equal(run(engine, 3), first)


def test_pieces_answer_as_the_whole_does(make_float32: MakeEngine, module: Any) -> None:
    """Pieces of a shot in a fixed volume, marked where the shot ends, are answered as within the whole shot."""
    layers, distance, halo = 20, SHAPE.distance, SPEC.halo
    rng = np.random.default_rng(3)
    volume = (rng.random((1, 4, layers, distance, distance)) < 0.2).astype(np.float32)
    whole = answer(module, volume, np.ones((1, 1, layers, 1, 1), np.float32))[0]
    engine = make_float32()
    core = SHAPE.layers - 2 * halo
    padded = np.pad(volume[0], ((0, 0), (halo, SHAPE.layers), (0, 0), (0, 0)))
    exists = np.pad(np.ones(layers, np.float32), (halo, SHAPE.layers))
    found = np.empty_like(whole)
    for start in range(0, layers, core):
        engine.volume[0] = padded[:, start : start + SHAPE.layers]
        engine.inside[0, 0, :, 0, 0] = exists[start : start + SHAPE.layers]
        stop = min(start + core, layers)
        found[:, start:stop] = run(engine, 1)[0, :, halo : halo + stop - start]
    assert relative(found, whole) <= FLOAT32_BOUND


def test_refuses_a_call_while_one_is_under_way(make_float32: MakeEngine) -> None:
    """A late call keeps the engine; the next one is an error, not a race."""
    engine = make_float32()
    fill(engine)
    engine.enqueue(3)
    with pytest.raises(EngineError, match="another is under way"):
        engine.enqueue(1)
    assert engine.wait(60 * SECOND)
    engine.take()
    run(engine, 1)


def test_openvino_computes_in_bfloat16_where_the_cpu_does(model: Path, module: Any) -> None:
    """Answers within the stated bound, signs apart only near zero; "auto" takes it."""
    pytest.importorskip("openvino", reason="needs the extra cpu")
    engine = make_engine("openvino", model, SHAPE, EngineOptions(num_threads=1))
    if "bfloat16" not in engine.name:
        with pytest.raises(EngineError, match=r"computes in float32\."):
            make_engine("openvino", model, SHAPE, EngineOptions(precision="bfloat16"))
        return
    wanted = answer(module, *fill(engine))
    found = run(engine, 3)
    assert relative(found, wanted) <= BFLOAT16_BOUND
    assert np.abs(wanted[(found > 0) != (wanted > 0)]).max(initial=0) < BFLOAT16_BOUND


def test_torch_says_why_a_call_failed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed call is done, `take` raises, and the engine goes on."""
    pytest.importorskip("torch", reason="needs the extra train")
    engine: Any = make_engine("torch", model, SHAPE, EngineOptions(precision="float32", num_threads=1))

    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(engine, "_module", fail)
    engine.enqueue(1)
    assert engine.wait(60 * SECOND)
    with pytest.raises(EngineError, match="out of luck"):
        engine.take()
    monkeypatch.undo()
    run(engine, 1)


def in_a_process(program: str, *arguments: str, **environment: str) -> list[str]:
    """Run a program in a Python of its own; returns its lines."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


WATCHED = """
import sys
heard = []
def listen(event, _):
    if event.startswith(("socket.", "os.fork", "subprocess.")):
        heard.append(event)
sys.addaudithook(listen)
from pathlib import Path
from rtqec.device.choose import make_engine
from rtqec.device.engine import ChunkShape
make_engine("openvino", Path(sys.argv[1]), ChunkShape(1, 9, 5, 2)).warm()
print(sorted(set(heard)), sorted(m for m, v in sys.modules.items() if m.startswith("openvino_telemetry") and v))
"""


def test_openvino_stays_on_this_machine(model: Path, tmp_path: Path) -> None:
    """No socket, no process and no file of its telemetry, also where nobody has declined and no CI is seen."""
    pytest.importorskip("openvino", reason="needs the extra cpu")
    lines = in_a_process(WATCHED, str(model), HOME=str(tmp_path), CI="", GITHUB_ACTIONS="")
    assert lines == ["[] []"]
    assert list(tmp_path.iterdir()) == []


PINNED = """
import os, sys
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})
from pathlib import Path
from rtqec.device.choose import make_engine
from rtqec.device.engine import ChunkShape
from rtqec.device.options import EngineOptions
make_engine("openvino", Path(sys.argv[1]), ChunkShape(1, 9, 5, 2), EngineOptions(num_threads=2)).warm()
print(all(os.sched_getaffinity(int(task)) == {core} for task in os.listdir("/proc/self/task")))
"""


def test_openvino_runs_where_its_process_may(model: Path) -> None:
    """A lane that is pinned to cores keeps its network's threads there."""
    pytest.importorskip("openvino", reason="needs the extra cpu")
    assert in_a_process(PINNED, str(model)) == ["True"]


SIGNALLED = """
import ctypes, faulthandler, signal, sys
from pathlib import Path
from rtqec.device.choose import make_engine
from rtqec.device.engine import ChunkShape
from rtqec.device.options import EngineOptions
def stack():
    found = (ctypes.c_size_t * 3)()
    ctypes.CDLL(None).sigaltstack(None, found)
    return list(found)
if sys.argv[2] == "a stack":
    faulthandler.enable()
before = stack()
engine = make_engine("openvino", Path(sys.argv[1]), ChunkShape(1, 9, 5, 2), EngineOptions(num_threads=2))
engine.warm()
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
signal.raise_signal(signal.SIGTERM)
print(stack() == before)
"""


@pytest.mark.parametrize("before", ["a stack", "none"])
def test_openvino_leaves_the_signal_stack_alone(model: Path, before: str) -> None:
    """The thread that makes an engine keeps its signal stack: OpenVINO's own would be freed with the engine, and the
    next signal would end the process.
    """
    pytest.importorskip("openvino", reason="needs the extra cpu")
    assert in_a_process(SIGNALLED, str(model), before) == ["heard", "True"]


def test_openvino_keeps_what_it_compiled(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start loads from the cache and answers the same; another shape is another entry."""
    pytest.importorskip("openvino", reason="needs the extra cpu")
    options = EngineOptions(precision="float32", num_threads=1, cache_folder=tmp_path / "cache")
    first = make_engine("openvino", model, SHAPE, options)
    fill(first)
    wanted = run(first, 3)
    with monkeypatch.context() as patched:
        patched.setattr(EngineCache, "store", lambda *_: pytest.fail("built again"))
        second = make_engine("openvino", model, SHAPE, options)
    fill(second)
    assert np.array_equal(run(second, 3), wanted)
    make_engine("openvino", model, ChunkShape(1, 5, 3, 2), options)
    entries = EngineCache(tmp_path / "cache").list()
    assert [entry.problem for entry in entries] == ["", ""]
    assert {entry.fields["layers"] for entry in entries} == {9, 5}


FIELDS = {"engine": "some 1.0", "model_sha256": "ab", "layers": 9}


def test_cache_gives_back_what_was_kept(tmp_path: Path) -> None:
    """By all fields: one that differs is another engine. A folder that is not there is empty."""
    cache = EngineCache(tmp_path / "cache")
    assert cache.load(FIELDS) is None
    assert cache.list() == []
    path = cache.store(FIELDS, b"engine\nof two lines")
    assert cache.load(FIELDS) == b"engine\nof two lines"
    assert cache.load(dict(reversed(FIELDS.items()))) == b"engine\nof two lines"
    assert all(cache.load({**FIELDS, key: 0}) is None for key in FIELDS)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes() + b"3"), r"has the digest [0-9a-f]{16}\.\., but was built as"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"has the digest [0-9a-f]{16}\.\., but was built as"),
        (lambda path: path.write_bytes(b""), "has a first line that cannot be read"),
        (lambda path: path.write_bytes(b"\x80\x81engine"), "has a first line that cannot be read"),
        (lambda path: path.write_bytes(b"[]\nengine"), "has a first line that cannot be read"),
        (lambda path: edit(path, format=2), "is of format 2, and this version reads 1"),
        (lambda path: edit(path, fields={**FIELDS, "layers": 8}), "but its first line says"),
    ],
)
def test_cache_refuses_what_is_not_what_was_built(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    """What changed is refused with file, digest and remedy, and listed as such; never rebuilt silently."""
    cache = EngineCache(tmp_path)
    path = cache.store(FIELDS, b"engine")
    spoil(path)
    with pytest.raises(EngineError, match=message) as refused:
        cache.load(FIELDS)
    assert str(path) in str(refused.value)
    assert "rtqec engine build" in str(refused.value)
    assert [(entry.key, bool(entry.problem)) for entry in cache.list()] == [(key_of(FIELDS), True)]


def edit(path: Path, **changes: Any) -> None:
    """Change what an entry says of itself."""
    line, _, engine = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps({**json.loads(line), **changes}).encode() + b"\n" + engine)


def test_cache_says_where_it_cannot_write(tmp_path: Path) -> None:
    """The key, the folder and the remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"\[service\] cache_dir is .*file, which cannot be written"):
        EngineCache(tmp_path / "file").store(FIELDS, b"engine")


def has_gpu() -> bool:
    """Whether a GPU can be used here."""
    try:
        gpu.find_gpu(0)
    except EngineError:
        return False
    return True


def test_tensorrt_builds_without_a_gpu(model: Path, module: Any, tmp_path: Path) -> None:
    """Both precisions, in the chunk's shape; kept under the digest of what it was built from, and found again."""
    pytest.importorskip("tensorrt_rtx", reason="needs the extra gpu")
    from rtqec.training.export import write_onnx

    half = tmp_path / "half.onnx"
    write_onnx(half, SPEC, module, "float16")
    options = EngineOptions(cache_folder=tmp_path / "cache")
    found = {}
    for path in (model, half):
        engine, fields = tensorrt_build.built(path, SHAPE, options, None)
        again, _ = tensorrt_build.built(path, SHAPE, EngineOptions(cache_folder=tmp_path / "cache", build=False), None)
        assert again == engine
        assert fields["gpu"] == "any"
        found[path] = engine
    assert len(set(found.values())) == 2
    assert len(EngineCache(tmp_path / "cache").list()) == 2
    entry = EngineCache(tmp_path / "cache").path_of(fields)
    entry.write_bytes(entry.read_bytes().partition(b"\n")[0] + b"\n" + found[model])
    with pytest.raises(EngineError, match="has the digest"):
        tensorrt_build.built(half, SHAPE, options, None)


def test_tensorrt_prefers_the_engine_of_its_gpu_to_the_one_of_all(model: Path, tmp_path: Path) -> None:
    """On a GPU: its own entry, else the one for all GPUs; another GPU's is not looked at."""
    pytest.importorskip("tensorrt_rtx", reason="needs the extra gpu")
    options = EngineOptions(cache_folder=tmp_path, build=False)
    this, other = gpu.Gpu(0, "This", "12.0"), gpu.Gpu(0, "Other", "8.9")
    cache = EngineCache(tmp_path)
    cache.store(tensorrt_build.fields_of(model, SHAPE, options, other), b"other")
    with pytest.raises(EngineError, match=r"has no engine for .*model\.onnx on This"):
        tensorrt_build.built(model, SHAPE, options, this)
    cache.store(tensorrt_build.fields_of(model, SHAPE, options, None), b"all")
    assert tensorrt_build.built(model, SHAPE, options, this)[0] == b"all"
    cache.store(tensorrt_build.fields_of(model, SHAPE, options, this), b"this")
    assert tensorrt_build.built(model, SHAPE, options, this)[0] == b"this"


@pytest.mark.parametrize(
    ("shape", "precision", "message"),
    [
        (SHAPE, "float16", r'precision is "float16", but the convolutions of .* are float32'),
        (ChunkShape(3, 9, 5, 4), "auto", r"answers \(3, 2, 9, 5, 5\), and \(3, 4, 9, 5, 5\) is asked for"),
    ],
)
def test_tensorrt_refuses_models_that_do_not_fit(
    shape: ChunkShape, precision: Any, message: str, model: Path, tmp_path: Path
) -> None:
    """Precision and shape are the model's; a file that is no model says so."""
    pytest.importorskip("tensorrt_rtx", reason="needs the extra gpu")
    with pytest.raises(EngineError, match=message):
        tensorrt_build.build(model, shape, EngineOptions(precision=precision))
    (tmp_path / "other.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"other\.onnx, which tensorrt_rtx .* does not take\.\n.*parse"):
        tensorrt_build.build(tmp_path / "other.onnx", shape, EngineOptions())


def test_tensorrt_without_a_gpu_is_refused(model: Path) -> None:
    """Key, value, reason and remedy, so that the lane can say it and go on without."""
    pytest.importorskip("tensorrt_rtx", reason="needs the extra gpu")
    pytest.importorskip("cupy", reason="needs the extra gpu")
    if has_gpu():
        pytest.skip("there is a GPU")
    with pytest.raises(EngineError) as refused:
        make_engine("tensorrt", model, SHAPE)
    text = str(refused.value)
    assert text.startswith("[predecode] gpu_index is 0, but there is no such GPU")
    assert text.endswith('Install the driver, or set engine = "openvino".')


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_refuses_models_of_other_layouts(kind: choose.EngineKind, model: Path, tmp_path: Path) -> None:
    """Answers per cell are checked when the engine is loaded; so are a missing file and one that is no model."""
    pytest.importorskip(kind)
    with pytest.raises(EngineError, match=r"(and \(1, 4, 9, 5, 5\) is|and 4 are) asked for"):
        make_engine(kind, model, ChunkShape(1, 9, 5, 4))
    with pytest.raises(EngineError, match=r"\[predecode\] model is .*missing\.onnx, which cannot be read"):
        make_engine(kind, tmp_path / "missing.onnx", SHAPE)
    (tmp_path / "other.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"\[predecode\] model is .*other\.onnx, which (OpenVINO|PyTorch)"):
        make_engine(kind, tmp_path / "other.onnx", SHAPE)
    with pytest.raises(EngineError, match=r'\[predecode\] precision is "float16"'):
        make_engine(kind, model, SHAPE, EngineOptions(precision="float16"))


@pytest.mark.parametrize(("kind", "remedy"), [("openvino", "cpu"), ("torch", "train"), ("tensorrt", "gpu")])
def test_says_what_to_install(
    kind: choose.EngineKind, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that is not there is named with the extra that brings it."""
    for name in ("openvino", "torch", "tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    tensorrt_build.library.cache_clear()
    with pytest.raises(EngineError, match=rf"pip install 'rtqec\[{remedy}\]'"):
        make_engine(kind, tmp_path / "model.onnx", SHAPE)
    tensorrt_build.library.cache_clear()


def test_auto_takes_the_best_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT with a GPU, else OpenVINO, else a refusal that names both remedies."""

    def nothing(*_: object) -> None:
        raise EngineError("[predecode] gpu_index is 0, but there is none.\nreason\nremedy")

    monkeypatch.setattr(choose, "library", lambda: None)
    monkeypatch.setattr(choose, "find_gpu", lambda _: gpu.Gpu(0, "This", "12.0"))
    assert choose.choose_kind(EngineOptions()) == "tensorrt"
    monkeypatch.setattr(choose, "find_gpu", nothing)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    assert choose.choose_kind(EngineOptions()) == "openvino"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EngineError, match=r"(?s)gpu_index is 0, but there is none\..*rtqec\[cpu\].*rtqec\[gpu\]"):
        choose.choose_kind(EngineOptions())


def test_null_needs_no_model() -> None:
    """It answers no everywhere, whatever the file."""
    engine = make_engine("null", Path("nowhere.onnx"), SHAPE)
    assert (run(engine, 3) == -np.inf).all()
