"""A verdict follows from rows alone, for each case by itself, and says how far apart the repeats are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.goals import Goal, Origin, Verdict, evaluate, load_goals
from bench.rows import Row
from bench.runs import matches, value_at
from rtqec.errors import ConfigError

OLD, NEW = "2026-11-20T09:00:00.000+00:00", "2026-11-21T09:00:00.000+00:00"
ORIGIN = Origin(kind="own", source="here", machine="any", date="2026-11-21")


def goal(**fields: Any) -> Goal:
    plain = {"id": "one", "title": "One", "verb": "stages", "value": "path_over_floor", "unit": "x", "origin": ORIGIN}
    return Goal(**plain | fields)


def row(result: dict[str, Any], repeat: int = 0, run: str = NEW, verb: str = "stages", **case: Any) -> Row:
    plain = {"config": "c", "overrides": [], "distance": 5, "noise": 0.001, "rounds": 50, "seed": 1}
    return {"verb": verb, "run": run, "repeat": repeat, "case": plain | case, "result": result}


def stages(*values: float | None, run: str = NEW, **case: Any) -> list[Row]:
    return [row({"path_over_floor": value}, repeat, run, **case) for repeat, value in enumerate(values)]


def compared(repeat: int, ours: float, theirs: float | None, run: str = NEW, **case: Any) -> list[Row]:
    """Our row and the other one's of one repeat, rounds per second."""
    there = {"available": theirs is not None, "why": None if theirs is not None else "cudaq-qec is not installed"}
    found = {"rtqec": {"rounds_per_s": ours}, "other": {"rounds_per_s": theirs} | there}
    return [row({"decoder": name} | result, repeat, run, "compare", **case) for name, result in found.items()]


RATIO = {
    "verb": "compare", "value": "rounds_per_s", "result": {"decoder": "rtqec"}, "over": {"decoder": "other"},
    "at_least": 2,
}  # fmt: skip


def only(of: Goal, rows: list[Row]) -> Verdict:
    (verdict,) = evaluate([of], rows)
    return verdict


def test_the_goals_of_the_release_are_whole() -> None:
    """All that are wanted are there; what others published says where it is written."""
    goals = {goal.id: goal for goal in load_goals()}
    assert (goals["path_over_floor_d13"].at_most, goals["path_over_floor_d5"].bound) == (1.3, None)
    assert goals["rate_over_sliding_python"].at_least == 3
    assert goals["rate_over_cudaq_shots"].at_least == goals["rate_over_cudaq_stream"].at_least == 2
    assert goals["reaction_10us"].at_most == 25
    assert goals["million_rounds"].at_least == 1e6
    assert [goals[f"nvidia_predecoder_{name}"].bound for name in ("p50", "p99")] == [204, 363]
    assert goals["willow_mean"].at_most == 63
    assert goals["windows_cost_no_accuracy"].at_least == 0.01
    for one in goals.values():
        assert (one.origin.kind == "own") == (one.origin.url == "")


@pytest.mark.parametrize(
    ("bound", "values", "outcome", "ratio", "agreeing"),
    [
        ({"at_most": 1.3}, (1.2, 1.3, 1.25), "met", 1.25 / 1.3, 3),
        ({"at_most": 1.3}, (1.2, 1.25, 1.4), "met", 1.25 / 1.3, 2),
        ({"at_most": 1.3}, (1.2, 1.35, 1.4), "not met", 1.35 / 1.3, 2),
        ({"at_least": 1.3}, (1.2, 1.35, 1.4), "met", 1.35 / 1.3, 2),
        ({"at_least": 1.3}, (1.0, 1.6), "met", 1.0, 1),
        ({"at_least": 2.0}, (1.9,), "not met", 0.95, 1),
        ({}, (3.0, 5.0), "reported", None, 2),
    ],
)
def test_a_verdict_is_that_of_the_median(
    bound: dict[str, float], values: tuple[float, ...], outcome: str, ratio: float | None, agreeing: int
) -> None:
    """Median against bound, the bound itself included; the repeats that say the same by themselves are counted."""
    verdict = only(goal(**bound), stages(*values))
    assert verdict.values == values
    assert verdict.outcome == outcome
    assert verdict.ratio == (None if ratio is None else pytest.approx(ratio))
    assert verdict.agreeing == agreeing
    assert verdict.unanimous == (agreeing == len(values))


def test_what_was_not_measured_says_so() -> None:
    """Without rows of such a case, and with rows that leave the number blank, there is no verdict but a reason."""
    none = only(goal(case={"distance": 13}, at_most=1.3), stages(1.0))
    assert (none.outcome, none.values, none.ratio, none.why) == ("not measured", (), None, "no rows of such a case")
    assert none.unanimous
    blank = only(goal(at_most=1.3), stages(None, None))
    assert (blank.outcome, blank.why) == ("not measured", "2 of 2 repeats do not count: path_over_floor is blank")


def test_repeats_that_were_refused_do_not_count_and_are_told() -> None:
    """A rejected run gives no value, however good; the others decide."""
    rows = [
        row({"mode": "wire", "accepted": accepted, "why": why, "reaction_us": {"p99.9": value}}, repeat, verb="latency")
        for repeat, (accepted, why, value) in enumerate([(True, None, 30.0), (False, "late sender", 1.0)])
    ]
    verdict = only(goal(verb="latency", value="reaction_us/p99.9", at_most=25), rows)
    assert (verdict.values, verdict.outcome) == ((30.0,), "not met")
    assert verdict.why == "1 of 2 repeats do not count: rejected: late sender"
    assert verdict.rows == (rows[0],)


