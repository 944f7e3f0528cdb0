"""A `Plan`: everything that is derived once, frozen, with a digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import stim

from rtqec.config import Config, LadderTable, PatchTable, PlanTable, WindowTable
from rtqec.errors import PlanError
from rtqec.layout import LayerLayout
from rtqec.plan.erasure import erased_models
from rtqec.plan.experiment import Experiment, ExperimentSource
from rtqec.plan.folding import FoldProgram, fold_programs
from rtqec.plan.model import EDGE_ROUNDS, ErrorTable, WindowModel, error_table
from rtqec.plan.rounds import RoundMap, round_map
from rtqec.plan.schedule import windows_of_shot
from rtqec.plan.windows import ClosingKey, ModelShelf, WindowShapes, endless_windows, finite_windows, first_rows
from rtqec.wire import OBSERVABLES_MAX

_PIECE_ROUNDS_MIN = 5 * EDGE_ROUNDS
"""An endless plan is derived from a finite piece: two edges, and three times as much bulk that must repeat."""


@dataclass(frozen=True)
class Layer:
    """What one round of a feed carries.

    Attributes:
        num_measurements: Bits of a raw round; 0 where the plan comes from a DEM alone.
        num_detectors: Bits of a round of detection events.
        program: How the one becomes the other, or None.
    """

    num_measurements: int
    num_detectors: int
    program: FoldProgram | None


@dataclass(frozen=True)
class Plan:
    """One patch's plan.

    Attributes:
        first_layers: Rounds 0, 1, .. of a shot; of a finite one all but the last.
        bulk_layer: Every further round of an endless stream, or None.
        last_layer: The data readout.
        models: Distinct window models; equal ones are shared.
        shapes: The windows of each way of matching, "plain" and "correlated", that this patch may use.
        num_rows: Different beginnings of windows; see `plan.windows`.
        multiples: Commit regions that a window may decide at once.
        erased: By the number of a window's model: for each of its rounds the number of the model that knows that it was
            lost, or -1; see `plan.erasure`.
        experiment: The experiment that it was derived from; of an endless one, a finite piece.
        rounds: The rounds of that experiment.
        errors: Its error model.
        distance: Distance of the code.
    """

    table: PlanTable
    window: WindowTable
    layout: LayerLayout
    num_observables: int
    num_rounds: int | None
    first_layers: tuple[Layer, ...]
    bulk_layer: Layer | None
    last_layer: Layer
    models: tuple[WindowModel, ...]
    shapes: dict[str, WindowShapes]
    num_rows: int
    multiples: tuple[int, ...]
    erased: dict[int, tuple[int, ...]]
    num_sweep_bits: int
    distance: int
    experiment: Experiment = field(repr=False)
    rounds: RoundMap = field(repr=False)
    errors: ErrorTable = field(repr=False)

    @property
    def places_of_full_layer(self) -> list[list[float]]:
        """Where the detectors of a layer with the most of them lie, without their time; empty where that is not known.

        In the order of their bits. One place each, shape (detectors_max, 2).
        """
        rounds, time_index = self.rounds, self.table.time_coordinate
        full = int(np.argmax(rounds.detectors_per_layer))
        numbers = np.flatnonzero(rounds.detector_round == full)
        coordinates = self.experiment.dem.get_detector_coordinates(only=numbers.tolist())
        places = []
        for number in numbers[np.argsort(rounds.detector_slot[numbers])].tolist():
            place = coordinates[number]
            del place[time_index]
            places.append(place[:2])
        return places if all(len(place) == 2 for place in places) else []

    @property
    def rounds_digest(self) -> str:
        """sha256 of how rounds are read and cut into windows, whatever their errors: plans in which it is equal may
        take over from each other in the middle of a shot.
        """
        bulk = [self.bulk_layer] if self.bulk_layer else []
        digest = hashlib.sha256()
        for layer in (*self.first_layers, *bulk, self.last_layer):
            digest.update(repr((layer.num_measurements, layer.num_detectors)).encode())
            digest.update(layer.program.content if layer.program else b"-")
        shape = (len(self.first_layers), self.num_rounds, self.num_observables, self.layout, self.num_sweep_bits)
        digest.update(repr((*shape, self.window.rounds, self.window.commit_rounds, self.table.frames)).encode())
        return digest.hexdigest()

    @property
    def endless(self) -> bool:
        """Whether shots have no length of their own."""
        return self.num_rounds is None

    @property
    def correlated(self) -> bool:
        """Whether matching uses the correlations between the components of an error."""
        return self.table.matching == "correlated"

    @property
    def look_back(self) -> int:
        """Rounds of raw history that folding needs."""
        layers = (*self.first_layers, self.last_layer, *([self.bulk_layer] if self.bulk_layer else []))
        return max((layer.program.look_back for layer in layers if layer.program), default=0)

    def layer(self, round_index: int, last: bool) -> Layer:
        """What round `round_index` of a shot carries."""
        if last:
            return self.last_layer
        if round_index < len(self.first_layers):
            return self.first_layers[round_index]
        assert self.bulk_layer is not None
        return self.bulk_layer

    @property
    def own_shapes(self) -> WindowShapes:
        """The windows that are decoded while there is time."""
        return self.shapes[self.table.matching]

    def row(self, start: int) -> int:
        """The row of a window that begins with round `start`."""
        return min(start // self.window.commit_rounds, self.num_rows - 1)

    def window_indices(self, num_rounds: int) -> list[int]:
        """The model of each window of a shot of `num_rounds` rounds that is decoded in time.

        Raises:
            KeyError: The plan has no windows for such a short shot.
        """
        *windows, last = windows_of_shot(num_rounds, self.window)
        own = self.own_shapes
        indices = [own.open[self.row(w.start), 1, False] for w in windows]
        return [*indices, own.closing[self.row(last.start), last.stop - last.start, False]]

    @cached_property
    def all_errors(self) -> ErrorTable:
        """Its error model with the parts of the graph that flip no observable: what a real feed shows."""
        return error_table(self.experiment.own_dem, self.rounds, self.layout, drop=False)

    @cached_property
    def digest(self) -> str:
        """sha256 of all that decides a correction while there is time and nothing is lost, hex.

        What a window may step down to is left out, so that a controller, which carries the tag, need not be set up
        anew when the ladder changes.
        """
        digest = hashlib.sha256(b"rtqec plan 1\n")
        digest.update(f"{self.table.matching} {self.num_rounds} {self.num_observables} {self.layout}\n".encode())
        digest.update(f"{self.window.commit_rounds} {self.window.buffer_rounds}\n".encode())
        for layer in (*self.first_layers, self.bulk_layer, self.last_layer):
            digest.update(b"none" if layer is None else f"{layer.num_measurements} {layer.num_detectors}\n".encode())
            digest.update(layer.program.content if layer and layer.program else b"events")
        for windows, last in ((self.own_shapes.open, 1), (self.own_shapes.closing, self.window.rounds)):
            for key, model in sorted(windows.items()):
                if key[1] <= last and not key[2]:
                    digest.update(f"{key} {self.models[model].content}\n".encode())
        return digest.hexdigest()

    @property
    def tag(self) -> int:
        """The first 32 bits of the digest: what a feed and a correction carry."""
        return int(self.digest[:8], 16)


def compile_plan(config: Config, patch: PatchTable) -> Plan:
    """Derive the plan of one patch.

    Raises:
        ConfigError: The configuration cannot work with this circuit; the message names key, value, reason, remedy.
    """
    table, window = config.tables_of(patch)
    source = ExperimentSource(config, table)
    return (_compile_endless if source.endless else _compile_finite)(source.table, window, config.ladder, source)


def compile_plans(config: Config) -> list[Plan]:
    """The plan of every patch; patches with equal tables share one."""
    known: dict[str, Plan] = {}
    plans = []
    for patch in config.patch:
        key = repr(config.tables_of(patch))
        if key not in known:
            known[key] = compile_plan(config, patch)
        plans.append(known[key])
    return plans


@dataclass(frozen=True)
class _Derived:
    """An experiment with its rounds, errors and layers."""

    experiment: Experiment
    rounds: RoundMap
    errors: ErrorTable
    layers: tuple[Layer, ...]

    def program_at(self, t: int) -> FoldProgram | None:
        """How round `t` of the experiment is folded; None behind its end."""
        return self.layers[t].program if t < len(self.layers) else None

    @property
    def look_back(self) -> int:
        """Rounds of raw history that folding needs."""
        return max((layer.program.look_back for layer in self.layers if layer.program), default=0)

    def errors_for(self, table: PlanTable, matching: str) -> ErrorTable:
        """The errors that this way of matching is given."""
        if matching == table.matching:
            return self.errors
        return _read_errors(table, matching, self.experiment, self.rounds, self.rounds.layout)


def _read_errors(
    table: PlanTable, matching: str, experiment: Experiment, rounds: RoundMap, layout: LayerLayout
) -> ErrorTable:
    return error_table(experiment.dem, rounds, layout, table.drop_unobservable and matching == "plain")


def _matchings(table: PlanTable, ladder: LadderTable) -> list[str]:
    """The ways of matching that a patch may use, its own first."""
    steps_down = "match" in ladder.fallbacks or "union_find" in ladder.fallbacks
    return [table.matching, *(["plain"] if steps_down and table.matching != "plain" else [])]


def _derive(table: PlanTable, experiment: Experiment) -> _Derived:
    rounds = round_map(table, experiment.circuit, experiment.dem)
    errors = _read_errors(table, table.matching, experiment, rounds, rounds.layout)
    if not 1 <= errors.num_observables <= OBSERVABLES_MAX:
        raise PlanError(
            "[plan]", f"has {errors.num_observables} observables; the bounds are 1 and {OBSERVABLES_MAX}.",
            "A correction carries the flips of the observables, in one machine word.",
            "Give a circuit with OBSERVABLE_INCLUDE, or split it into several patches.",
        )  # fmt: skip
    programs: list[FoldProgram | None] = [None] * rounds.num_rounds
    if experiment.circuit is not None:
        programs = list(fold_programs(experiment.circuit, rounds))
    layers = tuple(
        Layer(int(width), int(detectors), program)
        for width, detectors, program in zip(rounds.block_widths, rounds.detectors_per_layer, programs, strict=True)
    )
    return _Derived(experiment, rounds, errors, layers)


def _compile_finite(table: PlanTable, window: WindowTable, ladder: LadderTable, source: ExperimentSource) -> Plan:
    derived = _derive(table, source.as_written())
    num_rounds = derived.rounds.num_rounds
    distance = _distance(table, derived.experiment)
    if num_rounds > window.rounds:
        _check_window(window, distance, derived.errors.span)
    shelf = ModelShelf(derived.rounds.layout)
    shapes = {}
    for matching in _matchings(table, ladder):
        errors = derived.errors_for(table, matching)
        shapes[matching], num_rows = finite_windows(errors, num_rounds, window, ladder.multiples, shelf)
    erased = {}
    if window.erasures and derived.layers[0].program is not None:
        own = shapes[table.matching]
        begins = _begins(own, window, [key for key in own.closing if key[1] <= window.rounds])
        erased = erased_models(shelf.models, derived.program_at, derived.look_back, begins, num_rounds - 1)
    return Plan(
        table,
        window,
        derived.rounds.layout,
        derived.errors.num_observables,
        num_rounds,
        derived.layers[:-1],
        None,
        derived.layers[-1],
        tuple(shelf.models),
        shapes,
        num_rows,
        ladder.multiples,
        erased,
        _num_sweep_bits(derived),
        distance,
        derived.experiment,
        derived.rounds,
        derived.errors,
    )


def _compile_endless(table: PlanTable, window: WindowTable, ladder: LadderTable, source: ExperimentSource) -> Plan:
    """First windows, one bulk window for ever, and a last window for every length at which a stream may end."""
    # Long enough for several windows, so that `rtqec verify` and `check` have something to look at.
    asked = max(_PIECE_ROUNDS_MIN, 2 * window.rounds + window.commit_rounds)
    derived = _derive(table, source.of_rounds(asked) if source.stretchable else source.as_written())
    layout = derived.rounds.layout
    if derived.rounds.num_rounds < _PIECE_ROUNDS_MIN:
        raise PlanError(
            "[plan] rounds", f'is "endless", but the file has {derived.rounds.num_rounds} rounds; the bound is '
            f"{_PIECE_ROUNDS_MIN}.",
            "The bulk must be seen to repeat before it is believed to repeat for ever.",
            "Give a circuit with a REPEAT block, or a longer file.",
        )  # fmt: skip
    distance = _distance(table, source.of_rounds(2 * window.rounds) if source.stretchable else derived.experiment)
    _check_window(window, distance, derived.errors.span)
    _check_bulk(derived.errors)
    first_layers = _first_layers(derived.layers)
    shelf = ModelShelf(layout)
    tables = {matching: derived.errors_for(table, matching) for matching in _matchings(table, ladder)}
    num_first = max(first_rows(errors, window, ladder.multiples, shelf) for errors in tables.values())
    shapes = {}
    for matching, errors in tables.items():
        of_rounds = partial(_errors_of_rounds, table, matching, source, derived, errors)
        shapes[matching] = endless_windows(errors, of_rounds, window, ladder.multiples, num_first, shelf)
    erased = {}
    if window.erasures and derived.layers[0].program is not None:
        begins = _begins(shapes[table.matching], window, [])
        erased = erased_models(shelf.models, derived.program_at, derived.look_back, begins, None)
    return Plan(
        table,
        window,
        layout,
        derived.errors.num_observables,
        None,
        first_layers,
        derived.layers[len(first_layers)],
        derived.layers[-1],
        tuple(shelf.models),
        shapes,
        num_first + 1,
        ladder.multiples,
        erased,
        _num_sweep_bits(derived),
        distance,
        derived.experiment,
        derived.rounds,
        derived.errors,
    )


def _errors_of_rounds(
    table: PlanTable, matching: str, source: ExperimentSource, derived: _Derived, errors: ErrorTable, num_rounds: int
) -> ErrorTable | None:
    """The error model of the same experiment with another number of rounds, or None where there is no such thing."""
    if num_rounds >= 2 * EDGE_ROUNDS:
        return errors.stitched(num_rounds)
    if num_rounds < 2 or not source.stretchable:
        return None
    try:
        experiment = source.of_rounds(num_rounds)
    except PlanError:
        return None  # The file's circuit cannot be that short; such a shot is refused while running.
    rounds = round_map(table, experiment.circuit, experiment.dem)
    if rounds.num_rounds != num_rounds:
        return None
    return _read_errors(table, matching, experiment, rounds, derived.rounds.layout)


def _begins(shapes: WindowShapes, window: WindowTable, closing: list[ClosingKey]) -> dict[int, list[int]]:
    """The rounds at which the windows begin that are decoded while all goes well, by the number of their model."""
    begins: dict[int, list[int]] = {}
    for (row, multiple, past), number in shapes.open.items():
        if multiple == 1 and not past:
            begins.setdefault(number, []).append(row * window.commit_rounds)
    for key in closing:
        if not key[2]:
            begins.setdefault(shapes.closing[key], []).append(key[0] * window.commit_rounds)
    return begins


def _check_bulk(errors: ErrorTable) -> None:
    """An endless stream repeats one round for ever."""
    if not errors.bulk_repeats:
        raise PlanError(
            "[plan] rounds", f'is "endless", but rounds {EDGE_ROUNDS} to {errors.num_rounds - EDGE_ROUNDS - 1} of the '
            "circuit do not have equal errors.",
            "An endless stream is decoded by one bulk window for ever, so that the bulk must repeat.",
            "Use a finite number of rounds, or a circuit whose rounds are equal.",
        )  # fmt: skip


def _first_layers(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Layers before the one that repeats up to the data readout."""

    def key(layer: Layer) -> tuple[int, int, bytes]:
        return layer.num_measurements, layer.num_detectors, layer.program.content if layer.program else b""

    bulk = [key(layer) for layer in layers[:-1]]
    num_first = next(k for k in range(len(bulk)) if len(set(bulk[k:])) == 1)
    if num_first > len(layers) // 2:
        raise PlanError(
            "[plan] rounds", f'is "endless", but rounds {num_first - 1} and {num_first} of the circuit are measured '
            "or folded differently.", "An endless stream repeats one round for ever.",
            "Use a finite number of rounds, or a circuit whose rounds are equal.",
        )  # fmt: skip
    return layers[:num_first]


