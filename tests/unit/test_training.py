"""Training is a function of its configuration, survives interruption, and says of its result what was measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import stim
from rich.console import Console

torch = pytest.importorskip("torch", reason="training needs the extra train")

from rtqec.errors import ConfigError, PlanError  # noqa: E402
from rtqec.neural.card import ModelCard, file_digest, read_card  # noqa: E402
from rtqec.neural.experiment import GridExperiment  # noqa: E402
from rtqec.neural.network import HARD_OUTPUTS  # noqa: E402
from rtqec.reference import WholeShotMatcher  # noqa: E402
from rtqec.training.adopt import adopt  # noqa: E402
from rtqec.training.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from rtqec.training.config import TrainConfig, load_train_config  # noqa: E402
from rtqec.training.evaluation import Effort, Point  # noqa: E402
from rtqec.training.group import Group  # noqa: E402
from rtqec.training.handover import MATCHINGS, HardHandOver, Shots, decomposed  # noqa: E402
from rtqec.training.mixture import Batch, Mixture  # noqa: E402
from rtqec.training.module import make_module  # noqa: E402
from rtqec.training.paired import Paired  # noqa: E402
from rtqec.training.record import as_markdown  # noqa: E402
from rtqec.training.run import Stop, stop_on_signals, train  # noqa: E402
from rtqec.training.session import make_network, open_points, open_volumes, read_start  # noqa: E402
from rtqec.training.soft import SoftHandOver  # noqa: E402
from rtqec.training.sources import open_source  # noqa: E402
from rtqec.training.trainer import Trainer  # noqa: E402
from rtqec.training.weights import load_weights  # noqa: E402

CONFIG = """
[network]
channels = 4
time_kernels = [3, 1]

[[volume]]
generated = "surface_code:rotated_memory_z"
distance = 3
rounds = 3
noise = 0.01
weight = 2.0

[[volume]]
generated = "surface_code:rotated_memory_x"
distance = 3
rounds = 4
noise = 0.02

[training]
shots = 400
batch_cells = 1000
warmup_steps = 2
precision = "fp32"
device = "cpu"
threads = 1

[evaluation]
every_shots = 150
validation_shots = 200
shots = 6000
failures = 600
thresholds = [0.0, 2.0]

