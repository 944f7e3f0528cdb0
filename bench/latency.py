"""Open loop: when corrections come, counted from the time at which the last round that they need was due.

Rounds leave by the clock, whatever the daemon does, and carry the time at which they were *due*: a sender that falls
behind makes reaction times longer, never shorter, and none is left out (no coordinated omission). Two modes:

- *wire*: a daemon and a simulated controller on this machine, as it is; and the floor in the same run: the same sender
  and transport with a null decoder (`bench.floor`).
- *service*: every step of the real path in CPU time, behind an exact single-server queue at the configured round period
  (`bench.service`): what the decoder itself would do on a core of its own. Lindley's recursion (`bench.queueing`)
  checks the queue in every run. Reaction is counted from the arrival of the last round; there is no transport in it.

A wire run counts only if the load was what it says: it is accepted where at most 1 % of the rounds left later than the
bound after they were due, so that one hiccup in a million rounds does not void what the others say. It is not hidden
either: it is in every reaction time, and the most by which the sender was late, and the share of rounds that left late,
stand in the row. Nor does a run count, in either mode, of which more than 1 % of the answers were held and not decoded.
Whatever is not accepted says why.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from bench.cases import Case
from bench.daemon import feeding
from bench.estimates import ccdf, percentiles
from bench.floor import Floor, measure_floor
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
from bench.queueing import response_ns
from bench.recorded import record
from bench.rows import Row
from bench.service import ServiceQueue
from firmware_sim.report import problems_of
from firmware_sim.sender import LATE_BOUND_PERIODS, LATE_BOUND_US_MIN
from rtqec.errors import ExitCode, FaultError
from rtqec.plan import Plan
from rtqec.units import NS_PER_US
from rtqec.wire import CorrectionFlag, Rung

LEFT_LATE_MAX = 0.01
HELD_MAX = 0.01
"""Of all answers. A path that is too slow answers by holding, at once: its reaction times would look good."""
_WIRE_SECONDS = 10.0
_ROUNDS_MAX = 2_000_000
_WARM_FRACTION = 20

NAMES = ("reaction", "service", "floor")


@dataclass(frozen=True)
class Times:
    """Of every correction that is no amendment, int64, ns.

    Attributes:
        reaction: From when its last round was due (in a queue: arrived) to its hand-over.
        service: From when that round came (in a queue: CPU time of the step) to its hand-over.
        late: Share of corrections that came after their deadline.
        floor: Of every message, from when it was due to its reception by a null decoder; None where there is none.
    """

    reaction: NDArray[np.int64]
    service: NDArray[np.int64]
    late: float
    floor: NDArray[np.int64] | None = None

    def named(self) -> dict[str, NDArray[np.int64]]:
        """Those that there are, by the name that rows and logs use."""
        return {name: samples for name in NAMES if (samples := getattr(self, name)) is not None}


def late_bound_us(period_us: float) -> float:
    """How late a sender may be, us."""
    return max(LATE_BOUND_PERIODS * period_us, LATE_BOUND_US_MIN)


def judge_sender(late_us_max: float, left_late: float, bound_us: float) -> tuple[bool, str | None]:
    """Whether the load was what it says; see the module.

    Args:
        late_us_max: The latest that a message left after it was due.
        left_late: Share of rounds that left more than the bound after they were due.
        bound_us: How late the sender may be.

    Returns:
        Whether the run counts, and why not.
    """
    if left_late <= LEFT_LATE_MAX:
        return True, None
    return False, (
        f"{100 * left_late:.2g} % of the rounds (bound {100 * LEFT_LATE_MAX:g} %) left more than {bound_us:.0f} us "
        f"after they were due, one of them {late_us_max:.0f} us: the load was not what was asked for"
    )


def judge_answers(held: int, corrections: int) -> str | None:
    """Why a run does not count whose answers were held and not decoded: those are quick, and say nothing."""
    if held <= HELD_MAX * corrections:
        return None
    return (
        f"{held} of {corrections} answers were held and not decoded (bound {100 * HELD_MAX:g} %): this path does not "
        "keep up with such rounds"
    )


def default_rounds(period_us: float) -> int:
    """What ten seconds hold, at most two million."""
    return min(round(_WIRE_SECONDS * 1e6 / period_us), _ROUNDS_MAX)


def latency(
    config: ConfigArgument, set_: SetOption = None, sweep: SweepOption = None, repeats: RepeatsOption = 1,
    mode: Annotated[Mode, typer.Option(help="Through a daemon, the path alone behind a queue, or both.")] = Mode.BOTH,
    rounds: Annotated[int | None, typer.Option(min=100, help="Rounds sent to the daemon, rounded up to whole shots. "
                                               "Default: what 10 s hold, at most 2,000,000.")] = None,
    service_rounds: Annotated[int, typer.Option(min=100, help="Rounds through the queue, rounded up likewise.")]
        = 500_000,
    late_us: Annotated[float | None, typer.Option(help="How late the sender may be. Default: 10 round periods, at "
                                                  "least 1000.")] = None,
    seed: SeedOption = DEFAULT_SEED, out: OutOption = DEFAULT_OUT,
) -> None:  # fmt: skip
    """When corrections come: percentiles, CCDF and HdrHistogram logs, with the transport's floor.

    Sweep the round period with --sweep pace.period_us=5,10,20. Exit 1 where no run of a case was accepted.
    """
    from bench.hdr import write_hdr_log  # The library may be missing: say so before anything is measured.

    session = session_of("latency", config, set_, sweep, repeats, seed, out)
    rows: list[Row] = []
    with session.progress(len(session.cases) * repeats * len(mode.each), "latency"):
        for repeat, case in session.measurements():
            plan = case.plan()
            for chosen in mode.each:
                session.advance(f"latency {case.name}, {chosen}", steps=0)
                began_s = time.time()
                if chosen is Mode.WIRE:
                    result, times = measure_wire(case, rounds, late_us)
                else:
                    result, times = measure_service(case, plan, service_rounds, session.seed + repeat)
                log = hdr_log_name(case, chosen, repeat)
                write_hdr_log(session.results.folder / log, times.named(), began_s, time.time())
                result = row_result(case.config.period_us, times) | {"hdr_log": log} | result
                rows.append(session.add(case, repeat, result, plan.digest))
                session.advance()
    session.console.print(_table(rows))
    for row in rows:
        if not row["result"]["accepted"]:
            session.console.print(f"[red]rejected[/red] {row['result']['why']}", highlight=False)
    if rejected_altogether(rows):
        raise typer.Exit(ExitCode.FAILED)


def rejected_altogether(rows: list[Row]) -> bool:
    """Whether some case has no accepted run in some mode."""
    keys = {(row["case"]["config_digest"], row["result"]["mode"]): False for row in rows}
    for row in rows:
        keys[row["case"]["config_digest"], row["result"]["mode"]] |= row["result"]["accepted"]
    return not all(keys.values())


def measure_wire(case: Case, rounds: int | None, late_us: float | None) -> tuple[dict[str, Any], Times]:
    """One run through a daemon of its own, then one through a null decoder.

    Returns:
        What the row says besides percentiles, and the times.
    """
    with feeding(case.path, list(case.overrides)) as feeder:
        wanted = feeder.sending(rounds or default_rounds(case.config.period_us))
        bound_us = late_us or late_bound_us(case.config.period_us)
        fed = feeder.feed(*wanted, keep=True, late_bound_us=bound_us)
        plans, config = feeder.plans, feeder.config(*wanted)
    floor = measure_floor(config, plans)
    corrections = np.concatenate([account.corrections for account in fed.controller.accounts])
    times = wire_times(corrections, floor)
    report = fed.report
    sender_late_us = fed.controller.sender.late_ns_max / NS_PER_US
    left_late = fed.controller.sender.rounds_late / fed.controller.sender.rounds_sent
    accepted, why = judge_sender(sender_late_us, left_late, bound_us)
    unheard = judge_answers(report["rungs"]["hold"], report["corrections_received"])
    problems = [*problems_of(report), *([unheard] if unheard else [])]
    if problems:
        accepted, why = False, "; ".join([*problems, *([why] if why else [])])
    result = {
        "mode": "wire",
        "rounds": report["rounds_sent"],
        "sender_late_us_max": sender_late_us,
        "sender_late_bound_us": bound_us,
        "left_late": left_late,
        "floor_sender_late_us_max": floor.sender_late_ns_max / NS_PER_US,
        "floor_lost": floor.rounds_sent - len(floor.reception_ns) if config.source.rounds_per_message == 1 else None,
        "rungs": report["rungs"],
        "caught_up": report["flags"]["caught_up"],
        "backlog_rounds_max": report["backlog_rounds"]["max"],
        "accepted": accepted,
        "why": why,
    }
    return result, times


def wire_times(corrections: NDArray[Any], floor: Floor) -> Times:
    """What corrections say of themselves.

    Args:
        corrections: `wire.CORRECTION`.
        floor: Of the same load.
    """
    live = corrections[(corrections["flags"] & CorrectionFlag.AMENDMENT) == 0]
    published, received, due = (live[f"{name}_ns"].astype(np.int64) for name in ("published", "received", "sent"))
    late = float(((live["flags"] & CorrectionFlag.LATE) != 0).mean()) if len(live) else 0.0
    return Times(published - due, published - received, late, floor.reception_ns)


def measure_service(case: Case, plan: Plan, rounds: int, seed: int) -> tuple[dict[str, Any], Times]:
    """One stream through the path behind a queue.

    Raises:
        FaultError: The queue is not one: response times are not those of Lindley's recursion.
    """
    patch = case.config.patch[0]
    budget_us = patch.budget_us or case.config.deadline.budget_us
    shots = record(plan, rounds, seed)
    warm = record(plan, max(rounds // _WARM_FRACTION, 100), seed + 1)
    with ServiceQueue(plan, case.config.ladder, budget_us) as queue:
        queue.run(warm.layers_b8, case.config.period_us)  # The ladder learns what this machine is.
        run = queue.run(shots.layers_b8, case.config.period_us)
    live = (run.corrections["flags"] & CorrectionFlag.AMENDMENT) == 0
    if live.all() and not np.array_equal(response_ns(run.arrival_ns, run.service_ns), run.response_ns):
        raise FaultError("response times of the service queue are not those of Lindley's recursion.")
    reaction, service = run.response_ns[live], run.service_ns[live]
    busy_ns = int(run.service_ns.sum())
    held = int((run.corrections["rung"][live] == Rung.HOLD).sum())
    why = judge_answers(held, int(live.sum()))
    result = {
        "mode": "service",
        "rounds": shots.total,
        "sender_late_us_max": None,
        "sender_late_bound_us": None,
        "left_late": None,
        "load": busy_ns / (shots.total * case.config.period_us * NS_PER_US),
        "wall_over_cpu": run.wall_ns / busy_ns,
        "rungs": {rung.name.lower(): int((run.corrections["rung"][live] == rung).sum()) for rung in Rung},
        "caught_up": int(((run.corrections["flags"][live] & CorrectionFlag.CAUGHT_UP) != 0).sum()),
        "backlog_rounds_max": run.backlog_max,
        "accepted": why is None,
        "why": why,
    }
    return result, Times(reaction, service, float((reaction > budget_us * NS_PER_US).mean()))


def hdr_log_name(case: Case, mode: str, repeat: int) -> str:
    """The file of a measurement's histograms."""
    return f"latency-{case.name}-{case.describe()['config_digest']}-{mode}-{repeat}.hlog"


