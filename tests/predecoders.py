"""Networks for tests that need no library, and the slow twin of the predecoding path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.batch import Streams
from rtqec.device.chunks import HostChunks
from rtqec.device.engine import ChunkShape, Script, ScriptedEngine
from rtqec.neural.effects import Effects, logical_cells, mechanisms
from rtqec.neural.layout import Frame, GridLayout, grid_layout
from rtqec.neural.restate import Restatement
from rtqec.plan import Plan
from rtqec.plan.model import WindowModel
from rtqec.plan.schedule import WindowRounds
from rtqec.predecode import Predecode, patch_filter, soft_filter
from rtqec.ring import Ring
from rtqec.soft_matcher import SoftMatcher
from rtqec.telemetry import TelemetryBlock
from rtqec.windowed import WindowedDecoder
from rtqec.wire import CorrectionFlag, Reason, Rung

THRESHOLD = 0.0


def effects_of(plan: Plan, num_layers: int, frame: Frame = "own") -> Effects:
    """What answers do in a shot of so many rounds of a plan."""
    layout = grid_layout(plan.experiment.own_dem, plan.rounds, plan.table.time_coordinate, frame)
    found = mechanisms(plan.experiment.own_dem, plan.rounds, layout)
    return Effects(layout, num_layers, logical_cells(found, layout, plan.rounds.num_rounds))


def never(volume: NDArray[np.float32], inside: NDArray[np.float32]) -> NDArray[np.float32]:
    """A network that answers nothing."""
    return np.full((len(volume), 2, *volume.shape[2:]), -1, np.float32)


def integer_network(
    seed: int, halo: int, outputs: int, yes: float = 0.1, logits: tuple[float, float] = (-1.0, 1.0)
) -> Script:
    """A network of whole numbers: `halo` layers of random kernels, 3 wide, and a table of what is yes; no and yes are
    random numbers of at least the size of `logits`, and at most a half more.

    Layers outside count as a convolution's padding does, after every layer, as engines must do it.
    """
    rng = np.random.default_rng(seed)
    kernels = rng.integers(0, 8, (halo, 4, 4, 3, 3, 3))
    head = rng.integers(0, 8, (outputs, 4))
    is_yes = rng.random(8) < yes
    if not is_yes.any():
        is_yes[int(rng.integers(8))] = True
    table = np.where(is_yes, logits[1], logits[0]) * (1 + rng.random(8) / 2)

    def script(volume: NDArray[np.float32], inside: NDArray[np.float32]) -> NDArray[np.float32]:
        x = np.rint(2 * volume).astype(np.int64)
        keep = inside.astype(np.int64)
        for kernel in kernels:
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)))
            t, r, c = x.shape[2:]
            x = sum(
                np.einsum("oi,nitrc->notrc", kernel[:, :, i, j, k], padded[:, :, i : i + t, j : j + r, k : k + c])
                for i in range(3) for j in range(3) for k in range(3)
            )  # fmt: skip
            x = (x % 8) * keep
        return table[np.einsum("oi,nitrc->notrc", head, x) % 8].astype(np.float32)

    return script


def predecoder(
    plan: Plan, script: Script, halo: int, outputs: int = 2, chunks: int = 8,
    late: Callable[[], bool] | None = None, patches: int = 1, soft: bool = False,
) -> Callable[[Streams, Ring, TelemetryBlock], Predecode]:  # fmt: skip
    """Makes the stage with a scripted engine."""
    frame: Frame = "published" if outputs == 4 else "own"
    effects = effects_of(plan, plan.rounds.num_rounds, frame)
    shape = ChunkShape(chunks, plan.window.rounds + halo, effects.layout.code.distance, outputs)
    engine = ScriptedEngine(shape, script, late)
    one = soft_filter(effects, halo) if soft else patch_filter(effects, halo, THRESHOLD, THRESHOLD)

    def make(streams: Streams, ring: Ring, telemetry: TelemetryBlock) -> Predecode:
        stage = Predecode(streams, ring, telemetry, [one] * patches, shape, 0)
        stage.check_every = 1
        stage.open(HostChunks(engine, stage.tables))
        return stage

    return make


def whole_answers(script: Script, events: NDArray[np.uint8], layout: GridLayout) -> NDArray[np.float32]:
    """A network's logits on whole volumes."""
    num_layers = events.shape[2]
    presence = np.broadcast_to(layout.presence(num_layers), (len(events), *events.shape[1:]))
    volume = np.concatenate([events, presence], axis=1).astype(np.float32)
    return script(volume, np.ones((len(events), 1, num_layers, 1, 1), np.float32))


