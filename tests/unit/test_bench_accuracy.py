"""`rtqec-bench accuracy` counts what `rtqec verify` counts, takes up where it stopped, and says what it may say."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sinter

from bench import accuracy as verb
from bench.accuracy import CSV, rate_result
from bench.cases import cases_of
from bench.estimates import mcnemar_p, per_round
from bench.rows import read_rows
from bench.sampling import WAYS, Goal, PairedSampler, paired_counts, plan_of, stats_of, task_of
from rtqec.config import VerifyTable
from rtqec.errors import ConfigError
from rtqec.plan import compile_plan
from rtqec.verify import verify_plan
from rtqec.wire import CORRECTION, Rung
from tests.harness import make_config

CONFIG = """
[plan]
generated = "surface_code:rotated_memory_z"
distance = 3
rounds = 12
noise = 0.01
[window]
commit_rounds = 3
buffer_rounds = 3
[feed]
endpoint = "inproc://rounds"
round_period_us = 10
[publish]
endpoint = "inproc://corrections"
"""


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG)
    return path


def counted(shots: int, errors: int, **counts: int) -> sinter.TaskStats:
    return sinter.TaskStats(
        strong_id="id", decoder="any", json_metadata=None, shots=shots, errors=errors, seconds=2.0,
        custom_counts=Counter(counts),
    )  # fmt: skip


def test_pairs_are_counted() -> None:
    """Five shots: both right, windows wrong, whole shots wrong, both wrong twice."""
    wrong = np.array([0, 1, 0, 1, 1], np.bool_)
    whole = np.array([0, 0, 1, 1, 1], np.bool_)
    assert paired_counts(whole, wrong) == {"whole_errors": 3, "worse": 1, "better": 1}


def test_one_round_of_a_shot() -> None:
    """Three rounds of 0.1 flip an odd number of times with 3 * 0.1 * 0.81 + 0.001; a coin says nothing of a round."""
    assert per_round(0.244, 3) == pytest.approx(0.1)
    assert per_round(0.0, 3) == 0
    assert per_round(0.5, 3) == per_round(0.7, 3) == 0.5
    assert per_round(1e-9, 1000) == pytest.approx(1e-12)


def test_a_row_says_what_was_counted() -> None:
    """Errors by shot and by round, the whole shots beside them, and McNemar's exact p of 9 worse against 1 better."""
    row = rate_result("rtqec_correlated", 3, counted(1000, 244, worse=9, better=1, whole_errors=236))
    assert row["per_shot"] == 0.244
    assert row["per_round"] == pytest.approx(0.1)
    low, high = row["per_shot_interval"]
    assert low < 0.244 < high
    assert row["per_round_interval"] == [per_round(low, 3), per_round(high, 3)]
    assert row["whole_shot"] == {"decoder": "pymatching_correlated", "errors": 236}
    assert row["mcnemar_p"] == pytest.approx(2 * 11 / 1024) == pytest.approx(mcnemar_p(9, 1))
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_few_errors_are_an_upper_bound() -> None:
    """Below 100 errors a row says that only its upper bound is claimed; whole shots have nothing beside them."""
    assert rate_result("pymatching", 13, counted(10_000, 99))["upper_bound_only"]
    assert not rate_result("pymatching", 13, counted(10_000, 100))["upper_bound_only"]
    none = rate_result("pymatching", 13, counted(1000, 0))
    assert none["per_shot_interval"][0] == none["per_round_interval"][0] == 0
    assert none["per_shot_interval"][1] == pytest.approx(1 - 0.025 ** (1 / 1000))
    assert none["whole_shot"] is none["worse"] is none["mcnemar_p"] is None


def test_a_goal_is_shots_or_errors() -> None:
    """Whichever is reached first ends the sampling."""
    goal = Goal(max_shots=1000, max_errors=50)
    shares = [goal.share(stats) for stats in (None, counted(100, 10), counted(100, 50), counted(2000, 0))]
    assert shares == [0, 0.2, 1, 1]


@pytest.mark.parametrize("matching", ["plain", "correlated"])
def test_counts_are_those_of_verify(matching: str) -> None:
    """On shots of the same seed: failures of both, worse and better, as `rtqec verify` counts them."""
    config = make_config(plan__matching=matching)
    plan = compile_plan(config, config.patch[0])
    name = {"plain": "rtqec", "correlated": "rtqec_correlated"}[matching]
    sampler = pickle.loads(pickle.dumps(PairedSampler(config, WAYS[name], seed=1)))  # noqa: S301 (our own bytes)
    stats = sampler.compiled_sampler_for_task(task_of(plan, name, 0)).sample(1000)
    pairing = verify_plan(plan, VerifyTable(shots=1000, seed=1)).pairing
    assert (stats.shots, stats.errors) == (1000, pairing.failures)
    assert stats.custom_counts["whole_errors"] == pairing.failures_whole_shot
    assert (stats.custom_counts["worse"], stats.custom_counts["better"]) == (pairing.worse, pairing.better)


