"""The predecoder that a lane is configured with: its model, its engine, and where its patches lie on the grid."""

from __future__ import annotations

from pathlib import Path

from structlog.typing import FilteringBoundLogger

from rtqec.batch import Streams
from rtqec.config import Config, HandOver, PredecodeTable
from rtqec.device.choose import EngineKind, make_chunks, make_engine, possible_kinds
from rtqec.device.chunks import ChunkDevice, HostChunks
from rtqec.device.engine import ChunkShape, Engine, EngineError
from rtqec.device.options import EngineOptions
from rtqec.errors import ConfigError
from rtqec.neural.card import ModelCard, read_card
from rtqec.neural.effects import Effects, logical_cells, mechanisms
from rtqec.neural.layout import Frame, grid_layout
from rtqec.plan import Plan
from rtqec.predecode import PatchFilter, Predecode, patch_filter, soft_filter
from rtqec.ring import Ring
from rtqec.soft_matcher import fusion_blossom
from rtqec.telemetry import TelemetryBlock
from rtqec.units import ns_from_us

SHIPPED = Path(__file__).parent / "models"
"""Networks that come with the package."""
HALF_SUFFIX = ".fp16.onnx"
_TIMEOUT_PART = 0.75
"""Of the budget: an engine that has not answered by then leaves time for matching without it."""


def hand_over_of(config: Config) -> HandOver | None:
    """How the answers of the configured network reach the matcher; None where there is no network."""
    return None if config.predecode.model is None else config.predecode.hand_over


def make_predecode(
    config: Config, plans: list[Plan], streams: Streams, ring: Ring, telemetry: TelemetryBlock
) -> Predecode | None:
    """The stage of a lane, or None where `[predecode]` names no model. Its engine comes later: `open_engine`.

    Raises:
        ConfigError: The model is missing or damaged, or does not fit the patches.
    """
    table = config.predecode
    if table.model is None:
        return None
    folder, card = find_model(config, table.model)
    network_file(folder, card, table.engine, table.precision)
    filters = patch_filters(table, card, plans)
    budget_us = min(patch.budget_us or config.deadline.budget_us for patch in config.patch)
    timeout_us = _TIMEOUT_PART * budget_us if table.timeout_us == "auto" else table.timeout_us
    return Predecode(
        streams, ring, telemetry, filters, chunk_shape(config, plans, filters, card), ns_from_us(timeout_us)
    )


def patch_filters(table: PredecodeTable, card: ModelCard, plans: list[Plan]) -> list[PatchFilter]:
    """What the predecoder of each patch is.

    Raises:
        ConfigError: The network does not fit a patch.
    """
    halo = card.network.spec.halo
    filters = []
    for plan in plans:
        _check_window(plan, halo, card)
        effects = effects_of(plan, card.frame)
        if table.hand_over == "soft":
            _check_soft(plan, card)
            filters.append(soft_filter(effects, halo))
            continue
        threshold = threshold_of(table, card, plan)
        filters.append(patch_filter(effects, halo, threshold, threshold))
    return filters


def open_engine(config: Config, stage: Predecode, log: FilteringBoundLogger) -> None:
    """Make the engine of a lane's stage. One that cannot be made is said aloud, and every window goes on without it."""
    table = config.predecode
    assert table.model is not None
    folder, card = find_model(config, table.model)
    try:
        kinds = _kinds(config)
    except EngineError as error:
        log.error("predecoder_missing", model=card.name, engine=table.engine, error=str(error))
        return
    for kind in kinds:
        try:
            device = _make_device(config, stage, folder, card, kind)
            device.warm()
        except EngineError as error:
            last = kind == kinds[-1]
            tell = log.error if last else log.warning
            tell("predecoder_missing" if last else "engine_refused", model=card.name, engine=kind, error=str(error))
            continue
        stage.open(device)
        shape = stage.shape
        log.info("predecoder", model=card.name, engine=device.name, layers=shape.layers, chunks=shape.chunks)
        return


def _kinds(config: Config) -> list[EngineKind]:
    """The engines to try, in order: the configured one, or all that "auto" may be here.

    Raises:
        EngineError: Nothing that runs a network is installed.
    """
    kind = config.predecode.engine
    return possible_kinds(engine_options(config)) if kind == "auto" else [kind]


def _make_device(config: Config, stage: Predecode, folder: Path, card: ModelCard, kind: EngineKind) -> ChunkDevice:
    """What runs the network. Where it only weighs edges its logits are wanted on the host, and nothing else of it.

    Raises:
        ConfigError: The network's file is not that of its card.
        EngineError: The engine cannot be had.
    """
    path = network_file(folder, card, kind, config.predecode.precision)
    options = engine_options(config)
    if config.predecode.hand_over == "soft":
        return HostChunks(make_engine(kind, path, stage.shape, options), stage.tables)
    return make_chunks(kind, path, stage.shape, stage.tables, options)


def load_engine(config: Config, folder: Path, card: ModelCard, shape: ChunkShape) -> Engine:
    """Build or load the configured engine, alone.

    Raises:
        ConfigError: The network's file is not that of its card.
        EngineError: The engine cannot be had.
    """
    kind = _kinds(config)[0]
    return make_engine(
        kind, network_file(folder, card, kind, config.predecode.precision), shape, engine_options(config)
    )


