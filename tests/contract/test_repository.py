"""What the repository promises about itself."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import firmware_sim
import rtqec
from rtqec.config import load_config

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.toml") if not path.stem.startswith("train_"))
MODULES = sorted(
    module.name for package in (rtqec, firmware_sim)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)  # fmt: skip
# Put together here, so that this file does not find itself.
PRIVATE = ["/wo" + "rk/", "/tm" + "p/t", "/ro" + "ot/", "/ho" + "me/"]


def test_imports_point_one_way() -> None:
    """The layers of the design hold: import-linter finds no import against their direction."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert len(contracts) >= 6
    command = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_loads(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every file in configs/ is a valid configuration, and says what it is for in its first line."""
    monkeypatch.setenv("RTQEC_DATA", str(tmp_path))
    config = load_config(path)
    assert config.window.commit_rounds > 0
    assert path.read_text().startswith("# ")


def test_there_are_configurations() -> None:
    """The default configuration of the README and of `make demo` is there."""
    assert "d5_memory_z" in [path.stem for path in CONFIGS]


@pytest.mark.parametrize("name", ["rtqec", "firmware_sim", *MODULES])
def test_every_module_says_what_it_is(name: str) -> None:
    """Every module can be imported and opens with a docstring."""
    if name.startswith("rtqec.training."):
        pytest.importorskip("torch", reason="training needs the extra train")
    module = importlib.import_module(name)
    assert module.__doc__
    assert module.__doc__.strip()


def tracked_files() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    found = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in found.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_private_paths() -> None:
    """No tracked text file names a folder of the machine on which it was written."""
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {private}" for private in PRIVATE if private in text]
    assert found == []


def test_every_test_opens_with_its_invariant() -> None:
    """Every test function of this folder has a docstring."""
    without = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        tests = [function for function in functions if function.name.startswith("test_")]
        without += [f"{path.relative_to(ROOT)}: {test.name}" for test in tests if not ast.get_docstring(test)]
    assert without == []
