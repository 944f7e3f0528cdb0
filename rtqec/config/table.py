"""How a table of a TOML file is read: every key checked, every refusal with key, value, bound, reason and remedy."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rtqec.errors import ConfigError

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveTime = Annotated[float, Field(gt=0)]
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^${}]*))?\}")
"""One without another one in its default: they are replaced from within."""


class Table(BaseModel):
    """A TOML table: unknown keys are refused, values are never guessed into another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Table)


def expand_variables(key: str, value: str) -> str:
    """Replace `${NAME}` and `${NAME:-default}` by the environment's values; a default may hold variables itself."""

    def replace(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        if name not in os.environ and default is None:
            raise ConfigError(
                key, f"is {value!r}, but the environment variable {name} is not set.",
                "The path cannot be completed without it.", f"Set it: export {name}=/path/to/folder",
            )  # fmt: skip
        return os.environ.get(name, default or "")

    expanded = value
    for _ in range(value.count("${")):
        expanded = _VARIABLE.sub(replace, expanded)
    return expanded


def read_tables(path: Path, overrides: Iterable[str], says: str, example: str, reference: str) -> dict[str, Any]:
    """A TOML file as tables, with overrides and its own folder.

    Args:
        path, says, example, reference: See `read_toml`.
        overrides: See `completed`.

    Raises:
        ConfigError: The file is missing or no TOML, or an override is none.
    """
    return completed(read_toml(path, says, example, reference), overrides, path)


def read_toml(path: Path, says: str, example: str, reference: str) -> dict[str, Any]:
    """A TOML file as tables.

    Args:
        path: The file.
        says: What the file is for, a sentence for the message.
        example, reference: Files that a message may name: one to begin with, and the one that shows every key.

    Raises:
        ConfigError: The file is missing or no TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"configuration {path}", f"cannot be read: {error.strerror}.", says,
            f"Name an existing file, for example {example}.",
        ) from error  # fmt: skip
    except (ValueError, RecursionError) as error:  # Of TOML, of UTF-8, of numbers with thousands of digits, of depth.
        raise ConfigError(
            f"configuration {path}", f"is not TOML: {error}.", "Nothing can be read from it.",
            f"Correct that line; {reference} shows every key.",
        ) from error  # fmt: skip


def completed(tables: dict[str, Any], overrides: Iterable[str], path: Path) -> dict[str, Any]:
    """The tables of a file with overrides, and with the folder that its paths are relative to.

    Args:
        tables: As read; changed by overrides.
        overrides: `table.key=value` pairs; the value is TOML, or a bare string.
        path: The file.

    Raises:
        ConfigError: An override is none.
    """
    for override in overrides:
        apply_override(tables, override)
    return tables | {"folder": str(path.parent)}


def apply_override(tables: dict[str, Any], override: str) -> None:
    """Set one `table.key=value` pair, or say what is wrong with it."""
    name, equals, text = override.partition("=")
    table, dot, key = name.strip().partition(".")
    if not equals or not dot or not key:
        raise ConfigError(
            "--set", f"is {override!r}, but must be table.key=value.",
            "Without the table it is not clear which key is meant.", "For example --set feed.round_period_us=10.",
        )  # fmt: skip
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()
    target = tables
    for name in (table, *key.split(".")[:-1]):
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise ConfigError(
                "--set", f"is {override!r}, but [[{name}]] is a list of tables.",
                "It is not clear which of them is meant.", "Change that key in the file.",
            )  # fmt: skip
    target[key.split(".")[-1]] = value


def validated(model: type[Model], tables: dict[str, Any], where: str) -> Model:
    """pydantic's first complaint in our own words."""
    try:
        return model.model_validate(tables)
    except ValidationError as error:
        first, *others = error.errors()
        # pydantic names the alternatives of a key that takes several types, each with its own complaint.
        loc = tuple(part for part in first["loc"] if isinstance(part, int) or part.isidentifier())
        texts = [first["msg"], *(e["msg"] for e in others if e["loc"][: len(loc)] == loc != e["loc"])]
        raise _config_error(loc, first["type"], " or ".join(texts), first.get("input"), where) from None


def _config_error(loc: tuple[int | str, ...], kind: str, text: str, value: object, where: str) -> ConfigError:
    """One pydantic error as key, value, bound, reason, remedy."""
    table, *keys = [str(part) for part in loc] or ["configuration"]
    key = where or f"[{table}] {'.'.join(keys)}".strip()
    if table == "fault" and keys and keys[0].isdigit():
        key = f"[[fault]] number {int(keys[0]) + 1} {'.'.join(keys[1:])}".strip()
    if where:
        key = f"{where}.{'.'.join([table, *keys])}"
    see = "configs/reference.toml shows every key with its bounds."
    if kind == "extra_forbidden":
        return ConfigError(
            key, f"is {value!r}, but no key or table has that name.",
            "A key that is misspelt would otherwise be ignored in silence.", f"Remove or correct it; {see}",
        )  # fmt: skip
    if kind == "missing":
        return ConfigError(
            key, "is missing, but has no default.", "The daemon cannot guess it.", f"Set it; {see}",
        )  # fmt: skip
    bound = text.removeprefix("Value error, ")
    shown = f"is {value!r}, but: " if not isinstance(value, dict) else ""
    return ConfigError(
        key, f"{shown}{bound[0].lower()}{bound[1:]}.", "The value is outside what the daemon can work with.",
        f"Set a value within that bound; {see}",
    )  # fmt: skip