def test_both_frames_are_judged_by_the_circuits_own() -> None:
    """Where a plan carries the other frame too, errors are those of the observable that the shots can tell."""
    config = make_config(plan__frames="both")
    plan = compile_plan(config, config.patch[0])
    task = task_of(plan, "rtqec", 0)
    stats = PairedSampler(config, WAYS["rtqec"], seed=1).compiled_sampler_for_task(task).sample(500)
    assert plan.num_observables == 2
    assert stats.errors == verify_plan(plan, VerifyTable(shots=500, seed=1)).pairing.failures


def test_the_plan_is_the_daemons(config_path: Path) -> None:
    """What is left out for speed, and a patch's own tables, leave the digest as the daemon says it."""
    config_path.write_text(
        CONFIG + '[[patch]]\nid = 4\nplan = {matching = "correlated"}\nwindow = {commit_rounds = 4}\n'
    )
    (case,) = cases_of(config_path, [], [])
    assert plan_of(case.config, "correlated").digest == case.plan().digest
    assert plan_of(case.config, "plain").digest != case.plan().digest
    assert plan_of(case.config, "plain").window.commit_rounds == 4


def test_tasks_have_names_of_their_own(config_path: Path) -> None:
    """Windows make another task, and so does a repeat; whole shots of other windows are the same task."""
    short, long = (plan_of(case.config, "plain") for case in cases_of(config_path, [], ["window.commit_rounds=3,6"]))
    assert task_of(short, "rtqec", 0).strong_id() != task_of(long, "rtqec", 0).strong_id()
    assert task_of(short, "rtqec", 0).strong_id() != task_of(short, "rtqec", 1).strong_id()
    assert task_of(short, "pymatching", 0).strong_id() == task_of(long, "pymatching", 0).strong_id()


def test_a_run_goes_on_where_it_stopped(config_path: Path, tmp_path: Path) -> None:
    """A second run takes no further shots and writes the same numbers; more shots are added to those that there are."""
    out = tmp_path / "out"
    options: dict[str, Any] = {"decoders": "rtqec,pymatching", "workers": 1, "max_errors": 10_000, "out": out}
    verb.accuracy(config_path, max_shots=300, **options)
    taken = (out / CSV).read_text()
    verb.accuracy(config_path, max_shots=300, **options)
    assert (out / CSV).read_text() == taken
    verb.accuracy(config_path, max_shots=500, **options)
    results = [row["result"] for row in read_rows(out, "accuracy")]
    assert [result["decoder"] for result in results] == ["pymatching", "rtqec"] * 3
    assert [result["shots"] for result in results] == [300] * 4 + [500] * 2
    assert results[:2] == results[2:4]
    assert all(new["errors"] >= old["errors"] for new, old in zip(results[4:], results[2:4], strict=True))
    paired = results[1]
    assert paired["errors"] - paired["whole_shot"]["errors"] == paired["worse"] - paired["better"]
    digests = [row["case"]["plan_digest"] for row in read_rows(out, "accuracy")]
    (case,) = cases_of(config_path, [], [])
    assert digests == [None, case.plan().digest] * 3