[output]
folder = "FOLDER"
name = "tiny"
"""
TASK = "surface_code:rotated_memory_z"
Make = Callable[..., TrainConfig]


@pytest.fixture
def make_config(tmp_path: Path) -> Make:
    def make(folder: str = "out", *overrides: str, text: str = CONFIG) -> TrainConfig:
        path = tmp_path / "train.toml"
        path.write_text(text.replace("FOLDER", str(tmp_path / folder)))
        return load_train_config(path, overrides)

    return make


@pytest.fixture(scope="module")
def experiment() -> GridExperiment:
    return GridExperiment.generated(TASK, 3, 4, 0.01)


class StopAfter(Stop):
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def __call__(self) -> bool:
        self._left -= 1
        return self._left <= 0


def run(config: TrainConfig, resume: bool = False, stop: Stop | None = None) -> tuple[ModelCard | None, str]:
    console = Console(record=True, width=200, file=Path(os.devnull).open("w"))  # noqa: SIM115
    with console.file:
        return train(config, resume, console, stop or Stop()), console.export_text()


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoint.pt", weights_only=True)["network"]
    return state


def trainer_of(config: TrainConfig) -> tuple[Trainer, Mixture]:
    start = read_start(config)
    volumes, _ = open_volumes(config, start.spec.weighs_edges)
    module = make_network(start, config, volumes)
    trainer = Trainer(config.training, module, Group(0, 1, torch.device("cpu")), "fp32")
    return trainer, Mixture(volumes, config.training.batch_cells, config.training.seed)


# Judging: shots, matchers, hand-over, intervals.


def test_answers_that_are_the_labels_leave_nothing(experiment: GridExperiment) -> None:
    """With the labels as answers every shot is right and nothing is left; with none it is as without a network."""
    hand_over = HardHandOver(experiment)
    events, labels, flips = experiment.labelled_shots().sample(500, np.random.default_rng(3))
    nothing = np.zeros(len(events), np.uint64)
    truth = flips.astype(np.uint64)
    alone = {m: hand_over.wrong(events, nothing, truth, m) for m in MATCHINGS}
    shots = Shots(events, truth, alone)
    logits = np.where(labels, 1.0, -1.0).astype(np.float32)
    for matching in MATCHINGS:
        wrong, left = hand_over.failures(shots, logits, [0.0, 2.0], matching)
        assert not wrong[0].any()
        assert left[0] == 0
        assert np.array_equal(wrong[1], alone[matching])
        assert alone[matching].any()
        assert left[1] == hand_over.num_events(events)


def test_not_a_number_is_answered_no(experiment: GridExperiment) -> None:
    """Logits that are no numbers decide nothing."""
    hand_over = HardHandOver(experiment)
    shots = hand_over.sampler(5)(300)
    wrong, _ = hand_over.failures(shots, np.full((300, 2, 5, 3, 3), np.nan, np.float32), [0.0], "plain")
    assert np.array_equal(wrong[0], shots.wrong["plain"])


@pytest.mark.parametrize("source", ["circuit", "dem"])
def test_shots_are_stims_and_matching_is_pymatchings(source: str) -> None:
    """Shots lie where `GridLayout.volume` puts them; matching one kind of checks predicts what matching all does."""
    circuit = stim.Circuit.generated(TASK, distance=5, rounds=5, after_clifford_depolarization=0.01)
    model = circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True, flatten_loops=True)
    experiment = GridExperiment.of_circuit(circuit) if source == "circuit" else GridExperiment.of_dem(model)
    hand_over = HardHandOver(experiment)
    if source == "circuit":
        events, flips = circuit.compile_detector_sampler(seed=11).sample(400, separate_observables=True)
    else:
        events, flips, _ = model.compile_sampler(seed=11).sample(400)
    shots = hand_over.sampler(11)(400)
    assert np.array_equal(shots.events, experiment.layout.volume(events, experiment.rounds))
    assert np.array_equal(shots.flips, flips[:, 0])
    for matching in MATCHINGS:
        whole = WholeShotMatcher(decomposed(experiment), correlated=matching == "correlated")
        predicted = whole(np.packbits(events, axis=1, bitorder="little"))
        assert np.array_equal(shots.wrong[matching], predicted[:, 0] != flips[:, 0])


def test_error_models_that_matching_cannot_read_are_refused() -> None:
    """An error of three detectors that is not decomposed is refused by what it is, with the remedy."""
    circuit = stim.Circuit.generated(TASK, distance=3, rounds=3, after_clifford_depolarization=0.01)
    experiment = GridExperiment.of_dem(circuit.detector_error_model(approximate_disjoint_errors=True))
    with pytest.raises(PlanError, match=r"flips [34] detectors") as refused:
        decomposed(experiment)
    assert "--decompose_errors" in refused.value.remedy


def test_the_interval_of_a_ratio_covers_as_often_as_it_says() -> None:
    """Of 4000 pairs of decoders, true ratio 0.8, the 95 % interval misses 5 % +- 1.2 % (3.5 sigma)."""
    rng = np.random.default_rng(20261121)
    both, fixed, broken, right = rng.multinomial(20_000, [0.009, 0.006, 0.003, 0.982], size=4000).T
    assert (both + fixed + broken + right == 20_000).all()
    missed = 0
    for b, f, w in zip(both.tolist(), fixed.tolist(), broken.tolist(), strict=True):
        low, high = Paired(b + w, b + f, b).interval()
        missed += not low <= 0.8 <= high
    assert 0.038 < missed / 4000 < 0.062


@pytest.mark.parametrize(
    ("failures", "baseline", "both", "claim"),
    [
        (400, 499, 350, "too few"), (400, 600, 350, "better"), (700, 600, 550, "worse"),
        (600, 600, 500, "no difference"), (0, 600, 0, "better"),
    ],
)  # fmt: skip
def test_little_is_claimed_from_little(failures: int, baseline: int, both: int, claim: str) -> None:
    """Nothing is claimed below 500 failures of the baseline, nor where the interval holds 1; and nothing from none."""
    ratio = Paired(failures, baseline, both).ratio()
    assert ratio is not None
    assert ratio.claim == claim
    assert ratio.low <= ratio.ratio <= ratio.high
    assert Paired(0, 0, 0).ratio() is None


def test_a_point_counts_fresh_shots(experiment: GridExperiment, make_config: Make) -> None:
    """Thresholds come from validation shots, numbers from others; a point ends with enough failures."""
    config = make_config()
    _, source = open_source(config, config.volume[0], "[[volume]]")
    effort = Effort((0.0, 1.0), 2000, 1_000_000, 500, seed=4)
    seen: list[int] = []

    def answers(events: np.ndarray) -> np.ndarray:
        """Yes everywhere above 0.5, which is bad, nowhere above 1."""
        seen.append(len(events))
        return np.full((len(events), 2, 5, 3, 3), 0.5, np.float32)

    record = Point(source, HardHandOver(experiment), effort, 1).measure(answers)
    plain = record.hand_over("plain")
    assert plain.threshold == 1.0
    assert plain.validation["0.0"] > 3 * plain.validation["1.0"]
    assert record.plain_failures == plain.failures >= 500
    assert record.shots == sum(seen) - 2000 < 1_000_000
    assert plain.against_plain is not None
    assert (plain.against_plain.fixed, plain.against_plain.broken) == (0, 0)
    assert plain.events_left == 1.0


# Data.


def test_batches_are_a_function_of_seed_and_step(make_config: Make) -> None:
    """Any number of workers, and any place to begin at, gives the same batches; ranks share volumes, not shots."""
    config = make_config()
    volumes, _ = open_volumes(config, True)
    mixture, other = Mixture(volumes, 1000, 1), Mixture(volumes, 1000, 1, rank=1)

    def same(a: Batch, b: Batch) -> bool:
        return a.volume is b.volume and torch.equal(a.events, b.events) and torch.equal(a.labels, b.labels)

    batches = [mixture.draw(step) for step in range(8)]
    for workers in (0, 1, 3):
        stream = mixture.batches(3, workers)
        assert all(same(a, b) for a, b in zip(batches[3:], islice(stream, 5), strict=True))
        stream.close()
    assert {batch.volume for batch in batches} == set(volumes)
    for step, batch in enumerate(batches):
        assert other.draw(step).volume is batch.volume
        assert not same(other.draw(step), batch)


def test_training_begins_at_the_rates_of_the_labels(make_config: Make) -> None:
    """A fresh network answers each question about as often as labels say yes, so that no step is lost on that."""
    for volume in open_volumes(make_config(), True)[0]:
        _, labels, _ = volume.shots.sample(4000, np.random.default_rng(8))
        cells = volume.mask.numpy().sum(axis=(1, 2, 3))
        wanted = labels.sum(axis=(0, 2, 3, 4)) / (4000 * cells)
        # The rates are counted on 2000 shots: five standard deviations, and the half label that is added.
        allowed = 5 * np.sqrt(1.5 * wanted / (2000 * cells)) + 0.5 / (2000 * cells)
        assert (np.abs(np.array(volume.densities(1)) - wanted) < allowed).all()


# Training.


def test_the_rate_rises_stays_and_falls(make_config: Make) -> None:
    """The learning rate rises over the warm-up, is constant, and falls to a hundredth over the last part."""
    trainer, _ = trainer_of(make_config("out", "training.warmup_steps=4", "training.decay_fraction=0.5"))
    rates = []
    for step in range(0, 100, 10):
        trainer.step, trainer.shots = step // 10, 4 * step
        rates.append(trainer.rate / 0.003)
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4:6] == pytest.approx([1.0, 1.0])
    assert rates[6:] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    trainer.shots = 400
    assert trainer.rate == pytest.approx(0.00003)


def test_a_network_learns(make_config: Make) -> None:
    """Within 80 steps the loss falls by a quarter below that of constant answers."""
    larger = ("network.channels=16", "training.learning_rate=0.01", "training.batch_cells=4000")
    trainer, mixture = trainer_of(make_config("out", "training.shots=100000", *larger))
    constant, losses = [], []
    for step in range(80):
        batch = mixture.draw(step)
        trainer.learn(batch)
        losses.append(trainer.take_loss())
        rates = torch.tensor(batch.volume.densities(1)).reshape(-1, 1, 1, 1)
        bits = torch.where(batch.labels.bool(), -rates.log(), -(1 - rates).log()) * batch.volume.mask
        # What is decided and what is weighed count alike.
        parts = [bits[:, part].sum() / batch.volume.mask[part].sum() for part in (slice(0, 2), slice(2, None))]
        constant.append(float(sum(parts) / len(bits)))
    assert np.mean(losses[-20:]) < 0.75 * np.mean(constant[-20:])


def test_a_loss_that_is_no_number_ends_the_training(make_config: Make) -> None:
    """Weights that left the range of numbers are refused, with what to change."""
    trainer, mixture = trainer_of(make_config())
    with torch.no_grad():
        next(trainer.module.parameters()).fill_(torch.nan)
    trainer.learn(mixture.draw(0))
    with pytest.raises(ConfigError, match="learning_rate") as refused:
        trainer.take_loss()
    assert "Lower learning_rate" in refused.value.remedy


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_an_uninterrupted_one(make_config: Make, tmp_path: Path, precision: str) -> None:
    """Stopped twice and resumed, a training ends with the same weights, bit for bit, the same curve and numbers."""
    exact = f"training.precision={precision}"
    straight, _ = run(make_config("straight", exact))
    stopped, said = run(make_config("pieces", exact), stop=StopAfter(3))
    assert stopped is None
    assert "Go on with --resume" in said
    assert not (tmp_path / "pieces" / "tiny.json").exists()
    again, _ = run(make_config("pieces", exact), resume=True, stop=StopAfter(4))
    assert again is None
    resumed, _ = run(make_config("pieces", exact, "training.workers=3"), resume=True)
    assert straight is not None
    assert resumed is not None
    one, other = weights_of(tmp_path / "straight"), weights_of(tmp_path / "pieces")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert straight.weights == resumed.weights
    assert straight.points == resumed.points
    assert straight.training.shots == resumed.training.shots >= 400
    assert straight.training.steps == resumed.training.steps > 7


def test_a_finished_run_leaves_a_model_that_can_be_checked(make_config: Make, tmp_path: Path) -> None:
    """Weights, ONNX and card agree; the card tells the data, the points, and what may be claimed; the curve grows."""
    pytest.importorskip("onnx")
    config = make_config()
    card, said = run(config)
    assert card is not None
    out = tmp_path / "out"
    assert "tiny.json" in said
    assert read_card(out / "tiny.json") == card
    for name in ("tiny.safetensors", "tiny.onnx"):
        card.check_file(out / name)
    spec, state = load_weights(out / "tiny.safetensors")
    assert config.network is not None
    assert spec == config.network.spec == card.network.spec
    assert all(torch.equal(state[key], tensor) for key, tensor in weights_of(out).items())
    assert [(v.distance, v.rounds, v.noise, v.weight) for v in card.training.volumes] == [
        (3, 3, 0.01, 2.0), (3, 4, 0.02, 1.0),
    ]  # fmt: skip
    first = card.points[0].hand_over("plain").against_plain
    assert first is not None
    assert first.claim == "too few"
    assert card.points[1].plain_failures >= 500
    assert "too few" in as_markdown(card) == (out / "tiny.md").read_text()
    rows = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    assert [row["shots"] // 150 for row in rows] == [1, 2]
    assert all(row["loss"] > 0 and len(row["points"]) == 2 for row in rows)
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))
    with pytest.raises(ConfigError, match=r"holds checkpoint\.pt of a run before"):
        run(config)


def test_rows_beyond_the_checkpoint_are_dropped(make_config: Make, tmp_path: Path) -> None:
    """What an interrupted run wrote after its last checkpoint does not stand in the curve twice."""
    config = make_config()
    run(config, stop=StopAfter(3))
    path = tmp_path / "out" / "curve.jsonl"
    kept = path.read_text() if path.exists() else ""
    path.write_text(kept + json.dumps({"shots": 10_000}) + "\n")
    run(config, resume=True, stop=StopAfter(1))
    assert path.read_text().startswith(kept)
    assert "10000" not in path.read_text()


def test_only_the_same_training_is_resumed(make_config: Make, tmp_path: Path) -> None:
    """Another network, volume or rate is refused with the key and both values; a longer budget is not."""
    config = make_config()
    trainer, _ = trainer_of(config)
    config.output_folder.mkdir()
    with pytest.raises(ConfigError, match="finds no checkpoint"):
        load_checkpoint(config.output_folder, config)
    save_checkpoint(config.output_folder, config, trainer.state())
    load_checkpoint(config.output_folder, make_config("out", "training.shots=900", "training.workers=0"))
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.003 and is 0\.1"):
        load_checkpoint(config.output_folder, make_config("out", "training.learning_rate=0.1"))
    with pytest.raises(ConfigError, match=r"channels was 4 and is 6"):
        load_checkpoint(config.output_folder, make_config("out", "network.channels=6"))
    (config.output_folder / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(ConfigError, match="finds no checkpoint"):
        load_checkpoint(config.output_folder, config)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_ask_and_do_not_kill(number: signal.Signals) -> None:
    """SIGINT and SIGTERM ask for the end of the training; afterwards they do what they did before."""
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
    assert signal.getsignal(number) is before


def test_a_training_that_is_told_to_end_can_go_on(make_config: Make, tmp_path: Path) -> None:
    """SIGTERM in the middle: status 0, a message that says how to go on, a checkpoint that does."""
    config = make_config("out", "training.shots=100000000")
    command = [
        sys.executable, "-m", "rtqec.training", str(tmp_path / "train.toml"), "--set", "training.shots=100000000"
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert "0% of the budget is spent" in first[0]
    assert "failures over plain matching's" in first[1]
    assert "Stopped after" in rest
    assert "--resume" in rest
    assert load_checkpoint(config.output_folder, config)["shots"] > 100


def test_weights_of_another_script_are_measured(make_config: Make, tmp_path: Path) -> None:
    """A state dict with its counts becomes a model with a card; one of another network is refused."""
    trainer, _ = trainer_of(make_config())
    torch.save({"net": trainer.module.state_dict(), "seen": 7, "step": 2}, tmp_path / "final.pt")
    adopt(tmp_path / "final.pt", tmp_path / "train.toml", tmp_path / "adopted", hours=0.5)
    card = read_card(tmp_path / "adopted" / "tiny.json")
    card.check_file(tmp_path / "adopted" / "tiny.safetensors")
    assert (card.training.shots, card.training.steps, card.training.seconds) == (7, 2, 1800.0)
    assert len(card.points) == 2
    with pytest.raises(ConfigError, match="the network asks for"):
        adopt(tmp_path / "final.pt", tmp_path / "train.toml", tmp_path / "other", set_=["network.channels=8"])


def test_fine_tuning_on_a_devices_own_error_model(make_config: Make, tmp_path: Path) -> None:
    """Weights go on from a file with a DEM as data; the card names both by digest; other networks are refused."""
    first, _ = run(make_config())
    assert first is not None
    circuit = stim.Circuit.generated(TASK, distance=3, rounds=5, after_clifford_depolarization=0.01)
    model = circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True)
    model.to_file(tmp_path / "device.dem")
    head, tail = CONFIG.index("[[volume]]"), CONFIG.index("[training]")
    text = '[[volume]]\ndem = "device.dem"\n\n' + CONFIG[tail:]
    start = "training.start=out/tiny.safetensors"
    config = make_config("tuned", start, text=text)
    volumes, _ = open_volumes(config, True)
    begun = make_network(read_start(config), config, volumes).state_dict()
    assert all(torch.equal(begun[key], t) for key, t in weights_of(tmp_path / "out").items())
    tuned, _ = run(config)
    assert tuned is not None
    assert tuned.training.start == first.weights.sha256
    assert tuned.training.volumes[0].source == f"dem sha256:{file_digest(tmp_path / 'device.dem')}"
    assert tuned.points[0].noise is None
    assert tuned.points[0].rounds == 5
    assert tuned.points[0].event_density == pytest.approx(density_of(circuit), rel=0.05)
    with pytest.raises(ConfigError, match=r"Weights fit one network only"):
        run(make_config("other", start, text=CONFIG[:head].replace("= 4", "= 8") + text))


def density_of(circuit: stim.Circuit) -> float:
    return float(circuit.compile_detector_sampler(seed=1).sample(4000).mean())


def test_weights_of_another_network_are_refused(make_config: Make, tmp_path: Path) -> None:
    """A file that is none, or that lacks a tensor, is refused with its name and what is wrong."""
    (tmp_path / "none.safetensors").write_bytes(b"none")
    with pytest.raises(ConfigError, match="holds no network of rtqec"):
        load_weights(tmp_path / "none.safetensors")
    config = make_config("out", "training.start=none.safetensors")
    with pytest.raises(ConfigError, match="holds no network of rtqec"):
        read_start(config)


def test_experiments_that_do_not_fit_are_refused_by_number(make_config: Make) -> None:
    """A task that Stim does not know, and a code that is no rotated surface code, are refused before training."""
    config = make_config("out", text=CONFIG.replace("rotated_memory_x", "rotated_memory_q"))
    with pytest.raises(PlanError, match=r"\[\[volume\]\] number 2 generated"):
        open_volumes(config, False)
    with pytest.raises(PlanError, match="rotated surface code"):
        open_points(make_config("out", text=CONFIG.replace("rotated_memory_x", "unrotated_memory_x")), True)


@pytest.mark.skipif(
    "RTQEC_TEST_TORCHRUN" not in os.environ,
    reason="on a busy machine a rank that has done its work may abort while it ends (PyTorch 2.13, gloo); "
    "set RTQEC_TEST_TORCHRUN to run it",
)
def test_two_processes_learn_as_one_with_both_batches(make_config: Make, tmp_path: Path) -> None:
    """Started by torchrun, two processes end with the weights of one that learns the mean of both gradients."""
    settings = [
        "training.shots=300",
        "training.decay_fraction=0.0",
        "evaluation.every_shots=1000",
        "evaluation.shots=500",
    ]
    config = make_config("pair", *settings)
    sets = [word for setting in settings for word in ("--set", setting)]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rtqec.training",
        str(tmp_path / "train.toml"), *sets,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    card = read_card(tmp_path / "pair" / "tiny.json")
    assert card.training.hardware["processes"] == 2
    trainer, _ = trainer_of(config)
    volumes, _ = open_volumes(config, True)
    ranks = [Mixture(volumes, config.training.batch_cells, config.training.seed, rank) for rank in (0, 1)]
    while trainer.fraction < 1:
        one, other = (mixture.draw(trainer.step) for mixture in ranks)
        events, labels = torch.cat([one.events, other.events]), torch.cat([one.labels, other.labels])
        trainer.learn(Batch(one.volume, events, labels))
    assert (card.training.shots, card.training.steps) == (trainer.shots, trainer.step)
    _, state = load_weights(tmp_path / "pair" / "tiny.safetensors")
    for key, tensor in trainer.module.state_dict().items():
        torch.testing.assert_close(state[key], tensor, rtol=0, atol=2e-4)


# The soft hand-over.


def test_the_soft_hand_over_of_the_truth_never_fails() -> None:
    """Edges that did fire, told with certainty, leave nothing to match; told the rates of the error model, the soft
    hand-over is plain matching; told lies, it is worse than that.
    """
    pytest.importorskip("fusion_blossom")
    experiment = GridExperiment.generated(TASK, 5, 6, 0.02)
    hard = HardHandOver(experiment)
    soft = SoftHandOver(hard)
    events, labels, flips = experiment.labelled_shots(edges=True).sample(300, np.random.default_rng(5))
    detections = hard.detection_events(events).astype(np.bool_)
    shots = hard.shots(detections, flips.astype(np.bool_)[:, np.newaxis])
    truth = np.where(labels, 9.0, -9.0).astype(np.float32)
    wrong, weighed = soft(shots, truth)
    assert not wrong.any()
    assert weighed == int(labels[:, HARD_OUTPUTS:].sum())
    silent, none = soft(shots, np.full_like(truth, -9.0))
    plain = shots.wrong["plain"]
    assert none == 0
    assert plain.sum() > 20
    assert (silent ^ plain).sum() <= 0.2 * plain.sum()
    lies, _ = soft(shots, np.roll(truth, 1, axis=0))
    assert lies.sum() > 1.25 * plain.sum()


def test_a_card_tells_of_both_hand_overs(make_config: Make, tmp_path: Path) -> None:
    """A network with edges is judged both ways, on the card and in the curve; one without has no soft row."""
    pytest.importorskip("fusion_blossom")
    card, _ = run(make_config())
    assert card is not None
    for point in card.points:
        assert point.soft is not None
        assert 0 <= point.soft.failures <= point.shots
    assert "| soft |" in (tmp_path / "out" / f"{card.name}.md").read_text()
    rows = [json.loads(line) for line in (tmp_path / "out" / "curve.jsonl").read_text().splitlines()]
    assert all("soft" in point for row in rows for point in row["points"])
    bare, _ = run(make_config("bare", "network.edges=false"))
    assert bare is not None
    assert bare.network.outputs == HARD_OUTPUTS
    assert all(point.soft is None for point in bare.points)


def test_edges_are_learned_by_a_network_without_them(make_config: Make, tmp_path: Path) -> None:
    """Weights without edges go on with them: what was decided stays as it was, edges begin at their rates."""
    run(make_config("bare", "network.edges=false"))
    config = make_config("out", "training.start=bare/tiny.safetensors")
    start = read_start(config)
    assert start.spec.weighs_edges
    volumes, _ = open_volumes(config, True)
    module = make_network(start, config, volumes)
    _, state = load_weights(tmp_path / "bare" / "tiny.safetensors")
    before = make_module(replace(start.spec, outputs=HARD_OUTPUTS))
    before.load_state_dict(state)
    volume = torch.rand(1, 4, 5, 3, 3)
    with torch.inference_mode():
        logits = module(volume)
        assert torch.allclose(logits[:, :HARD_OUTPUTS], before(volume), atol=1e-5)
    rates = torch.logit(torch.tensor(volumes[0].densities(config.training.seed)[HARD_OUTPUTS:]))
    assert torch.allclose(logits[:, HARD_OUTPUTS:].mean(dim=(0, 2, 3, 4)), rates, atol=1e-4)
