"""A lane that takes the place of one that died finds what was set meanwhile."""

from __future__ import annotations

import pytest

from rtqec.config import Config
from rtqec.lane import Lane
from tests.harness import make_config


@pytest.fixture
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two patches of one plan, with two steps on their ladders, in a folder with a short path."""
    folder = tmp_path_factory.mktemp("s")
    deployment = make_config(
        feed={"endpoint": f"ipc://{folder}/rounds", "round_period_us": 1, "ring_rounds": 64},
        publish={"endpoint": f"ipc://{folder}/corrections", "journal_corrections": 16},
        service={"runtime_dir": str(folder)}, ladder={"fallbacks": ["union_find"]}, deadline={"budget_us": 1000},
        patch=[{"id": 0}, {"id": 1}],
    )  # fmt: skip
    return deployment.of_lane(0, [0, 1])


@pytest.fixture(autouse=True)
def _unfrozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else this process holds is not the lane's."""
    monkeypatch.setattr("gc.freeze", lambda: None)


def run(lane: Lane) -> None:
    """Begin and end, as in its own process."""
    lane.open()
    lane.start()
    lane.stop()


def settings_of(lane: Lane) -> list[tuple[int, int]]:
    """Of each patch: budget in ns, and steps, as its path reads them."""
    return [(int(patch["budget_ns"]), int(patch["steps_mask"])) for patch in lane._streams.streams[0]]


def test_a_lane_without_a_standby_goes_on_with_what_control_has_set(config: Config) -> None:
    """Budgets and steps are those that control has set, before and while the process was prepared that takes the place
    of the lane; and a daemon that starts anew begins with the configuration's."""
    first = Lane(config)
    run(first)
    assert settings_of(first) == [(1_000_000, 0b11)] * 2
    shared = first.telemetry.patches
    shared[0]["budget_ns"], shared[0]["steps_mask"] = 77_000, 0b10
    second = Lane(config, goes_on=True)
    shared[1]["budget_ns"], shared[1]["steps_mask"] = 88_000, 0b01
    run(second)
    assert settings_of(second) == [(77_000, 0b10), (88_000, 0b01)]
    assert [patch["budget_us"] for patch in second.describe()] == [77.0, 88.0]
    anew = Lane(config)
    run(anew)
    assert settings_of(anew) == [(1_000_000, 0b11)] * 2
