"""Where finite shots come from: Stim, recorded experiments, b8 files, files and kernels of CUDA-Q."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from firmware_sim.cudaq_source import load_program
from firmware_sim.shots import (
    Shots,
    message_table,
    pack_detection_events,
    pack_measurements,
    pack_sweeps,
    words_from_bits,
)
from firmware_sim.unfold import measurements_of_events
from rtqec.config import Config
from rtqec.cudaq.syndromes import read_syndromes
from rtqec.errors import ConfigError
from rtqec.layout import bytes_for_bits
from rtqec.plan import Plan

_SHOTS_AT_ONCE = 4096


def finite_shots(config: Config, plan: Plan, seed: int) -> Shots:
    """The shots of one patch, as `[source]` says.

    Raises:
        ConfigError: A file is missing or does not fit the plan.
    """
    if config.source.kind == "simulated":
        simulate = _simulated if plan.table.cudaq is None else _from_model
        return simulate(config, plan, seed)
    if config.source.kind == "recorded":
        return _recorded(config, plan)
    if config.source.kind == "syndromes":
        return _from_syndromes(config, plan)
    if config.source.kind == "cudaq":
        return _from_kernel(config, plan, seed)
    return _from_b8(config, plan)


def _sends_events(config: Config) -> bool:
    return config.feed.payload == "detection_events"


def _simulated(config: Config, plan: Plan, seed: int) -> Shots:
    """Raw measurements from Stim's sampler; events and truth from Stim's own converter."""
    circuit = plan.experiment.circuit
    if circuit is None:
        raise ConfigError(
            "[source] kind", 'is "simulated", but [plan] gives a DEM alone.',
            "Raw measurements are sampled from a circuit.", 'Give [plan] circuit or generated, or set kind = "b8".',
        )  # fmt: skip
    sampler = circuit.compile_sampler(seed=seed)
    convert = circuit.compile_m2d_converter()
    rounds, events_b8, truth = [], [], []
    for start in range(0, config.source.shots, _SHOTS_AT_ONCE):
        measurements = sampler.sample(min(_SHOTS_AT_ONCE, config.source.shots - start))
        events, flips = convert.convert(measurements=measurements, separate_observables=True)
        rounds.append(
            pack_detection_events(plan, events) if _sends_events(config) else pack_measurements(plan, measurements)
        )
        events_b8.append(np.packbits(events, axis=1, bitorder="little"))
        truth.append(words_from_bits(flips))
    return Shots(
        np.concatenate(rounds),
        np.zeros((config.source.shots, 0), np.uint8),
        message_table(plan, _sends_events(config), config.source.rounds_per_message),
        plan.rounds.num_rounds,
        np.concatenate(events_b8),
        np.concatenate(truth),
    )


def _from_model(config: Config, plan: Plan, seed: int) -> Shots:
    """Errors of the model alone, and measurements that show them: a decoder file of CUDA-Q has no circuit."""
    sampler = plan.experiment.own_dem.compile_sampler(seed=seed)
    events, flips, _ = sampler.sample(config.source.shots)
    if _sends_events(config):
        rounds = pack_detection_events(plan, events)
    else:
        rounds = pack_measurements(plan, measurements_of_events(plan, events, seed))
    return _shots_of_events(config, plan, rounds, events, words_from_bits(flips))


def _from_syndromes(config: Config, plan: Plan) -> Shots:
    """A syndrome file of CUDA-Q; its corrections, if it has some, are what shots are compared with."""
    assert config.source.syndromes is not None
    path = config.path("[source] syndromes", config.source.syndromes)
    found = read_syndromes(path)
    answers = found.corrections
    if answers is not None and answers.shape[1] != plan.num_observables:
        raise _unfit(path, f"corrections of {answers.shape[1]} bits", f"{plan.num_observables} observables")
    truth = None if answers is None else words_from_bits(answers)
    return _shots_of_measurements(config, plan, found.measurements, truth, path)


def _from_kernel(config: Config, plan: Plan, seed: int) -> Shots:
    """A kernel of CUDA-Q, simulated by CUDA-Q."""
    assert config.source.program is not None
    path = config.path("[source] program", config.source.program)
    # CUDA-Q takes seeds of 32 bits.
    sampled = load_program("[source] program", path).sample(config.source.shots, seed % (1 << 32))
    return _shots_of_measurements(config, plan, sampled[0], words_from_bits(sampled[1]), path)


def _shots_of_measurements(
    config: Config, plan: Plan, measurements: NDArray[np.bool_], truth: NDArray[np.uint64] | None, path: Path
) -> Shots:
    """Raw shots that somebody else made, at most `[source] shots`."""
    circuit = plan.experiment.circuit
    if circuit is None or _sends_events(config):
        raise ConfigError(
            "[source] kind", f"is {config.source.kind!r}, which gives raw measurements, but [feed] payload is "
            f"{config.feed.payload!r}, or [plan] a DEM alone.", "Measurements are folded by the daemon.",
            'Name the circuit or the decoder file, and set payload = "measurements".',
        )  # fmt: skip
    if measurements.shape[1] != circuit.num_measurements:
        raise _unfit(path, f"shots of {measurements.shape[1]} measurements", f"{circuit.num_measurements}")
    measurements = measurements[: config.source.shots]
    events = circuit.compile_m2d_converter().convert(measurements=measurements, append_observables=False)
    truth = None if truth is None else truth[: config.source.shots]
    return _shots_of_events(config, plan, pack_measurements(plan, measurements), events, truth)


def _shots_of_events(
    config: Config, plan: Plan, rounds: NDArray[np.uint8], events: NDArray[np.bool_], truth: NDArray[np.uint64] | None
) -> Shots:
    """Shots without sweep bits."""
    return Shots(
        rounds,
        np.zeros((len(rounds), 0), np.uint8),
        message_table(plan, _sends_events(config), config.source.rounds_per_message),
        plan.rounds.num_rounds,
        np.packbits(events, axis=1, bitorder="little"),
        truth,
    )


def _unfit(path: Path, found: str, asked: str) -> ConfigError:
    return ConfigError(
        "[source]", f"reads {path}, which gives {found}; [plan] has {asked}.", "They are of different experiments.",
        "Name the source that belongs to [plan].",
    )  # fmt: skip


def _recorded(config: Config, plan: Plan) -> Shots:
    """An experiment in Google's layout: measurements and sweep bits, or detection events; actual observable flips."""
    assert config.source.folder is not None
    folder = config.path("[source] folder", config.source.folder)
    events_b8 = _read_b8(folder / "detection_events.b8", plan.experiment.own_dem.num_detectors, config.source.shots)
    truth = _read_01(folder / "obs_flips_actual.01", config.source.shots)
    if _sends_events(config):
        events = np.unpackbits(events_b8, axis=1, bitorder="little", count=plan.experiment.own_dem.num_detectors)
        rounds_b8 = pack_detection_events(plan, events.astype(np.bool_))
        sweep_b8 = np.zeros((len(rounds_b8), 0), np.uint8)
    else:
        circuit = plan.experiment.circuit
        if circuit is None:
            raise ConfigError(
                "[feed] payload", 'is "measurements", but [plan] gives a DEM alone.',
                "Measurements are folded by the circuit's detectors.",
                'Name the circuit, or set payload = "detection_events".',
            )  # fmt: skip
        packed = _read_b8(folder / "measurements.b8", circuit.num_measurements, config.source.shots)
        measurements = np.unpackbits(packed, axis=1, bitorder="little", count=circuit.num_measurements)
        rounds_b8 = pack_measurements(plan, measurements.astype(np.bool_))
        swept = _read_b8(folder / "sweep.b8", circuit.num_sweep_bits, config.source.shots)
        sweep_bits = np.unpackbits(swept, axis=1, bitorder="little", count=circuit.num_sweep_bits)
        sweep_b8 = pack_sweeps(sweep_bits.astype(np.bool_))
    messages = message_table(plan, _sends_events(config), config.source.rounds_per_message)
    return Shots(rounds_b8, sweep_b8, messages, plan.rounds.num_rounds, events_b8, truth)


