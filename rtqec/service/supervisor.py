"""The supervisor: starts the lanes, brings them back, answers control, serves metrics, talks to the service manager.

It decodes nothing and shares no interpreter with a lane, so that nothing it does costs the path anything. asyncio, one
thread. systemd's watchdog guards it; it guards the lanes (`service.lanes`).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from rtqec import __version__, log
from rtqec.config import Config, load_config
from rtqec.cores import hold_wake_latency
from rtqec.endpoints import lock_beside
from rtqec.errors import ConfigError, ExitCode
from rtqec.log import get_logger
from rtqec.security import Right, Rights, check_endpoints, check_lane, make_folder
from rtqec.service.announce import announce_end, announce_ready
from rtqec.service.audit import DAEMON, AuditLog
from rtqec.service.control import Control
from rtqec.service.control_server import ControlServer
from rtqec.service.lanes import LaneKeeper, SwapRefusedError
from rtqec.service.metrics_server import MetricsServer, serve_metrics
from rtqec.service.notify import notify, watchdog_period_s
from rtqec.service.reader import ServiceReader
from rtqec.service.reload import compare, describe_refusal, lanes_to_swap
from rtqec.service.shards import shard_patches
from rtqec.service.state import ServiceFile, describe_lane, service_path
from rtqec.telemetry import TelemetryBlock

_END_S = 12.0
"""What the end may take after the drain: the lanes' own, then SIGKILL."""
_WATCHDOG_FRACTION = 0.3
"""Of the service manager's patience, between two signs of life."""


