"""The faults of one run: rules from `[[fault]]`, and the log of what they did."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.endless import detector_places
from firmware_sim.kernels.records import (
    BURST_ENTRY,
    BURSTS_LOGGED,
    COUNT_COLUMNS,
    EXPONENTIAL,
    FATE_ENTRY,
    FATES_LOGGED,
    FATES_LOST,
    FATES_OVERFLOWED,
    FAULT_STATE,
    LOG_WORDS,
    NORMAL,
    RULE,
    RULE_STATE,
    TIMES,
    TOUCHED_MESSAGES,
    TOUCHED_ROUNDS,
    UNIFORM,
    Fate,
    FaultKind,
)
from rtqec.config import BurstFault, Config, DriftFault, FaultTable, RestartFault
from rtqec.errors import ConfigError
from rtqec.plan import Plan
from rtqec.units import NS_PER_MS, NS_PER_US, ns_from_us
from rtqec.wire import MESSAGE_BYTES_MAX

FATES_MAX = 1 << 20
"""Touched messages that are remembered; their memory is only used where it is written. Later ones are counted."""
BURSTS_MAX = 1 << 14
_NEVER = 1 << 62
_DISTRIBUTIONS = {"exponential": EXPONENTIAL, "uniform": UNIFORM, "normal": NORMAL}
_RATES = (FaultKind.BURST, FaultKind.DRIFT)
_COMMAS_BETWEEN_PAIRS = re.compile(r",(?![^\[]*\])")


def fault_from_text(text: str) -> dict[str, Any]:
    """The `[[fault]]` table that `--fault NAME:key=value,key=value` means; a value is TOML, or a bare string.

    Raises:
        ConfigError: The text has another form.
    """
    kind, _, pairs = text.partition(":")
    table: dict[str, Any] = {"kind": kind.strip()}
    for pair in _COMMAS_BETWEEN_PAIRS.split(pairs) if pairs.strip() else []:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                "--fault", f"is {text!r}, but must be NAME:key=value,key=value.",
                f"It is not clear what {pair!r} sets.", "For example --fault drop:probability=0.001,patch=[0].",
            )  # fmt: skip
        try:
            table[key.strip()] = tomllib.loads(f"value = {value.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            table[key.strip()] = value.strip()
    return table


class Faults:
    """Rules, random numbers, log and counts of all patches, as the compiled loop takes them.

    Args:
        config: `[[fault]]` is not empty.
        plans: One per patch.
        places: float64, shape (num_errors, 2): x and y of each error of the endless streams.

    Raises:
        ConfigError: A fault that this source cannot have.
    """

    def __init__(self, config: Config, plans: list[Plan], places: NDArray[np.float64]) -> None:
        for number, table in enumerate(config.fault, 1):
            _check(config, plans, table, f"[[fault]] number {number} ({table.kind})")
        self._states = np.zeros(len(plans), FAULT_STATE)
        self._states["last_sent"] = -1
        self._states["store_offset"] = np.arange(len(plans)) * MESSAGE_BYTES_MAX
        rules: list[NDArray[Any]] = []
        randoms: list[int] = []
        seeds = [_seeds(config, position, len(plans)) for position in range(len(config.fault))]
        # Rules of messages first, in the order of the file.
        order = sorted(range(len(config.fault)), key=lambda i: _kind(config.fault[i]) in _RATES)
        for p, (patch, plan) in enumerate(zip(config.patch, plans, strict=True)):
            mine = [i for i in order if patch.id in (config.fault[i].patch or [patch.id])]
            first_rate = sum(_kind(config.fault[i]) not in _RATES for i in mine)
            self._states[p]["first_rule"], self._states[p]["stop_rule"] = len(rules), len(rules) + len(mine)
            self._states[p]["first_rate_rule"] = len(rules) + first_rate
            rules += [_rule(config.fault[i], plan) for i in mine]
            randoms += [int(seeds[i][p]) | 1 for i in mine]
        self._rules = np.concatenate(rules) if rules else np.zeros(1, RULE)
        self._rule_states = np.zeros(len(self._rules), RULE_STATE)
        self._rule_states["random"] = randoms or 1
        self._rule_states["next_round"] = self._rules["start_round"] + self._rules["every_rounds"]
        self._rule_states["began"] = -1
        self._store = np.zeros(len(plans) * MESSAGE_BYTES_MAX, np.uint8)
        self._log = np.zeros(FATES_MAX, FATE_ENTRY)
        self._bursts = np.zeros(BURSTS_MAX, BURST_ENTRY)
        self._cursors = np.zeros(LOG_WORDS, np.int64)
        self._counts = np.zeros((len(plans), len(FaultKind), COUNT_COLUMNS), np.int64)
        self._places = places
        self.kinds = sorted({_kind(table) for table in config.fault})

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What `kernels.faulty.send_faulty_rounds` takes."""
        return (
            self._states, self._rules, self._rule_states, self._places, self._bursts, self._store, self._log,
            self._cursors, self._counts,
        )  # fmt: skip

    @property
    def fates(self) -> NDArray[Any]:
        """Messages that did not arrive normally, `FATE_ENTRY`, in the order of their turns."""
        return self._log[: self._cursors[FATES_LOGGED]]

    @property
    def fates_overflowed(self) -> int:
        """Messages that did not arrive normally, and for which the log had no room."""
        return int(self._cursors[FATES_OVERFLOWED])

    @property
    def bursts(self) -> NDArray[Any]:
        """Bursts of errors, `BURST_ENTRY`."""
        return self._bursts[: self._cursors[BURSTS_LOGGED]]

    def fates_of(self, patch_index: int) -> NDArray[Any]:
        """`fates` of one patch."""
        fates: NDArray[Any] = self.fates[self.fates["patch_index"] == patch_index]
        return fates

    def injected(self) -> dict[str, dict[str, int]]:
        """Of each configured kind: how often it struck; messages and rounds that it touched."""
        counts = self._counts.sum(axis=0)
        return {
            kind.name.lower(): {
                "times": int(counts[kind, TIMES]),
                "messages": int(counts[kind, TOUCHED_MESSAGES]),
                "rounds": int(counts[kind, TOUCHED_ROUNDS]),
            }
            for kind in self.kinds
        }

    def times(self, patch_index: int, kind: FaultKind) -> int:
        """How often one kind struck one patch."""
        return int(self._counts[patch_index, kind, TIMES])

    def lost_rounds(self, patch_index: int) -> NDArray[np.int64]:
        """Rounds of a patch that never reached the daemon intact, int64, shape (n, 2): shot and round, in order."""
        fates = self.fates_of(patch_index)
        return rounds_of(fates[(fates["fate"] & FATES_LOST) != 0])

    def reordered(self, patch_index: int) -> NDArray[Any]:
        """Messages of a patch that were held back, `FATE_ENTRY`: each left after sequence number `after`."""
        fates = self.fates_of(patch_index)
        held: NDArray[Any] = fates[(fates["fate"] & Fate.REORDERED) != 0]
        return held


