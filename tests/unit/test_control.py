"""Control answers from the telemetry block alone, whatever it is asked."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtqec.errors import ConfigError, NoPeerError
from rtqec.plan import Plan
from rtqec.service.ask import ask
from rtqec.service.control import LOCAL, REQUEST_BYTES_MAX, RESEND_MAX, Control
from rtqec.telemetry import TelemetryBlock
from rtqec.wire import (
    CORRECTION,
    RESPONSE_MAGIC,
    VERSION,
    CorrectionFlag,
    FrameStatus,
    Reason,
    Rung,
    parse_correction,
)
from tests.harness import BenchMaker, Piece, Speaker, make_config


class FakeDaemon:
    """What control is told of a daemon with one lane; what it asks for is kept."""

    state = "ready"

    def __init__(self, telemetry: TelemetryBlock) -> None:
        self.telemetry = telemetry
        self.asked: list[Any] = []
        self.rights: dict[str, dict[str, list[int]]] = {}

    def blocks(self) -> list[TelemetryBlock]:
        return [self.telemetry]

    def describe(self) -> dict[str, Any]:
        lane = {"name": "lane0", "state": "ready", "pid": 1, "restarts": 0, "feed": "ipc:///f", "publish": "ipc:///p"}
        patches = [
            {
                "id": patch_id, "lane": "lane0", "plan_tag": digest[:4].tobytes().hex(),
                "digest": digest.tobytes().hex(), "ladder": ["correlated_match", "match", "catch_up"],
            }
            for patch_id, digest in zip(self.telemetry.patch_ids.tolist(), self.telemetry.digests, strict=True)
        ]  # fmt: skip
        return {"lanes": [lane], "patches": patches}

    def may(self, who: str, right: str, patch_id: int) -> bool:
        return who == LOCAL or patch_id in self.rights[who].get(right, [])

    def note(self, event: str, who: str, **details: Any) -> None:
        self.asked.append((event, who, details))

    def drain(self) -> None:
        self.asked.append("drain")

    def set_log_level(self, level: str) -> None:
        self.asked.append(level)

    async def swap_plan(self, sets: list[str], who: str) -> dict[str, Any]:
        self.asked.append(who)
        raise ConfigError("--set", f"is {sets}", "It does not fit.", "Do without.")


def control_of(telemetry: TelemetryBlock) -> Control:
    return Control(FakeDaemon(telemetry))


def answer_to(control: Control, octets: bytes, who: str = LOCAL) -> dict[str, Any]:
    answer: dict[str, Any] = msgpack.unpackb(asyncio.run(control.answer(octets, who)))
    return answer


def request(control: Control, who: str = LOCAL, **asked: Any) -> dict[str, Any]:
    return answer_to(control, msgpack.packb(asked), who)


@pytest.fixture
def telemetry(tmp_path: Path) -> TelemetryBlock:
    """The block of a lane with patches 3 and 5, and a journal of 16 corrections."""
    return TelemetryBlock.create(tmp_path / "control.telemetry", [3, 5], 16)


def write(telemetry: TelemetryBlock, row: int, **fields: Any) -> None:
    """The next correction of a patch."""
    index = int(telemetry.written[row])
    correction = np.zeros(1, CORRECTION)
    correction["magic"], correction["version"] = RESPONSE_MAGIC, VERSION
    correction["window_index"], correction["rung"] = index, Rung.MATCH
    for name, value in fields.items():
        correction[name] = value
    telemetry.journal[row, index % telemetry.journal.shape[1]] = correction[0]
    telemetry.written[row] = index + 1


def test_hello_names_every_patch_and_its_plan(telemetry: TelemetryBlock) -> None:
    """Who connects can tell whether it has the same plan."""
    telemetry.digests[1] = np.arange(32)
    patches = request(control_of(telemetry), verb="hello")["patches"]
    assert [patch["id"] for patch in patches] == [3, 5]
    assert (patches[1]["plan_tag"], patches[1]["digest"]) == (0x00010203, bytes(range(32)).hex())


def test_corrections_are_sent_again_by_window_index(telemetry: TelemetryBlock) -> None:
    """What the journal has comes back as it was; what it has no more is said by `oldest`."""
    control = control_of(telemetry)
    for index in range(20):
        write(telemetry, 1, flips=index)
    answer = request(control, verb="resend", patch=5, first=0)
    found = [parse_correction(octets) for octets in answer["corrections"]]
    assert [int(c["window_index"]) for c in found] == list(range(5, 20)) == [int(c["flips"]) for c in found]
    assert answer["oldest"] == 5
    answer = request(control, verb="resend", patch=5, first=7, stop=9)
    assert [int(parse_correction(octets)["flips"]) for octets in answer["corrections"]] == [7, 8]
    assert request(control, verb="resend", patch=3, first=0)["corrections"] == []


def test_an_answer_is_bounded(tmp_path: Path) -> None:
    """However much is asked for, one answer holds at most `RESEND_MAX` corrections."""
    telemetry = TelemetryBlock.create(tmp_path / "long.telemetry", [0], 4 * RESEND_MAX)
    for _ in range(2 * RESEND_MAX):
        write(telemetry, 0)
    answer = request(control_of(telemetry), verb="resend", patch=0, first=1, stop=1 << 62)
    assert len(answer["corrections"]) == RESEND_MAX


def test_the_frame_at_a_round(telemetry: TelemetryBlock) -> None:
    """The frame stands where the correction ends that covers the round; before that it is not final."""
    control = control_of(telemetry)
    write(telemetry, 0, shot_id=8, first_round=0, num_rounds=5, frame=1)
    write(telemetry, 0, shot_id=8, first_round=5, num_rounds=5, frame=3)
    answer = request(control, verb="frame", patch=3, round=6)
    assert (answer["value"], answer["through"], answer["final"], answer["status"]) == (3, 9, True, "clean")
    answer = request(control, verb="frame", patch=3, round=2)
    assert (answer["value"], answer["through"], answer["final"]) == (1, 4, True)
    answer = request(control, verb="frame", patch=3, round=12)
    assert (answer["value"], answer["through"], answer["final"]) == (3, 9, False)
    assert not request(control, verb="frame", patch=3, round=0, shot=7)["ok"]
    assert not request(control, verb="frame", patch=5, round=0)["ok"]


def test_the_frame_of_held_rounds_is_final_when_it_was_amended_or_given_up(telemetry: TelemetryBlock) -> None:
    """Held rounds may still be amended: their frame is not final, and tainted, until then."""
    control = control_of(telemetry)
    held = {"rung": Rung.HOLD, "reason": Reason.BACKLOG, "frame_status": FrameStatus.TAINTED, "tainted_since": 0}
    write(telemetry, 0, num_rounds=10, frame=0, flags=CorrectionFlag.DEGRADED, **held)
    answer = request(control, verb="frame", patch=3, round=4)
    assert (answer["final"], answer["status"], answer["tainted_since"]) == (False, "tainted", 0)
    write(telemetry, 0, num_rounds=5, frame=1, flags=CorrectionFlag.AMENDMENT)
    answer = request(control, verb="frame", patch=3, round=4)
    assert (answer["value"], answer["final"], answer["status"]) == (1, True, "clean")
    assert not request(control, verb="frame", patch=3, round=7)["final"]
    write(telemetry, 0, first_round=10, num_rounds=5, frame=1, flags=CorrectionFlag.OPEN_PAST, frame_status=1)
    answer = request(control, verb="frame", patch=3, round=7)
    assert (answer["final"], answer["status"]) == (True, "tainted")


def test_a_reset_clears_the_frame_from_a_stated_correction_on(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """After a reset the frame is clean from the correction that the answer names."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3, events=True)
    events = piece.events(piece.sample(1, seed=5))[0]
    bench = make_bench(plan_d3, events=True)
    messages = speaker.shot(piece.blocks(events, events=True), 0)
    bench.ingest(*messages[:1], *messages[2:9])
    assert bench.carry()["frame_status"][-1] == FrameStatus.TAINTED
    answers: list[dict[str, Any]] = []
    asker = threading.Thread(target=lambda: answers.append(request(control_of(bench.telemetry), verb="reset", patch=0)))
    asker.start()
    while not bench.telemetry.resets[0]:
        pass
    bench.ingest(*messages[9:])
    corrections = bench.carry()
    asker.join()
    assert answers[0]["ok"]
    after = corrections[corrections["window_index"] >= answers[0]["window_index"]]
    assert set(after["frame_status"].tolist()) <= {FrameStatus.CLEAN}


