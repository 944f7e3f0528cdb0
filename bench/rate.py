"""The highest round rate that is held without a growing backlog and without loss. Two modes:

- *wire*: a daemon and a simulated controller on this machine, over ZeroMQ: trials (`bench.trial` says which hold) and a
  search that no single one of them decides (`bench.search` says how).
- *service*: what the path alone can do per core, with recorded rounds already in the ring (`bench.cost`), in CPU time.

Rates are rounds per second of each patch. The limit is where half of the trials hold.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from bench.cases import Case
from bench.cost import CostMeter, PathCost
from bench.daemon import feeding
from bench.energy import Counters, EnergyMeter, find_counters
from bench.inline import NO_BUDGET_US, InlineLane
from bench.modes import Mode
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
from bench.recorded import record
from bench.rows import Row
from bench.search import Search
from bench.session import Session
from bench.trial import Trial, find_limit, make_trial
from rtqec.errors import ConfigError
from rtqec.plan import Plan
from rtqec.units import US_PER_S

_RECORDED_ROUNDS = 50_000
_RING_ROUNDS = 8192
_MILLION = 1e6


def rate(
    config: ConfigArgument, set_: SetOption = None, sweep: SweepOption = None, repeats: RepeatsOption = 1,
    mode: Annotated[Mode, typer.Option(help="Through a daemon, the path alone, or both.")] = Mode.BOTH,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of a trial; of CPU time, in service mode.")] = 2.0,
    low: Annotated[float, typer.Option(min=1, help="Lowest rate to try, rounds per second.")] = 1e3,
    high: Annotated[float, typer.Option(min=1, help="Highest rate to try.")] = 2e6,
    tolerance: Annotated[float, typer.Option(min=0.01, help="Stop when the interval is this narrow: upper over lower "
                                             "end, less one.")] = 0.1,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of all intervals.")] = 0.95,
    trials: Annotated[int, typer.Option(min=1, help="Most trials of a search.")] = 40,
    seed: SeedOption = DEFAULT_SEED, out: OutOption = DEFAULT_OUT,
) -> None:  # fmt: skip
    """The highest round rate held without growing backlog and without loss, over ZeroMQ and by the path alone."""
    if low >= high:
        raise ConfigError(
            f"--low {low:g}", f"is not below --high {high:g}.", "The limit is sought between them.",
            "Set --low below --high, both in rounds per second.",
        )  # fmt: skip
    session = session_of("rate", config, set_, sweep, repeats, seed, out)
    rows: list[Row] = []
    counters = find_counters()
    with session.progress(len(session.cases) * repeats * len(mode.each), "rate"):
        for repeat, case in session.measurements():
            plan = case.plan()
            for chosen in mode.each:
                session.advance(f"rate {case.name}, {chosen}", steps=0)
                if chosen is Mode.WIRE:
                    search = Search(low, high, tolerance, confidence, trials)
                    result = measure_wire(session, case, search, seconds, counters)
                else:
                    result = measure_service(case, plan, session.seed + repeat, seconds, confidence, counters)
                rows.append(session.add(case, repeat, result, plan.digest))
                session.advance()
    session.console.print(_table(rows))


def measure_wire(session: Session, case: Case, search: Search, seconds: float, counters: Counters) -> dict[str, Any]:
    """Search the limit of one case, with one daemon."""
    with feeding(case.path, list(case.overrides)) as feeder:

        def attempt(rounds_per_s: float) -> Trial:
            session.advance(f"rate {case.name}: trial {len(search.trials) + 1}, {rounds_per_s:,.0f} per s", steps=0)
            return make_trial(feeder, rounds_per_s, seconds, counters)

        trials, void = find_limit(search, attempt)
    below = [trial for trial in trials if trial.held and trial.rounds_per_s <= search.estimate]
    best = max(below, key=lambda trial: trial.rounds_per_s, default=None)
    return {
        "mode": "wire",
        "rounds_per_s": search.estimate,
        "interval": search.interval(),
        "confidence": search.confidence,
        "known": search.known,
        "edge": search.edge,
        "how": search.why,
        "seconds": seconds,
        "trials": [{"rounds_per_s": t.rounds_per_s, "held": bool(t.held), "why": t.why} for t in trials],
        "void_trials": void,
        "cpu_us_per_round": None,
        **_cost_of(best, counters),
    }


def _cost_of(best: Trial | None, counters: Counters) -> dict[str, Any]:
    """What the daemon spent, all of its threads together, in the trial that held next below the limit."""
    fed = best.fed if best else None
    windows = fed.counts.totals["windows"] if fed else None
    energy = _energy(best.joules if best else None, best.gpu_joules if best else None, windows, counters)
    if fed is None or not windows:
        names = ("windows_per_s_per_core", "daemon_cpu_us_per_round", "daemon_cores", "below_first_rung", "caught_up")
        return energy | dict.fromkeys(names)
    return energy | {
        "windows_per_s_per_core": windows / fed.cpu_s if fed.cpu_s else None,
        "daemon_cpu_us_per_round": fed.cpu_s * US_PER_S / fed.controller.sender.rounds_sent,
        "daemon_cores": fed.cpu_s / fed.controller.seconds,
        "below_first_rung": fed.counts.totals["stepped_down"] / windows,
        "caught_up": fed.counts.totals["caught_up"] / windows,
    }


def measure_service(
    case: Case, plan: Plan, seed: int, cpu_s: float, confidence: float, counters: Counters
) -> dict[str, Any]:
    """What the path of the case's first patch costs, rounds already in the ring."""
    ladder, patch = case.config.ladder, case.config.patch[0]
    shots = record(plan, _RECORDED_ROUNDS, seed)
    room = max(_RING_ROUNDS, 4 * plan.window.rounds, case.config.feed.ring_rounds)
    with InlineLane(plan, ladder, NO_BUDGET_US, room) as lane:
        cost = CostMeter(lane, shots)
        with EnergyMeter(counters) as meter:
            single = cost.one_by_one(cpu_s)
        saturated = cost.saturated(cpu_s, patch.budget_us or case.config.deadline.budget_us)
    low, high = single.interval_us(confidence)
    windows = single.windows
    return {
        "mode": "service",
        "rounds_per_s": US_PER_S / single.us_per_round,
        "interval": (US_PER_S / high, US_PER_S / low),
        "confidence": confidence,
        "how": f"CPU time of {len(single.rounds)} blocks of rounds; Student's interval of the means of groups of them",
        "seconds": cpu_s,
        "trials": None,
        "cpu_us_per_round": single.us_per_round,
        "cpu_us_per_round_interval": (low, high),
        "windows_per_s_per_core": single.windows_per_s,
        "ways": {"one_by_one": _way(single, confidence), "saturated": _way(saturated, confidence)},
        **_energy(meter.cpu_joules, meter.gpu_joules, windows, counters),
    }


