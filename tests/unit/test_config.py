"""A configuration that cannot work is refused before READY, in words that name key, value, reason and remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rtqec.config import Config, expand_variables, load_config
from rtqec.errors import ConfigError, ExitCode

GOOD = """
[plan]
generated = "surface_code:rotated_memory_z"
distance = 3
rounds = 12
noise = 0.01

[window]
commit_rounds = 3
buffer_rounds = 3

[feed]
endpoint = "ipc:///run/rounds.ipc"
round_period_us = 10

[publish]
endpoint = "ipc:///run/corrections.ipc"
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


def test_the_smallest_file_loads_with_stated_defaults(good: Path) -> None:
    """What a file does not say has the documented default; integers are taken where a time is asked."""
    config = load_config(good)
    assert config.window.rounds == 6
    assert config.feed.round_period_us == 10.0
    assert config.period_us == 10.0
    assert config.deadline.budget_us == 1000.0
    assert [patch.id for patch in config.patch] == [0]
    assert config.plan.matching == "plain"
    assert not config.window.accept_short_buffer


# --set pair: key that the message must name, value that it must show, word of the reason.
WRONG = {
    "window.comit_rounds=3": ("[window] comit_rounds", "3", "no key or table has that name"),
    "widow.commit_rounds=3": ("[widow]", "commit_rounds", "no key or table has that name"),
    "window.commit_rounds=0": ("[window] commit_rounds", "0", "greater than 0"),
    "window.commit_rounds=2.5": ("[window] commit_rounds", "2.5", "valid integer"),
    'window.commit_rounds="3"': ("[window] commit_rounds", "'3'", "valid integer"),
    'ladder.fallbacks=["match", "match"]': ("[ladder]", "fallbacks", "names a rung twice"),
    'ladder.fallbacks=["hold", "match"]': ("[ladder]", "fallbacks", "after hold"),
    'ladder.fallbacks=["table"]': ("[ladder] fallbacks.0", "table", "'match', 'catch_up', 'union_find' or 'hold'"),
    "ladder.catch_up=[4, 2]": ("[ladder]", "catch_up", "must grow"),
    "ladder.catch_up=[1]": ("[ladder] catch_up.0", "1", "greater than or equal to 2"),
    "ladder.quantile=1.0": ("[ladder] quantile", "1.0", "less than or equal to 0.999"),
    "feed.reorder_depth=257": ("[feed] reorder_depth", "257", "less than or equal to 256"),
    "feed.gap_wait_us=-1.0": ("[feed] gap_wait_us", "-1.0", "greater than or equal to 0"),
    "window.buffer_rounds=-1": ("[window] buffer_rounds", "-1", "greater than or equal to 0"),
    "window.accept_short_buffer=1": ("[window] accept_short_buffer", "1", "valid boolean"),
    "plan.noise=0": ("[plan] noise", "0", "greater than 0"),
    "plan.noise=0.5": ("[plan] noise", "0.5", "less than 0.5"),
    "plan.rounds=0": ("[plan] rounds", "0", "greater than 0"),
    "plan.rounds=forever": ("[plan] rounds", "'forever'", "endless"),
    "plan.matching=soft": ("[plan] matching", "'soft'", "'plain' or 'correlated'"),
    "plan.frames=all": ("[plan] frames", "'all'", "'own' or 'both'"),
    "plan.circuit=x.stim": ("[plan]", "", "exactly one of generated"),
    "plan.measurements_per_round=[8, 0]": ("[plan] measurements_per_round", "0", "greater than 0"),
    "feed.payload=syndromes": ("[feed] payload", "'syndromes'", "'measurements' or 'detection_events'"),
    "feed.round_period_us=0": ("[feed] round_period_us", "0", "greater than 0"),
    "feed.ring_rounds=8": ("[feed] ring_rounds", "8", "greater than or equal to 16"),
    "feed.ring_rounds=100000000": ("[feed] ring_rounds", "100000000", "less than or equal to"),
    "feed.endpoint=7": ("[feed] endpoint", "7", "valid string"),
    "deadline.budget_us=-5": ("[deadline] budget_us", "-5", "greater than 0"),
    "service.name=a b": ("[service] name", "'a b'", "match pattern"),
    "lane.batch_windows=0": ("[lane] batch_windows", "0", "greater than or equal to 1"),
    "log.level=loud": ("[log] level", "'loud'", "'debug'"),
    "source.kind=recorded": ("[source]", "", "needs folder"),
    "source.kind=b8": ("[source]", "", "needs detection_events"),
    "source.rounds_per_message=2000": ("[source] rounds_per_message", "2000", "less than or equal to 1024"),
    "verify.confidence=1": ("[verify] confidence", "1", "less than 1"),
}  # fmt: skip


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_is_named_with_its_bound_and_remedy(good: Path, override: str) -> None:
    """The message names the key, shows the value and the bound, and ends with what to do instead."""
    key, value, bound = WRONG[override]
    with pytest.raises(ConfigError) as caught:
        load_config(good, [override])
    error = caught.value
    assert error.where == key
    assert str(error) == f"{error.where} {error.found}\n{error.reason}\n{error.remedy}"
    assert value in error.found
    assert bound in error.found
    assert error.reason
    assert "reference.toml" in error.remedy
    assert error.exit_code == ExitCode.CONFIG