def rounds_of(fates: NDArray[Any]) -> NDArray[np.int64]:
    """The rounds of messages, `FATE_ENTRY`, as int64, shape (n, 2): shot and round, in order."""
    counts = fates["num_rounds"]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    rounds = np.stack([np.repeat(fates["shot"], counts), np.repeat(fates["first_round"], counts) + within], axis=1)
    ordered: NDArray[np.int64] = rounds[np.lexsort((rounds[:, 1], rounds[:, 0]))]
    return ordered


def _kind(table: FaultTable) -> FaultKind:
    return FaultKind[table.kind.upper()]


def _seeds(config: Config, position: int, num_patches: int) -> NDArray[np.uint64]:
    """One word per patch: of the table's own seed, or of the source's and the table's position."""
    seed = config.fault[position].seed
    entropy = [config.source.seed, position] if seed is None else [seed]
    sequence = np.random.SeedSequence(entropy, spawn_key=(1,))
    return sequence.generate_state(num_patches, np.uint64).astype(np.uint64)


def _rule(table: FaultTable, plan: Plan) -> NDArray[Any]:
    """One table as the compiled loop reads it."""
    rule = np.zeros(1, RULE)
    values = table.model_dump()
    rule["kind"] = _kind(table)
    # Delays meet every message.
    rule["probability"] = values.get("probability", 1.0)
    rule["every_rounds"] = values.get("every_rounds") or 0
    rule["start_round"], rule["stop_round"] = table.start_round, table.stop_round or _NEVER
    rule["distance"] = values.get("distance", 0)
    rule["distribution"] = _DISTRIBUTIONS[values.get("distribution", "exponential")]
    rule["mean_ns"] = values.get("mean_us", 0.0) * NS_PER_US
    rule["sigma_ns"] = (values.get("sigma_us") or 0.0) * NS_PER_US
    rule["duration_ns"] = round(values.get("duration_ms", values.get("silence_ms", 0.0)) * NS_PER_MS)
    rule["num_rounds"] = values.get("rounds", values.get("period_rounds", 0))
    rule["radius"] = values.get("radius", 0.0)
    rule["factor"] = values.get("factor", values.get("amplitude", 1.0))
    rule["decay_rounds"] = values.get("decay_rounds") or np.inf
    if isinstance(table, BurstFault):
        corners = np.array(list(detector_places(plan).values()))
        rule["centre_random"] = table.centre == "random"
        rule["x"], rule["y"] = corners.min(axis=0) if table.centre == "random" else table.centre
        rule["x_extent"], rule["y_extent"] = np.ptp(corners, axis=0)
    return rule


