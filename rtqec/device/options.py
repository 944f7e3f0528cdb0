"""What may be asked of an engine, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

EnginePrecision = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class EngineOptions:
    """Wishes; an engine that cannot fulfil one refuses.

    Attributes:
        precision: In which to compute; "auto" is the quickest that the model and the machine allow.
        num_threads: Of the CPU engines; 0 leaves it to the library.
        cache_folder: Where built engines are kept; None keeps none.
        build: Build an engine that is not in the cache. A lane sets False where building would take too long.
        gpu_index: Which GPU.
    """

    precision: EnginePrecision = "auto"
    num_threads: int = 0
    cache_folder: Path | None = None
    build: bool = True
    gpu_index: int = 0