def test_each_case_gets_a_verdict_of_its_own() -> None:
    """A good case does not hide a bad one; seeds and digests make no case."""
    rows = stages(1.0, 1.1, commit_rounds=5) + stages(1.5, commit_rounds=20)
    rows += stages(1.2, commit_rounds=5, seed=9, config_digest="ff")
    first, second = evaluate([goal(case={"distance": 5}, at_most=1.3)], rows)
    assert (first.values, first.outcome) == ((1.0, 1.1, 1.2), "met")
    assert (second.values, second.outcome) == ((1.5,), "not met")


def test_only_the_newest_run_of_a_case_counts() -> None:
    """An older run of the same case, however good, is not in the verdict; order in the file does not matter."""
    rows = stages(2.0, run=NEW) + stages(1.0, 1.0, 1.0, run=OLD) + stages(1.1, run=OLD, distance=7)
    assert [verdict.values for verdict in evaluate([goal(at_most=1.3)], rows)] == [(2.0,), (1.1,)]


def test_ratios_are_of_the_same_repeat_of_the_same_run_and_case() -> None:
    """30 over 10 and 50 over 20 are 3 and 2.5, whatever else was measured."""
    rows = compared(1, 50, 20) + compared(0, 30, 10) + compared(0, 1, 100, rounds=7) + compared(0, 1, 100, run=OLD)
    first, second = evaluate([goal(**RATIO)], rows)
    assert (first.values, first.outcome, first.ratio) == ((2.5, 3.0), "met", 2.75 / 2)
    assert (second.values, second.outcome) == ((0.01,), "not met")
    assert len(first.rows) == 4
    assert evaluate([goal(**RATIO)], [rows[0], rows[3]]) == [Verdict(goal(**RATIO), (), (), "no rows of such a case")]


def test_a_ratio_over_somebody_who_is_not_there_says_who() -> None:
    """A newest run in which the other decoder was missing is not measured, even if an older one was good."""
    verdict = only(goal(**RATIO), compared(0, 50, 10, run=OLD) + compared(0, 50, None))
    assert verdict.outcome == "not measured"
    assert verdict.why == "1 of 1 repeats do not count: other: cudaq-qec is not installed"


def test_fields_match_by_value() -> None:
    """Numbers match within a billionth, lists name alternatives, other types only themselves."""
    found = {"noise": 0.1 + 0.2, "rounds": 5, "mode": "wire", "accepted": True}
    assert matches(found, {"noise": 0.3, "rounds": 5.0, "mode": ["service", "wire"]})
    assert not matches(found, {"mode": ["service"]})
    assert not matches(found, {"absent": 1})
    assert not matches({"rounds": "endless"}, {"rounds": 5})


def test_a_value_is_a_finite_number_or_none() -> None:
    """Names between slashes lead to it, dots belong to names."""
    result = {"reaction_us": {"p99.9": 12, "p50": None}, "held": True, "path": float("inf"), "why": "3"}
    assert value_at(result, "reaction_us/p99.9") == 12.0
    for path in ("reaction_us/p50", "reaction_us/p1", "reaction_us", "held", "path", "why", "held/deeper"):
        assert value_at(result, path) is None


GOOD = """
[[goal]]
id = "one"
title = "One"
verb = "stages"
value = "path_over_floor"
unit = "x"
at_most = 1.3
origin = { kind = "own", source = "here", machine = "any", date = "2026-11-21" }
"""


@pytest.mark.parametrize(
    ("text", "where", "found"),
    [
        (GOOD.replace("at_most", "at_mots"), "[[goal]] one at_mots", "is 1.3, but no key has that name."),
        (GOOD.replace('unit = "x"\n', ""), "[[goal]] one unit", "is missing, but has no default."),
        (GOOD.replace("1.3", "1.3\nat_least = 1"), "[[goal]] one", "has both at_most and at_least"),
        (GOOD.replace("1.3", "-1"), "[[goal]] one at_most", "is -1, but: input should be greater than 0."),
        (GOOD.replace('"own"', '"rumour"'), "[[goal]] one origin.kind", "is 'rumour', but: input should be 'own', "),
        (GOOD.replace("1.3", '"1.3"'), "[[goal]] one at_most", "is '1.3', but: input should be a valid number."),
        (GOOD + GOOD, "[[goal]] id", "is 'one' for 2 goals."),
        ("goal = 1", "[[goal]]", "is 1, but: input should be a valid list."),
        ("[[goal", "goals goals.toml", "cannot be read: Expected"),
    ],
)  # fmt: skip
def test_a_wrong_goals_file_is_refused_by_key_and_value(text: str, where: str, found: str, tmp_path: Path) -> None:
    """The error names the goal, the key, the value and the bound, and says what to do."""
    path = tmp_path / "goals.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_goals(path)
    assert error.value.where == where
    assert error.value.found.startswith(found)
    assert error.value.reason
    assert error.value.remedy


def test_an_absent_goals_file_is_refused(tmp_path: Path) -> None:
    """No file, no verdicts: the error names it."""
    with pytest.raises(ConfigError, match=r"goals none.toml cannot be read"):
        load_goals(tmp_path / "none.toml")