def _check(config: Config, plans: list[Plan], table: FaultTable, where: str) -> None:
    """Refuse what this source cannot do, or what nobody could notice."""
    ids = [patch.id for patch in config.patch]
    for patch_id in table.patch or []:
        if patch_id not in ids:
            raise ConfigError(
                f"{where} patch", f"names {patch_id}, but the patches are {ids}.",
                "The fault would strike nobody.", "Name patches that [[patch]] has.",
            )  # fmt: skip
    endless = {plan.endless for i, plan in zip(ids, plans, strict=True) if i in (table.patch or ids)}
    if table.kind == "corrupt" and not config.source.crc:
        raise ConfigError(
            where, "flips bits, but [source] crc is false.",
            "Without a checksum the daemon cannot notice it, and would decode what never happened.",
            "Set [source] crc = true.",
        )  # fmt: skip
    if isinstance(table, BurstFault | DriftFault) and False in endless:
        raise ConfigError(
            where, 'changes error rates, but [plan] rounds is not "endless".',
            "Finite shots are sampled by Stim before the run, at the circuit's own rates.",
            'Set [plan] rounds = "endless", or name in patch only patches that are.',
        )  # fmt: skip
    if isinstance(table, BurstFault) and not all(detector_places(plan) for plan in plans):
        raise ConfigError(
            where, "has a place, but the detectors of [plan] have no x and y.",
            "It cannot be told which errors are near.", "Give detectors coordinates (x, y, round), or use drift.",
        )  # fmt: skip
    if isinstance(table, RestartFault):
        _check_restart(config, table, where, True in endless)


def _check_restart(config: Config, table: RestartFault, where: str, endless: bool) -> None:
    if endless:
        raise ConfigError(
            where, 'comes back with the next shot, but [plan] rounds is "endless".',
            "An endless shot has one beginning, and no next one.",
            "Use finite shots ([plan] rounds = N), or name in patch only patches that have them.",
        )  # fmt: skip
    # What waits for its turn when the source falls silent is heard of once more, a gap at a time.
    waits_ms = config.feed.reorder_depth * ns_from_us(config.feed.gap_wait_us) / NS_PER_MS
    bound_ms = config.feed.takeover_ms + waits_ms
    if table.silence_ms <= bound_ms:
        raise ConfigError(
            f"{where} silence_ms",
            f"is {table.silence_ms:g}, but [feed] takeover_ms is {config.feed.takeover_ms:g}, and messages may wait "
            f"{waits_ms:g} ms for their turn (reorder_depth times gap_wait_us).",
            "The daemon would take the source that comes back for a second one, and drop its rounds.",
            f"Set silence_ms above {bound_ms:g}; twice that leaves room for a busy machine.",
        )  # fmt: skip
