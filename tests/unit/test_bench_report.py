"""A report is made from rows alone: what they say stands in it, what they do not say stays blank."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bench.estimates import ccdf, exact_interval, mcnemar_p, per_round, percentiles
from bench.figures import draw_all
from bench.figures.accuracy import points_of
from bench.figures.stages import parts_of
from bench.goals import evaluate, load_goals
from bench.report import BEGIN, END, headlines, image_links, replace_between_markers, report
from bench.rows import Row
from bench.runs import VERBS, Wording, newest, number
from bench.tables.cells import Table
from bench.tables.shots import accuracy_table, compare_table
from bench.tables.speed import cost_table, latency_table, rate_table, stages_table
from rtqec.errors import ConfigError

RUN = "2026-11-21T10:00:00.000+00:00"


def row(verb: str, result: dict[str, Any], repeat: int = 0, run: str = RUN, dirty: bool = False, **case: Any) -> Row:
    """A row as the bench writes it; `case` replaces fields of a plain d = 5 memory."""
    plain = {
        "config": "d5_memory_z", "overrides": [], "config_digest": "0123456789abcdef", "distance": 5, "noise": 0.001,
        "rounds": 50, "matching": "plain", "commit_rounds": 5, "buffer_rounds": 5, "period_us": 10.0, "patches": 1,
        "seed": 5, "plan_digest": "fedcba9876543210",
    }  # fmt: skip
    machine = {
        "cpu": "AMD EPYC", "cores": 2, "governor": None, "kernel": "6.18.5", "python": "3.11.2", "load": 0.5 + repeat,
    }  # fmt: skip
    provenance = {
        "date": run[:10], "commit": "562646d", "dirty": dirty, "machine": machine,
        "versions": {"rtqec": "0.1.0", "pymatching": "2.4.0", "stim": "1.16.0"},
        "command": f"rtqec-bench {verb} configs/d5_memory_z.toml",
    }  # fmt: skip
    return {
        "schema": 1, "verb": verb, "run": run, "case": plain | case, "repeat": repeat, "result": result,
        "provenance": provenance,
    }  # fmt: skip


def rate_result(mode: str, rounds_per_s: float) -> dict[str, Any]:
    wire = mode == "wire"
    return {
        "mode": mode, "rounds_per_s": rounds_per_s, "interval": [0.97 * rounds_per_s, 1.02 * rounds_per_s],
        "confidence": 0.95, "trials": [{"rounds_per_s": rounds_per_s, "held": True, "why": ""}] if wire else [],
        "cpu_us_per_round": None if wire else 1e6 / rounds_per_s,
        "windows_per_s_per_core": rounds_per_s / 5, "joules_per_million_windows": None, "energy_source": None,
    }  # fmt: skip


def latency_result(mode: str, middle_us: float, period_us: float, count: int, seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    service = generator.lognormal(np.log(middle_us / 2), 0.35, count)
    reaction = service * 1.6 + generator.pareto(1.7, count) * middle_us / 6 + middle_us / 8
    floor = generator.lognormal(np.log(9), 0.3, count) if mode == "wire" else None
    samples = {"reaction": reaction, "service": service, "floor": floor}
    return {
        "mode": mode, "period_us": period_us, "corrections": count,
        **{f"{name}_us": None if found is None else percentiles(found) for name, found in samples.items()},
        "ccdf": {name: None if found is None else ccdf(found) for name, found in samples.items()},
        "sender_late_us_max": 310.0, "sender_late_bound_us": 1000.0, "accepted": True, "why": "",
        "hdr_log": None, "late": 0.0004,
    }  # fmt: skip


def stages_result(match: float, around: float) -> dict[str, Any]:
    parts = {
        "window": 0.25 * around, "match": 1.05 * match, "commit": 0.3 * around, "publish": 0.35 * around,
        "other": 0.1 * around,
    }  # fmt: skip
    path = sum(parts.values())
    return {
        "rounds": 80_000, "windows": 16_000, "events_per_window": 2.1,
        "cpu_us_per_round": {"transport": 0.25, "ingest": 0.12, "predecode": None, **parts, "path": path,
                             "total": path + 0.37},
        "floor_us_per_round": {"transport": 0.25, "send": 0.2, "match": match}, "path_over_floor": path / match,
        "total_over_floor": (path + 0.37) / (match + 0.45),
        "match_over_floor": 1.05,
    }  # fmt: skip


def accuracy_result(decoder: str, shots: int, errors: int, worse: int, better: int, num_rounds: int) -> dict[str, Any]:
    low, high = exact_interval(errors, shots)
    return {
        "decoder": decoder, "num_rounds": num_rounds, "shots": shots, "errors": errors, "per_shot": errors / shots,
        "per_shot_interval": [low, high], "per_round": per_round(errors / shots, num_rounds),
        "per_round_interval": [per_round(low, num_rounds), per_round(high, num_rounds)],
        "upper_bound_only": errors < 100,
        "whole_shot": {"decoder": "pymatching", "errors": errors - worse + better},
        "worse": worse, "better": better, "mcnemar_p": mcnemar_p(worse, better), "seconds": 12.5,
    }  # fmt: skip


def ladder_result(budget_us: float, late_or_wrong: float) -> dict[str, Any]:
    shots = 5000
    bad = int(late_or_wrong * shots)
    return {
        "decoder": "ladder", "budget_us": budget_us, "period_us": 6.0, "shots": shots, "windows": 10 * shots,
        "late_windows": late_or_wrong / 8, "late_windows_interval": [late_or_wrong / 9, late_or_wrong / 7],
        "late_shots": bad - 10, "wrong_shots": 14, "late_or_wrong": bad / shots,
        "late_or_wrong_interval": list(exact_interval(bad, shots)),
    }  # fmt: skip


def compare_result(
    decoder: str, us_per_round: float | None, ours: float, takes: str = "rounds", num_rounds: int = 51
) -> dict[str, Any]:
    there = us_per_round is not None
    return {
        "decoder": decoder, "package": None if decoder == "rtqec" else decoder, "version": "0.8.1" if there else None,
        "available": there, "why": None if there else "not installed", "takes": takes,
        "shots": 2000 if there else None, "num_rounds": num_rounds, "us_per_round": us_per_round,
        "wall_us_per_round": 1.1 * us_per_round if us_per_round else None,
        "rounds_per_s": 1e6 / us_per_round if us_per_round else None,
        "reaction_us": {"p50": 12.0, "p90": 15.0, "p99": 31.0, "p99.9": None, "p99.99": None, "max": 80.0,
                        "count": 2000} if there and takes == "rounds" else None,
        "failures": 12 if there else None, "agreement": 0.9995 if there else None,
        "relative_to_rtqec": us_per_round / ours if us_per_round else None,
    }  # fmt: skip


PEERS = {
    "rtqec": (1.1, "rounds"), "null": (0.08, "rounds"), "sliding_python": (6.4, "rounds"),
    "pymatching": (0.31, "batch"), "pymatching_correlated": (0.94, "batch"), "cudaq_realtime": (4.0, "rounds"),
    "cudaq_nv_fusion": (None, "rounds"), "fusion_blossom": (21.0, "shots"), "ldpc": (None, "shots"),
}  # fmt: skip


def all_rows(repeats: int = 2) -> list[Row]:
    """A small folder's worth: every verb, with a spread between the repeats."""
    rows = []
    for repeat in range(repeats):
        wobble = 1 + 0.04 * (repeat - 1)
        for distance in (3, 5, 7, 9):
            for noise in (0.001, 0.003):
                windows = {"distance": distance, "noise": noise, "commit_rounds": distance, "buffer_rounds": distance}
                speed = 4e6 / distance**1.5 / (1 + 200 * noise) * wobble
                rows.append(row("rate", rate_result("wire", 0.4 * speed), repeat, **windows))
                rows.append(row("rate", rate_result("service", speed), repeat, **windows))
                shots, chance = 200_000, 5000 * noise**2 * 0.2 ** ((distance - 3) / 2)
                errors = int(shots * chance)
                found = accuracy_result("rtqec", shots, errors, 7, 5, 10 * distance)
                if repeat == 0:
                    rows.append(row("accuracy", found, **windows))
        for budget_us, bad in ((8, 0.6), (16, 0.11), (32, 0.02), (64, 0.004)):
            rows.append(row("accuracy", ladder_result(budget_us, bad * wobble), repeat))
        rows.append(row("rate", rate_result("wire", 0.95e6 * wobble), repeat, commit_rounds=60, rounds="endless"))
        rows.append(row("latency", latency_result("wire", 55 * wobble, 10.0, 40_000, repeat), repeat))
        rows.append(row("latency", latency_result("service", 9 * wobble, 10.0, 100_000, 10 + repeat), repeat))
        big = {"distance": 13, "noise": 0.003, "rounds": 104, "commit_rounds": 13, "buffer_rounds": 13}
        long = latency_result("service", 150 * wobble, 19.2, 8000, 20 + repeat)
        rows.append(row("latency", long, repeat, **big, period_us=19.2))
        rows.append(row("stages", stages_result(0.34 * wobble, 0.9), repeat))
        rows.append(row("stages", stages_result(7.1, 1.6 * wobble), repeat, **big))
        for num_rounds in (6, 100_000):
            for name, (time, takes) in PEERS.items():
                asked = None if time is None else time * wobble
                found = compare_result(name, asked, 1.1 * wobble, takes, num_rounds)
                rows.append(row("compare", found, repeat, rounds=5))
    return rows


