"""Whatever a configuration file holds, it is taken or refused with a `ConfigError` that names a place; nothing else."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rtqec.config import Config, load_config
from rtqec.errors import ConfigError
from rtqec.security import Rights, check_endpoints
from tests.harness import config_tables

TABLES = {name: field.annotation for name, field in Config.model_fields.items() if name not in ("folder", "lane_index")}
KEYS = sorted(
    {key for table in TABLES.values() if isinstance(table, type) and issubclass(table, BaseModel)
     for key in table.model_fields}
    | {"id", "name", "public_key", "feed", "read", "change", "kind", "probability", "seed", "patch", "window", "plan"}
)  # fmt: skip
WORDS = [
    "", "all", "auto", "endless", "own", "both", "match", "hold", "union_find", "catch_up", "drop", "burst", "ipc://x",
    "tcp://*:1", "tcp://127.0.0.1:1", "${X}", "${X:-${Y:-}}", "${", "${HOME}", "{lane}", "\x00", "é\u202e", "a" * 5000,
    "x" * 40, "surface_code:rotated_memory_z",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 7, 1 << 31, 1 << 63, 1 << 64, 10**400, 0.0, -0.0, 0.5, 1e308, 5e-324, math.inf, -math.inf, math.nan,
]  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
"""Without surrogates, which TOML cannot say."""
LEAVES = st.one_of(st.booleans(), st.integers(), st.floats(), TEXT, st.sampled_from(WORDS), st.sampled_from(NUMBERS))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
TABLE_NAMES = st.sampled_from([*TABLES, "folder", "lane_index", "x"])


def toml(value: Any) -> str:
    """A value as TOML writes it; inline, so that any shape fits anywhere."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(toml(inner) for inner in value) + "]"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case float():
            return repr(value)
        case _:
            return str(value)


def written(tables: dict[str, Any]) -> str:
    """A file."""
    return "".join(f"{json.dumps(name)} = {toml(table)}\n" for name, table in tables.items())


def load(folder: Path, content: bytes | str, *overrides: str) -> Config | None:
    """Load a file as the daemon does; None where it is refused in order."""
    path = folder / "any.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        config = load_config(path, overrides)
        Rights.of(config)
        check_endpoints(config)
    except ConfigError as error:
        refused = error
    else:
        return config
    assert all(said.strip() for said in (refused.where, refused.found, refused.reason, refused.remedy))
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def test_the_unchanged_file_is_taken(folder: Path) -> None:
    """What the other tests change is good as it is."""
    assert load(folder, written(good())) is not None


def good() -> dict[str, Any]:
    """Tables that are taken."""
    endpoints = {"feed__endpoint": "ipc:///run/x", "publish__endpoint": "ipc:///run/y"}
    return config_tables(**endpoints, patch=[{"id": 0}, {"id": 1}], log={"level": "info"})


@settings(max_examples=400)
@given(name=TABLE_NAMES, value=VALUES)
def test_any_table_in_place_of_one(folder: Path, name: str, value: Any) -> None:
    """One table is anything at all."""
    load(folder, written(good() | {name: value}))


@settings(max_examples=800)
@given(name=st.sampled_from([*TABLES]), key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_of_a_key(folder: Path, name: str, key: str, value: Any) -> None:
    """One key of a table, or of the first table of a list, is anything at all."""
    tables = good()
    table = tables.setdefault(name, {} if name not in ("patch", "client", "fault") else [{}])
    (table[0] if isinstance(table, list) else table)[key] = value
    load(folder, written(tables))


@settings(max_examples=200)
@given(tables=st.dictionaries(TABLE_NAMES, st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), max_size=8))
def test_any_tables(folder: Path, tables: dict[str, Any]) -> None:
    """All tables are anything at all."""
    load(folder, written(tables))


@settings(max_examples=300)
@given(content=st.binary(max_size=300) | st.text(alphabet="[]{}=\"'#\n.,0123456789abcxX_+-:\\", max_size=200))
@example(content=b"\xff\xfe\x00")
@example(content=b"a = " + b"[" * 5000)
@example(content=b"a = " + b"{x=" * 5000)
@example(content=b"[" + b"a." * 20000 + b"a]\n")
@example(content=b"a = " + b"9" * 10000)
@example(content="a = 1979-05-27T07:32:00\n[plan]\nrounds = 00:01:02")
def test_any_bytes(folder: Path, content: bytes | str) -> None:
    """No TOML at all, or TOML that is no configuration."""
    assert load(folder, content) is None


@settings(max_examples=300)
@given(
    table=st.sampled_from([*TABLES, "", "x", "a.b"]),
    key=st.sampled_from([*KEYS, "", "a.b", "1"]),
    text=VALUES.map(toml) | TEXT,
)
def test_any_override(folder: Path, table: str, key: str, text: str) -> None:
    """`--set` of any key to anything."""
    load(folder, written(good()), f"{table}.{key}={text}")


@settings(max_examples=200)
@given(text=st.text(max_size=60))
@example(text="a.b=" + "[" * 5000)
@example(text="a.b=" + "9" * 10000)
def test_any_override_at_all(folder: Path, text: str) -> None:
    """`--set` that is no pair, or a bad one."""
    load(folder, written(good()), text)


@given(value=VALUES)
def test_this_writes_toml(value: Any) -> None:
    """The file says what the test means: otherwise the tests above would only show that TOML is parsed."""
    assert repr(tomllib.loads(f"value = {toml(value)}")["value"]) == repr(value)
