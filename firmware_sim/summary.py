"""What a run says at its end, for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_report(console: Console, report: dict[str, Any]) -> None:
    """Print a report as a table.

    Args:
        console: Where to.
        report: As `report.build_report` makes it.
    """
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    sent = f"{report['rounds_sent']:,} at {report['rate_rounds_per_s'] or 0:,} per s"
    table.add_row("rounds sent", f"{sent} (one every {report['period_us']:g} us asked), {report['rounds_lost']} lost")
    table.add_row(
        "corrections",
        f"{report['corrections_received']:,} of {report['corrections_expected']:,}, "
        f"{report['corrections_out_of_order']} out of order, {report['flags']['late']} late, "
        f"{report['flags']['lossy']} lossy",
    )
    table.add_row("shots", f"{report['shots']:,}")
    table.add_row("logical errors", _compared(report))
    if report["unexplained"] is not None:
        table.add_row("unexplained", f"{report['unexplained']} windows whose events could not be paired")
    if report["faults"]:
        injected = report["faults"]["injected"].items()
        agree = report["faults"]["agree"]
        table.add_row(
            "faults",
            ", ".join(f"{name} {count['times']:,} times ({count['rounds']:,} rounds)" for name, count in injected)
            + f"; the daemon's counts agree in {sum(check['equal'] for check in agree)} of {len(agree)}",
        )
    if report["lane_deaths"]:
        table.add_row("lane deaths", _told(report["lane_deaths"], report["corrections_resent"]))
    backlog = report["backlog_rounds"]
    if backlog["median_last_tenth"] is not None:
        table.add_row(
            "backlog", f"{backlog['median_last_tenth']:g} rounds (median of the last tenth), {backlog['max']} at most"
        )
    for name, meaning in (
        ("reaction_us", "last round due to be sent -> correction handed over"),
        ("service_us", "last round received -> correction handed over"),
    ):
        values = "  ".join(f"{k} {'-' if v is None else f'{v:g}'}" for k, v in report[name].items() if k != "count")
        table.add_row(name.replace("_", ", "), f"{values}   ({meaning})")
    table.add_row("sender", f"at most {report['sender_late_us_max']:g} us late")
    if report["rss_mib"]:
        rss = report["rss_mib"]
        table.add_row("daemon memory", f"{rss['at_10_percent']:.1f} MiB at 10 %, {rss['at_end']:.1f} MiB at the end")
    table.add_row("plan", ", ".join(sorted({digest[:16] for digest in report["plan_digest"]})))
    table.add_row("machine", f"{report['machine']['cores']} cores, {report['machine']['cpu']}")
    table.add_row("repeat with", escape(report["command"]))
    console.print(table)


def _told(deaths: dict[str, Any], resent: int) -> str:
    """The lane that died, in words."""
    first, every, gone, others = (deaths[key] for key in
                                  ("first_correction_ms", "all_patches_ms", "rounds_gone", "others"))  # fmt: skip
    if not deaths["times"]:
        return f"{deaths['lane']} was not ready when it should have died"
    return (
        f"{deaths['lane']} {deaths['times']} times ({deaths['signal']}); first correction after {first['median']} ms "
        f"(at most {first['max']}), all patches after {every['median']} ms (at most {every['max']}); "
        f"{gone['total']:,} rounds gone, {resent} corrections from the journal; other lanes: "
        f"{others['rounds_answered']:,} of {others['rounds_sent']:,} rounds answered, {others['late']} late, "
        f"{others['lossy']} lossy"
    )


def _compared(report: dict[str, Any]) -> str:
    if report["logical_errors"] is None:
        return "the truth is not known"
    text = f"{report['logical_errors']}"
    if report["logical_errors_whole_shot"] is not None:
        text += (
            f"; PyMatching on whole shots {report['logical_errors_whole_shot']}; they disagree on "
            f"{report['disagreements']} shots ({report['worse']} worse, {report['better']} better)"
        )
    return text
