"""CUDA-Q's decoder configuration files: read, and checked against the schema of cudaq-qec.

The schema is the one that `cudaq_qec.decoder_config_json_schema()` of cudaq-qec 0.8.1 exports (NVIDIA, Apache License
2.0), unchanged. What rtqec does not have is refused here, what does not fit together or cannot be matched in
`decoder_model`. A file of 0.9 may name `error_rate_vec` beside `H_sparse` as well; that is read, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from rtqec.cudaq.frames import PORT_MAX, SLOT_BYTES, SLOT_BYTES_MAX, SLOT_BYTES_MIN
from rtqec.cudaq.model import MERGE_STRATEGIES, MERGED_INDEPENDENTLY
from rtqec.errors import ConfigError

SCHEMA_FILE = "decoder_config_schema_0.8.1.json"
FILE_BYTES_MAX = 1 << 28
"""A memory of distance 13 and 104 rounds takes some 3 MB."""
_MATCHING_TYPES = ("pymatching", "nv-fusion-decoder", "sliding_window")
"""Decoders that match; the windows of the last one are replaced by ours."""
_PLAIN_ITEMS: dict[str, tuple[set[type], float]] = {
    '{"minimum": -1, "type": "integer"}': ({int}, -1),
    '{"type": "number"}': ({int, float}, -math.inf),
}
"""Schemas of the items of long lists, their types and their least value."""
_MATRICES = ("H_sparse", "O_sparse", "block_size", "syndrome_size")
_UDP_ARGUMENTS = {
    "--port": ("port", 0, PORT_MAX),
    "--num-slots": ("num_slots", 1, 1 << 20),
    "--slot-size": ("slot_bytes", SLOT_BYTES_MIN, SLOT_BYTES_MAX),
}
"""Arguments of the provider udp: what they set, and their bounds."""
_Yaml = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where PyYAML was built with it: ten times as fast."""


@dataclass(frozen=True)
class DecoderEntry:
    """One decoder of a file, checked against the schema and not yet made into a model.

    Attributes:
        decoder_id: From 0 on.
        table: As in the file.
        folder: Of the file; `stim_dem_path` is relative to it.
    """

    decoder_id: int
    table: dict[str, Any]
    folder: Path

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"decoder {self.decoder_id}"

    @property
    def arguments(self) -> dict[str, Any]:
        """Its `decoder_custom_args`; of windows, those of the decoder inside, which has the same errors."""
        own: dict[str, Any] = self.table.get("decoder_custom_args", {})
        inner: dict[str, Any] = own.get("inner_decoder_params", {})
        return own | inner

    @property
    def merge_strategy(self) -> str:
        """What becomes of two errors with equal detectors; see `model`."""
        return str(self.arguments.get("merge_strategy", MERGED_INDEPENDENTLY))


@dataclass(frozen=True)
class Transport:
    """Where the decoding server of a file listens: UDP, by default as CUDA-Q's own provider.

    Attributes:
        port: Of decoder 0; 0 for one that is free.
        num_slots: Requests that CUDA-Q's server holds. Ours has the kernel's buffer, which is larger.
        slot_bytes: Largest datagram.
    """

    port: int = 0
    num_slots: int = 8
    slot_bytes: int = SLOT_BYTES


@dataclass(frozen=True)
class DecoderFile:
    """A whole file."""

    decoders: tuple[DecoderEntry, ...]
    transport: Transport

    def entry(self, decoder_id: int) -> DecoderEntry:
        """One decoder.

        Raises:
            ConfigError: There is none of that number.
        """
        if decoder_id >= len(self.decoders):
            raise ConfigError(
                "[plan] cudaq_decoder", f"is {decoder_id}, but the file has {len(self.decoders)} decoders, from 0 on.",
                "Each decoder of a file is one patch.", f"Name one from 0 to {len(self.decoders) - 1}.",
            )  # fmt: skip
        return self.decoders[decoder_id]


