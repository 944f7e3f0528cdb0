"""However rounds pile up, get lost or leap: every round is answered once, and what was held is decoded later."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtqec.kernels.records import CURSOR_STRIDE, HEAD, TAIL
from rtqec.plan import Plan
from rtqec.wire import ROUNDS_HEADER, CorrectionFlag, Rung
from tests.harness import (
    Bench,
    Piece,
    Speaker,
    check_cover,
    check_decoded,
    expected_flips,
    make_plan,
    slow_decoder,
    with_header,
)
from tests.predecoders import SlowPredecode, integer_network, never, predecoder

NUM_SHOTS = 4
LEAP_ROUNDS = 1_000_000
GONE_MESSAGES = 20
"""In a row: more than half of the smaller ring, so that they cannot be filled."""


class Stream:
    """What one controller sends: some shots, and what becomes of their messages on the way.

    Args:
        fates: By place in the stream: a message is "lost", it and many more are "gone", the rest of its shot "leaps".

    Attributes:
        messages: Those that arrive, with their shots.
        whole: Shots of which everything was placed so far.
        overfull: Whether there was once no room for what was held.
    """

    def __init__(
        self, plan: Plan, patch_id: int, fates: dict[int, str], num_rounds: int, rounds_per_message: int
    ) -> None:
        self.plan, self.patch_id, self.rounds_per_message = plan, patch_id, rounds_per_message
        self.num_rounds = num_rounds if plan.endless else None
        self.piece, self.speaker = Piece.of(plan, self.num_rounds), Speaker(plan, patch_id=patch_id)
        self.shots = self.piece.sample(NUM_SHOTS + 1, seed=1 + patch_id)
        self.whole = set(range(NUM_SHOTS))
        self.overfull = False
        self.messages: list[tuple[int, bytes]] = []
        place, gone_until = 0, -1
        for shot_id in range(NUM_SHOTS):
            leapt = 0
            for message in self.shot(shot_id):
                fate = fates.get(place, "sent")
                first_round = int(np.frombuffer(message, ROUNDS_HEADER, count=1)["first_round"][0])
                gone_until = place + GONE_MESSAGES if fate == "gone" else gone_until
                leapt += LEAP_ROUNDS if fate == "leaps" and plan.endless and first_round else 0
                if fate == "lost" or place < gone_until:
                    self.whole -= {shot_id}
                else:
                    leaping = with_header(message, first_round=first_round + leapt)
                    self.messages.append((shot_id, leaping if leapt else message))
                if leapt:
                    self.whole -= {shot_id}
                place += 1

    def shot(self, shot_id: int) -> list[bytes]:
        """All messages of a shot."""
        blocks = self.piece.blocks(self.shots[shot_id])
        return self.speaker.shot(blocks, shot_id, rounds_per_message=self.rounds_per_message)

    def ingest(self, bench: Bench, num_messages: int) -> None:
        """Let some messages arrive; those that find the ring full are lost."""
        for shot_id, message in self.messages[:num_messages]:
            before = bench.feed_counts(self.patch_id).get("ring_full", 0)
            bench.ingest(message)
            if bench.feed_counts(self.patch_id).get("ring_full", 0) > before:
                self.whole -= {shot_id}
        del self.messages[:num_messages]

    def check(self, corrections: np.ndarray, counts: dict[str, int], same_cuts: bool, matched_alone: bool) -> None:
        """All shots are covered; those that came whole, and were not given up, are decoded as if nothing had been."""
        shots = check_cover(corrections)
        layers_b8 = self.piece.layers_b8(self.shots)
        expected = expected_flips(self.plan, self.shots, self.num_rounds)
        assert all(shot.ended for shot in shots)
        assert counts.get("rounds_amended", 0) == sum(shot.num_amended for shot in shots)
        assert counts.get("rounds_held", 0) == sum(shot.num_held for shot in shots)
        assert counts.get("rounds_given_up", 0) == sum(shot.num_held - shot.num_amended for shot in shots)
        for shot in shots:
            if shot.shot_id not in self.whole:
                continue
            assert self.overfull or shot.num_amended == shot.num_held
            if shot.num_amended == shot.num_held:
                mine = corrections[corrections["shot_id"] == shot.shot_id]
                assert shot.through == len(self.piece.blocks(self.shots[shot.shot_id]))
                assert mine[-1]["frame_status"] == 0
                decoded = mine[(mine["rung"] != Rung.HOLD) & ((mine["flags"] & CorrectionFlag.LAST_OF_SHOT) == 0)]
                ends = decoded["first_round"] + decoded["num_rounds"] + self.plan.window.buffer_rounds
                # The readout is no bulk round: whoever looks at it ends the shot.
                assert (ends < shot.through).all()
                assert not (mine["flags"] & (CorrectionFlag.OPEN_PAST | CorrectionFlag.LOSSY)).any()
                if not matched_alone:
                    continue
                assert slow_decoder(self.plan).replay(layers_b8[shot.shot_id], mine) == []
                assert not same_cuts or shot.frame == expected[shot.shot_id]


def rounds_behind(bench: Bench, p: int, cursor: np.void) -> int:
    """Rounds in the ring from a place in the stream on."""
    place = int(cursor["base"]) + (max(int(cursor["start"]), int(cursor["origin"])) if cursor["open"] else 0)
    return int(bench.ring.cursors[p * CURSOR_STRIDE + HEAD]) - place


def carry_some(bench: Bench, streams: list[Stream], num_steps: int) -> list[np.ndarray]:
    """Take some steps. While more rounds of a patch than the bound wait for an answer, none of them decodes that patch;
    what is held is given up only where there would be no room for as many again."""
    found = []
    for _ in range(num_steps):
        crowded = []
        for p, (stream, patch, state) in enumerate(
            zip(streams, bench.streams.patches, bench.streams.states, strict=True)
        ):
            if rounds_behind(bench, p, bench.streams.aheads[p] if state["behind"] else state) > patch["backlog_rounds"]:
                crowded.append(p)
            room = int(patch["ring_rounds"] - patch["backlog_rounds"] - patch["window_rounds"])
            stream.overfull |= bool(state["behind"]) and rounds_behind(bench, p, state) > room
        if not bench.pipeline.step():
            break
        batch = bench.collect()
        assert not (np.isin(batch["patch_id"], crowded) & (batch["rung"] != Rung.HOLD)).any()
        found.append(batch)
    return found


# What happens to some of the messages on their way, by their place in the stream.
FATES = st.dictionaries(st.integers(0, 120), st.sampled_from(["lost", "gone", "leaps"]), max_size=4)
# Messages of each patch that come at once, then steps that the path can take.
SCRIPT = st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24), st.integers(0, 5)), max_size=30)


@pytest.mark.parametrize("endless", [False, True], ids=["finite", "endless"])
@settings(max_examples=60)
@given(
    fates=st.tuples(FATES, FATES), script=SCRIPT, ring_rounds=st.sampled_from([32, 64]), slack=st.integers(0, 20),
    num_rounds=st.integers(14, 40), rounds_per_message=st.integers(1, 3), catch_up=st.booleans(),
    network=st.sampled_from(["none", "silent", "talkative"]),
)  # fmt: skip
def test_every_round_is_answered_once_and_held_ones_are_amended(
    tmp_path_factory: pytest.TempPathFactory, endless: bool, fates: tuple[dict[int, str], dict[int, str]],
    script: list[tuple[int, int, int]], ring_rounds: int, slack: int, num_rounds: int, rounds_per_message: int,
    catch_up: bool, network: str,
) -> None:  # fmt: skip
    """Whatever comes and however the path stalls: answers cover each shot, held rounds are amended, no slot leaks.

    With a network before the matcher as well: one that answers nothing changes nothing; whatever another has answered
    of shots that were held, cut or damaged, the next one is decoded as its slow twin does it.
    """
    fallbacks = ("catch_up",) if catch_up else ()
    plan = make_plan(plan__rounds="endless" if endless else 12, ladder__fallbacks=fallbacks)
    bound = min(plan.window.rounds + rounds_per_message + slack, ring_rounds // 2 - plan.window.rounds)
    streams = [Stream(plan, p, fates[p], num_rounds, rounds_per_message) for p in range(2)]
    found: list[np.ndarray] = []
    script_of = integer_network(3, 2, 2) if network == "talkative" else never
    stage = predecoder(plan, script_of, 2, patches=2) if network != "none" else None
    with Bench(
        tmp_path_factory.mktemp("bench"), [plan, plan], ring_rounds=ring_rounds, backlog_rounds=bound,
        fallbacks=fallbacks, predecoder=stage,
    ) as bench:  # fmt: skip
        for first, second, num_steps in [*script, *[(10, 10, 3)] * 16]:
            streams[0].ingest(bench, first)
            streams[1].ingest(bench, second)
            found += carry_some(bench, streams, num_steps)
        found += carry_some(bench, streams, 500)
        assert not bench.pipeline.step()
        # A last shot that comes as the path can take it, and is decoded without a word.
        for stream in streams:
            for message in stream.shot(NUM_SHOTS):
                bench.ingest(message)
                found += carry_some(bench, streams, 10)
        corrections = np.concatenate(found)
        for p, stream in enumerate(streams):
            mine = corrections[corrections["patch_id"] == p]
            stream.check(mine, bench.path_counts(p), not catch_up, network != "talkative")
            expected = expected_flips(plan, stream.shots, stream.num_rounds)[NUM_SHOTS]
            if network == "talkative":
                last = mine[mine["shot_id"] == NUM_SHOTS]
                flips = list(SlowPredecode(plan, script_of, 2).flips(stream.piece.layers_b8(stream.shots)[-1], last))
                assert flips == last["flips"].tolist()
                expected = int(np.bitwise_xor.reduce(flips))
            check_decoded(mine, NUM_SHOTS, expected)
            assert bench.ring.cursors[p * CURSOR_STRIDE + HEAD] == bench.ring.cursors[p * CURSOR_STRIDE + TAIL]
            assert not bench.streams.states[p]["behind"]
