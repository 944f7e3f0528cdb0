"""A comparison writes one row per decoder and repeat, in relation to rtqec, and shows where rtqec loses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench.cases import cases_of
from bench.compare import compare, pieces_said, related, rotated, table_of
from bench.peers import registry
from bench.peers.contest import Entry, Kind, refusal_of, result_of
from bench.peers.peer import Decoded
from bench.peers.whole_shot import Plain
from bench.peers.workloads import finite_workload
from bench.rows import read_rows

CONFIG = Path(__file__).parents[2] / "configs" / "d5_memory_z.toml"
SMALL = [
    "plan.distance=3", "plan.rounds=12", "plan.noise=0.01", "window.commit_rounds=3", "window.buffer_rounds=3",
    "window.erasures=false", "ladder.fallbacks=[]",
]  # fmt: skip


def result(decoder: str, us: float, **fields: Any) -> dict[str, Any]:
    """A result as a row has it."""
    found: dict[str, Any] = {
        "decoder": decoder, "version": "1.0", "available": True, "takes": "rounds", "given": "events", "method": "m",
        "shots": 1000, "us_per_round": us, "reaction_us": {"p50": us, "p99": None}, "failures": 3, "agreement": 0.999,
        "relative_to_rtqec": None, "piece_rounds": None,
    }  # fmt: skip
    return found | fields


def shown(results: list[dict[str, Any]]) -> list[str]:
    """The lines of a table, with its markup as text."""
    console = Console(width=200, record=True, force_terminal=True)
    with console.capture() as capture:
        console.print(table_of("title", results))
    return capture.get().splitlines()


def test_the_order_moves_on_by_one_each_repeat() -> None:
    """Over as many repeats as decoders each of them comes first once."""
    assert rotated(["a", "b", "c"], 0) == ["a", "b", "c"]
    assert rotated(["a", "b", "c"], 1) == ["b", "c", "a"]
    assert {rotated(["a", "b", "c"], repeat)[0] for repeat in range(3)} == {"a", "b", "c"}


def test_the_ratio_is_theirs_over_ours() -> None:
    """A decoder of twice rtqec's time is related by 2; without rtqec, or without a time, there is no ratio."""
    assert related(result("x", 3.0), 1.5)["relative_to_rtqec"] == 2
    assert related(result("x", 3.0), None)["relative_to_rtqec"] is None
    assert related(refusal_of("x", None, "why"), 1.5)["relative_to_rtqec"] is None


def test_numbers_of_a_row_are_those_of_the_decoder() -> None:
    """Times are per round of all shots; failures are against the truth, agreement against whole-shot matching."""
    workload = finite_workload(cases_of(CONFIG, SMALL, [])[0], 4, 1)
    entry = Entry.of(workload)
    assert entry.reference is not None
    flips = entry.reference.copy()
    flips[0] ^= True
    decoded = Decoded(flips, cpu_ns=4 * 13 * 2500, wall_ns=4 * 13 * 5000, reaction_ns=np.arange(4) * 1000, door_ns=2.0)
    row = result_of(Plain, entry, decoded)
    assert (row["us_per_round"], row["wall_us_per_round"], row["rounds_per_s"]) == (2.5, 5, 400_000)
    assert (row["shots"], row["num_rounds"], row["agreement"], row["door_us_per_call"]) == (4, 13, 0.75, 0.002)
    assert row["failures"] == (flips != workload.shots.observable_flips).any(axis=1).sum()
    assert (row["reaction_us"]["max"], row["reaction_us"]["p50"]) == (3, None)
    assert row.keys() == refusal_of("x", Plain, "why").keys()


def test_the_table_shows_where_we_lose() -> None:
    """Decoders of rounds come first, then the cheapest; a ratio below 1 is red; of repeats the median is shown."""
    results = [
        result("rtqec", 2.0, relative_to_rtqec=1.0),
        result("slow", 4.0, relative_to_rtqec=2.0),
        result("slow", 6.0, relative_to_rtqec=3.0),
        result("fast", 1.0, relative_to_rtqec=0.5),
        result("whole", 0.1, takes="shots", relative_to_rtqec=0.05),
        refusal_of("absent", None, "not installed"),
    ]
    lines = shown(results)
    rows = [line for line in lines if "1.0" in line]
    assert [next(name for name in ("rtqec", "slow", "fast", "whole") if name in line) for line in rows] == [
        "fast", "rtqec", "slow", "whole",
    ]  # fmt: skip
    assert "\x1b[31m0.50" in rows[0]
    assert "\x1b[31m1.00" not in rows[1]
    assert "5" in rows[2]
    assert "2.50" in rows[2]
    assert not any("absent" in line for line in lines)


def test_pieces_are_said_once() -> None:
    """A decoder that was given a stream in pieces is named with them, once for all repeats."""
    pieces = result("x", 1.0, shots=10, piece_rounds=1000)
    assert len(pieces_said([result("rtqec", 1.0), pieces, pieces])) == 1
    assert "10 pieces of 1,000 rounds" in pieces_said([pieces])[0]


def test_a_run_leaves_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decoder leaves a row per repeat, an absent one a single row and line, and all are related to rtqec."""
    monkeypatch.setitem(registry.PEERS, "ghost", "ghost:Ghost")
    compare(CONFIG, SMALL, repeats=2, seed=3, out=tmp_path, peers="ghost,null,rtqec,pymatching", shots=40)
    rows = list(read_rows(tmp_path, "compare"))
    assert [(row["repeat"], row["result"]["decoder"]) for row in rows] == [
        (0, "null"), (0, "rtqec"), (0, "pymatching"), (0, "ghost"), (1, "rtqec"), (1, "pymatching"), (1, "null"),
    ]  # fmt: skip
    for row in rows:
        found = row["result"]
        assert found["available"] == (found["decoder"] != "ghost")
        assert (found["relative_to_rtqec"] is None) == (found["decoder"] == "ghost")
        assert row["case"]["plan_digest"]
    assert all(row["result"]["relative_to_rtqec"] == 1 for row in rows if row["result"]["decoder"] == "rtqec")
    printed = capsys.readouterr().out
    assert printed.count("ghost: not installed") == 1
    assert "40 shots of 13 rounds, windows of 3 + 3" in printed


def test_a_stream_is_compared(tmp_path: Path) -> None:
    """Of a stream, what answers while rounds come leaves numbers, and what does not its reason."""
    compare(
        CONFIG, SMALL, repeats=1, seed=3, out=tmp_path, peers="null,sliding_python,pymatching", workload=Kind.STREAM,
        rounds=100,
    )  # fmt: skip
    rows = {row["result"]["decoder"]: row["result"] for row in read_rows(tmp_path, "compare")}
    assert {name for name, row in rows.items() if row["available"]} == {"null", "sliding_python"}
    assert {row["num_rounds"] for row in rows.values()} == {100}
    assert rows["sliding_python"]["reaction_us"]["count"] == 33
    assert rows["null"]["relative_to_rtqec"] is None