def _distance(table: PlanTable, experiment: Experiment) -> int:
    """The code's distance: as configured, else the fewest errors that flip an observable unseen."""
    if table.distance is not None:
        return table.distance
    try:
        return len(experiment.dem.shortest_graphlike_error())
    except ValueError as error:
        raise PlanError(
            "[plan] distance",
            f"is not given, and Stim finds no undetected logical error: {str(error).splitlines()[0]}",
            "The buffer must be at least the distance.", "Set distance.",
        ) from error  # fmt: skip


def _check_window(window: WindowTable, distance: int, span: int) -> None:
    """Refuse a buffer that cannot keep the accuracy, unless it is accepted by name."""
    if window.accept_short_buffer:
        return
    if window.buffer_rounds < distance:
        raise PlanError(
            "[window] buffer_rounds", f"is {window.buffer_rounds}, but the distance of [plan] is {distance} and asks "
            f"for at least {distance}.",
            "With a shorter buffer a window decides pairs that later rounds could still overturn (on recorded data "
            "28 % of shots differ without one).",
            f"Set buffer_rounds = {distance}, or accept the loss by name with accept_short_buffer = true.",
        )  # fmt: skip
    if window.buffer_rounds < span:
        raise PlanError(
            "[window] buffer_rounds", f"is {window.buffer_rounds}, but [plan] has errors whose detectors lie {span} "
            f"rounds apart and asks for at least {span}.",
            "The seam of such an error would lie beyond the window that decides it.",
            f"Set buffer_rounds = {span}, or accept the loss by name with accept_short_buffer = true.",
        )  # fmt: skip


def _num_sweep_bits(derived: _Derived) -> int:
    circuit: stim.Circuit | None = derived.experiment.circuit
    return 0 if circuit is None else int(np.int64(circuit.num_sweep_bits))
