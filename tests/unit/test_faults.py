"""The simulated controller does wrong what it was told, notes it, and refuses what nobody could notice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from firmware_sim.faults import Faults, fault_from_text
from firmware_sim.kernels.faults import draw_delay
from firmware_sim.kernels.records import RULE, RULE_STATE, Fate
from rtqec.config import FaultTable
from rtqec.errors import ConfigError
from tests.unit.faulty import ENDLESS, EPOCH, FEW, configured, plan_of, run, turns

ALWAYS: dict[str, dict[str, Any]] = {
    "skip": {"probability": 1, "rounds": 1},
    "drop": {"probability": 1},
    "wrong_plan": {"probability": 1},
    "corrupt": {"probability": 1},
    "reorder": {"probability": 1},
    "duplicate": {"probability": 1},
}
"""By precedence."""


@pytest.mark.parametrize("overrides", [{}, ENDLESS, {"patch": [{"id": 0}, {"id": 4}]}], ids=["shots", "endless", "two"])
def test_faults_that_never_strike_change_nothing(overrides: dict[str, Any]) -> None:
    """With every kind of message fault at probability 0 the bytes are those of a run without the machinery."""
    never = [{"kind": kind, **values, "probability": 0} for kind, values in ALWAYS.items()]
    plain, faulty = run(**overrides), run(*never, **overrides)
    assert faulty.messages == plain.messages
    assert len(faulty.faults.fates) == 0
    assert faulty.sender.rounds_sent == faulty.sender.rounds_total == plain.sender.rounds_sent


@pytest.mark.parametrize("overrides", [{}, ENDLESS], ids=["shots", "endless"])
@pytest.mark.parametrize("kinds", [*[(kind,) for kind in FEW], tuple(FEW)], ids=[*FEW, "all"])
def test_what_arrives_is_what_the_log_says(kinds: tuple[str, ...], overrides: dict[str, Any]) -> None:
    """Each message arrives as its fate says, bit for bit, in the order that the distances make; and only once."""
    plain = run(**overrides).messages
    faulty = run(*[{"kind": kind, **FEW[kind]} for kind in kinds], **overrides)
    fates = {int(entry["sequence"]): entry for entry in faulty.faults.fates}
    assert {kind for kind in kinds if faulty.faults.injected()[kind]["messages"]} == set(kinds)
    expected: list[tuple[int, int]] = []
    held: tuple[int, int] | None = None
    for sequence in range(len(plain)):
        fate = int(fates[sequence]["fate"]) if sequence in fates else 0
        if held and sequence == len(plain) - 1:
            expected.append(held)
            held = None
        if fate & Fate.REORDERED:
            assert held is None
            held = (sequence, fate)
        elif not fate & (Fate.DROPPED | Fate.SKIPPED):
            expected += [(sequence, fate)] * (2 if fate & Fate.DUPLICATED else 1)
        if held and sequence == held[0] + 3:
            expected.append(held)
            held = None
    assert len(expected) == len(faulty.messages)
    for found, (sequence, fate) in zip(faulty.messages, expected, strict=True):
        flipped = np.frombuffer(found, np.uint8) ^ np.frombuffer(plain[sequence], np.uint8)
        if fate & Fate.CORRUPTED:
            assert np.unpackbits(flipped).sum() == 1
        elif fate & Fate.WRONG_PLAN:
            assert flipped[-len(found) + 76 : -len(found) + 80].any()
            assert not flipped[:72].any()
        else:
            assert not flipped.any()
    for entry in faulty.faults.reordered(0):
        assert entry["after"] - entry["sequence"] <= 3


def test_a_restart_comes_back_with_the_next_shot() -> None:
    """After a restart: silence, another epoch, sequence 0, the beginning of the next shot; the rest of one is gone."""
    found = run({"kind": "restart", "every_rounds": 60, "silence_ms": 20}, by_the_clock=True)
    headers = found.headers
    begins = np.flatnonzero(np.diff(headers["source_epoch"].astype(int), prepend=-1))
    assert headers["source_epoch"][begins].tolist() == list(range(EPOCH, EPOCH + len(begins)))
    assert not headers["sequence"][begins].any()
    assert not headers["first_round"][begins].any()
    assert len(begins) == found.faults.injected()["restart"]["times"] + 1 == 30 * 13 // 60 + 1
    silences = np.diff(headers["sent_ns"].astype(np.int64))[begins[1:] - 1]
    assert (silences == 20_000_000 + 1000).all()
    assert found.seconds > 0.02 * (len(begins) - 1)
    gone = {(shot, t) for shot, t in found.sender.lost_rounds(0).tolist()}
    sent = {(shot, t) for _, shot, t in turns(found.messages)}
    assert sent | gone == {(shot, t) for shot in range(30) for t in range(13)}
    assert not sent & gone


def test_same_seed_same_faults() -> None:
    """Faults are decided by the seed: the source's, or the table's own."""
    drop, reorder = {"kind": "drop", "probability": 0.2}, {"kind": "reorder", "probability": 0.1}
    first, again = run(drop, reorder), run(drop, reorder)
    assert first.messages == again.messages
    other = run(drop, reorder, source__seed=2)
    assert (first.faults.fates["sequence"][:5] != other.faults.fates["sequence"][:5]).any()
    own = [run(drop | {"seed": 9}, source__seed=seed).sender.lost_rounds(0).tolist() for seed in (1, 2)]
    assert own[0] == own[1] != first.sender.lost_rounds(0).tolist()


def test_faults_do_not_disturb_each_other() -> None:
    """A fault strikes the same messages whatever other faults there are."""
    alone = run({"kind": "drop", "probability": 0.2}).sender.lost_rounds(0)
    others = [{"kind": kind, **FEW[kind]} for kind in ("duplicate", "reorder")] + [{"kind": "delay", "mean_us": 1.0}]
    together = run({"kind": "drop", "probability": 0.2}, *others)
    assert np.array_equal(alone, together.sender.lost_rounds(0))


@pytest.mark.parametrize("position", range(len(ALWAYS) - 1))
def test_the_first_fate_wins(position: int) -> None:
    """Of two faults that strike every message the first in the order of `Fate` decides, whatever the file's order."""
    winner, loser = list(ALWAYS)[position : position + 2]
    found = run({"kind": loser, **ALWAYS[loser]}, {"kind": winner, **ALWAYS[winner]})
    injected = found.faults.injected()
    assert injected[winner]["messages"] > 150
    if winner == "reorder":
        # One message is held back at a time; those that overtake it are free for the other fault.
        assert injected[winner]["messages"] + injected[loser]["messages"] == 30 * 13 - 2
    else:
        assert (injected[winner]["messages"], injected[loser]["messages"]) == (30 * 13 - 2, 0)