def write_rows(folder: Path, rows: list[Row]) -> Path:
    folder.mkdir()
    for verb in VERBS:
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows if row["verb"] == verb]
        (folder / f"{verb}.jsonl").write_text("".join(lines))
    return folder


def run_report(*arguments: object) -> str:
    """As from a shell; what came to stdout."""
    app = typer.Typer()
    app.command()(report)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


class Page(HTMLParser):
    """What a browser would make of a page: the text, the headings, what it loads, and whether tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster", "action") or (tag == "link" and name == "href"):
                self.loads.append(value or "")
            if name == "id":
                self.anchors.add(value or "")
            if tag == "a" and name == "href":
                self.links.append(value or "")
        if tag not in ("meta", "img", "br", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@dataclass(frozen=True)
class Made:
    """A report, made once for the tests that only look."""

    html: str
    page: Page
    rows: list[Row]
    folder: Path
    stdout: str


HOSTILE = "d5</td><script>alert('$x$')</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("report")
    rows = all_rows()
    rows.append(row("stages", stages_result(0.4, 0.8), dirty=True, config=HOSTILE, overrides=["a.b=<i>$1$</i>"]))
    stdout = run_report(write_rows(folder / "rows", rows), "--out", folder / "out", "--markdown", "-")
    html = (folder / "out" / "report.html").read_text()
    return Made(html, Page(html), rows, folder / "out", stdout)


def cells_of(table: Table, row_index: int) -> dict[str, str]:
    return dict(zip(table.columns, [cell.text for cell in table.rows[row_index]], strict=True))


def test_a_report_has_every_part_and_needs_nothing_beside_it(made: Made) -> None:
    """All sections are there and linked; nothing is loaded but what lies in the file; tags close."""
    wanted = {"goals", "rate", "latency", "stages", "accuracy", "comparison", "cost", "provenance"}
    assert wanted <= made.page.anchors
    assert {link[1:] for link in made.page.links if link.startswith("#")} == wanted
    assert len(made.page.loads) == 6
    assert all(load.startswith("data:image/svg+xml;base64,") for load in made.page.loads)
    assert "script" not in made.page.tags
    assert not re.search(r"@import|url\(", made.html)
    assert "prefers-color-scheme: dark" in made.html


def test_names_from_rows_are_text_and_nothing_else(made: Made) -> None:
    """A configuration whose name is markup is shown as it is, in the page and in the figures."""
    assert "<script" not in made.html
    assert HOSTILE in made.page.text
    assert "a.b=<i>$1$</i>" in made.page.text


def test_a_dirty_tree_is_marked_wherever_its_rows_are_shown(made: Made) -> None:
    """The page, its goal, its provenance and the captions of the figures that hold such a row say so; others do not."""
    assert made.page.text.count("DIRTY TREE") == 3
    clean, dirty = row("stages", stages_result(0.4, 0.8)), row("stages", stages_result(0.4, 0.8), dirty=True, rounds=7)
    unknown = row("stages", stages_result(0.4, 0.8), rounds=9)
    unknown["provenance"]["dirty"] = None
    for rows, marked in (([clean], False), ([clean, dirty], True), ([unknown], True)):
        (drawing,) = draw_all(rows, [])
        assert any("DIRTY TREE" in line for line, _, _ in drawing.caption()) is marked
        assert any("DIRTY TREE" in text.get_text() for text in drawing.figure.texts) is marked


def test_captions_say_where_when_and_from_what() -> None:
    """Every figure names machine, date and commit, and what cannot be shown."""
    for drawing in draw_all(all_rows(repeats=1), load_goals()):
        caption = " ".join(line for line, _, _ in drawing.caption())
        assert "2 cores of AMD EPYC, Linux 6.18.5" in caption
        assert "2026-11-21" in caption
        assert "commit 562646d" in caption
        if drawing.name == "comparison":
            assert "Missing: cudaq_nv_fusion, ldpc (not installed)" in caption


def test_figures_are_two_files_each_and_the_same_rows_give_the_same_bytes(made: Made, tmp_path: Path) -> None:
    """PNG and SVG of each figure are equal, byte by byte, when drawn again; no date or random name is in them."""
    for drawing in draw_all(newest(made.rows), load_goals()):
        drawing.save(tmp_path)
        places = np.array([axes.get_position().bounds for axes in drawing.figure.axes])
        # Else the layout's last digits, which the hash seed moves, are in names.
        np.testing.assert_allclose(places, places.round(5), rtol=0, atol=1e-12)
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    names = ("rate", "reaction", "stages", "accuracy", "ler_t", "comparison")
    assert set(drawn) == {f"{name}.{ending}" for name in names for ending in ("png", "svg")}
    assert {path.name: path.read_bytes() for path in (made.folder / "figures").iterdir()} == drawn


def test_figures_without_rows_are_not_drawn() -> None:
    """A verb without rows, or with rows that do not count, has no figure."""
    assert draw_all([], []) == []
    rejected = latency_result("wire", 50.0, 10.0, 2000, 1) | {"accepted": False, "why": "the sender was late"}
    missing = compare_result("cudaq_realtime", None, 1.0)
    assert draw_all([row("latency", rejected), row("compare", missing)], []) == []


def test_published_numbers_are_marked_only_where_the_case_is_the_same() -> None:
    """NVIDIA's percentiles stand in the panel of d = 13, 104 rounds, p = 0.003 at their rate, and in no other."""
    case = {"distance": 13, "noise": 0.003, "rounds": 104, "commit_rounds": 13, "buffer_rounds": 13}
    for period_us, marked in ((19.2, True), (30.0, False)):
        found = row("latency", latency_result("service", 150.0, period_us, 3000, 1), **case, period_us=period_us)
        (drawing,) = draw_all([found], load_goals())
        words = [text.get_text() for axes in drawing.figure.axes for text in axes.texts]
        assert ("NVIDIA 204 / 363" in words) is marked