def _from_b8(config: Config, plan: Plan) -> Shots:
    """A plain b8 file of detection events, with or without observables."""
    if not _sends_events(config):
        raise ConfigError(
            "[feed] payload", f"is {config.feed.payload!r}, but [source] kind is \"b8\".",
            "Such a file holds detection events.", 'Set payload = "detection_events".',
        )  # fmt: skip
    assert config.source.detection_events is not None
    num_detectors = plan.experiment.own_dem.num_detectors
    path = config.path("[source] detection_events", config.source.detection_events)
    events_b8 = _read_b8(path, num_detectors, config.source.shots)
    truth = None
    if config.source.observables is not None:
        path = config.path("[source] observables", config.source.observables)
        if path.suffix == ".b8":
            packed = _read_b8(path, plan.num_observables, len(events_b8))
            truth = words_from_bits(np.unpackbits(packed, axis=1, bitorder="little", count=plan.num_observables))
        else:
            truth = _read_01(path, len(events_b8))
    events = np.unpackbits(events_b8, axis=1, bitorder="little", count=num_detectors).astype(np.bool_)
    return Shots(
        pack_detection_events(plan, events),
        np.zeros((len(events_b8), 0), np.uint8),
        message_table(plan, True, config.source.rounds_per_message),
        plan.rounds.num_rounds,
        events_b8,
        truth,
    )


def _read_b8(path: Path, num_bits: int, num_shots: int) -> NDArray[np.uint8]:
    """The first `num_shots` shots of a b8 file, uint8, shape (num_shots, ceil(num_bits / 8))."""
    _check_exists(path)
    row = bytes_for_bits(num_bits)
    content = np.fromfile(path, np.uint8)
    if len(content) % row:
        raise ConfigError(
            "[source]", f"reads {path}, but its {len(content)} bytes are no multiple of the {row} of one shot "
            f"({num_bits} bits).", "The file belongs to another circuit, or was cut short.",
            "Name the file that belongs to [plan].",
        )  # fmt: skip
    return np.ascontiguousarray(content.reshape(-1, row)[:num_shots])


def _read_01(path: Path, num_shots: int) -> NDArray[np.uint64]:
    """The first shots of a 01 file, one line per shot, as words."""
    _check_exists(path)
    lines = path.read_text().split()[:num_shots]
    return words_from_bits(np.array([[char == "1" for char in line] for line in lines]))


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise ConfigError(
            "[source]", f"needs {path}, which does not exist.",
            "The rounds, or the truth that corrections are compared with, are read from it.",
            "Name a folder that has it.",
        )  # fmt: skip
