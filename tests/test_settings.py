"""Settings: one set of rules for flags, files and callers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from twofold import settings
from twofold.errors import BadSetting, UnknownName
from twofold.settings import setting


@dataclass(frozen=True)
class Config:
    data: str = setting(help="data set")
    batch: int = setting(64, help="images per update", least=1)
    t: tuple[float, ...] | None = setting(None, help="steps")
    kind: str = setting("ddim", help="kind", choices=("ddim", "ddpm"))
    out: Path = setting(Path("x"), help="folder", identity=False)
    deep: bool = setting(False, help="deep")


def test_text_becomes_values() -> None:
    made = settings.build(Config, {"data": "digits", "batch": "8", "t": "90,150", "out": "y"}, "verb")
    assert made == Config("digits", 8, (90.0, 150.0), "ddim", Path("y"))


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ({}, BadSetting, "verb needs --data"),
        ({"data": "d", "bach": 1}, UnknownName, "Did you mean 'batch'"),
        ({"data": "d", "batch": "many"}, BadSetting, "must be a whole number"),
        ({"data": "d", "batch": 0}, BadSetting, "at least 1"),
        ({"data": "d", "batch": 1.5}, BadSetting, "must be a whole number"),
        ({"data": "d", "batch": True}, BadSetting, "must be a whole number"),
        ({"data": "d", "t": "1,,2"}, BadSetting, "with commas between"),
        ({"data": "d", "t": "nan,x"}, BadSetting, "must be a number"),
        ({"data": "d", "kind": "dim"}, UnknownName, "Did you mean 'ddim'"),
        ({"data": "d", "deep": "yes"}, BadSetting, "true or false"),
    ],
)
def test_wrong_values_are_one_clear_line(values: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        settings.build(Config, values, "verb")


def test_mapping_and_back() -> None:
    made = Config("digits", t=(1.0,))
    assert settings.build(Config, settings.as_mapping(made), "verb") == made
    assert "out" not in settings.as_mapping(made, identity_only=True)


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("batch = 8\nt = [1, 2]\n")
    assert settings.read_file(file) == {"batch": 8, "t": [1, 2]}
    file.write_text("batch 8")
    with pytest.raises(BadSetting, match="not TOML"):
        settings.read_file(file)
    with pytest.raises(BadSetting, match="cannot be read"):
        settings.read_file(tmp_path / "none.toml")