def test_blank_percentiles_stay_blank_and_say_why() -> None:
    """Of 400 samples p50 and p90 are carried, p99 is not; a percentile that one repeat leaves blank is blank."""
    long, short = (
        row("latency", latency_result("wire", 50.0, 10.0, count, 1), i) for i, count in enumerate((4000, 400))
    )
    table = latency_table([long])
    assert cells_of(table, 0)["p99"] != ""
    assert cells_of(table, 0)["p99.9"] == ""
    cells = cells_of(latency_table([long, short]), 0)
    assert cells["p50"] != ""
    assert cells["p90"] != ""
    assert (cells["p99"], cells["p99.9"], cells["p99.99"]) == ("", "", "")
    assert "fewer than 10 samples" in latency_table([long, short]).notes[-1]


def test_a_rejected_run_shows_no_numbers_but_its_reason() -> None:
    """Nothing of a rejected repeat enters a percentile; how many and why stands beside the case."""
    good = latency_result("wire", 50.0, 10.0, 4000, 1)
    bad = latency_result("wire", 5.0, 10.0, 4000, 2) | {"accepted": False, "why": "the sender was up to 9 ms late"}
    both = latency_table([row("latency", good), row("latency", bad, 1)])
    assert cells_of(both, 0)["p50"] == number(good["reaction_us"]["p50"])
    assert "1 of 2 repeats do not count: rejected: the sender was up to 9 ms late" in both.rows[0][0].small
    alone = cells_of(latency_table([row("latency", bad)]), 0)
    assert {alone[name] for name in ("p50", "p99", "max", "count")} == {""}


