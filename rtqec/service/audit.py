"""The audit log: what the daemon was made to do, by whom, in files that cannot be changed unnoticed.

`{state_dir}/{name}-audit.jsonl`, one JSON object per line:

    {"seq": 7, "at": "2026-11-20T12:00:00.000Z", "event": "drain", "who": "alice 0Ab..", .., "previous": "<64 hex>"}

`seq` counts from 0 without a gap. `previous` is the SHA-256 of the bytes of the record before it (64 zeros before the
first), without the newline: whoever changes or removes a record must rewrite all later ones. A file that has become
old is put aside as `{name}-audit-{seq of its first record}.jsonl`, and the chain goes on in a new one; put-aside files
whose last record is older than `[audit] retention_days` are deleted whole, which `pruned` records say.

Events of the log itself: `torn` (lines that a crash left behind unfinished; their hashes), `unwritten` (records that
could not be written, by number), `pruned` (files deleted, and the chain's place at their end).

A full or silent disk stops nothing: records are written by a thread of their own, and those that cannot be are counted.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rtqec.config import Config
from rtqec.endpoints import lock_beside
from rtqec.errors import ConfigError
from rtqec.log import get_logger
from rtqec.security import make_folder

DAEMON = "rtqec"
"""Who did it, where nobody asked for it."""
NO_RECORD = "0" * 64
_ROTATE_DAYS_MAX = 30
_RECORD_BYTES_MAX = 1 << 16
_QUEUE_RECORDS = 1024
_REPORT_EVERY_S = 60.0
_FILE_MODE = 0o640
