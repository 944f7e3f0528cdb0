"""structlog, configured once. Events are snake_case; quantities are keys, never interpolated."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog

LogFormat = Literal["auto", "console", "json"]


_threshold = logging.INFO


def _drop_below(_logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Loggers are kept by whoever asked for them; the level may change all the same."""
    if getattr(logging, "ERROR" if method == "exception" else method.upper()) < _threshold:
        raise structlog.DropEvent
    return event


def set_level(level: str) -> None:
    """From now on: "debug", "info", "warning" or "error"."""
    global _threshold  # noqa: PLW0603 (one level per process, as there is one stderr)
    _threshold = getattr(logging, level.upper())


def configure(level: str, log_format: LogFormat) -> None:
    """Choose the renderer and the level for the whole process.

    Args:
        level: "debug", "info", "warning" or "error".
        log_format: "json" for machines, "console" for people, "auto" to ask whether stderr is a terminal.
    """
    set_level(level)
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            _drop_below,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The process's logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