def test_losses_stand_out_in_the_comparison() -> None:
    """Faster decoders than ours are marked, but for the one that decodes nothing; missing ones say why."""
    table = compare_table([row for row in all_rows(repeats=1) if row["verb"] == "compare"])
    kinds = {cells[0].text: cells[-1].kind for cells in table.rows if len(cells) > 1}
    assert {name for name, kind in kinds.items() if kind == "bad"} == {"pymatching", "pymatching_correlated"}
    remarks = [cells[0].small for cells in table.rows if len(cells) == 1 and cells[0].small]
    assert remarks == ["Not measured: cudaq_nv_fusion, ldpc (not installed)."] * 2
    times = [float(cells[2].text) for cells in table.rows[1:8]]
    assert times == sorted(times)


def test_few_errors_carry_an_upper_bound_only() -> None:
    """With 40 errors no rate is stated, in the table and in the figure, and the interval's end is exact."""
    few = row("accuracy", accuracy_result("rtqec", 200_000, 40, 7, 5, 70))
    cells = [cell.text for cell in accuracy_table([few]).rows[0]]
    high = exact_interval(40, 200_000)[1]
    assert cells[4:8] == ["", f"below {number(high)}", "", f"below {number(per_round(high, 70))}"]
    ours, whole = points_of(few)
    assert (ours.rate, whole.rate) == (None, None)
    assert (ours.whole, whole.whole) == (False, True)
    assert whole.high == pytest.approx(per_round(exact_interval(38, 200_000)[1], 70))


