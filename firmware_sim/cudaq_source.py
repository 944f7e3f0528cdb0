"""Memory experiments that are written as CUDA-Q kernels: what decodes them, and their samples. The one door to cudaq.

A kernel declares its detectors (`cudaq.detector`, `cudaq.detectors`), in order of time, and its observables
(`cudaq.logical_observable`). Its noise is what it applies (`cudaq.apply_noise`), and what a noise model adds.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import stim
from numpy.typing import NDArray

from rtqec.cudaq.decoder import CudaqDecoder
from rtqec.cudaq.rounds import blocks_that_repeat, rounds_from_blocks
from rtqec.cudaq.sparse import Rows
from rtqec.errors import ConfigError, PlanError

EXPERIMENT = "EXPERIMENT"
"""The name that a program gives to its experiment."""
_TARGET = "stim"
"""CUDA-Q's simulator of Clifford circuits, on the CPU."""


@dataclass(frozen=True)
class KernelExperiment:
    """A kernel, the arguments it is called with, and what is noisy.

    Attributes:
        kernel: A `cudaq.kernel`.
        arguments: Of the kernel.
        noise_model: A `cudaq.NoiseModel`; None where the kernel says it all.
    """

    kernel: Any
    arguments: tuple[Any, ...] = ()
    noise_model: Any = None

    @cached_property
    def decoder(self) -> CudaqDecoder:
        """Its error model, which measurements make its detectors, and its rounds, read off them.

        Raises:
            ConfigError: CUDA-Q is not installed.
            PlanError: It has no detectors, or some are 1 where there is no noise.
        """
        found = self._described
        measurements = _rows(found.m2d_matrix)
        if not measurements or not found.num_observables or not all(measurements):
            raise PlanError(
                "kernel", f"declares {len(measurements)} detectors and {found.num_observables} observables.",
                "Without both there is nothing to decode.", "Declare them: cudaq.detector, cudaq.logical_observable.",
            )  # fmt: skip
        if _parities(self._reference, measurements).any():
            raise PlanError(
                "kernel", "has detectors that are 1 without noise.",
                "A decoder of CUDA-Q has no place for constants: its detectors are sums of measurements.",
                "Prepare and measure such that they are 0.",
            )  # fmt: skip
        decoder = CudaqDecoder(stim.DetectorErrorModel(found.dem).flattened(), measurements, found.num_observables)
        rounds = rounds_from_blocks(measurements, blocks_that_repeat(measurements))
        return decoder if rounds is None else decoder.with_rounds(*rounds)

    def sample(self, num_shots: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Noisy shots.

        Args:
            num_shots: How many.
            seed: Of CUDA-Q's simulator.

        Returns:
            Measurements, bool, shape (num_shots, num_measurements), in the order of the kernel; observable flips, bool,
            shape (num_shots, num_observables).
        """
        cudaq = _cudaq()
        cudaq.set_random_seed(seed)
        measurements = self._run(num_shots, self.noise_model or cudaq.NoiseModel())
        observables = _rows(self._described.m2o_matrix)
        flips = _parities(measurements, observables) ^ _parities(self._reference, observables)
        return measurements, flips

    @cached_property
    def _described(self) -> Any:
        """What CUDA-Q says of the kernel: error model and matrices."""
        cudaq = _cudaq()
        return cudaq.dem_from_kernel(
            self.kernel, *self.arguments, noise_model=self.noise_model or cudaq.NoiseModel(),
            decompose_errors=True, approximate_disjoint_errors_threshold=1.0,
        )  # fmt: skip

    @cached_property
    def _reference(self) -> NDArray[np.bool_]:
        """One shot without any noise."""
        return self._run(1, None)

    def _run(self, num_shots: int, noise_model: Any) -> NDArray[np.bool_]:
        options = {} if noise_model is None else {"noise_model": noise_model}
        with warnings.catch_warnings():
            # CUDA-Q announces changes of `sample` at every call.
            warnings.simplefilter("ignore")
            found = _cudaq().sample(
                self.kernel, *self.arguments, shots_count=num_shots, explicit_measurements=True, **options
            )
        texts = found.get_sequential_data()
        characters = np.frombuffer("".join(texts).encode(), np.uint8)
        bits: NDArray[np.bool_] = characters.reshape(num_shots, -1) == ord("1")
        return bits


def load_program(key: str, path: Path) -> KernelExperiment:
    """Run a Python program that defines an experiment.

    Args:
        key: The key that names it, for the message.
        path: The program; it is trusted, as it is run.

    Raises:
        ConfigError: It defines none, or CUDA-Q is not installed.
    """
    _cudaq()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, EXPERIMENT, None)
    if not isinstance(found, KernelExperiment):
        raise ConfigError(
            key, f"is {str(path)!r}, which defines no {EXPERIMENT}.",
            "The kernel and its arguments are taken from there.",
            f"Write {EXPERIMENT} = KernelExperiment(kernel, arguments); examples/cudaq_memory.py shows it.",
        )  # fmt: skip
    return found


def _cudaq() -> Any:
    """The library, set to simulate on the CPU.

    Raises:
        ConfigError: It is not installed.
    """
    # Without noise each `apply_noise` of a kernel warns that it does nothing.
    os.environ.setdefault("CUDAQ_LOG_LEVEL", "error")
    try:
        import cudaq
    except ImportError as error:
        raise ConfigError(
            "CUDA-Q", f"cannot be imported: {error}.", "Its kernels are simulated by it; nothing else needs it.",
            "pip install 'rtqec[cudaq]' (3 GB), or feed recorded shots.",
        ) from error  # fmt: skip
    cudaq.set_target(_TARGET)
    return cudaq


def _rows(matrix: Any) -> Rows:
    """The columns of each row of a scipy matrix."""
    parts = np.split(matrix.indices, matrix.indptr[1:-1])
    return tuple(tuple(sorted(part.tolist())) for part in parts)


def _parities(bits: NDArray[np.bool_], rows: Rows) -> NDArray[np.bool_]:
    """XOR of some columns, for each row: bool, shape (num_shots, num_rows)."""
    return np.stack([np.bitwise_xor.reduce(bits[:, list(row)], axis=1) for row in rows], axis=1)
