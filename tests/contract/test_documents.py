"""The documents stay true where a machine can tell."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from rtqec.config import Config

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "systemd" / "README.md"]
COMMANDS = {
    "make": set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)),
    "rtqec": {
        "run",
        "check",
        "verify",
        "ask",
        "status",
        "top",
        "keys",
        "audit",
        "install-systemd",
        "export-cudaq",
        "train",
    },
    "firmware-sim": {"run", "loop", "chaos", "replay-cudaq"},
    "rtqec-bench": {"rate", "latency", "stages", "accuracy", "compare", "report"},
}


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_toml_blocks_parse(path: Path) -> None:
    """What a reader copies into a configuration is TOML; a whole one is accepted."""
    for block in blocks(path, "toml"):
        tables = tomllib.loads(block)
        if {"plan", "window", "feed", "publish"} <= tables.keys():
            Config.model_validate(tables)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_shell_blocks_name_commands_that_exist(path: Path) -> None:
    """Every `make`, `rtqec`, `firmware-sim` and `rtqec-bench` line of a shell block names a verb that there is."""
    for block in blocks(path, "sh"):
        for line in block.splitlines():
            words = line.split("#")[0].split()
            program = Path(words[0]).name if words else ""
            if program in COMMANDS:
                verbs = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
                assert verbs[0] in COMMANDS[program], line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(path: Path) -> None:
    """A path in backquotes that looks like one of the project's files is one."""
    for name in re.findall(r"`((?:rtqec|firmware_sim|configs|bench|tests|systemd|docs)/[\w./-]+)`", path.read_text()):
        assert (ROOT / name).exists(), name


def test_the_reference_configuration_has_every_key() -> None:
    """Every key of every table stands in `configs/reference.toml`, live or commented out."""
    text = (ROOT / "configs" / "reference.toml").read_text()
    for table_name, field in Config.model_fields.items():
        if table_name in {"folder", "lane_index", "patch", "fault", "client"}:
            continue
        table = field.annotation
        assert isinstance(table, type)
        assert issubclass(table, BaseModel)
        assert re.search(rf"^\[{table_name}\]", text, re.MULTILINE), table_name
        for key, inner in table.model_fields.items():
            nested = [
                kind for kind in get_args(inner.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)
            ]
            for name in [f"{key}.{name}" for kind in nested for name in kind.model_fields] or [key]:
                head, _, key_of_table = name.rpartition(".")
                written = text.partition(f"[{table_name}.{head}]")[2] if head else text
                assert re.search(rf"^#? ?{key_of_table} =", written, re.MULTILINE), f"[{table_name}] {name}"
