"""Dashboard, alert rules and documentation speak of the metrics that there are, and of all of them."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric

from rtqec.service.metrics import ServiceCollector, make_registry
from rtqec.service.reader import ServiceReader
from tests.fake_service import FakeService

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
RULES = (FOLDER / "alerts.yml").read_text()
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
NAME = re.compile(r"(?<![\w:])(?:rtqec|process)_[a-z_]+(?![\w:]*:)")
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$patch": ".*"}


@pytest.fixture
def service(tmp_path: Path) -> FakeService:
    service = FakeService(tmp_path, [0], [1])
    service.carry(0)
    return service


def families_of(service: FakeService) -> list[Metric]:
    return list(ServiceCollector(ServiceReader(service.config)).collect())


def exported(service: FakeService) -> set[str]:
    """Every name that a query may use."""
    text = generate_latest(make_registry(ServiceReader(service.config))).decode()
    return {re.split(r"[ {]", line)[0] for line in text.splitlines() if not line.startswith("#")}


def targets() -> list[str]:
    """Every query of the dashboard."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    found += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return found + [variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable]


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    return subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=False)


def test_dashboard_and_rules_use_metrics_that_exist(service: FakeService) -> None:
    """Every metric that the dashboard, the rules and the documentation name is exported."""
    names = exported(service)
    for text in (*targets(), RULES, DOCUMENT):
        unknown = set(NAME.findall(text)) - names - {name.rsplit("_", 1)[0] for name in names}
        assert unknown - {"process_"} == set(), text[:80]


