"""What a running daemon takes over from a changed configuration, and what it must refuse."""

from __future__ import annotations

from typing import Any

from rtqec.config import Config
from rtqec.service.lanes import LaneKeeper, SwapRefusedError

_LIVE = ("log.level", "deadline.budget_us", "client")
_BY_SWAP = ("plan",)
_NOT_THE_DAEMONS = ("source", "pace", "sink", "fault", "verify")
"""Tables of the simulator and of other commands."""


def compare(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """The keys that differ: those that can change while the daemon runs, and those that cannot.

    Keys are `table.key`; of a patch `patch ID.key`.
    """
    changed: list[str] = []
    refused: list[str] = []
    for key in _differences(old, new):
        live = key in _LIVE or (key.startswith("patch ") and key.endswith(".budget_us"))
        (changed if live else refused).append(key)
    return changed, refused


def describe_refusal(key: str) -> str:
    """Why a key cannot change, and what to do instead."""
    if key.split(".")[0] in _BY_SWAP or key.endswith(".plan"):
        return "plans are not taken over by a reload, as they are compiled first: rtqec ask CONFIG swap-plan"
    return "it is fixed while the daemon runs: restart it"


def lanes_to_swap(old: Config, new: Config, lanes: list[LaneKeeper]) -> list[LaneKeeper]:
    """The lanes with patches whose plan is another one.

    Raises:
        SwapRefusedError: The configurations differ in more than plans, or not at all.
    """
    beyond = [key for key in _differences(old, new) if not (key.startswith("plan.") or key.endswith(".plan"))]
    if beyond:
        raise SwapRefusedError(
            f"the configuration differs from the one that runs in {', '.join(beyond)}, but a swap takes over plans "
            "only.\nReload what can change while it runs (SIGHUP), or restart the daemon."
        )
    tables = {patch.id: new.tables_of(patch) for patch in new.patch}
    changed = {patch.id for patch in old.patch if old.tables_of(patch) != tables[patch.id]}
    # A file may have another content under the same name: then all patches that read it are compiled anew.
    from_files = {p for p, (plan, _) in tables.items() if (plan.circuit, plan.dem, plan.cudaq) != (None, None, None)}
    found = [lane for lane in lanes if (changed | from_files) & {patch.id for patch in lane.config.patch}]
    if not found:
        raise SwapRefusedError(
            "no plan differs from the one that runs.\n"
            "Change [plan] in the configuration file, or name what is to change: plan.noise=0.004"
        )
    return found


def _differences(old: Config, new: Config) -> list[str]:
    before, after = old.model_dump(), new.model_dump()
    found: list[str] = []
    for table in before:
        if table in _NOT_THE_DAEMONS or before[table] == after[table]:
            continue
        if table == "patch":
            found += _patch_differences(before[table], after[table])
        elif isinstance(before[table], dict):
            found += [f"{table}.{key}" for key in before[table] if before[table][key] != after[table][key]]
        else:
            found.append(table)
    return found


def _patch_differences(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    old, new = ({patch["id"]: patch for patch in patches} for patches in (before, after))
    if list(old) != list(new):
        return ["patch"]
    return [f"patch {p}.{key}" for p in old for key in old[p] if old[p][key] != new[p][key]]
