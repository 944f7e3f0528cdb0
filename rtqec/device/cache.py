"""Built engines on disk: each under the digest of everything that it was built from, with its own digest in front.

An entry is one file, `<key>.engine`: a line of JSON, then the engine. The key is the sha256 of the fields (model, chunk
shape, precision, device, library); the line repeats them and holds the sha256 of the engine. What does not fit is
refused, never rebuilt in silence: a file that changed by itself is a disk or a person that somebody should look at.
One file and not two, because lanes that start together write the same entry.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rtqec.device.engine import ChunkShape
from rtqec.device.refusal import refusal

FORMAT = 1
KEY_LENGTH = 32
"""Hexadecimal digits of a key: 128 bits."""

SUFFIX = ".engine"

Fields = Mapping[str, str | int]
"""What an engine was built from."""


def shape_fields(shape: ChunkShape) -> dict[str, str | int]:
    """A chunk shape as fields of a key."""
    return {
        "chunks": shape.chunks, "layers": shape.layers, "distance": shape.distance, "outputs": shape.outputs,
    }  # fmt: skip


def digest(contents: bytes) -> str:
    """The sha256 of bytes, in hexadecimal."""
    return hashlib.sha256(contents).hexdigest()


def key_of(fields: Fields) -> str:
    """The key of an engine: a digest of what it was built from."""
    return digest(json.dumps(dict(fields), sort_keys=True, separators=(",", ":")).encode())[:KEY_LENGTH]


@dataclass(frozen=True)
class CacheEntry:
    """One engine in the cache.

    Attributes:
        key: Its file name without suffix.
        fields: What it was built from; empty where that cannot be read.
        num_bytes: Its size.
        problem: Why it would be refused; empty where it would not.
    """

    key: str
    fields: dict[str, str | int]
    num_bytes: int
    problem: str = ""


class EngineCache:
    """A folder of engines.

    Args:
        folder: Made with its first entry. Whoever may write there runs code in the daemon: it belongs to the daemon's
            user alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path_of(self, fields: Fields) -> Path:
        """Where the engine built from `fields` lies, or would."""
        return self.folder / (key_of(fields) + SUFFIX)

    def load(self, fields: Fields) -> bytes | None:
        """The engine built from `fields`; None where there is none.

        Raises:
            EngineError: There is one, and it does not match its digest or is not of these fields.
        """
        path = self.path_of(fields)
        if not path.exists():
            return None
        engine, entry = self._read(path)
        problem = entry.problem
        if not problem and entry.fields != dict(fields):
            problem = f"was built from {_differing(entry.fields, fields)}"
        if problem:
            raise refusal(
                str(path),
                problem,
                "An engine runs as code: one that is not what was built is not run.",
                "Delete it; it is built again at the next start, or now with `rtqec engine build`.",
            )
        return engine

    def store(self, fields: Fields, engine: bytes) -> Path:
        """Keep an engine. Readers see it whole or not at all.

        Raises:
            EngineError: The folder cannot be written.
        """
        path = self.path_of(fields)
        manifest = {"format": FORMAT, "fields": dict(fields), "engine_sha256": digest(engine)}
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(path, json.dumps(manifest, sort_keys=True).encode() + b"\n" + engine)
        except OSError as error:
            raise refusal(
                "[service] cache_dir",
                f"is {self.folder}, which cannot be written: {error.strerror}.",
                "Built engines are kept there, so that a start does not build them again.",
                "Make it writable for the daemon's user, or name another folder.",
            ) from error
        return path

    def list(self) -> list[CacheEntry]:
        """All engines, by key, those that would be refused included."""
        paths = sorted(self.folder.glob("*" + SUFFIX)) if self.folder.is_dir() else []
        return [self._read(path)[1] for path in paths]

    def _read(self, path: Path) -> tuple[bytes, CacheEntry]:
        """An engine and what is known of it."""
        line, _, engine = path.read_bytes().partition(b"\n")
        fields: dict[str, str | int] = {}
        problem = ""
        try:
            manifest = json.loads(line)
            fields = dict(manifest["fields"])
            if manifest["format"] != FORMAT:
                problem = f"is of format {manifest['format']}, and this version reads {FORMAT}."
            elif key_of(fields) != path.stem:
                problem = f"is named {path.stem}, but its first line says {key_of(fields)}."
            elif (built := manifest["engine_sha256"]) != (found := digest(engine)):
                problem = f"has the digest {found[:16]}.., but was built as {built[:16]}..."
        except (ValueError, KeyError, TypeError) as error:
            problem = f"has a first line that cannot be read: {error!r}."
        return engine, CacheEntry(path.stem, fields, len(engine), problem)


def _replace(path: Path, contents: bytes) -> None:
    """Write a file in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix + ".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _differing(found: Fields, wanted: Fields) -> str:
    """Fields in which two engines differ."""
    names = sorted(set(found) | set(wanted))
    return "; ".join(f"{n}={found.get(n)}, not {wanted.get(n)}" for n in names if found.get(n) != wanted.get(n)) + "."


def read_model(path: Path) -> bytes:
    """The bytes of a model.

    Raises:
        EngineError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise refusal(
            "[predecode] model",
            f"is {path}, which cannot be read: {error.strerror}.",
            "An engine runs a network that was exported to ONNX.",
            "Name a model of `rtqec train`, or one that is shipped with the package.",
        ) from error