@pytest.mark.parametrize("key", ["window.commit_rounds", "feed.endpoint", "feed.round_period_us", "publish.endpoint"])
def test_a_missing_key_is_named(good: Path, key: str) -> None:
    """A key without a default that is not there is refused by its name."""
    table, name = key.split(".")
    head, tail = good.read_text().split(f"[{table}]")
    good.write_text(f"{head}[{table}]" + "\n".join(x for x in tail.split("\n") if not x.startswith(name + " "))
                    if table == "publish" or name in tail else "")  # fmt: skip
    with pytest.raises(ConfigError, match=rf"^\[{table}\] {name} is missing"):
        load_config(good)


@pytest.mark.parametrize("table", ["plan", "window", "feed", "publish"])
def test_a_missing_table_is_named(good: Path, table: str) -> None:
    """A table without defaults that is not there is refused by its name."""
    parts = good.read_text().split("\n[")
    good.write_text("\n[".join(part for part in parts if not part.strip("\n[").startswith(f"{table}]")))
    with pytest.raises(ConfigError, match=rf"^\[{table}\]"):
        load_config(good)


@pytest.mark.parametrize("missing", ["distance", "rounds", "noise"])
def test_a_generated_circuit_needs_its_numbers(good: Path, missing: str) -> None:
    """`generated` without one of its numbers says which ones it needs."""
    good.write_text("\n".join(x for x in GOOD.split("\n") if not x.startswith(missing + " ")))
    with pytest.raises(ConfigError, match="needs distance, rounds and noise"):
        load_config(good)