class Supervisor:
    """One daemon, from start to end.

    Args:
        config: The deployment.
        config_path, overrides: Where it was read from, for SIGHUP.
    """

    def __init__(self, config: Config, config_path: Path, overrides: list[str]) -> None:
        self._config, self._config_path, self._overrides = config, config_path, overrides
        self._log = get_logger()
        self.state = "starting"
        self._lanes: list[LaneKeeper] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._server: ControlServer | None = None
        self._metrics: MetricsServer | None = None
        self._rights = Rights.of(config)
        self._fault: BaseException | None = None
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()
        self._swapping = asyncio.Lock()

    async def run(self) -> ExitCode:
        """Serve until told to stop.

        Raises:
            RtqecError: It could not start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_stop)
        config = self._config
        check_endpoints(config)
        lock = _take_runtime_dir(config)
        self._audit = AuditLog(config)
        self._audit.record("started", version=__version__, config=str(self._config_path.resolve()), pid=os.getpid())
        if config.cores.supervisor:
            os.sched_setaffinity(0, set(config.cores.supervisor))
        latency = hold_wake_latency(config.cores)
        self._file = ServiceFile(config, self._config_path)
        try:
            if await self._until_stop(self._start_lanes()):
                return await self._end()
            self._start_services()
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            self.state = "ready"
            self._write()
            notify("READY=1")
            notify(f"STATUS={len(self._lanes)} lane(s), {len(config.patch)} patch(es)")
            for patch in self.describe()["patches"]:
                loaded = {"patch": patch["id"], "tag": patch["plan_tag"], "digest": patch["digest"]}
                self._audit.record("plan_loaded", lane=patch["lane"], **loaded)
                self._log.info("patch_ready", **{key: patch[key] for key in ("id", "lane", "plan_tag", "digest")})
            announce_ready(config, self.describe()["patches"])
            self._log.info("daemon_ready", version=__version__, lanes=len(self._lanes), patches=len(config.patch))
            await self._stop_asked.wait()
            code = await self._drain_and_end()
            return code if self._fault is None else ExitCode.FAULT
        except BaseException:
            await self._end()
            raise
        finally:
            self._audit.record("stopped")
            await asyncio.to_thread(self._audit.close)
            lock.close()
            if latency is not None:
                latency.close()

    # What control asks for; see `service.control.Daemon`.

    def blocks(self) -> list[TelemetryBlock]:
        """The telemetry blocks of all lanes."""
        return [lane.telemetry for lane in self._lanes]

    def describe(self) -> dict[str, Any]:
        """`lanes` and `patches` of the service file."""
        return {
            "lanes": [
                describe_lane(
                    lane.config,
                    lane.state,
                    (lane.pid, lane.path_pid),
                    lane.restarts,
                    [patch["cudaq_port"] for patch in lane.patches if "cudaq_port" in patch],
                )
                for lane in self._lanes
            ],
            "patches": [patch for lane in self._lanes for patch in lane.patches],
        }

    def may(self, who: str, right: str, patch_id: int) -> bool:
        """Whether a caller may "feed", "read" or "change" a patch; see `security`."""
        return self._rights.may(who, Right(right), [patch_id])

    def note(self, event: str, who: str, **details: Any) -> None:
        """Write into both logs what somebody changed."""
        who = self._rights.describe(who)
        self._log.info(event, who=who, **details)
        self._audit.record(event, who, **details)

    def drain(self) -> None:
        """End, as after SIGTERM."""
        self._stop_asked.set()

    def set_log_level(self, level: str) -> None:
        """Of this process and of all lanes, also of those to come."""
        log.set_level(level)
        for lane in self._lanes:
            lane.log_level = level
            lane.order({"do": "log_level", "level": level})

    async def swap_plan(self, sets: list[str], who: str) -> dict[str, Any]:
        """Read the configuration again, and let its plans take over.

        Args:
            sets: Further overrides, as for `--set`.
            who: For the audit log.

        Raises:
            RtqecError: It cannot work, changes more than plans, or reads the rounds in another way.
        """
        if self._config.listen.cudaq is not None:
            raise SwapRefusedError(
                "with [listen.cudaq] the thread that receives is the one that decodes, so that no other process can "
                "take its path over.\nRestart the daemon with the new plan."
            )
        if self._swapping.locked():
            raise SwapRefusedError("another swap is under way; ask again when it has been answered.")
        async with self._swapping:
            new = load_config(self._config_path, [*self._overrides, *sets])
            lanes = lanes_to_swap(self._config, new, self._lanes)
            self.note("swap_begun", who, sets=sets, lanes=[lane.name for lane in lanes])
            places: list[dict[str, int]] = []
            for lane in lanes:
                places += await lane.swap(new)
            self._config = self._config.model_copy(update={"plan": new.plan, "patch": new.patch})
            tags = {patch["id"]: patch["plan_tag"] for patch in self.describe()["patches"]}
            self.note("swap_done", who, places=places, plan_tags=list(tags.values()))
            return {"patches": [place | {"plan_tag": tags[place["patch"]]} for place in places]}

    # Start.

    async def _start_lanes(self) -> None:
        """Bring up all lanes side by side."""
        shards = await asyncio.to_thread(shard_patches, self._config)
        for index, patch_ids in enumerate(shards):
            check_lane(self._config.of_lane(index, patch_ids), self._rights)
        self._lanes = [
            LaneKeeper(self._config, index, patch_ids, self._on_lane_change) for index, patch_ids in enumerate(shards)
        ]
        self._write()
        starts = [asyncio.create_task(lane.start()) for lane in self._lanes]
        try:
            await asyncio.gather(*starts)
        finally:
            for start in starts:
                start.cancel()

    def _start_services(self) -> None:
        for lane in self._lanes:
            self._tasks.append(asyncio.create_task(lane.watch()))
        self._tasks.append(asyncio.create_task(self._feed_watchdog()))
        if self._config.metrics.endpoint is not None:
            self._metrics = serve_metrics(self._config.metrics.endpoint, ServiceReader(self._config))
        if self._config.control.endpoint is not None:
            self._server = ControlServer(self._config, Control(self))
            self._tasks.append(asyncio.create_task(self._server.serve()))
        for task in self._tasks:
            task.add_done_callback(self._on_task_end)

    async def _until_stop(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do something, unless the stop comes first. True where it came."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stop_asked.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            task.result()
        else:
            task.cancel()
        return self._stop_asked.is_set()

    # While it runs.

    async def _feed_watchdog(self) -> None:
        period_s = watchdog_period_s()
        while period_s is not None:
            notify("WATCHDOG=1")
            await asyncio.sleep(_WATCHDOG_FRACTION * period_s)

    def _on_lane_change(self, lane: LaneKeeper, event: str, details: dict[str, Any]) -> None:
        level = self._log.warning if lane.state == "restarting" else self._log.info
        level(event, lane=lane.name, **details)
        if event in ("lane_died", "lane_back"):
            self._audit.record(event, lane=lane.name, **details)
        self._write()

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        """A service that ends by itself is a fault: end the daemon, and let the service manager start it anew."""
        if not task.cancelled() and task.exception() is not None:
            self._log.error("service_fault", reason=repr(task.exception()))
            self._fault = task.exception()
            self._stop_asked.set()

    def _write(self) -> None:
        self._file.write(self.state, **self.describe())

    def _reload(self) -> None:
        """SIGHUP: take over what can change while it runs; refuse the rest with the reason."""
        try:
            new = load_config(self._config_path, self._overrides)
            rights = Rights.of(new)
            check_endpoints(new)
            for lane in self._lanes:
                check_lane(lane.config, rights)
        except ConfigError as error:
            self._log.error("reload_refused", reason=str(error))
            return
        changed, refused = compare(self._config, new)
        for key in refused:
            self._log.error("reload_refused", key=key, reason=describe_refusal(key))
        for key in changed:
            self._log.info("reloaded", key=key)
        if "log.level" in changed:
            self.set_log_level(new.log.level)
        if "client" in changed:
            self._rights = rights
            for lane in self._lanes:
                lane.admit_only(new.client)
            if self._server is not None:
                self._server.admit_only(rights)
        self._audit.record("configuration_changed", DAEMON, changed=changed, refused=refused)
        if any(key.endswith("budget_us") for key in changed):
            self._set_budgets(new)
        self._config = self._config.model_copy(
            update={"log": new.log, "deadline": new.deadline, "client": new.client, "patch": new.patch}
            if not refused else {}
        )  # fmt: skip

    def _set_budgets(self, new: Config) -> None:
        """Those of a configuration; where none of them changed, what control has set stays."""
        budgets = {p.id: p.budget_us or new.deadline.budget_us for p in new.patch}
        for block in self.blocks():
            for row, patch_id in enumerate(block.patch_ids.tolist()):
                block.patches[row]["budget_ns"] = round(1000 * budgets.get(patch_id, self._budget_us(patch_id)))

    def _budget_us(self, patch_id: int) -> float:
        own = next(patch.budget_us for patch in self._config.patch if patch.id == patch_id)
        return own or self._config.deadline.budget_us

    # End.

    def _ask_stop(self) -> None:
        """The first signal drains, the second one stops at once."""
        if self._stop_asked.is_set():
            self._hurry.set()
        self._stop_asked.set()

    async def _drain_and_end(self) -> ExitCode:
        # The service manager's own patience may be shorter than [service] drain_s.
        notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(1e6 * (self._config.service.drain_s + _END_S))}")
        self.state = "draining"
        self._write()
        await self._cancel_tasks()
        drain_s = self._config.service.drain_s
        drains = [asyncio.create_task(lane.drain(drain_s)) for lane in self._lanes]
        hurry = asyncio.create_task(self._hurry.wait())
        while not self._hurry.is_set() and not all(drain.done() for drain in drains):
            await asyncio.wait({hurry, *drains}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not all(drain.done() and drain.result() for drain in drains):
            self._log.warning("shots_cut_off", reason="they had not ended when the daemon did", drain_s=drain_s)
        for drain in drains:
            drain.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
        code = await self._end()
        announce_end(self._config, self.blocks())
        return code

    async def _end(self) -> ExitCode:
        """End whatever runs; the worst of what the lanes say."""
        await self._cancel_tasks()
        codes = await asyncio.gather(*(lane.stop() for lane in self._lanes))
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)
        self.state = "stopped"
        self._write()
        return max(codes, default=ExitCode.OK)

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._server is not None:
            self._server.close()
            self._server = None


def _take_runtime_dir(config: Config) -> Any:
    """Make the folder, and be the only daemon of this name in it.

    Raises:
        ConfigError: Another one runs, or nothing can be written there.
    """
    try:
        make_folder(config.runtime_dir)
        return lock_beside(service_path(config))
    except OSError as error:
        raise ConfigError(
            "[service] runtime_dir", f"is {config.service.runtime_dir!r}, but cannot be written there: "
            f"{error.strerror}.", "The daemon describes itself there, and two of one name would overwrite each other.",
            "Stop the other daemon, or give this one another [service] name or runtime_dir that its user may write.",
        ) from error  # fmt: skip
