"""The configuration of one deployment: one TOML file, read once, frozen.

pydantic checks each key by itself; what only the circuit can tell (a buffer shorter than the distance, a time
coordinate that is none) is refused by `plan`. Both speak as `ConfigError`. `table` says how a table is read,
`decoding`, `service` and `simulator` what stands in each, `deployment` what must hold between them.
"""

from rtqec.config.decoding import (
    ENDLESS,
    DeadlineTable,
    FeedTable,
    HandOver,
    LadderTable,
    LaneTable,
    PatchTable,
    PlanTable,
    PredecodeTable,
    PublishTable,
    VerifyTable,
    WindowTable,
)
from rtqec.config.deployment import LANE_PLACE, Config, load_config, with_faults
from rtqec.config.listen import CudaqTable, ListenTable
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
from rtqec.config.simulator import BurstFault, DriftFault, FaultTable, PaceTable, RestartFault, SinkTable, SourceTable
from rtqec.config.table import Table, expand_variables, read_tables, validated

__all__ = [
    "ENDLESS", "LANE_PLACE", "AuditTable", "BurstFault", "ClientTable", "Config", "ControlTable", "CoresTable",
    "CudaqTable", "DeadlineTable", "DriftFault", "FaultTable", "FeedTable", "HandOver", "LadderTable", "LaneTable",
    "ListenTable", "LogTable", "MetricsTable", "PaceTable", "PatchTable", "PlanTable", "PredecodeTable",
    "PublishTable", "RestartFault", "SecurityTable", "ServiceTable", "SinkTable", "SourceTable", "Table",
    "VerifyTable", "WindowTable", "expand_variables", "load_config", "read_tables", "validated", "with_faults",
]  # fmt: skip