def test_both_frames_need_a_circuit(good: Path) -> None:
    """A DEM alone cannot give both frames, and the message says why."""
    good.write_text(GOOD.replace('generated = "surface_code:rotated_memory_z"', 'dem = "x.dem"\nframes = "both"'))
    with pytest.raises(ConfigError, match='frames = "both" needs a circuit'):
        load_config(good)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A configuration that is not there is refused by its path."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read"):
        load_config(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("content", [b"[plan", b"= 3", b"\xff\xfe", b"[plan]\n[plan]\n"])
def test_no_toml_is_refused_with_its_place(tmp_path: Path, content: bytes) -> None:
    """A file that is no TOML is refused, not half read."""
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(path)


SET: dict[str, tuple[str, str, Any]] = {
    "window.commit_rounds=7": ("window", "commit_rounds", 7),
    " window.commit_rounds = 7 ": ("window", "commit_rounds", 7),
    "deadline.budget_us=12.5": ("deadline", "budget_us", 12.5),
    "plan.matching=correlated": ("plan", "matching", "correlated"),
    'plan.matching="correlated"': ("plan", "matching", "correlated"),
    "plan.rounds=endless": ("plan", "rounds", "endless"),
    "feed.require_crc=true": ("feed", "require_crc", True),
    "feed.endpoint=tcp://127.0.0.1:5000": ("feed", "endpoint", "tcp://127.0.0.1:5000"),
    "plan.measurements_per_round=[8, 9]": ("plan", "measurements_per_round", [8, 9]),
}  # fmt: skip


@pytest.mark.parametrize("override", SET)
def test_set_overrides_one_key(good: Path, override: str) -> None:
    """`--set table.key=value` takes TOML values and bare words, and changes that key alone."""
    table, key, value = SET[override]
    config = load_config(good, [override])
    assert getattr(getattr(config, table), key) == value
    changed = config.model_dump() | {table: config.model_dump()[table] | {key: None}}
    plain = load_config(good).model_dump()
    assert changed == plain | {table: plain[table] | {key: None}}


def test_the_last_set_wins(good: Path) -> None:
    """A key that is set twice has its last value."""
    assert load_config(good, ["window.commit_rounds=7", "window.commit_rounds=4"]).window.commit_rounds == 4


@pytest.mark.parametrize("override", ["commit_rounds=3", "window.commit_rounds", "window.=3", "", "="])
def test_a_malformed_set_is_refused(good: Path, override: str) -> None:
    """A pair without table, key or value says what it must look like."""
    with pytest.raises(ConfigError, match=r"must be table\.key=value"):
        load_config(good, [override])


def test_set_cannot_reach_into_a_list_of_tables(good: Path) -> None:
    """`--set patch.id=1` is refused where patches are a list."""
    good.write_text(GOOD + "\n[[patch]]\nid = 0\n")
    with pytest.raises(ConfigError, match="list of tables"):
        load_config(good, ["patch.id=1"])


def test_patches_must_differ(good: Path) -> None:
    """Two patches with one id are refused."""
    good.write_text(GOOD + "\n[[patch]]\nid = 3\n\n[[patch]]\nid = 3\n")
    with pytest.raises(ConfigError, match="must differ from patch to patch"):
        load_config(good)


def test_a_patch_overrides_single_keys(good: Path) -> None:
    """A patch's own plan and window change the keys that they name, and no other."""
    good.write_text(GOOD + '\n[[patch]]\nid = 3\nplan = {matching = "correlated"}\nwindow = {buffer_rounds = 9}\n')
    config = load_config(good)
    plan, window = config.tables_of(config.patch[0])
    assert plan == config.plan.model_copy(update={"matching": "correlated"})
    assert window == config.window.model_copy(update={"buffer_rounds": 9})


@pytest.mark.parametrize(
    ("patch", "key"),
    [
        ("window = {buffer_rounds = -1}", "[[patch]] id = 3 window.buffer_rounds"),
        ('plan = {matchin = "plain"}', "[[patch]] id = 3 plan.matchin"),
        ("windows = {}", "[patch] 0.windows"),
    ],
)
def test_a_wrong_override_of_a_patch_is_named(good: Path, patch: str, key: str) -> None:
    """A patch's override that cannot work is refused when the file is read, by patch and key."""
    good.write_text(GOOD + f"\n[[patch]]\nid = 3\n{patch}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(good)
    assert str(caught.value).startswith(key)


def test_variables_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """`${NAME}` is the environment's value, `${NAME:-default}` falls back, an empty value counts as set."""
    monkeypatch.setenv("RTQEC_TEST_A", "/a")
    monkeypatch.setenv("RTQEC_TEST_EMPTY", "")
    monkeypatch.delenv("RTQEC_TEST_B", raising=False)
    assert expand_variables("[x] y", "${RTQEC_TEST_A}/b") == "/a/b"
    assert expand_variables("[x] y", "${RTQEC_TEST_B:-/d}/${RTQEC_TEST_A}") == "/d//a"
    assert expand_variables("[x] y", "${RTQEC_TEST_EMPTY:-d}e") == "e"
    assert expand_variables("[x] y", "plain $HOME}") == "plain $HOME}"


def test_an_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is not set, and has no default, is named with the command that sets it."""
    monkeypatch.delenv("RTQEC_TEST_B", raising=False)
    with pytest.raises(ConfigError, match=r"^\[plan\] circuit .*RTQEC_TEST_B is not set") as caught:
        expand_variables("[plan] circuit", "${RTQEC_TEST_B}/x.stim")
    assert "export RTQEC_TEST_B=" in caught.value.remedy


def test_paths_are_relative_to_the_file(good: Path) -> None:
    """A file is looked for beside the configuration; one that is not there is refused by key and path."""
    config: Config = load_config(good)
    assert config.path("[plan] circuit", "good.toml") == good
    with pytest.raises(ConfigError, match=r"^\[plan\] circuit is 'bad.stim', but .*bad.stim does not exist"):
        config.path("[plan] circuit", "bad.stim")


def test_a_dem_alone_cannot_be_fed_measurements(good: Path) -> None:
    """Without a circuit nobody knows which measurements make a detector; the remedy is named."""
    plan = 'dem = "x.dem"\n[window]'
    good.write_text(re.sub(r"generated.*?\[window\]", plan, GOOD, flags=re.DOTALL))
    with pytest.raises(ConfigError, match='set payload = "detection_events"'):
        load_config(good)


@pytest.mark.parametrize("key", ["rounds = 7", "noise = 0.001"])
def test_a_file_says_its_own_rounds_and_noise(good: Path, key: str) -> None:
    """A key that a circuit file would silently override is refused."""
    good.write_text(re.sub(r"generated.*?\[window\]", f'circuit = "x.stim"\n{key}\n[window]', GOOD, flags=re.DOTALL))
    with pytest.raises(ConfigError, match="takes no rounds = N and no noise"):
        load_config(good)
