"""Settings: one set of rules for flags, files and callers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from twofold import cli, registry, settings
from twofold.errors import BadSetting, UnknownName, UserError
from twofold.settings import Settings, setting


@dataclass(frozen=True)
class Config(Settings):
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


@pytest.mark.parametrize(
    ("verb", "values", "says"),
    [
        ("sample", {"num": 0}, "sample --num must be at least 1, not 0"),
        ("sample", {"sampler": "foo"}, "'foo'.*There is: ddim, ddpm"),
        ("sample", {"num": None}, "--num must be a whole number, not None"),
        ("sample", {"num": True}, "--num must be a whole number, not True"),
        ("sample", {"model": None}, "--model must be text"),
        ("sample", {"model": ["a", "b"]}, "--model must be text"),
        ("sample", {"out": ""}, "sample --out must be a path, not ''"),
        ("sample", {"out": 5}, "sample --out must be a path, not 5"),
        ("extract", {"seed": -1}, "extract --seed must be at least 0"),
        ("extract", {"split": ("trian",)}, "Did you mean 'train'"),
        ("extract", {"pool": ()}, "extract --pool must be a whole number"),
        ("extract", {"precision": "fp8"}, "'fp8'"),
        ("select", {"trials": 0}, "select --trials must be at least 1"),
        ("probe", {"controls": ("pixel",)}, "Did you mean 'pixels'"),
        ("probe", {"t": "soon"}, "probe --t must be a number, or several with commas between, not 'soon'"),
        ("pretrain", {"lr": float("nan")}, "pretrain --lr must be at least 0"),
        ("report", {"runs": ()}, "report needs RUNS"),
    ],
)
def test_python_callers_are_checked_by_the_same_rules(verb: str, values: dict[str, object], says: str) -> None:
    config = registry.find("steps", verb).Config
    needed = {f.name: "x" for f in dataclasses.fields(config) if f.default is dataclasses.MISSING}
    with pytest.raises(UserError, match=says):
        config(**{**needed, **values})
    # A changed copy is checked as well.
    with pytest.raises(UserError, match=says):
        dataclasses.replace(config(**needed), **values)


def test_python_callers_may_give_text_paths_and_numbers_of_numpy() -> None:
    made = Config("digits", np.int64(8), [90, np.float32(0.5)], out="y", deep=True)  # type: ignore[arg-type]
    assert made == Config("digits", 8, (90.0, 0.5), out=Path("y"), deep=True)
    assert type(made.batch) is int and isinstance(made.out, Path)
    assert Config(Path("a/b")).data == "a/b"  # type: ignore[arg-type]


def test_the_settings_of_every_verb_check_themselves() -> None:
    for verb, room in cli.verbs().items():
        assert issubclass(registry.find(room, verb).Config, Settings)


def test_a_list_says_each_value_once_unless_repeating_means_something() -> None:
    @dataclass(frozen=True)
    class Lists(Settings):
        t: tuple[float, ...] = setting((1.0,), help="steps")
        widths: tuple[int, ...] = setting((8,), help="widths", repeats=True)

    assert settings.build(Lists, {"t": "5,1,5.0", "widths": "8,8"}, "verb") == Lists((5.0, 1.0), (8, 8))
    assert Lists((5.0, 1.0, 5.0)).t == (5.0, 1.0)


@pytest.mark.parametrize(
    ("verb", "name", "mixed", "alone"),
    [
        ("extract", "blocks", ("all", "mid"), ("all", "all")),
        ("select", "blocks", "1,all", "all"),
        ("probe", "controls", "none,pixels", "none"),
    ],
)
def test_a_word_for_all_or_nothing_stands_alone(verb: str, name: str, mixed: object, alone: object) -> None:
    config = registry.find("steps", verb).Config
    needed = {f.name: "x" for f in dataclasses.fields(config) if f.default is dataclasses.MISSING}
    with pytest.raises(BadSetting, match=f"{verb} --{name} (all|none) stands alone"):
        config(**needed, **{name: mixed})
    assert len(getattr(config(**needed, **{name: alone}), name)) == 1


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
