"""The README's commands run as they stand, in order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twofold import cli
from twofold.datasets import base as datasets

README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
LEFT_OUT = ("twofold demo",)  # run by test_demo.py, at a smaller size
SMALLER = {"--images 300000 --size 64": "--images 512 --size 8 --widths 16,16"}  # what takes hours on real photographs


def commands() -> list[str]:
    shell = "".join(body for kind, body in BLOCKS if kind == "sh").replace("\\\n", " ")
    for large, small in SMALLER.items():
        assert large in shell
        shell = shell.replace(large, small)
    return [line for line in shell.splitlines() if line.startswith("twofold ")]


def photographs(folder: Path) -> None:
    """What a user has: one folder a class."""
    rows = datasets.load("digits").build("train")
    for label in range(3):
        for k in np.flatnonzero(rows.labels == label)[:24]:
            path = folder / "train" / f"class{label}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rows.read([int(k)])[0, 0].numpy()).save(path)


def test_every_verb_has_an_example() -> None:
    shown = {line.split()[1] for line in commands()}
    assert shown == set(cli.verbs())


@pytest.mark.slow
def test_commands_and_python_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "photos")
    for line in commands():
        if not line.startswith(LEFT_OUT):
            code, _, err = command(*shlex.split(line, comments=True)[1:])
            assert code == 0, f"{line}\n{err}"
    for kind, body in BLOCKS:
        if kind == "python":
            exec(compile(body, str(README), "exec"), {})


def test_make_targets_exist() -> None:
    makefile = README.with_name("Makefile").read_text()
    for target in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_pictures_and_links_exist() -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (README.parent / path).exists(), path
