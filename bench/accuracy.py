"""How often windows are wrong, beside whole shots, and how often a lane is late or wrong.

Shots are drawn from the circuit by sinter's worker processes, on all cores, until there are enough shots or errors.
Windows and whole shots decode the same shots, so that their difference has an exact test (McNemar). What was counted
goes to `accuracy.csv` in sinter's own format as it comes; a later run takes only what is missing (`bench.sampling`).

Intervals are Clopper and Pearson's. Where the errors end the sampling they cover more often than they say: with a
fixed number of errors the lower end is exactly theirs, and the upper end could be lower.

With `--budgets-us`, LER(t): the fraction of shots with a late or a wrong answer, on the configured ladder. A controller
can use neither. CPU time of every step of the real path through an exact single-server queue (`bench.service`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import sinter
import typer
from numpy.typing import NDArray
from rich.table import Table

from bench.cases import Case
from bench.estimates import ERRORS_MIN, exact_interval, mcnemar_p, per_round
from bench.options import (
    DEFAULT_OUT,
    DEFAULT_SEED,
    ConfigArgument,
    OutOption,
    RepeatsOption,
    SeedOption,
    SetOption,
    SweepOption,
    session_of,
)
from bench.rows import Row
from bench.sampling import WAYS, WHOLE_SHOT, Goal, PairedSampler, collect, plan_of, stats_of, task_of
from bench.service import ServiceQueue, sample_layers
from bench.session import Session
from rtqec.config import ENDLESS, Config
from rtqec.errors import ConfigError
from rtqec.plan import Plan
from rtqec.wire import Rung

CSV = "accuracy.csv"
_LEARNING_SHOTS = 500
"""Shots that pass before any count, so that the ladder has learned what this machine is."""
_WORST_FIRST = (Rung.HOLD, Rung.UNION_FIND, Rung.MATCH, Rung.CORRELATED_MATCH)


def accuracy(
    config: ConfigArgument,
    set_: SetOption = None,
    sweep: SweepOption = None,
    decoders: Annotated[str, typer.Option(help="Any of them, with commas between.")] = ",".join(WAYS),
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Without it, one per core.")] = None,
    max_shots: Annotated[int, typer.Option(min=1, help="Shots of each case and decoder.")] = 100_000,
    max_errors: Annotated[int, typer.Option(min=1, help="Errors that are enough, however few the shots.")] = 200,
    budgets_us: Annotated[str, typer.Option(help="LER(t): budgets of the ladder, with commas between.")] = "",
    ladder_shots: Annotated[int, typer.Option(min=1, help="LER(t): shots for each budget.")] = 5000,
    repeats: RepeatsOption = 1,
    seed: SeedOption = DEFAULT_SEED,
    out: OutOption = DEFAULT_OUT,
) -> None:
    """Logical errors per shot and per round, of windows and whole shots on the same shots; late or wrong shots.

    Goes on where an earlier run with the same --out stopped (accuracy.csv). --seed is that of the LER(t) shots.
    """
    names, budgets = decoders_of(decoders), budgets_of(budgets_us)
    goal, workers = Goal(max_shots, max_errors), workers or len(os.sched_getaffinity(0))
    session = session_of("accuracy", config, set_, sweep, repeats, seed, out)
    for case in session.cases:
        check_case(case)
    rows: list[Row] = []
    with session.progress(repeats * len(session.cases) * (len(names) + len(budgets)), "accuracy"):
        for repeat, case in session.measurements():
            rows += sample_case(session, repeat, case, names, goal, workers)
            if budgets:
                rows += time_case(session, repeat, case, budgets, ladder_shots)
    for table in tables_of(rows):
        session.console.print(table)


def sample_case(session: Session, repeat: int, case: Case, names: list[str], goal: Goal, workers: int) -> list[Row]:
    """Sample one case. However it ends, rows are written of the decoders with enough shots, and of no others."""
    path = session.results.folder / CSV
    matchings = dict.fromkeys(WAYS[name].matching for name in names)
    by_matching = {matching: plan_of(case.config, matching) for matching in matchings}
    plans = {name: by_matching[WAYS[name].matching] for name in names}
    tasks = {name: task_of(plans[name], name, repeat) for name in names}
    samplers = {name: PairedSampler(case.config, WAYS[name]) for name in names}
    rows = []
    try:
        collect(list(tasks.values()), samplers, path, goal, workers, lambda steps: session.advance(steps=steps))
    finally:
        counted = stats_of(path)
        for name, task in tasks.items():
            stats, plan = counted.get(task.strong_id()), plans[name]
            if stats is not None and goal.share(stats) >= 1:
                digest = None if WAYS[name].rung is None else plan.digest
                rows.append(session.add(case, repeat, rate_result(name, plan.rounds.num_rounds, stats), digest))
    return rows


def rate_result(name: str, num_rounds: int, stats: sinter.TaskStats) -> dict[str, Any]:
    """What a row says of one decoder.

    Args:
        name: Of the decoder.
        num_rounds: Of a shot, the data readout included.
        stats: What was counted; `seconds` is the workers' time, drawing and decoding both ways.
    """
    shots, errors = stats.shots, stats.errors
    interval = exact_interval(errors, shots)
    result = {
        "decoder": name,
        "num_rounds": num_rounds,
        "shots": shots,
        "errors": errors,
        "per_shot": errors / shots,
        "per_shot_interval": list(interval),
        "per_round": per_round(errors / shots, num_rounds),
        "per_round_interval": [per_round(bound, num_rounds) for bound in interval],
        "upper_bound_only": errors < ERRORS_MIN,
        "whole_shot": None,
        "worse": None,
        "better": None,
        "mcnemar_p": None,
        "seconds": stats.seconds,
    }
    if WAYS[name].rung is not None:
        counts = stats.custom_counts
        worse, better = counts["worse"], counts["better"]
        whole = {"decoder": WHOLE_SHOT[WAYS[name].matching], "errors": counts["whole_errors"]}
        result |= {"whole_shot": whole, "worse": worse, "better": better, "mcnemar_p": mcnemar_p(worse, better)}
    return result


def time_case(session: Session, repeat: int, case: Case, budgets_us: list[float], shots: int) -> list[Row]:
    """LER(t) of one case on its configured ladder, a row for each budget."""
    plan, rows = case.plan(), []
    for result in ladder_results(case.config, plan, budgets_us, shots, session.seed):
        rows.append(session.add(case, repeat, result, plan.digest))
        session.advance()
    return rows


def ladder_results(
    config: Config, plan: Plan, budgets_us: list[float], shots: int, seed: int
) -> Iterator[dict[str, Any]]:
    """The same shots through the configured ladder, once for each budget."""
    layers, truth = sample_layers(plan, shots, seed)
    own_frame = np.uint64((1 << plan.experiment.own_dem.num_observables) - 1)
    for budget_us in budgets_us:
        with ServiceQueue(plan, config.ladder, budget_us) as queue:
            queue.run(layers[:_LEARNING_SHOTS], config.period_us)
            run = queue.run(layers, config.period_us)
        late, wrong = run.response_ns > budget_us * 1000, (run.frames ^ truth) & own_frame != 0
        yield ladder_result(run.corrections, late, wrong, budget_us, config.period_us)


def ladder_result(
    corrections: NDArray[np.void], late: NDArray[np.bool_], wrong: NDArray[np.bool_], budget_us: float, period_us: float
) -> dict[str, Any]:
    """What a row says of the ladder on one budget.

    Windows of a backlog are late together, so that their interval, made as if they were independent, is too short.

    Args:
        corrections: `wire.CORRECTION`; one that amends a held one counts as a window of its own.
        late: bool, same shape.
        wrong: bool, shape (num_shots,): whose frame is wrong at the end.
    """
    num_shots = len(wrong)
    shots = corrections["shot_id"].astype(np.int64)
    late_shot = np.zeros(num_shots, np.bool_)
    np.logical_or.at(late_shot, shots, late)
    # By number, union-find would come after matching, and a shot's lowest rung would be the better one.
    rank = np.zeros(max(Rung) + 1, np.int64)
    rank[list(_WORST_FIRST)] = np.arange(len(_WORST_FIRST))
    lowest = np.full(num_shots, len(_WORST_FIRST))
    np.minimum.at(lowest, shots, rank[corrections["rung"]])
    bad = int((wrong | late_shot).sum())
    return {
        "decoder": "ladder",
        "budget_us": budget_us,
        "period_us": period_us,
        "shots": num_shots,
        "windows": len(late),
        "late_windows": float(late.mean()),
        "late_windows_interval": list(exact_interval(int(late.sum()), len(late))),
        "late_shots": int(late_shot.sum()),
        "wrong_shots": int(wrong.sum()),
        "late_or_wrong": bad / num_shots,
        "late_or_wrong_interval": list(exact_interval(bad, num_shots)),
        "rungs": {rung.name.lower(): int((corrections["rung"] == rung).sum()) for rung in _WORST_FIRST},
        "by_lowest_rung": {
            rung.name.lower(): {"shots": int((lowest == i).sum()), "wrong": int((wrong & (lowest == i)).sum())}
            for i, rung in enumerate(_WORST_FIRST)
        },
    }


def decoders_of(text: str) -> list[str]:
    """Names of `WAYS`, in their order.

    Raises:
        ConfigError: There is no such decoder.
    """
    asked = [name.strip() for name in text.split(",")]
    unknown = [name for name in asked if name not in WAYS]
    if unknown:
        raise ConfigError(
            "--decoders", f"names {unknown[0]!r}, but no decoder has that name.", "Nothing else is sampled here.",
            f"Choose of {', '.join(WAYS)}.",
        )  # fmt: skip
    return [name for name in WAYS if name in asked]


def budgets_of(text: str) -> list[float]:
    """Budgets, us.

    Raises:
        ConfigError: One of them is no time.
    """
    try:
        budgets = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        budgets = [0.0]
    if any(not 0 < budget < np.inf for budget in budgets):
        raise ConfigError(
            "--budgets-us", f"is {text!r}, but must be times in us, with commas between.",
            "A budget is the service time that a window may take.", "Write for example --budgets-us 8,16,32.",
        )  # fmt: skip
    return budgets


def check_case(case: Case) -> None:
    """Refuse what has no rate of errors per shot, before hours are spent.

    Raises:
        ConfigError: Shots that do not end, that are recorded, or that no circuit makes.
    """
    table, _ = case.config.tables_of(case.config.patch[0])
    if table.rounds == ENDLESS:
        raise ConfigError(
            "[plan] rounds", 'is "endless", but must be a number here.',
            "Errors are counted per shot, so that shots must end.",
            "Add --set plan.rounds=50 (or another number); with [plan] circuit leave the key out.",
        )  # fmt: skip
    if case.config.source.kind != "simulated":
        raise ConfigError(
            "[source] kind", f'is {case.config.source.kind!r}, but must be "simulated" here.',
            "Shots are drawn from the circuit's own noise.",
            "Add --set source.kind=simulated, or decode the recorded shots with firmware-sim.",
        )  # fmt: skip
    if table.generated is None and table.circuit is None:
        raise ConfigError(
            "[plan] circuit", "is missing.", "Shots are drawn from it.", "Name the circuit that the model was made of."
        )  # fmt: skip


_RATE_TITLES = ("decoder", "shots", "errors", "per round, 95 %", "worse", "better", "p")
_LADDER_TITLES = ("budget, us", "shots", "late windows", "wrong shots", "late or wrong, 95 %")


def tables_of(rows: list[Row]) -> list[Table]:
    """Rows for people: for each case a table of rates, and one of the ladder."""
    tables: dict[tuple[str, bool], Table] = {}
    for row in rows:
        case, result = row["case"], row["result"]
        ladder = result["decoder"] == "ladder"
        name = f"d={case['distance']} p={case['noise']} commit {case['commit_rounds']}, buffer {case['buffer_rounds']}"
        if (name, ladder) not in tables:
            tables[name, ladder] = Table(title=name, title_justify="left", box=None, padding=(0, 1, 0, 0))
            for title in _LADDER_TITLES if ladder else _RATE_TITLES:
                justify: Literal["left", "right"] = "left" if title == "decoder" else "right"
                tables[name, ladder].add_column(title, justify=justify, no_wrap=True)
        tables[name, ladder].add_row(*(_ladder_cells(result) if ladder else _rate_cells(result)))
    return list(tables.values())


def _rate_cells(result: dict[str, Any]) -> list[str]:
    low, high = result["per_round_interval"]
    interval = f"< {high:.2g}" if result["upper_bound_only"] else f"{low:.2g} to {high:.2g}"
    cells = [result["decoder"], str(result["shots"]), str(result["errors"]), interval]
    paired = result["whole_shot"] is not None
    return [*cells, str(result["worse"]), str(result["better"]), f"{result['mcnemar_p']:.2g}"] if paired else cells


def _ladder_cells(result: dict[str, Any]) -> list[str]:
    low, high = result["late_or_wrong_interval"]
    late, wrong = f"{result['late_windows']:.3g}", str(result["wrong_shots"])
    return [f"{result['budget_us']:g}", str(result["shots"]), late, wrong, f"{low:.3g} to {high:.3g}"]
