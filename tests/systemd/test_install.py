"""install-systemd writes units that name the right programs, loses nothing that was there, and says what it did."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from rtqec.config import load_config
from rtqec.errors import ConfigError
from rtqec.service.install import DROP_INS, UNITS_DIR, install_systemd

BIN = Path("/srv/venv/bin")
UNIT = UNITS_DIR / "rtqec@.service"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with programs in it."""
    programs = tmp_path / BIN.relative_to("/")
    programs.mkdir(parents=True)
    for name in ("rtqec", "firmware-sim"):
        (programs / name).write_text("#!/usr/bin/python3\n")
    return tmp_path


def written(root: Path) -> dict[str, str]:
    """Every file under etc, by its path."""
    return {str(path.relative_to(root)): path.read_text() for path in (root / "etc").rglob("*") if path.is_file()}


def test_an_installed_package_carries_the_files() -> None:
    """The wheel has the folder systemd/ where `install_systemd` looks for it."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"] == {"systemd": "rtqec/service/units"}


def test_it_writes_everything_and_says_so(root: Path) -> None:
    """Units, user, folders and a configuration; every file is named, and so are the next commands."""
    said = install_systemd(root, BIN, name="lab", drop_ins=["cores"])
    files = written(root)
    assert set(files) == {
        "etc/systemd/system/rtqec@.service", "etc/systemd/system/rtqec@.service.d/cores.conf",
        "etc/systemd/system/firmware-sim@.service", "etc/sysusers.d/rtqec.conf", "etc/tmpfiles.d/rtqec.conf",
        "etc/rtqec/lab.toml",
    }  # fmt: skip
    assert all(any(name in line for line in said) for name in files)
    for command in ("systemd-sysusers", "systemd-tmpfiles", "daemon-reload", "enable --now rtqec@lab", "disable"):
        assert any(command in line for line in said)
    assert "ExecStart=/srv/venv/bin/rtqec run /etc/rtqec/%i.toml" in files[str(UNIT)]
    assert "ExecStart=/srv/venv/bin/firmware-sim run" in files["etc/systemd/system/firmware-sim@.service"]
    assert not any("/opt/rtqec" in line for text in files.values() for line in text.splitlines() if line[0:1] != "#")


def test_the_configuration_works_for_its_name(root: Path) -> None:
    """What it writes as /etc/rtqec/NAME.toml is a valid configuration, with the folders of rtqec@NAME."""
    install_systemd(root, BIN, name="lab")
    config = load_config(root / "etc/rtqec/lab.toml")
    assert config.service.name == "lab"
    assert (str(config.runtime_dir), str(config.state_dir)) == ("/run/rtqec/lab", "/var/lib/rtqec/lab")
    assert config.feed.endpoint.startswith("ipc:///run/rtqec/lab/")
    assert "example" not in (root / "etc/rtqec/lab.toml").read_text()


def test_a_second_time_changes_nothing(root: Path) -> None:
    """The same call writes the same, and says that nothing changed; a configuration is never touched again."""
    install_systemd(root, BIN, drop_ins=DROP_INS)
    (root / "etc/rtqec/example.toml").write_text("# mine\n")
    before = written(root)
    said = install_systemd(root, BIN, drop_ins=DROP_INS)
    assert written(root) == before
    files = said[: said.index("")]
    assert [line.split()[0] for line in files] == ["unchanged"] * (len(files) - 1) + ["kept"]


def test_another_version_is_replaced(root: Path) -> None:
    """What this command wrote and nobody changed since makes way for what it writes now."""
    install_systemd(root, BIN)
    other = root / "srv/other/bin"
    other.mkdir(parents=True)
    for name in ("rtqec", "firmware-sim"):
        (other / name).write_text("#!/usr/bin/python3\n")
    said = install_systemd(root, Path("/srv/other/bin"))
    assert any(line.startswith("replaced") and line.endswith(str(UNIT)) for line in said)
    assert "/srv/other/bin/rtqec run" in (root / UNIT).read_text()


@pytest.mark.parametrize("change", ["# mine\n", "\n[Service]\nNice=5\n"])
def test_what_somebody_changed_is_not_lost(root: Path, change: str) -> None:
    """A changed file stops everything before anything is written; with force it is kept beside the new one."""
    install_systemd(root, BIN)
    (root / UNIT).write_text((root / UNIT).read_text() + change)
    before = written(root)
    with pytest.raises(ConfigError, match="changed since it was written") as refused:
        install_systemd(root, BIN, drop_ins=["gpu"])
    assert str(root / UNIT) in str(refused.value)
    assert "--force" in str(refused.value)
    assert written(root) == before
    said = install_systemd(root, BIN, force=True)
    assert any(line.startswith("forced") for line in said)
    assert (root / UNIT).with_name("rtqec@.service.old").read_text() == before[str(UNIT)]
    assert change not in (root / UNIT).read_text()


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("/home", ["/home", "ProtectHome=yes", "/opt/rtqec"]),
        ("/tmp", ["/tmp", "PrivateTmp=yes", "/opt/rtqec"]),
        ("/srv/nothing", ["/srv/nothing/venv/bin", "no rtqec"]),
        ("srv", ["srv/venv/bin", "absolute"]),
    ],
)
def test_programs_that_the_service_cannot_start_are_refused(root: Path, folder: str, words: list[str]) -> None:
    """The message names the folder, why the service cannot start from there, and where it could; nothing is written."""
    programs = Path(folder) / "venv/bin"
    if folder in ("/home", "/tmp"):
        there = root / programs.relative_to("/")
        there.mkdir(parents=True)
        for name in ("rtqec", "firmware-sim"):
            (there / name).write_text("#!/usr/bin/python3\n")
    with pytest.raises(ConfigError) as refused:
        install_systemd(root, programs)
    for word in ("--bin", *words):
        assert word in str(refused.value)
    assert not (root / "etc").exists()


def test_an_interpreter_out_of_sight_is_refused(root: Path) -> None:
    """A virtual environment may lie right and still lead to a Python in somebody's home."""
    interpreter = Path("/root", "pythons/3.11/bin/python3")
    (root / "srv/venv/bin/rtqec").write_text(f"#!{interpreter}\n")
    with pytest.raises(ConfigError, match=rf"{interpreter}.*hidden"):
        install_systemd(root, BIN)


def test_a_folder_that_not_everybody_may_enter_is_refused(tmp_path: Path) -> None:
    """The service runs as a user of its own."""
    closed = tmp_path / "closed"
    (closed / "bin").mkdir(parents=True)
    closed.chmod(0o700)
    for name in ("rtqec", "firmware-sim"):
        (closed / "bin" / name).write_text("#!/usr/bin/python3\n")
    with pytest.raises(ConfigError, match=r"may not be entered|hidden"):
        install_systemd(tmp_path / "root", closed / "bin")


@pytest.mark.parametrize(("arguments", "word"), [({"name": "a b"}, "--name"), ({"drop_ins": ["turbo"]}, "--drop-in")])
def test_names_are_checked(root: Path, arguments: dict[str, object], word: str) -> None:
    """A name that is no name of a unit, and a drop-in that does not exist, are refused with what there is."""
    with pytest.raises(ConfigError) as refused:
        install_systemd(root, BIN, **arguments)  # type: ignore[arg-type]
    assert word in str(refused.value)


def test_a_folder_that_cannot_be_written_is_refused(root: Path) -> None:
    """The message names the file, the reason and the remedy."""
    (root / "etc").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written") as refused:
        install_systemd(root, BIN)
    assert "as root" in str(refused.value)