@pytest.mark.parametrize("overrides", [{}, ENDLESS, {"source__rounds_per_message": 4}], ids=["one", "endless", "four"])
def test_the_first_and_the_last_message_are_left_alone(overrides: dict[str, Any]) -> None:
    """A source that drops everything sends its first and its last message; nothing is held back behind the last."""
    plain = turns(run(**overrides).messages)
    assert turns(run({"kind": "drop", "probability": 1}, **overrides).messages) == [plain[0], plain[-1]]
    held = run({"kind": "reorder", "probability": 1, "distance": 100_000}, **overrides)
    assert turns(held.messages) == [plain[0], *plain[2:-1], plain[1], plain[-1]]


def test_faults_keep_to_their_rounds_and_patches() -> None:
    """`start_round`, `stop_round` and `patch` say whom a fault strikes, and when."""
    drop = {"kind": "drop", "probability": 1, "start_round": 100, "stop_round": 110, "patch": [4]}
    skip = {"kind": "skip", "every_rounds": 40, "rounds": 2, "start_round": 200, "stop_round": 300, "patch": [0]}
    found = run(drop, skip, patch=[{"id": 0}, {"id": 4}])
    assert [13 * shot + t for shot, t in found.sender.lost_rounds(1).tolist()] == list(range(100, 110))
    assert [13 * shot + t for shot, t in found.sender.lost_rounds(0).tolist()] == [240, 241, 280, 281]


def test_corruption_never_hides_behind_the_crc_flag() -> None:
    """Every bit of a message may be flipped but the one without which nobody looks at the checksum."""
    flags = set()
    for seed in range(40):
        plain, found = run(source__seed=1), run({"kind": "corrupt", "probability": 1, "seed": seed})
        for a, b in zip(plain.messages, found.messages, strict=True):
            flipped = np.frombuffer(a, np.uint8) ^ np.frombuffer(b, np.uint8)
            bits = np.flatnonzero(np.unpackbits(flipped, bitorder="little"))
            flags |= {int(bit) - 26 * 8 for bit in bits if 26 * 8 <= bit < 28 * 8}
    assert 6 not in flags
    assert len(flags) == 15


def test_delays_keep_order_and_due_times() -> None:
    """Delays and stalls move when messages leave, not what they say: neither their order nor `sent_ns`."""
    uniform = {"kind": "delay", "mean_us": 300.0, "distribution": "uniform"}
    stall = {"kind": "stall", "every_rounds": 100, "duration_ms": 30}
    assert run(uniform, stall).messages == run().messages
    stalled = run(stall, by_the_clock=True)
    assert stalled.faults.injected()["stall"]["times"] == 3
    # While it catches up it stalls again: each stall is counted from a due time.
    assert 0.03 < stalled.seconds < 0.09
    delayed = run({"kind": "delay", "mean_us": 20_000.0}, by_the_clock=True, pace__period_us=100)
    assert delayed.seconds > 30 * 13 * 100e-6 + 0.02