def test_budget_and_ladder_are_written_where_the_path_reads_them(telemetry: TelemetryBlock) -> None:
    """A change goes into the telemetry block and the audit log, and names the first correction that it holds for."""
    daemon = FakeDaemon(telemetry)
    control = Control(daemon)
    write(telemetry, 1)
    assert request(control, verb="budget", patch=5, budget_us=12.5) == {"ok": True, "window_index": 2}
    assert telemetry.patches["budget_ns"].tolist() == [0, 12_500]
    answer = request(control, verb="ladder", patch=3, steps=["catch_up", "match"])
    assert (answer["steps"], answer["window_index"]) == (["match", "catch_up"], 1)
    assert telemetry.patches["steps_mask"].tolist() == [0b110, 0]
    assert [event for event, _, _ in daemon.asked] == ["budget_changed", "ladder_changed"]


def test_a_key_may_do_what_its_table_says(telemetry: TelemetryBlock) -> None:
    """Reading and changing are rights of their own, by patch; what concerns all patches needs all of them."""
    daemon = FakeDaemon(telemetry)
    daemon.rights["reader"] = {"read": [3]}
    daemon.rights["owner"] = {"change": [3]}
    daemon.rights["operator"] = {"change": [3, 5]}
    control = Control(daemon)
    assert request(control, "reader", verb="resend", patch=3, first=0)["ok"]
    assert "may not read patch 5" in request(control, "reader", verb="resend", patch=5, first=0)["error"]
    assert "may not change patch 3" in request(control, "reader", verb="reset", patch=3)["error"]
    assert [patch["id"] for patch in request(control, "reader", verb="status")["patches"]] == [3]
    assert [patch["id"] for patch in request(control, "owner", verb="hello")["patches"]] == [3]
    assert request(control, "owner", verb="budget", patch=3, budget_us=5)["ok"]
    assert "may not change patch 5" in request(control, "owner", verb="drain")["error"]
    assert request(control, "operator", verb="drain") == {"ok": True, "state": "draining"}
    assert request(control, "operator", verb="log-level", level="debug")["ok"]
    noted = ("configuration_changed", "operator", {"key": "log.level", "value": "debug"})
    assert daemon.asked[-3:] == ["drain", "debug", noted]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (bytes(REQUEST_BYTES_MAX + 1), str(REQUEST_BYTES_MAX)),
        (msgpack.packb([1, 2]), "needs a verb"),
        (msgpack.packb({"verb": "delete"}), "hello, status, frame"),
        (msgpack.packb({"verb": ["frame"]}), "needs a verb"),
        (msgpack.packb({"verb": "frame"}), "needs patch"),
        (msgpack.packb({"verb": "frame", "patch": 4}), "no patch 4; the daemon has 3, 5"),
        (msgpack.packb({"verb": "frame", "patch": 3}), "needs round"),
        (msgpack.packb({"verb": "frame", "patch": 3, "round": -1}), "-1"),
        (msgpack.packb({"verb": "frame", "patch": True, "round": 1}), "True"),
        (msgpack.packb({"verb": "resend", "patch": 3, "first": 1 << 63}), "whole number"),
        (msgpack.packb({"verb": "budget", "patch": 3}), "above 0 and at most"),
        (msgpack.packb({"verb": "budget", "patch": 3, "budget_us": -1}), "-1"),
        (msgpack.packb({"verb": "ladder", "patch": 3, "steps": ["union_find"]}), "correlated_match, match, catch_up"),
        (msgpack.packb({"verb": "ladder", "patch": 3, "steps": ["catch_up"]}), "decodes by itself"),
        (msgpack.packb({"verb": "ladder", "patch": 3, "steps": []}), "a list of some"),
        (msgpack.packb({"verb": "log-level", "level": "loud"}), "'loud'"),
        (msgpack.packb({"verb": "swap-plan", "sets": "x"}), "a list of table.key=value"),
        (msgpack.packb({"verb": "swap-plan", "sets": ["x"]}), "does not fit"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(telemetry: TelemetryBlock, asked: bytes, said: str) -> None:
    """A wrong request gets an answer that says what is wrong, and the next good one is answered."""
    control = control_of(telemetry)
    answer = answer_to(control, asked)
    assert not answer["ok"]
    assert said in answer["error"]
    assert request(control, verb="hello")["ok"]


@settings(max_examples=300, deadline=None)
@given(asked=st.one_of(st.binary(max_size=200), st.dictionaries(st.text(), st.integers() | st.text())))
def test_no_request_is_too_strange(asked: bytes | dict[str, Any]) -> None:
    """Whatever comes, an answer goes back."""
    control = control_of(_BLOCK)
    answer = answer_to(control, asked if isinstance(asked, bytes) else _packed(asked))
    assert isinstance(answer["ok"], bool)


def _packed(asked: dict[str, Any]) -> bytes:
    try:
        packed: bytes = msgpack.packb(asked)
    except (OverflowError, ValueError, UnicodeEncodeError):
        return b""
    return packed


def _memory_block() -> TelemetryBlock:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return TelemetryBlock.create(Path(folder) / "strange.telemetry", [0], 16)


_BLOCK = _memory_block()


def test_asking_nobody_says_so(tmp_path: Path) -> None:
    """Without an endpoint, or a daemon behind it, the question is answered with what to do."""
    with pytest.raises(ConfigError, match="is not set"):
        ask(make_config(), {"verb": "hello"})
    with pytest.raises(NoPeerError, match="rtqec run"):
        ask(make_config(control={"endpoint": f"ipc://{tmp_path}/nobody"}), {"verb": "hello"}, timeout_s=0.05)