def row_result(period_us: float, times: Times) -> dict[str, Any]:
    """What a row says of some times: percentiles and CCDF in us, blank where there are none."""
    named = {name: samples / NS_PER_US for name, samples in times.named().items()}
    return {
        "period_us": period_us,
        "corrections": len(times.reaction),
        "late": times.late,
        **{f"{name}_us": percentiles(named[name]) if name in named else None for name in NAMES},
        "ccdf": {name: ccdf(named[name]) if name in named else None for name in NAMES},
    }


def _table(rows: list[Row]) -> Table:
    columns = ("p50", "p99", "p99.9", "max")
    table = Table(title="us from the last round due to the hand-over", title_justify="left", box=None, pad_edge=False)
    table.add_column("case")
    for name in ("mode", *columns, "floor p50", "late"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        case, result = row["case"], row["result"]
        floor = result["floor_us"]["p50"] if result["floor_us"] else None
        table.add_row(
            f"d={case['distance']} p={case['noise'] or 0:g} {case['commit_rounds']}+{case['buffer_rounds']} "
            f"{case['period_us']:g} us" + ("" if result["accepted"] else " [red]rejected[/red]"),
            result["mode"], *(_number(result["reaction_us"][name]) for name in columns), _number(floor),
            f"{result['late']:.2g}",
        )  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