def test_tables_state_medians_spreads_and_blanks_by_hand() -> None:
    """Rates 90, 100 and 120: median 100, 30 % apart, interval between the outermost ends; no energy is blank."""
    rates = [row("rate", rate_result("wire", rate), i) for i, rate in enumerate((90e3, 120e3, 100e3))]
    cells = rate_table(rates).rows[0]
    assert [cell.text for cell in cells[2:]] == ["100,000", "87,300 to 122,400", "90,000 to 120,000", "3 of 3"]
    assert cells[4].small == "3 repeats, 30 % apart"
    assert cells_of(cost_table(rates), 0)["J per million windows, CPU"] == ""
    stages = [row("stages", stages_result(match, 1.0), i) for i, match in enumerate((1.0, 0.5, 2.0))]
    assert cells_of(stages_table(stages), 0)["bare PyMatching"] == "1"


def test_limits_beyond_the_rates_that_were_tried_say_so() -> None:
    """A search that ended at an edge states a bound, in the table and as an arrow; one that did not states a number."""
    for edge, text in (("high", "over 2,000,000"), ("low", "under 2,000,000"), (None, "2,000,000")):
        found = row("rate", rate_result("wire", 2e6) | {"edge": edge})
        assert cells_of(rate_table([found]), 0)["rounds per second"] == text
        (drawing,) = draw_all([found], [])
        arrows = [text for text in drawing.figure.axes[0].texts if getattr(text, "arrow_patch", None) is not None]
        assert len(arrows) == (edge is not None)


def test_energy_that_cannot_be_read_says_why() -> None:
    """A blank number of joules stands beside the reason that the row gives."""
    found = cost_table([row("rate", rate_result("service", 2e6) | {"energy_why": "no RAPL"})])
    assert cells_of(found, 0)["J per million windows, CPU"] == ""
    assert found.rows[0][1].small == "no RAPL"


def test_stages_add_up_to_the_total() -> None:
    """Also where a clock between them made them longer than the path, measured as a whole: then as shares of it."""
    result = stages_result(1.0, 1.0)
    assert sum(width for _, width in parts_of(row("stages", result))) == pytest.approx(2.42)
    times = result["cpu_us_per_round"] | {"other": -0.5, "path": 1.45, "total": 1.82}
    parts = dict(parts_of(row("stages", result | {"cpu_us_per_round": times})))
    assert sum(parts.values()) == pytest.approx(1.82)
    assert parts["match"] == pytest.approx(1.05 * 1.45 / 1.95)
    assert parts["other"] == 0