@pytest.mark.parametrize(
    ("name", "number", "mean", "sigma"),
    [("exponential", 0, 50, 50), ("uniform", 1, 50, 50 / 3**0.5), ("normal", 2, 50, 7)],
)
def test_delays_have_their_distribution(name: str, number: int, mean: float, sigma: float) -> None:
    """Mean and spread of drawn delays are those that were asked for; none is negative."""
    rule, own = np.zeros(1, RULE), np.zeros(1, RULE_STATE)
    rule["distribution"], rule["mean_ns"], rule["sigma_ns"], own["random"] = number, 50_000, 7_000, 12345
    drawn = np.array([draw_delay(rule[0], own[0]) for _ in range(20_000)]) / 1000
    assert drawn.min() >= 0
    # Five sigma of the mean of 20,000; the spread of an exponential's spread is no more than 1.5 %.
    assert drawn.mean() == pytest.approx(mean, abs=5 * sigma / 20_000**0.5)
    assert drawn.std() == pytest.approx(sigma, rel=0.05)


def test_a_full_log_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults beyond the log's room still strike, and are counted; nothing is expected of the daemon then."""
    monkeypatch.setattr("firmware_sim.faults.FATES_MAX", 5)
    found = run({"kind": "drop", "probability": 0.2}, {"kind": "reorder", "probability": 0.1})
    assert len(found.faults.fates) == 5
    injected = found.faults.injected()
    assert found.faults.fates_overflowed == injected["drop"]["messages"] + injected["reorder"]["messages"] - 5
    assert len(found.messages) == 30 * 13 - injected["drop"]["messages"]


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "no such kind": ({"kind": "gremlin"}, {}, "[[fault]] number 1", "drop"),
    "no probability": ({"kind": "drop"}, {}, "[[fault]] number 1 drop.probability", "is missing"),
    "more than certain": ({"kind": "drop", "probability": 1.5}, {}, "drop.probability", "1.5"),
    "unknown key": ({"kind": "drop", "probability": 0.5, "distance": 2}, {}, "drop.distance", "no key"),
    "two occasions": ({"kind": "skip", "probability": 0.5, "every_rounds": 5, "rounds": 1}, {}, "skip", "exactly one"),
    "no occasion": ({"kind": "skip", "rounds": 5}, {}, "skip", "exactly one"),
    "no rounds": ({"kind": "drop", "probability": 1, "start_round": 9, "stop_round": 9}, {}, "drop", "(9)"),
    "no sigma": ({"kind": "delay", "distribution": "normal", "mean_us": 1.0}, {}, "delay", "sigma_us"),
    "unknown patch": ({"kind": "drop", "probability": 1, "patch": [3]}, {}, "number 1 (drop) patch", "names 3"),
    "corrupt without crc": ({"kind": "corrupt", "probability": 1}, {"source__crc": False}, "(corrupt)", "crc is false"),
    "burst of finite shots": (
        {"kind": "burst", "every_rounds": 9, "radius": 1, "rounds": 3, "factor": 2}, {}, "(burst)", '"endless"'
    ),
    "drift of finite shots": ({"kind": "drift", "period_rounds": 9, "amplitude": 0.1}, {}, "(drift)", '"endless"'),
    "endless restart": ({"kind": "restart", "every_rounds": 9}, ENDLESS, "(restart)", "next shot"),
    "short silence": (
        {"kind": "restart", "every_rounds": 9, "silence_ms": 30}, {"feed__takeover_ms": 40.0}, "silence_ms", "is 40"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_faults_are_refused(name: str) -> None:
    """A fault that this source cannot have, or nobody could notice, is refused with key, value, reason, remedy."""
    fault, overrides, where, found = REFUSED[name]

    def load() -> Faults:
        config = configured(fault, **overrides)
        return Faults(config, [plan_of(config)], np.zeros((1, 2)))

    with pytest.raises(ConfigError) as refused:
        load()
    assert where in refused.value.where
    assert found in refused.value.found
    assert refused.value.reason
    assert refused.value.remedy


def test_faults_are_read_from_the_command_line() -> None:
    """`NAME:key=value,key=value`, values as in TOML or bare words, lists with their commas."""
    assert fault_from_text("drop:probability=0.25") == {"kind": "drop", "probability": 0.25}
    assert fault_from_text("burst: centre=[1.5, 2],radius=2 ,factor=1e1") == {
        "kind": "burst", "centre": [1.5, 2], "radius": 2, "factor": 10.0
    }  # fmt: skip
    assert fault_from_text("delay:distribution=uniform,mean_us=3")["distribution"] == "uniform"
    assert fault_from_text("drop") == {"kind": "drop"}
    with pytest.raises(ConfigError, match=r"--fault is 'drop:0\.5', but must be"):
        fault_from_text("drop:0.5")


def test_the_reference_configuration_explains_every_fault() -> None:
    """Every kind of fault stands in `configs/reference.toml` with every key of its own, and what all have in common."""
    text = (Path(__file__).parents[2] / "configs" / "reference.toml").read_text()
    section = text.split("# [[fault]] (firmware-sim)")[1]
    tables = get_args(get_args(FaultTable)[0])
    common = set.intersection(*(set(table.model_fields) for table in tables)) - {"kind"}
    assert all(key in section for key in common)
    for table in tables:
        (kind,) = get_args(table.model_fields["kind"].annotation)
        explained = re.search(rf"^#   {kind} .*\n(#    .*\n)*", section, re.MULTILINE)
        assert explained, kind
        missing = [key for key in set(table.model_fields) - common - {"kind"} if key not in explained[0]]
        assert not missing, kind