def _way(cost: PathCost, confidence: float) -> dict[str, Any]:
    """One way of decoding rounds that lie in the ring."""
    low, high = cost.interval_us(confidence)
    answered = sum(cost.rungs.values())
    return {
        "rounds_per_s": US_PER_S / cost.us_per_round,
        "interval": (US_PER_S / high, US_PER_S / low),
        "cpu_us_per_round": cost.us_per_round,
        "windows_per_s_per_core": cost.windows_per_s,
        "rounds_per_window": float(cost.rounds.sum() / cost.windows),
        "rungs": {name: count / answered for name, count in cost.rungs.items()},
    }


def _energy(cpu: float | None, gpu: float | None, windows: int | None, counters: Counters) -> dict[str, Any]:
    """Blank where it could not be read; the path uses no GPU, so that windows per GPU are blank."""

    def per_million(joules: float | None) -> float | None:
        return joules / windows * _MILLION if joules is not None and windows else None

    return {
        "windows_per_s_per_gpu": None,
        "joules_per_million_windows": per_million(cpu),
        "gpu_joules_per_million_windows": per_million(gpu),
        "energy_source": counters.source,
        "energy_why": counters.why,
    }


def _table(rows: list[Row]) -> Table:
    table = Table(title="rounds per second of each patch", title_justify="left", box=None, pad_edge=False)
    table.add_column("case")
    for name in ("mode", "rounds/s", "interval", "us/round", "windows/s/core"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        case, result = row["case"], row["result"]
        low, high = result["interval"]
        mark = {"low": "< ", "high": "> "}.get(result.get("edge") or "", "")
        table.add_row(
            f"d={case['distance']} p={case['noise'] or 0:g} {case['commit_rounds']}+{case['buffer_rounds']}",
            result["mode"], f"{mark}{result['rounds_per_s']:,.0f}", f"{low:,.0f} to {high:,.0f}",
            _number(result["cpu_us_per_round"]), _number(result["windows_per_s_per_core"]),
        )  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"