def on_grid(layers_b8: NDArray[np.uint8], layout: GridLayout) -> NDArray[np.uint8]:
    """One shot's packed layers as a volume of one shot."""
    num_rounds, n, size = len(layers_b8), layout.code.num_cells, layout.code.distance
    bits = np.unpackbits(layers_b8, axis=1, bitorder="little")
    events = np.zeros((1, 2, num_rounds, n), np.uint8)
    for t in range(num_rounds):
        for slot, place in enumerate(layout.places(t, num_rounds)):
            events[0, place // n, t, place % n] = bits[t, slot]
    return events.reshape(1, 2, num_rounds, size, size)


class SlowSoft:
    """Whole shots through the network, then windows one by one with its weights, as their corrections say."""

    def __init__(self, plan: Plan, script: Script, halo: int) -> None:
        self.plan, self._script, self._halo = plan, script, halo
        self._decoder = WindowedDecoder(plan)
        self._matchers: dict[str, SoftMatcher] = {}

    def flips(self, layers_b8: NDArray[np.uint8], corrections: NDArray[Any]) -> Iterator[int]:
        """What each correction of one shot should flip; arguments as for `SlowPredecode`."""
        plan, stride = self.plan, self.plan.layout.layer_bytes
        rows = layers_b8.reshape(-1, stride)
        layout = effects_of(plan, len(rows)).layout
        events = on_grid(rows, layout)
        answers = whole_answers(self._script, events, layout)[0].reshape(9, len(rows), -1)
        residual = layers_b8.copy()
        for i, correction in enumerate(corrections):
            start = int(correction["first_round"])
            commit_stop = start + int(correction["num_rounds"])
            closing = bool(correction["flags"] & CorrectionFlag.LAST_OF_SHOT)
            stop = commit_stop if closing else commit_stop + plan.window.buffer_rounds
            window = WindowRounds(i, start, stop, commit_stop, closing)
            decoder = self._decoder.decoder(window, Rung.MATCH)
            if correction["rung"] == Rung.SOFT_MATCH:
                known = stop if closing else stop - self._halo
                decoder = _Weighed(self._matcher(decoder.model, layout), answers, start, known)
            else:
                assert correction["reason"] == Reason.ENGINE
            yield self._decoder.decode(residual, window, decoder)

    def _matcher(self, model: WindowModel, layout: GridLayout) -> SoftMatcher:
        if model.content not in self._matchers:
            self._matchers[model.content] = matcher = SoftMatcher(model, layout)
            matcher.check_every = 1
        return self._matchers[model.content]


class _Weighed:
    """A matcher of one window that knows what the network said."""

    def __init__(self, matcher: SoftMatcher, answers: NDArray[np.float32], start: int, known: int) -> None:
        self.model, self._matcher = matcher.model, matcher
        self._answers, self._start, self._known = answers, start, known

    def __call__(self, rows_b8: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._matcher(rows_b8[0], self._answers, self._start, self._start, self._known)[np.newaxis]


class SlowPredecode:
    """Whole shots through the network, then windows one by one, as their corrections say that they were decoded."""

    def __init__(self, plan: Plan, script: Script, halo: int, outputs: int = 2) -> None:
        self.plan, self._script, self._halo, self._outputs = plan, script, halo, outputs
        self._decoder = WindowedDecoder(plan)

    def answers(self, events: NDArray[np.uint8], effects: Effects) -> NDArray[np.bool_]:
        """The network on whole volumes."""
        return whole_answers(self._script, events, effects.layout) >= THRESHOLD

    def flips(self, layers_b8: NDArray[np.uint8], corrections: NDArray[Any]) -> Iterator[int]:
        """What each correction of one shot should flip.

        Args:
            layers_b8: uint8, shape (num_rounds * layer_bytes,): the shot's detection events.
            corrections: Its corrections: which windows went through the network is read from them.
        """
        plan, stride = self.plan, self.plan.layout.layer_bytes
        num_rounds = len(layers_b8) // stride
        effects = effects_of(plan, num_rounds, "own" if self._outputs == 2 else "published")
        n = effects.layout.code.num_cells
        spots = [(t, slot, place) for t in range(num_rounds) for slot, place in
                 enumerate(effects.layout.places(t, num_rounds))]  # fmt: skip
        events = on_grid(layers_b8.reshape(num_rounds, stride), effects.layout)
        answers = self.answers(events, effects)
        channels = (effects.layout.own,) if self._outputs == 2 else (0, 1)
        restate = Restatement(effects, channels)
        taken = np.zeros(num_rounds, np.bool_)
        filtered = 0
        seams = np.zeros_like(layers_b8)
        for i, correction in enumerate(corrections):
            start = int(correction["first_round"])
            commit_stop = start + int(correction["num_rounds"])
            closing = bool(correction["flags"] & CorrectionFlag.LAST_OF_SHOT)
            stop = commit_stop if closing else commit_stop + plan.window.buffer_rounds
            if correction["rung"] in (Rung.PREDECODED_MATCH, Rung.PREDECODED_CORRELATED_MATCH):
                assert correction["reason"] == Reason.CONFIGURED
                reach = stop if closing else stop - self._halo
                taken[max(filtered, start) : reach] = True
                filtered = max(filtered, commit_stop, reach)
            filtered = max(filtered, commit_stop)
            residual, _ = restate(events, answers & taken[:, np.newaxis, np.newaxis])
            laid = np.zeros((num_rounds, 8 * stride), np.uint8)
            flat = residual.reshape(2, num_rounds, n)
            for t, slot, place in spots:
                laid[t, slot] = flat[place // n, t, place % n]
            row = np.packbits(laid, axis=1, bitorder="little").ravel() ^ seams
            before = row.copy()
            window = WindowRounds(i, start, stop, commit_stop, closing)
            found = self._decoder.decode(row, window, self._decoder.decoder(window, Rung.MATCH))
            seams ^= row ^ before
            mine = np.zeros(num_rounds, np.bool_)
            mine[start:commit_stop] = taken[start:commit_stop]
            _, flips = restate(events, answers & mine[:, np.newaxis, np.newaxis])
            yield found ^ int(flips[0])