def test_the_table_of_metrics_is_true(service: FakeService) -> None:
    """docs/metrics.md has every metric with its type, labels and meaning, in the order of the endpoint."""
    rows = []
    for family in families_of(service):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((f"`{name}`", family.type, labels, family.documentation))
    table = re.findall(r"^\| (`rtqec_\w+`) \| (\w+) \| (.*?) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    assert [(name, kind, set(filter(None, labels.split(", "))), text) for name, kind, labels, text in table] == rows


def test_the_table_of_alerts_is_true() -> None:
    """docs/metrics.md has every alert with its severity, in the order of the file."""
    rules = re.findall(r"- alert: (\w+)\n.*?labels: \{severity: (\w+)\}", RULES, re.DOTALL)
    assert re.findall(r"^\| `(Rtqec\w+)` \| (\w+) \| .+ \|$", DOCUMENT, re.MULTILINE) == rules
    assert len(rules) == RULES.count("- alert:")


def test_names_follow_the_conventions(service: FakeService) -> None:
    """One prefix; base units; a help text that is a sentence; no label that the names of series take."""
    for family in families_of(service):
        assert re.fullmatch(r"rtqec_[a-z]+(_[a-z]+)*", family.name), family.name
        assert not re.search(r"_(us|ms|ns|kib|mib|percent)(_|$)", family.name), family.name
        assert re.fullmatch(r"[A-Z0-9].*\.", family.documentation), family.name
        assert family.samples, family.name


def test_promtool_finds_nothing_wrong_with_the_metrics(service: FakeService) -> None:
    """`promtool check metrics` accepts the whole endpoint without a remark."""
    text = generate_latest(make_registry(ServiceReader(service.config))).decode()
    found = promtool("check", "metrics", text=text)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_rules_and_scrape_configuration_load() -> None:
    """`promtool check config` accepts prometheus.yml with the rules that it names."""
    found = promtool("check", "config", str(FOLDER / "prometheus.yml"))
    assert found.returncode == 0, found.stdout + found.stderr
    assert "rules found" in found.stdout


def test_every_query_of_the_dashboard_is_a_query(tmp_path: Path) -> None:
    """Prometheus can parse each of them, with any choice of instance and patch."""
    queries = [query for query in targets() if not query.startswith("label_values")]
    for variable, text in VARIABLES.items():
        queries = [query.replace(variable, text) for query in queries]
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.json"  # JSON is YAML.
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    found = promtool("check", "rules", str(path))
    assert found.returncode == 0, found.stdout + found.stderr


FAULTS: dict[str, dict[str, str]] = {
    "RtqecGone": {'up{job="rtqec"}': "0x20"},
    "RtqecNotReady": {"rtqec_ready": "0x20"},
    "RtqecLaneDown": {'rtqec_lane_up{lane="lane1"}': "0x20", "rtqec_ready": "1x20"},
    "RtqecLaneRestarted": {'rtqec_lane_restarts_total{lane="lane1"}': "0x10 1x10"},
    "RtqecLaneSilent": {'rtqec_lane_heartbeats_total{lane="lane1",thread="path"}': "7x20"},
    "RtqecMemoryGrows": {'rtqec_lane_resident_memory_bytes{lane="lane1"}': "0+1000000x600"},
    "RtqecPatchSilent": {'rtqec_rounds_total{patch="0"}': "5x20"},
    "RtqecLate": {
        'rtqec_corrections_late_total{patch="0"}': "0+2x40",
        'rtqec_corrections_total{patch="0",rung="match",reason="configured"}': "0+900x40",
        'rtqec_corrections_total{patch="0",rung="union_find",reason="deadline"}': "0+99x40",
    },
    "RtqecHeld": {'rtqec_rounds_held_total{patch="0"}': "0x15 5x5"},
    "RtqecGivenUp": {'rtqec_rounds_given_up_total{patch="0"}': "0x15 5x5"},
    "RtqecBacklog": {'rtqec_backlog_rounds{patch="0"}': "51x20", 'rtqec_backlog_bound_rounds{patch="0"}': "100x20"},
    "RtqecLossy": {'rtqec_corrections_lossy_total{patch="0"}': "0x15 1x5"},
    "RtqecMessagesDropped": {'rtqec_messages_dropped_total{patch="0",cause="late"}': "0x15 1x5"},
    "RtqecUnsent": {'rtqec_corrections_unsent_total{patch="0"}': "0x15 1x5"},
    "RtqecTainted": {'rtqec_frame_tainted{patch="0"}': "1x20"},
    "RtqecUnexplained": {'rtqec_windows_unexplained_total{patch="0"}': "0x15 1x5"},
    "RtqecDetectionFractionChanged": {
        'rtqec_detection_events_sampled_total{patch="0"}': "0+10x570 5700+20x40",
        'rtqec_detectors_sampled_total{patch="0"}': "0+1000x610",
    },
}
"""What makes each alert fire: series, as promtool writes them, by the minute."""
HEALTHY = {series: "0x600" for fault in FAULTS.values() for series in fault} | {
    'up{job="rtqec"}': "1x600",
    "rtqec_ready": "1x600",
    'rtqec_lane_up{lane="lane1"}': "1x600",
    'rtqec_lane_heartbeats_total{lane="lane1",thread="path"}': "0+600x600",
    'rtqec_rounds_total{patch="0"}': "0+6000000x600",
    'rtqec_corrections_late_total{patch="0"}': "0+10x600",
    'rtqec_corrections_total{patch="0",rung="match",reason="configured"}': "0+1000000x600",
    'rtqec_backlog_rounds{patch="0"}': "7x600",
    'rtqec_backlog_bound_rounds{patch="0"}': "100x600",
    'rtqec_detection_events_sampled_total{patch="0"}': "0+10x600",
    'rtqec_detectors_sampled_total{patch="0"}': "0+1000x600",
}


def alerts_that_fire(folder: Path, series: dict[str, str], name: str, minutes: int) -> bool:
    """Whether an alert fires after so many minutes."""
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": series_name, "values": values} for series_name, values in series.items()],
        "promql_expr_test": [
            {"expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})', "eval_time": f"{minutes}m",
             "exp_samples": [{"labels": "{}", "value": 1}]}
        ],
    }  # fmt: skip
    path = folder / f"{name}.json"
    rules = str(FOLDER / "alerts.yml")
    every = "15s" if minutes < 60 else "1m"
    path.write_text(json.dumps({"rule_files": [rules], "evaluation_interval": every, "tests": [test]}))
    found = promtool("test", "rules", str(path))
    assert "FAILED" in found.stdout + found.stderr or found.returncode == 0, found.stdout + found.stderr
    return found.returncode == 0


@pytest.mark.parametrize("name", re.findall(r"- alert: (\w+)", RULES))
def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path, name: str) -> None:
    """Each alert fires on its fault, and on a healthy daemon does not."""
    minutes = {"RtqecMemoryGrows": 500, "RtqecDetectionFractionChanged": 600}.get(name, 18)
    assert alerts_that_fire(tmp_path, FAULTS[name], name, minutes)
    assert not alerts_that_fire(tmp_path, HEALTHY, name, minutes)


def test_panels_do_not_overlap() -> None:
    """Every panel has an id of its own, a title, a data source that can be chosen, and a place of its own."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"
        assert panel["type"] == "row" or panel["targets"]
        assert len({target["refId"] for target in panel.get("targets", [])}) == len(panel.get("targets", []))
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


def test_the_dashboard_has_what_grafana_asks_for() -> None:
    """The fields that an import needs are there, and every variable that a query uses is defined."""
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time", "annotations"} <= DASHBOARD.keys()
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval", "__all"} <= defined | {"__rate_interval"}