def load_decoder_file(path: Path) -> DecoderFile:
    """Read a file and check its form.

    Raises:
        ConfigError: It cannot be read, is no YAML, does not follow the schema, or asks for what rtqec does not have.
    """
    where = f"decoder file {path}"
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(
                where, f"has {path.stat().st_size} bytes; the bound is {FILE_BYTES_MAX}.",
                "No experiment that can be decoded needs as much.", "Name a decoder file.",
            )  # fmt: skip
        found = yaml.load(path.read_text(), _Yaml)  # noqa: S506 (a safe loader, which knows no objects)
    except OSError as error:
        raise ConfigError(
            where, f"cannot be read: {error.strerror}.", "The decoders are described there.", "Correct the path.",
        ) from error  # fmt: skip
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(
            where, f"is not YAML: {' '.join(str(error).split())}.", "Nothing can be read from it.",
            "Correct that line; docs/cudaq.md shows a file.",
        ) from error  # fmt: skip
    return parse_decoder_file(found, path.parent, where)


def parse_decoder_file(found: Any, folder: Path, where: str = "decoder file") -> DecoderFile:
    """Check the form of what a file holds.

    Args:
        found: As YAML gives it.
        folder: What paths in it are relative to.
        where: How messages name it.

    Raises:
        ConfigError: It does not follow the schema, or asks for what rtqec does not have.
    """
    found = _with_rates_in_arguments(where, found)
    error = jsonschema.exceptions.best_match(_validator().iter_errors(found))
    if error is not None:
        key = ".".join(str(part) for part in error.absolute_path) or "the file"
        raise ConfigError(
            f"{where}: {key}", f"does not follow CUDA-Q's schema: {_shortened(error.message)}.",
            f"The schema is that of cudaq-qec 0.8.1, rtqec/cudaq/{SCHEMA_FILE}.", "Correct that key, or remove it.",
        )  # fmt: skip
    ids = [table["id"] for table in found["decoders"]]
    if sorted(ids) != list(range(len(ids))) or not ids:
        raise ConfigError(
            f"{where}: decoders", f"have the ids {ids}; they must be 0 to {max(len(ids) - 1, 0)}, each once.",
            "CUDA-Q numbers its decoders so, and programs name them by number.", "Number them from 0 on.",
        )  # fmt: skip
    tables = sorted(found["decoders"], key=lambda table: int(table["id"]))
    entries = tuple(DecoderEntry(table["id"], table, folder) for table in tables)
    for entry in entries:
        _check_served(entry)
    return DecoderFile(entries, _transport(where, found.get("transport", {})))


@cache
def _validator() -> Any:
    schema = json.loads((resources.files("rtqec.cudaq") / SCHEMA_FILE).read_text())
    # The library looks at each item of a list by itself: 1.3 of the 2.9 s (EPYC, 2026-11-21) that a memory of distance
    # 13 and 104 rounds takes to be read.
    extend: Any = jsonschema.validators.extend
    return extend(jsonschema.Draft202012Validator, {"items": _check_items})(schema)


def _check_items(validator: Any, items: Any, found: Any, schema: Any) -> Iterator[Any]:
    """The keyword `items`; lists of plain numbers, which are nearly all of a file, are checked at once."""
    if isinstance(found, list) and found:
        plain = _PLAIN_ITEMS.get(json.dumps(items, sort_keys=True))
        if plain is not None and set(map(type, found)) <= plain[0] and min(found) >= plain[1]:
            return
    yield from jsonschema.Draft202012Validator.VALIDATORS["items"](validator, items, found, schema)


