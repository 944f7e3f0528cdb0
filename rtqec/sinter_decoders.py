"""rtqec's windows as sinter decoders, for anybody's sinter script. The only module that imports sinter.

    sinter collect --circuits my.stim --decoders rtqec rtqec_correlated pymatching \
        --custom_decoders_module_function rtqec.sinter_decoders:sinter_decoders --max_shots 100000 --processes 4

or in Python `sinter.collect(.., custom_decoders=sinter_decoders())`. sinter belongs to the extra `bench`; the daemon
never needs it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sinter
import stim
from numpy.typing import NDArray

from rtqec.config import load_config
from rtqec.errors import ConfigError, PlanError
from rtqec.plan import Plan, compile_plan
from rtqec.windowed import SHOTS_AT_ONCE, WindowedDecoder
from rtqec.wire import Rung

_DEPLOYMENT = """
[plan]
dem = "shots.dem"

[window]

[feed]
endpoint = "inproc://nowhere"
payload = "detection_events"
round_period_us = 1.0

[publish]
endpoint = "inproc://nowhere"

[ladder]
fallbacks = []
"""
"""A plan is made of a configuration. What only a running daemon asks is filled in; `WindowedSinterDecoder` adds the
rest."""


def sinter_decoders() -> dict[str, sinter.Decoder]:
    """rtqec's decoders by name, with windows that commit d rounds and look at d more; d is the shortest error."""
    return {
        "rtqec": WindowedSinterDecoder(),
        "rtqec_correlated": WindowedSinterDecoder(rung=Rung.CORRELATED_MATCH),
        "rtqec_union_find": WindowedSinterDecoder(rung=Rung.UNION_FIND),
    }


@dataclass(frozen=True, kw_only=True)
class WindowedSinterDecoder(sinter.Decoder):  # type: ignore[misc]  # sinter has no types
    """The windows of a lane, made from the detector error model that sinter hands over.

    Attributes:
        rung: How all windows are decoded: MATCH, CORRELATED_MATCH or UNION_FIND.
        commit_rounds, buffer_rounds: As in `[window]`; the distance where not given.
        accept_short_buffer: As in `[window]`.
        distance: Of the code; where not given, the fewest graphlike errors that flip an observable unseen.
        time_coordinate: Which detector coordinate counts rounds.
    """

    rung: Rung = Rung.MATCH
    commit_rounds: int | None = None
    buffer_rounds: int | None = None
    accept_short_buffer: bool = False
    distance: int | None = None
    time_coordinate: int = -1

    def plan(self, dem: stim.DetectorErrorModel) -> Plan:
        """The windows of a shot.

        Raises:
            ConfigError, PlanError: The model cannot be decoded in such windows; the message says why.
        """
        if self.rung == Rung.HOLD:
            raise ConfigError(
                "rung", "is HOLD.", "A held window is not decoded at all.", "Use MATCH, CORRELATED_MATCH or UNION_FIND."
            )  # fmt: skip
        distance = _distance(dem) if self.distance is None else self.distance
        commit = distance if self.commit_rounds is None else self.commit_rounds
        buffer = distance if self.buffer_rounds is None else self.buffer_rounds
        overrides = [
            f"plan.distance={distance}",
            f"plan.time_coordinate={self.time_coordinate}",
            f"plan.matching={'correlated' if self.rung == Rung.CORRELATED_MATCH else 'plain'}",
            f"window.commit_rounds={commit}",
            f"window.buffer_rounds={buffer}",
            f"window.accept_short_buffer={str(self.accept_short_buffer).lower()}",
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sinter.toml"
            path.write_text(_DEPLOYMENT)
            dem.to_file(path.with_name("shots.dem"))
            config = load_config(path, overrides)
            return compile_plan(config, config.patch[0])

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> sinter.CompiledDecoder:
        """What sinter calls once per task and worker process; raises as `plan` does."""
        return CompiledWindows(self.plan(dem), self.rung)


class CompiledWindows(sinter.CompiledDecoder):  # type: ignore[misc]  # sinter has no types
    """The windows of a plan behind sinter's door.

    Args:
        plan: A finite plan.
        rung: How; as the plan matches, or UNION_FIND on the windows of plain matching, as in a lane.
    """

    def __init__(self, plan: Plan, rung: Rung) -> None:
        self.plan = plan
        self._decode = WindowedDecoder(plan, rung)
        self._num_detectors = len(plan.rounds.detector_round)

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Predict observable flips.

        Args:
            bit_packed_detection_event_data: uint8, shape (num_shots, ceil(num_detectors / 8)), LSB first.

        Returns:
            uint8, shape (num_shots, ceil(num_observables / 8)), LSB first.

        Raises:
            ValueError: The events of a window cannot be paired, which the model's own errors never bring about.
        """
        num_shots = len(bit_packed_detection_event_data)
        flips = np.zeros((num_shots, self.plan.num_observables), np.bool_)
        for start in range(0, num_shots, SHOTS_AT_ONCE):
            piece = slice(start, start + SHOTS_AT_ONCE)
            events = np.unpackbits(
                bit_packed_detection_event_data[piece], axis=1, count=self._num_detectors, bitorder="little"
            )
            flips[piece] = self._decode(self.plan.rounds.layers_b8(events.astype(np.bool_)))
        return np.packbits(flips, axis=1, bitorder="little")


def _distance(dem: stim.DetectorErrorModel) -> int:
    """The fewest graphlike errors that flip an observable and no detector."""
    try:
        return len(dem.shortest_graphlike_error())
    except ValueError as error:
        raise PlanError(
            "distance", f"is not given, and Stim finds no undetected logical error: {str(error).splitlines()[0]}",
            "Windows commit as many rounds as the distance, and look at as many more.",
            "Set distance, or commit_rounds and buffer_rounds with it.",
        ) from error  # fmt: skip
