"""A training that cannot work is refused before it starts, in words that name key, value, reason and remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from rtqec.errors import ConfigError, ExitCode
from rtqec.training.config import PointTable, SourceTable, TrainConfig, VolumeTable, load_train_config

CONFIGS = Path(__file__).parents[2] / "configs"
TRAININGS = sorted(CONFIGS.glob("train_*.toml"))
GOOD = """
[[volume]]
generated = "surface_code:rotated_memory_z"
distance = 5
rounds = 6
noise = 0.006

[training]
shots = 1000

[output]
folder = "out"
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


def test_the_smallest_file_loads_with_stated_defaults(good: Path) -> None:
    """What a file does not say has the documented default; without points, volumes are judged."""
    config = load_train_config(good)
    assert config.training.learning_rate == 3e-3
    assert config.evaluation.thresholds == (0, 0.5, 1, 1.5, 2, 2.5, 3)
    assert config.points == config.volume
    assert config.output.name == "model"
    assert load_train_config(good, ["training.seed=9", "output.name=other"]).training.seed == 9


# --set pair: key that the message must name, words of the finding or the bound.
WRONG = {
    "training.shot=3": ("[training] shot", "no key or table has that name"),
    "trainig.shots=3": ("[trainig]", "no key or table has that name"),
    "training.shots=0": ("[training] shots", "is 0", "greater than 0"),
    "training.hours=1": ("[training]", "exactly one of shots or hours"),
    "training.learning_rate=2": ("[training] learning_rate", "is 2", "less than or equal to 1"),
    "training.precision=fp8": ("[training] precision", "'fp8'", "'bf16'"),
    "training.batch_cells=1.5": ("[training] batch_cells", "1.5", "valid integer"),
    "network.channels=2": ("[network] channels", "is 2", "greater than or equal to 4"),
    "network.time_kernels=[3, 2]": ("[network] time_kernels", "is 2", "1, 3, 5 or 7"),
    "evaluation.thresholds=[1.0, 1.0]": ("[evaluation]", "thresholds must grow"),
    "output.name=a/b": ("[output] name", "'a/b'", "pattern"),
    "output.colour=red": ("[output] colour", "'red'"),
}


@pytest.mark.parametrize("override", WRONG)
def test_wrong_values_are_refused(good: Path, override: str) -> None:
    """A value out of bounds is refused with key, value, bound, reason, and where every key is explained."""
    with pytest.raises(ConfigError) as refused:
        load_train_config(good, [override])
    assert refused.value.exit_code is ExitCode.CONFIG
    for word in (*WRONG[override], "configs/train_reference.toml"):
        assert word in str(refused.value)
    assert "daemon" not in str(refused.value)


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ("", "exactly one of generated"),
        ('circuit = "a.stim"\ndem = "a.dem"', "exactly one of generated"),
        ('generated = "surface_code:rotated_memory_z"\ndistance = 5', "distance, rounds and noise"),
        ('dem = "a.dem"\ndistance = 5', "the file says both"),
        ('dem = "a.dem"\nweight = 0.0', "greater than 0"),
    ],
)
def test_a_volume_has_one_source(tmp_path: Path, volume: str, words: str) -> None:
    """An experiment is generated, a circuit or an error model, with the keys that belong to it."""
    path = tmp_path / "bad.toml"
    path.write_text(f'[[volume]]\n{volume}\n[training]\nshots = 5\n[output]\nfolder = "out"\n')
    with pytest.raises(ConfigError, match=words):
        load_train_config(path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, good: Path) -> None:
    """A missing file, text that is no TOML, and a table that is missing are refused by name."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_train_config(tmp_path / "absent.toml")
    good.write_text("[[volume")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_train_config(good)
    good.write_text('[training]\nshots = 5\n[output]\nfolder = "out"\n')
    with pytest.raises(ConfigError, match=r"\[volume\] is missing"):
        load_train_config(good)


def test_named_files_are_relative_to_the_configuration(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is looked for beside the configuration, with variables replaced; what is not there is refused by key."""
    config = load_train_config(good)
    monkeypatch.setenv("RTQEC_TEST_DEM", "device.dem")
    with pytest.raises(ConfigError, match=r"\[\[volume\]\] dem") as refused:
        config.path("[[volume]] dem", "${RTQEC_TEST_DEM}")
    assert str(good.parent / "device.dem") in str(refused.value)
    (good.parent / "device.dem").write_text("")
    assert config.path("[[volume]] dem", "${RTQEC_TEST_DEM}") == good.parent / "device.dem"


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_every_training_loads(path: Path) -> None:
    """Every configs/train_*.toml is a valid training, and says what it is for in its first line."""
    assert load_train_config(path).volume
    assert path.read_text().startswith("# ")


def test_the_reference_has_every_key() -> None:
    """Every key of every table stands in configs/train_reference.toml, live or commented out."""
    text = (CONFIGS / "train_reference.toml").read_text()
    tables: dict[str, type[BaseModel]] = {"volume": VolumeTable, "point": PointTable}
    for name, field in TrainConfig.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                tables[name] = kind
    assert set(tables) == {"network", "volume", "training", "evaluation", "point", "output"}
    for name, table in tables.items():
        assert re.search(rf"^\[+{name}\]+", text, re.MULTILINE), name
        for key in table.model_fields:
            assert re.search(rf"^#? ?{key} =", text, re.MULTILINE), f"[{name}] {key}"
    assert set(SourceTable.model_fields) < set(VolumeTable.model_fields)