def test_cases_are_told_apart_by_what_differs() -> None:
    """What all cases share is said once; a stream that a comparison makes of a case is said by its length."""
    first, second = row("rate", {}, distance=5), row("rate", {}, distance=7, commit_rounds=7)
    wording = Wording([first, second], ("period_us",))
    assert wording.shared() == "p = 0.001, 50 rounds, buffer 5"
    assert wording.of(second) == "d = 7, commit 7"
    shot, stream = (row("compare", {"decoder": "rtqec", "num_rounds": rounds}) for rounds in (51, 100_000))
    assert [Wording([shot, stream]).of(one) for one in (shot, stream)] == ["50 rounds", "100,000 rounds"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,230"), (999.6, "1,000"), (0.98132, "0.981"), (4.56e-5, "4.56e-05"), (1e6, "1,000,000")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """Three digits, thousands set apart."""
    assert number(value) == text


def test_headlines_are_a_table_of_the_goals(made: Made) -> None:
    """Markdown on stdout has a line per headline, with the verdict, and says where it was measured."""
    lines = made.stdout.splitlines()
    assert lines[1] == "|---|---|---|---|"
    assert all(line.count(" | ") == 3 for line in lines if line.startswith("| "))
    assert any("| at most 25 us | not met |" in line for line in lines)
    assert "commit 562646d" in lines[-1]
    assert "`rtqec-bench report`" in lines[-1]
    rows = [row("stages", stages_result(7.0, 1.0), distance=13, noise=0.003, config="a|b", dirty=True, rounds=rounds)
            for rounds in ("<b>|", 9)]  # fmt: skip
    text = headlines(evaluate(load_goals(), rows))
    assert "<b>" not in text
    assert "\\<b\\>\\|" in text
    assert "**DIRTY TREE" in text


def test_renewing_a_readme_twice_is_renewing_it_once(tmp_path: Path) -> None:
    """Only what stands between the markers changes, the same rows change nothing more, and figures are linked."""
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nThe end.\n")
    folder = write_rows(tmp_path / "rows", [row("stages", stages_result(0.4, 0.8))])
    pages = []
    for _ in range(2):
        run_report(folder, "--out", tmp_path / "docs", "--readme", readme)
        pages.append(readme.read_text())
    assert pages[0] == pages[1]
    assert pages[0].startswith(f"# Title\n\n{BEGIN}\n| headline")
    assert pages[0].endswith(f"{END}\n\nThe end.\n")
    assert "old" not in pages[0]
    (link,) = re.findall(r"!\[.*\]\((.*)\)", pages[0])
    assert (tmp_path / link).is_file()


def test_links_are_relative_to_the_page(tmp_path: Path) -> None:
    """A figure beside the page's folder is reached by going up."""
    (drawing,) = draw_all([row("stages", stages_result(0.4, 0.8))], [])
    links = image_links([drawing], [tmp_path / "docs" / "figures" / "stages.svg"], tmp_path / "pages" / "README.md")
    assert "](../docs/figures/stages.svg)" in links


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_readme_without_its_markers_is_refused_before_anything_is_written(page: str, tmp_path: Path) -> None:
    """Both markers, once each and in order, or a ConfigError that says what to add."""
    with pytest.raises(ConfigError, match="has not exactly one line") as error:
        replace_between_markers(page, "new", "README.md")
    assert "Add both lines" in error.value.remedy
    readme = tmp_path / "README.md"
    readme.write_text(page)
    folder = write_rows(tmp_path / "rows", [row("stages", stages_result(0.4, 0.8))])
    with pytest.raises(ConfigError, match=r"README\.md"):
        run_report(folder, "--out", tmp_path / "out", "--readme", readme)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_rows_is_refused_and_says_how_to_make_some(tmp_path: Path) -> None:
    """A ConfigError, exit code 2, that names the folder and a command."""
    with pytest.raises(ConfigError, match="has no rows of any verb") as error:
        run_report(tmp_path, "--out", tmp_path / "out")
    assert "rtqec-bench rate configs/d5_memory_z.toml" in error.value.remedy
    assert error.value.exit_code == 2
    foreign = row("stages", stages_result(0.4, 0.8)) | {"schema": 99}
    with pytest.raises(ConfigError, match="schema 99"):
        run_report(write_rows(tmp_path / "rows", [foreign]), "--out", tmp_path / "out")


def test_only_the_newest_run_of_a_case_is_shown() -> None:
    """A later run of the same case replaces the earlier one, repeats and all; another case stays."""
    old = [row("stages", stages_result(1.0, 1.0), repeat) for repeat in range(3)]
    other = row("stages", stages_result(1.0, 1.0), rounds=99)
    later = row("stages", stages_result(2.0, 1.0), run="2026-11-22T08:00:00.000+00:00", seed=6, config_digest="ff")
    assert newest([*old, later, other]) == [later, other]
