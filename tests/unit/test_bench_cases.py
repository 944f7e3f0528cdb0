"""A sweep makes exactly the cases that it names, and every row of a result is whole and says where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cases import Case, cases_of
from bench.rows import SCHEMA, Results, read_rows
from rtqec.errors import ConfigError

CONFIG = Path(__file__).parents[2] / "configs" / "d5_memory_z.toml"


def rounds_of(case: Case) -> tuple[int | None, int, int]:
    described = case.describe()
    return described["distance"], described["commit_rounds"], described["buffer_rounds"]


def test_cases_are_the_product_of_the_sweeps() -> None:
    """Every combination once, the last sweep fastest."""
    cases = cases_of(CONFIG, ["plan.rounds=20"], ["plan.noise=0.001,0.002", "plan.matching=plain,correlated"])
    found = [(case.describe()["noise"], case.describe()["matching"]) for case in cases]
    assert found == [(0.001, "plain"), (0.001, "correlated"), (0.002, "plain"), (0.002, "correlated")]
    assert all(case.config.plan.rounds == 20 for case in cases)


def test_windows_follow_the_distance_unless_they_are_named() -> None:
    """Swept distances keep the windows' length in distances; a window that is named stays as it is."""
    assert [rounds_of(case) for case in cases_of(CONFIG, [], ["plan.distance=3,7"])] == [(3, 3, 3), (7, 7, 7)]
    named = cases_of(CONFIG, ["window.commit_rounds=4"], ["plan.distance=3,7"])
    assert [rounds_of(case) for case in named] == [(3, 4, 3), (7, 4, 7)]


def test_rounds_can_be_given_in_distances() -> None:
    """`4d` is four times the distance of the case, in sweeps and overrides."""
    cases = cases_of(CONFIG, ["plan.rounds=10d"], ["plan.distance=3,5", "window.commit_rounds=1d,4d"])
    assert [rounds_of(case)[1] for case in cases] == [3, 12, 5, 20]
    assert [case.config.plan.rounds for case in cases] == [30, 30, 50, 50]


@pytest.mark.parametrize("sweep", ["plan.distance", "distance=3", "plan.distance=", "plan.distance=3,,5"])
def test_a_sweep_that_is_none_is_refused(sweep: str) -> None:
    """The message repeats what was written and gives an example that works."""
    with pytest.raises(ConfigError, match=r"--sweep plan\.distance=3,5,7") as caught:
        cases_of(CONFIG, [], [sweep])
    assert sweep in str(caught.value)


def test_cases_differ_by_digest() -> None:
    """Cases that differ in any key have different digests, equal ones the same."""
    first, second, again = (cases_of(CONFIG, [f"plan.noise={p}"], [])[0] for p in (0.001, 0.002, 0.001))
    digests = [case.describe()["config_digest"] for case in (first, second, again)]
    assert digests[0] == digests[2] != digests[1]


def test_rows_are_whole_lines_with_their_provenance(tmp_path: Path) -> None:
    """Each row is one line of JSON, readable at once, with case, repeat, run, machine and command line."""
    (case,) = cases_of(CONFIG, [], [])
    results = Results(tmp_path / "out", "rate", "rtqec-bench rate x")
    for repeat in range(2):
        results.add(case, repeat, {"rounds_per_s": 1.0}, "abc")
        assert len(list(read_rows(tmp_path / "out", "rate"))) == repeat + 1
    first, second = read_rows(tmp_path / "out", "rate")
    assert (first["schema"], first["verb"], first["repeat"], second["repeat"]) == (SCHEMA, "rate", 0, 1)
    assert first["run"] == second["run"] == results.run
    assert first["case"]["plan_digest"] == "abc"
    assert first["provenance"]["command"] == "rtqec-bench rate x"
    assert {"commit", "dirty", "date", "machine", "versions"} <= set(first["provenance"])


def test_a_result_that_is_no_json_writes_nothing(tmp_path: Path) -> None:
    """NaN in a result is refused before the file is touched, so that every line stays readable everywhere."""
    (case,) = cases_of(CONFIG, [], [])
    results = Results(tmp_path, "rate", "x")
    with pytest.raises(ValueError, match="JSON"):
        results.add(case, 0, {"rounds_per_s": float("nan")})
    assert not results.path.exists() or not results.path.read_text()
    results.add(case, 0, {"rounds_per_s": 2.0})
    assert [json.loads(line)["result"] for line in results.path.read_text().splitlines()] == [{"rounds_per_s": 2.0}]


def test_a_torn_last_line_is_left_out_and_dropped(tmp_path: Path) -> None:
    """What a kill left of a row is not read, and does not spoil the row that is written after it."""
    (case,) = cases_of(CONFIG, [], [])
    Results(tmp_path, "rate", "x").add(case, 0, {"rounds_per_s": 1.0})
    path = tmp_path / "rate.jsonl"
    path.write_text(path.read_text() + '{"schema": 1, "ver')
    assert [row["result"]["rounds_per_s"] for row in read_rows(tmp_path, "rate")] == [1.0]
    Results(tmp_path, "rate", "x").add(case, 0, {"rounds_per_s": 2.0})
    assert [row["result"]["rounds_per_s"] for row in read_rows(tmp_path, "rate")] == [1.0, 2.0]