def test_a_stopped_run_keeps_what_is_finished(
    config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C: rows of the decoders that had their shots, none of the others, whose shots stay in the CSV file."""

    def interrupted(tasks: list[sinter.Task], save_resume_filepath: Path, **_: Any) -> None:
        lines = [
            sinter.TaskStats(
                strong_id=task.strong_id(),
                decoder=task.decoder,
                json_metadata=task.json_metadata,
                shots=shots,
                errors=9,
            ).to_csv_line()
            for task, shots in zip(tasks, (100, 99), strict=True)
        ]
        save_resume_filepath.write_text("\n".join([sinter.CSV_HEADER, *lines, ""]))
        raise KeyboardInterrupt

    monkeypatch.setattr(sinter, "collect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verb.accuracy(config_path, decoders="pymatching,rtqec", workers=1, max_shots=100, out=tmp_path)
    (row,) = read_rows(tmp_path, "accuracy")
    assert (row["result"]["decoder"], row["result"]["shots"], row["result"]["errors"]) == ("pymatching", 100, 9)
    assert sorted(stats.shots for stats in stats_of(tmp_path / CSV).values()) == [99, 100]


def test_late_or_wrong_is_counted_by_shot() -> None:
    """Three shots: late and right, in time and wrong, in time and right. A shot's lowest rung is its least accurate."""
    corrections = np.zeros(6, CORRECTION)
    corrections["shot_id"] = [0, 0, 1, 1, 2, 2]
    corrections["rung"] = [
        Rung.CORRELATED_MATCH, Rung.CORRELATED_MATCH, Rung.MATCH, Rung.UNION_FIND, Rung.MATCH, Rung.CORRELATED_MATCH,
    ]  # fmt: skip
    late, wrong = np.array([0, 1, 0, 0, 0, 0], np.bool_), np.array([False, True, False])
    row = verb.ladder_result(corrections, late, wrong, 10.0, 2.0)
    assert (row["budget_us"], row["period_us"], row["shots"]) == (10, 2, 3)
    assert (row["windows"], row["late_windows"], row["late_shots"]) == (6, pytest.approx(1 / 6), 1)
    assert (row["wrong_shots"], row["late_or_wrong"]) == (1, pytest.approx(2 / 3))
    assert row["late_or_wrong_interval"][0] < 2 / 3 < row["late_or_wrong_interval"][1]
    assert row["rungs"] == {"hold": 0, "union_find": 1, "match": 2, "correlated_match": 3}
    assert row["by_lowest_rung"] == {
        "hold": {"shots": 0, "wrong": 0},
        "union_find": {"shots": 1, "wrong": 1},
        "match": {"shots": 1, "wrong": 0},
        "correlated_match": {"shots": 1, "wrong": 0},
    }
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_ler_of_t_has_a_row_for_each_budget(config_path: Path, tmp_path: Path) -> None:
    """A budget of a second is always kept, so that only wrong shots count, and these are whatever the windows make."""
    (case,) = cases_of(config_path, ["ladder.fallbacks=[]"], [])
    session = verb.session_of("accuracy", config_path, ["ladder.fallbacks=[]"], [], 1, 5, tmp_path)
    rows = verb.time_case(session, 0, case, [0.001, 1e6], shots=60)
    never, always = (row["result"] for row in rows)
    assert (never["late_windows"], never["late_or_wrong"]) == (1, 1)
    assert (always["late_windows"], always["late_or_wrong"]) == (0, always["wrong_shots"] / 60)
    assert always["by_lowest_rung"]["match"] == {"shots": 60, "wrong": always["wrong_shots"]}
    assert [row["result"]["decoder"] for row in rows] == ["ladder", "ladder"]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["plan.rounds=endless"], r"\[plan\] rounds is \"endless\".*--set plan.rounds=50"),
        (["source.kind=recorded", "source.folder=x"], r"\[source\] kind is 'recorded'.*--set source.kind=simulated"),
    ],
)
def test_what_has_no_error_rate_is_refused(config_path: Path, tmp_path: Path, overrides: list[str], says: str) -> None:
    """Endless streams and recorded shots end with the key, the reason and the remedy, before anything is sampled."""
    with pytest.raises(ConfigError, match=f"(?s){says}"):
        verb.accuracy(config_path, set_=overrides, out=tmp_path / "out")
    assert list(read_rows(tmp_path / "out", "accuracy")) == []


def test_a_model_without_a_circuit_is_refused(config_path: Path) -> None:
    """A DEM alone makes no shots: the message names the key that would."""
    (case,) = cases_of(config_path, [], [])
    config = make_config(plan={"dem": "a.dem"}, feed__payload="detection_events")
    with pytest.raises(ConfigError, match=r"\[plan\] circuit is missing"):
        verb.check_case(replace(case, config=config))


def test_options_are_read_or_refused() -> None:
    """Decoders come in their own order; what is no decoder or no time is named, with what would be right."""
    assert verb.decoders_of("rtqec, pymatching") == ["pymatching", "rtqec"]
    with pytest.raises(ConfigError, match=r"(?s)--decoders names 'mwpm'.*pymatching_correlated"):
        verb.decoders_of("rtqec,mwpm")
    assert verb.budgets_of("8, 16.5") == [8, 16.5]
    assert verb.budgets_of("") == []
    for text in ("8,fast", "0", "-1", "inf", "nan"):
        with pytest.raises(ConfigError, match="--budgets-us 8,16,32"):
            verb.budgets_of(text)
