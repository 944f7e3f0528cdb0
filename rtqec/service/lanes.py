"""One lane as the supervisor keeps it: started, watched, and brought back when it dies or falls silent.

    starting -> ready -> restarting -> ready -> .. -> stopped

A lane beats also when it is idle (`INGEST_BEAT` and `PATH_BEAT` in its telemetry block). One whose beats stand still
for `[service] lane_timeout_ms` is killed. Either way its place is taken by a fork of the process that stands by, or,
without one, by a new process.

A new plan is prepared by another process that stands by; a fork of it takes the path over (`Lane.inherit`), while the
lane goes on to receive and to send. From then on the lane is two processes: if either dies, both are replaced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rtqec.config import ClientTable, Config
from rtqec.errors import ExitCode, RtqecError
from rtqec.kernels.records import INGEST_BEAT, PATH_BEAT
from rtqec.log import get_logger
from rtqec.service.processes import Begun, Standby
from rtqec.telemetry import TelemetryBlock, telemetry_path

LOOK_S = 0.1
"""How often beats are looked at: as often as an idle lane beats."""
RESTARTS_AT_ONCE = 10
RESTART_EVERY_S = 6.0
"""So many restarts are free, and one more each time: a lane that dies of every round does not eat the machine."""
_KILL_TIMEOUT_S = 10.0


class SwapRefusedError(RtqecError):
    """A plan that cannot take over from the one that runs."""

    exit_code = ExitCode.CONFIG


class LaneKeeper:
    """One lane.

    Args:
        deployment: The whole configuration.
        index: The lane's number.
        patch_ids: What it carries.
        on_change: Called after every change of `state`, with what happened.

    Attributes:
        config: The deployment's, narrowed to the lane.
        state: See above.
        restarts: So far.
        patches: What the lane says of its patches; see `Lane.describe`.
        telemetry: Its block, writable; from the first `ready` on.
    """

    def __init__(
        self, deployment: Config, index: int, patch_ids: list[int],
        on_change: Callable[[LaneKeeper, str, dict[str, Any]], None],
    ) -> None:  # fmt: skip
        self._deployment, self._index, self._patch_ids = deployment, index, patch_ids
        self.config = deployment.of_lane(index, patch_ids)
        self.name = self.config.lane_name
        self.state = "starting"
        self.restarts = 0
        self.patches: list[dict[str, Any]] = []
        self.telemetry: TelemetryBlock
        self.log_level: str = deployment.log.level
        self._clients = deployment.client
        self._on_change = on_change
        self._log = get_logger().bind(lane=self.name)
        self._standby: Standby | None = None
        self._begun: list[Begun] = []
        self._started: list[float] = []
        self._ticket = 0
        self._stopping = False

    @property
    def pid(self) -> int:
        """Of the process that receives; 0 where there is none."""
        return self._begun[0].pid if self._begun else 0

    @property
    def path_pid(self) -> int:
        """Of the process that decodes: the same, unless another one has taken the path over."""
        return self._begun[-1].pid if self._begun else 0

    async def start(self) -> None:
        """Bring it up for the first time.

        Raises:
            RtqecError: It cannot work.
        """
        self._standby = await self._prepare(self._deployment)
        self.patches = self._standby.patches
        await self._standby.begin(self._start_order(), self._begun)
        self._started.append(time.monotonic())
        self.telemetry = TelemetryBlock.attach(telemetry_path(self.config), control=True)
        self._change("ready", "lane_ready", pid=self.pid)

    async def watch(self) -> None:
        """Bring it back whenever it dies, until `stop`."""
        while not self._stopping:
            reason = await self._until_death()
            await self._clear()
            self._change("restarting", "lane_died", reason=reason, restarts=self.restarts)
            while not self._stopping:
                await self._wait_for_turn()
                try:
                    await self._bring_back()
                    break
                except (RtqecError, TimeoutError, OSError) as error:
                    self._log.error("lane_restart_failed", reason=str(error) or "no answer in time")

    async def swap(self, deployment: Config) -> list[dict[str, int]]:
        """Let other plans of the same rounds take over, between two windows.

        Args:
            deployment: As it is, with the new plans.

        Returns:
            Of each patch: the first shot and round, and the window index, that the new plan decodes.

        Raises:
            RtqecError: They do not fit, or cannot work; the lane goes on as it was.
        """
        assert self._standby is not None
        heir = await self._prepare(deployment, goes_on=True, takes_over=self._standby)
        try:
            if self.state != "ready":
                raise SwapRefusedError(f"{self.name} is {self.state}; ask again when it is ready.")
            before = self._begun[-1]
            tags = [[patch["id"], int(patch["plan_tag"], 16)] for patch in heir.patches]
            self._begun[0].order({"do": "accept_tags", "tags": tags})
            self._ticket += 1
            begun = await heir.begin({"do": "inherit", "ticket": self._ticket}, self._begun)
        except BaseException:
            heir.end()
            raise
        self._standby.end()
        if before is not self._begun[0]:  # An heir before this one; it has ended by itself.
            self._begun.remove(before)
            before.inbox.close()
        self._standby, self.patches = heir, heir.patches
        self._deployment, self.config = deployment, deployment.of_lane(self._index, self._patch_ids)
        self._change("ready", "plan_swapped", pid=begun.pid)
        places: list[dict[str, int]] = begun.first["places"]
        return places

    def order(self, message: dict[str, Any]) -> None:
        """Tell the lane's processes something."""
        for begun in self._begun:
            begun.order(message)

    def admit_only(self, clients: list[ClientTable]) -> None:
        """Let in only these from now on, also when it comes back."""
        self._clients = clients
        self.order(self._start_order() | {"do": "admit_only"})

    def _start_order(self) -> dict[str, Any]:
        return {"do": "start", "clients": [client.model_dump(mode="json") for client in self._clients]}

    async def drain(self, timeout_s: float) -> bool:
        """Let its shots end; False where some had not by then. `watch` must have ended."""
        self._stopping = True
        if self.state != "ready":
            return True
        self._begun[0].order({"do": "drain"})
        return await self._hear("drained", timeout_s) is not None

    async def stop(self) -> ExitCode:
        """End it: what has closed is carried, open shots end; then its processes. `watch` must have ended."""
        self._stopping = True
        code = ExitCode.OK
        if self.state == "ready" and self._begun:
            self.order({"do": "stop"})
            message = await self._hear("stopped", _KILL_TIMEOUT_S)
            if message is None or message["event"] == "failed":
                code = ExitCode.FAULT
                reason = message["message"] if message else "it did not stop in time, or died"
                self._log.error("lane_failed", reason=reason)
        await self._clear()
        if self._standby is not None:
            self._standby.end()
            self._standby = None
        self._change("stopped", "lane_gone")
        return code

    async def _prepare(self, deployment: Config, goes_on: bool = False, takes_over: Standby | None = None) -> Standby:
        return await Standby.prepare(
            deployment, self._index, self._patch_ids, self.log_level, goes_on=goes_on, takes_over=takes_over
        )

    def _change(self, state: str, event: str, **details: Any) -> None:
        self.state = state
        self._on_change(self, event, details)

    async def _bring_back(self) -> None:
        if self._standby is None or not self._standby.usable:
            if self._standby is not None:
                self._standby.end()
                self._standby = None
            self._standby = await self._prepare(self._deployment, goes_on=True)
        await self._standby.begin(self._start_order(), self._begun)
        self._started.append(time.monotonic())
        self._ticket = 0
        self.restarts += 1
        self._change("ready", "lane_back", pid=self.pid, restarts=self.restarts)

    async def _wait_for_turn(self) -> None:
        """Keep restarts below their rate."""
        self._started = [at for at in self._started if time.monotonic() - at < RESTARTS_AT_ONCE * RESTART_EVERY_S]
        if len(self._started) > RESTARTS_AT_ONCE:
            self._log.error("lane_restarts_too_often", restarts=len(self._started), wait_s=RESTART_EVERY_S)
            await asyncio.sleep(RESTART_EVERY_S)

    async def _until_death(self) -> str:
        """Watch what the processes say, and their beats; why the lane is dead."""
        seen, silent_looks = (-1, -1), 0
        while True:
            for begun in [begun for begun in self._begun if begun.pid]:
                with suppress(TimeoutError):
                    message = await begun.inbox.next(LOOK_S / len(self._begun))
                    if message is None and begun in self._begun:
                        return await self._standby.how_it_died() if self._standby is not None else "died"
                    if message is not None and message["event"] == "failed":
                        self._log.error("lane_failed", reason=message["message"])
            beats = int(self.telemetry.control[INGEST_BEAT]), int(self.telemetry.control[PATH_BEAT])
            silent_looks = silent_looks + 1 if beats[0] == seen[0] or beats[1] == seen[1] else 0
            seen = beats
            # Looks, not seconds: a supervisor that was itself held up must not blame its lanes.
            if 1000 * silent_looks * LOOK_S >= self.config.service.lane_timeout_ms and not self._stopping:
                return "silent"

    async def _clear(self) -> None:
        """Kill what is left of the lane, and wait until the kernel has freed what it held."""
        for begun in self._begun:
            begun.kill()
        for begun in self._begun:
            with suppress(TimeoutError):
                while await begun.inbox.next(_KILL_TIMEOUT_S) is not None:
                    pass
            begun.inbox.close()
        self._begun.clear()

    async def _hear(self, event: str, timeout_s: float) -> dict[str, Any] | None:
        """Wait until the process that receives says something; None where it does not in time, or dies."""
        give_up = time.monotonic() + timeout_s
        while self._begun:
            try:
                message = await self._begun[0].inbox.next(max(give_up - time.monotonic(), 0.001))
            except TimeoutError:
                return None
            if message is None or message["event"] in (event, "failed"):
                return message
        return None
