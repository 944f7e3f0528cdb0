"""A whole file: what must hold between its tables, and how it is read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from rtqec.config.decoder_file import DECODER_FILE_SUFFIXES, tables_of_decoder_file
from rtqec.config.decoding import (
    DeadlineTable,
    FeedTable,
    LadderTable,
    LaneTable,
    PatchTable,
    PlanTable,
    PredecodeTable,
    PublishTable,
    VerifyTable,
    WindowTable,
)
from rtqec.config.listen import ListenTable
from rtqec.config.service import (
    AuditTable,
    ClientTable,
    ControlTable,
    CoresTable,
    LogTable,
    MetricsTable,
    SecurityTable,
    ServiceTable,
)
from rtqec.config.simulator import FaultTable, PaceTable, SinkTable, SourceTable
from rtqec.config.table import Table, completed, expand_variables, read_toml, validated
from rtqec.cudaq.frames import PORT_MAX
from rtqec.errors import ConfigError

LANE_PLACE = "{lane}"
"""In `[feed]` and `[publish]` endpoint: replaced by the number of the lane."""


class Config(Table):
    """A whole file."""

    plan: PlanTable
    window: WindowTable
    feed: FeedTable
    publish: PublishTable
    listen: ListenTable = ListenTable()
    deadline: DeadlineTable = DeadlineTable()
    ladder: LadderTable = LadderTable()
    predecode: PredecodeTable = PredecodeTable()
    control: ControlTable = ControlTable()
    metrics: MetricsTable = MetricsTable()
    service: ServiceTable = ServiceTable()
    lane: LaneTable = LaneTable()
    cores: CoresTable = CoresTable()
    security: SecurityTable = SecurityTable()
    audit: AuditTable = AuditTable()
    log: LogTable = LogTable()
    verify: VerifyTable = VerifyTable()
    source: SourceTable = SourceTable()
    pace: PaceTable = PaceTable()
    sink: SinkTable = SinkTable()
    fault: list[FaultTable] = []
    patch: Annotated[list[PatchTable], Field(min_length=1)] = [PatchTable(id=0)]
    client: list[ClientTable] = []
    folder: str = Field(default=".", exclude=True)
    lane_index: int = Field(default=0, exclude=True)
    """Of a configuration that `of_lane` has narrowed to one lane."""

    @model_validator(mode="after")
    def _measurements_can_be_folded(self) -> Config:
        folded = not (self.plan.generated is None and self.plan.circuit is None and self.plan.cudaq is None)
        if self.feed.payload == "measurements" and not folded:
            raise ValueError(
                '[feed] payload = "measurements" needs [plan] circuit or generated: a DEM alone does not say which '
                'measurements make a detector; set payload = "detection_events"'
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_endpoints_beside_a_listener(cls, tables: Any) -> Any:
        """Where CUDA-Q programs send and ask, there are none; else they have no default."""
        listen = tables.get("listen") if isinstance(tables, dict) else None
        if not isinstance(listen, dict) or listen.get("cudaq") is None:
            return tables
        found = {name: tables.get(name, {}) for name in ("feed", "publish")}
        return tables | {name: {"endpoint": ""} | table for name, table in found.items() if isinstance(table, dict)}

    @model_validator(mode="after")
    def _cudaq_can_be_served(self) -> Config:
        cudaq = self.listen.cudaq
        if cudaq is None:
            return self
        for key, endpoint in (("[feed]", self.feed.endpoint), ("[publish]", self.publish.endpoint)):
            if endpoint:
                raise ValueError(
                    f"{key} endpoint is {endpoint!r}, but with [listen.cudaq] rounds come, and corrections go, by UDP; "
                    "remove one of the two"
                )
        if self.feed.payload != "measurements":
            raise ValueError(
                f'[listen.cudaq] needs [feed] payload = "measurements", found "{self.feed.payload}": CUDA-Q sends what '
                "was measured"
            )
        highest = max(patch.id for patch in self.patch)
        if cudaq.port_of(highest) > PORT_MAX:
            raise ValueError(
                f"[listen.cudaq] port is {cudaq.port}, and patch {highest} would have {cudaq.port_of(highest)}; the "
                f"last port is {PORT_MAX}"
            )
        if not cudaq.port and not self.service.standby:
            raise ValueError(
                "[listen.cudaq] port is 0, but [service] standby is false: a lane that is brought back would have "
                "another port; set a port, or standby = true"
            )
        return self

    @model_validator(mode="after")
    def _patches_differ(self) -> Config:
        ids = [patch.id for patch in self.patch]
        if len(set(ids)) != len(ids):
            raise ValueError(f"[[patch]] id must differ from patch to patch, found {ids}")
        return self

    @model_validator(mode="after")
    def _lanes_fit(self) -> Config:
        for key, endpoint in (("[feed]", self.feed.endpoint), ("[publish]", self.publish.endpoint)):
            if self.lane.count > 1 and self.listen.cudaq is None and LANE_PLACE not in endpoint:
                raise ValueError(
                    f"{key} endpoint is {endpoint!r}, but [lane] count is {self.lane.count}, and each lane needs an "
                    f"endpoint of its own: write {LANE_PLACE} where the number of the lane belongs"
                )
        for patch in self.patch:
            if patch.lane is not None and patch.lane >= self.lane.count:
                raise ValueError(f"[[patch]] id = {patch.id} lane is {patch.lane}; [lane] count is {self.lane.count}")
        if self.lane.count > len(self.patch):
            raise ValueError(f"[lane] count is {self.lane.count}, but there are only {len(self.patch)} patches")
        if self.cores.lanes and len(self.cores.lanes) != self.lane.count:
            raise ValueError(
                f"[cores] lanes names cores of {len(self.cores.lanes)} lanes; [lane] count is {self.lane.count}"
            )
        return self

    @model_validator(mode="after")
    def _clients_differ(self) -> Config:
        for what in ("name", "public_key"):
            found = [getattr(client, what) for client in self.client]
            if len(set(found)) != len(found):
                raise ValueError(f"[[client]] {what} must differ from client to client, found {found}")
        known = {patch.id for patch in self.patch}
        for client in self.client:
            named = {p for rights in (client.feed, client.read, client.change) if rights != "all" for p in rights}
            if named - known:
                raise ValueError(f"[[client]] {client.name} names patches {sorted(named - known)}, which do not exist")
        return self

    @property
    def period_us(self) -> float:
        """The period at which the simulated controller sends."""
        return self.pace.period_us or self.feed.round_period_us

    def tables_of(self, patch: PatchTable) -> tuple[PlanTable, WindowTable]:
        """`[plan]` and `[window]` with the overrides of one patch."""
        where = f"[[patch]] id = {patch.id}"
        return (
            validated(PlanTable, self.plan.model_dump() | patch.plan, f"{where} plan"),
            validated(WindowTable, self.window.model_dump() | patch.window, f"{where} window"),
        )

    def path(self, key: str, value: str) -> Path:
        """A file or folder named in the configuration.

        Args:
            key: The key, as `[table] key`, for the message.
            value: As written: `${NAME}` and `${NAME:-default}` are replaced; relative to the file's own folder.

        Raises:
            ConfigError: A variable is not set, or nothing is there.
        """
        path = Path(self.folder) / expand_variables(key, value)
        if not path.exists():
            raise ConfigError(
                key, f"is {value!r}, but {path} does not exist.",
                "The plan and the recorded rounds are read from there.", "Correct the path, or restore the file.",
            )  # fmt: skip
        return path

    @property
    def runtime_dir(self) -> Path:
        """The folder of telemetry blocks, locks and the daemon's own description of itself."""
        return Path(expand_variables("[service] runtime_dir", self.service.runtime_dir))

    @property
    def state_dir(self) -> Path:
        """The folder of what outlives the daemon: the audit log."""
        return Path(expand_variables("[service] state_dir", self.service.state_dir))

    @property
    def cache_dir(self) -> Path:
        """Where built engines are kept."""
        return Path(expand_variables("[service] cache_dir", self.service.cache_dir))

    @property
    def lane_name(self) -> str:
        """What logs, metrics and files call the lane of a configuration that `of_lane` made."""
        return f"lane{self.lane_index}"

    def of_lane(self, index: int, patch_ids: Collection[int]) -> Config:
        """The configuration of one lane: its patches, its endpoints, and its number."""

        def endpoint(table: Any) -> Any:
            return table.model_copy(update={"endpoint": table.endpoint.replace(LANE_PLACE, str(index))})

        return self.model_copy(
            update={
                "feed": endpoint(self.feed),
                "publish": endpoint(self.publish),
                "patch": [patch for patch in self.patch if patch.id in patch_ids],
                "lane_index": index,
            }
        )


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read and check a configuration file.

    Args:
        path: The TOML file, or a decoder file of CUDA-Q (.yml, .yaml).
        overrides: `table.key=value` pairs; the value is TOML, or a bare string.

    Raises:
        ConfigError: The file is missing or cannot be read, a key is unknown, a value out of bounds.
    """
    path = Path(path)
    if path.suffix in DECODER_FILE_SUFFIXES:
        tables = tables_of_decoder_file(path)
    else:
        tables = read_toml(
            path, "Everything the daemon does is said there.", "configs/d5_memory_z.toml", "configs/reference.toml"
        )
    config = validated(Config, completed(tables, overrides, path), "")
    for patch in config.patch:
        config.tables_of(patch)
    return config


def with_faults(config: Config, faults: list[dict[str, Any]]) -> Config:
    """The configuration with further `[[fault]]` tables.

    Raises:
        ConfigError: A table has an unknown key, or a value out of bounds.
    """
    if not faults:
        return config
    tables = config.model_dump() | {"folder": config.folder}
    return validated(Config, tables | {"fault": [*tables["fault"], *faults]}, "")