def _with_rates_in_arguments(where: str, found: Any) -> Any:
    """The file with `error_rate_vec` of decoders, as 0.9 allows it, where 0.8.1 has it."""
    decoders = found.get("decoders") if isinstance(found, dict) else None
    if not isinstance(decoders, list) or not any("error_rate_vec" in d for d in decoders if isinstance(d, dict)):
        return found
    moved = []
    for number, table in enumerate(decoders):
        if not isinstance(table, dict) or "error_rate_vec" not in table:
            moved.append(table)
            continue
        rest = {key: value for key, value in table.items() if key != "error_rate_vec"}
        arguments = table.get("decoder_custom_args") or {}
        if not isinstance(arguments, dict) or "error_rate_vec" in arguments:
            raise ConfigError(
                f"{where}: decoders.{number}", "has error_rate_vec twice, also in decoder_custom_args.",
                "It is not clear which of them holds.", "Remove one of them.",
            )  # fmt: skip
        moved.append(rest | {"decoder_custom_args": arguments | {"error_rate_vec": table["error_rate_vec"]}})
    return found | {"decoders": moved}


def _check_served(entry: DecoderEntry) -> None:
    """Refuse what rtqec does not have, by name."""
    table, inner = entry.table, entry.arguments.get("inner_decoder_name", "pymatching")
    if table["type"] not in _MATCHING_TYPES or inner not in _MATCHING_TYPES:
        raise ConfigError(
            f"{entry.where} type", f"is {table['type'] if inner in _MATCHING_TYPES else inner!r}; rtqec decodes by "
            f"matching: {', '.join(_MATCHING_TYPES)}.", "Another kind of decoder would give other answers.",
            "Set type: pymatching, or serve it with CUDA-Q's own decoding server.",
        )  # fmt: skip
    if table.get("dispatch", "host") != "host":
        raise ConfigError(
            f"{entry.where} dispatch", f"is {table['dispatch']!r}; the bound is host.",
            "A device graph is scheduled by the GPU itself; rtqec is a process on the host.", "Set dispatch: host.",
        )  # fmt: skip
    if "dem_chunks" in table:
        raise ConfigError(
            f"{entry.where} dem_chunks", "is given; rtqec reads H_sparse or stim_dem_path.",
            "Chunks describe how windows are put together; rtqec cuts windows from the whole model.",
            "Write the whole experiment as stim_dem_path and D_sparse.",
        )  # fmt: skip
    both = [key for key in _MATRICES if key in table]
    if "stim_dem_path" in table and both:
        raise ConfigError(
            f"{entry.where} {both[0]}", "is given, and stim_dem_path as well.",
            "The errors would be described twice; CUDA-Q refuses that, too.", "Remove one of them.",
        )  # fmt: skip
    if entry.merge_strategy not in MERGE_STRATEGIES:
        raise ConfigError(
            f"{entry.where} merge_strategy", f"is {entry.merge_strategy!r}, not one of {', '.join(MERGE_STRATEGIES)}.",
            "It says what becomes of two errors with equal detectors.", "Correct it, or remove it: independent.",
        )  # fmt: skip


def _transport(where: str, table: dict[str, Any]) -> Transport:
    """What a server of this file listens on."""
    provider = table.get("provider", "udp")
    if provider != "udp":
        raise ConfigError(
            f"{where}: transport.provider", f"is {provider!r}; rtqec has udp.",
            "The others need RDMA hardware or a library that is loaded into the server.", "Set provider: udp.",
        )  # fmt: skip
    found: dict[str, int] = {}
    for argument in table.get("args", []):
        name, _, value = argument.partition("=")
        if name in ("--pinned-rings", "--unified"):
            continue  # How CUDA-Q's own server divides its work.
        key, least, most = _UDP_ARGUMENTS.get(name, ("", 0, -1))
        number = int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else -1
        if not least <= number <= most:
            takes = ", ".join(f"{known}={a}..{b}" for known, (_, a, b) in _UDP_ARGUMENTS.items())
            raise ConfigError(
                f"{where}: transport.args", f"has {argument!r}; udp takes {takes}.",
                "A port that is misread would leave programs without an answer.", "Correct or remove it.",
            )  # fmt: skip
        found[key] = number
    return Transport(**found)


def _shortened(message: str) -> str:
    """A complaint of the schema without the whole matrix that it is about."""
    return message if len(message) <= 200 else f"{message[:120]} .. {message[-60:]}"