def engine_options(config: Config) -> EngineOptions:
    """What is asked of the engine."""
    table = config.predecode
    return EngineOptions(
        table.precision, table.threads, config.cache_dir / "engines", table.build_engine, table.gpu_index
    )


def network_file(folder: Path, card: ModelCard, kind: str, precision: str) -> Path:
    """The ONNX file for an engine. TensorRT computes in the precision that the file carries, and is quickest in half.

    Raises:
        ConfigError: There is none, or it is not that of its card.
    """
    half = kind == "tensorrt" and precision in ("auto", "float16")
    names = [record.name for record in card.onnx if record.name.endswith(HALF_SUFFIX) == half]
    names += [record.name for record in card.onnx if record.name not in names]
    if not names:
        raise ConfigError(
            "[predecode] model", f"is {card.name}, whose card has no ONNX file.", "Engines are built from it.",
            "Export the model again with rtqec train.",
        )  # fmt: skip
    path = folder / names[0]
    card.check_file(path)
    return path


def find_model(config: Config, model: str) -> tuple[Path, ModelCard]:
    """The folder and the card of the configured model: a name of a shipped one, or the path of a card.

    Raises:
        ConfigError: There is no such model.
    """
    shipped = SHIPPED / f"{model}.json"
    if not model.endswith(".json"):
        if not shipped.is_file():
            names = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.json"))) or "none"
            raise ConfigError(
                "[predecode] model", f"is {model!r}; the models that come with rtqec are: {names}.",
                "The network's shape, thresholds and accuracy are read from its card.",
                "Name one of them, or the path of a card that rtqec train has written (ending in .json).",
            )  # fmt: skip
        path = shipped
    else:
        path = config.path("[predecode] model", model)
    return path.parent, read_card(path)


def effects_of(plan: Plan, frame: Frame) -> Effects:
    """What answers do in the shots of a plan.

    Raises:
        ConfigError: Its circuit does not fit the grid, or it carries both frames.
    """
    if plan.table.frames == "both":
        raise ConfigError(
            "[predecode]", 'is given, but [plan] frames is "both".',
            "The network answers for the observable of the experiment itself only.",
            'Set frames = "own", or remove [predecode].',
        )  # fmt: skip
    dem, rounds = plan.experiment.own_dem, plan.rounds
    layout = grid_layout(dem, rounds, plan.table.time_coordinate, frame)
    logical = logical_cells(mechanisms(dem, rounds, layout), layout, rounds.num_rounds)
    return Effects(layout, rounds.num_rounds, logical)


def threshold_of(table: PredecodeTable, card: ModelCard, plan: Plan) -> float:
    """The logit from which an answer is yes: as configured, or as the card says of the nearest operating point."""
    if table.threshold != "card":
        return table.threshold
    return card.threshold(plan.distance, plan.table.noise, matching="correlated" if plan.correlated else "plain")


def chunk_shape(config: Config, plans: list[Plan], filters: list[PatchFilter], card: ModelCard) -> ChunkShape:
    """The shape of the lane's calls: a window with its past, for as many patches as may be decoded together.

    Raises:
        ConfigError: The patches have different distances.
    """
    distances = {one.layout.code.distance for one in filters}
    if len(distances) > 1:
        raise ConfigError(
            "[predecode]", f"is given, but the patches of {config.lane_name} have distances {sorted(distances)}.",
            "A lane has one engine, whose calls have one shape.", "Give patches of equal distance a lane of their own.",
        )  # fmt: skip
    layers = max(plan.window.rounds for plan in plans) + card.network.spec.halo
    chunks = min(len(plans), config.lane.batch_windows)
    return ChunkShape(chunks, layers, distances.pop(), card.network.outputs)


def _check_soft(plan: Plan, card: ModelCard) -> None:
    """The network answers for edges, and the windows are those of plain matching."""
    fusion_blossom()
    if not card.network.spec.weighs_edges:
        raise ConfigError(
            "[predecode] hand_over", f'is "soft", but the network {card.name} answers for no edges.',
            "Weights of the matching graph's edges are read from its answers.",
            'Set hand_over = "hard", or name a network that was trained with [network] edges = true.',
        )  # fmt: skip
    if plan.correlated:
        raise ConfigError(
            "[predecode] hand_over", 'is "soft", but [plan] matching is "correlated".',
            "The network has seen both kinds of checks: what correlations say is in its answers, and the windows are "
            "those of plain matching.",
            'Set matching = "plain", or hand_over = "hard".',
        )  # fmt: skip


def _check_window(plan: Plan, halo: int, card: ModelCard) -> None:
    """Rounds that a window decides must have their answers by then."""
    if not 1 <= halo <= plan.window.buffer_rounds:
        raise ConfigError(
            "[window] buffer_rounds", f"is {plan.window.buffer_rounds}, but the network {card.name} of [predecode] "
            f"looks {halo} rounds ahead; the bound is {halo}.",
            "A round that a window decides must have been answered by the network when the window closes.",
            f"Set buffer_rounds = {halo} or more, or name a network that looks less far.",
        )  # fmt: skip
