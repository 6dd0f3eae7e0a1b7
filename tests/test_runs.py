"""Run folders: whose they are, and what they say when they are damaged."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from twofold import files, runs
from twofold.errors import BadRun
from twofold.steps import blocks

ONE, OTHER = (blocks.Config(model) for model in ("pixels:8", "pixels:16"))


def test_a_run_that_another_process_began_meanwhile_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins, and ends, between the first look at the folder and the lock."""
    locked = files.locked

    def late(path: Path, *, wait: bool = True) -> AbstractContextManager[None]:
        monkeypatch.setattr(files, "locked", locked)
        with runs.opened(tmp_path / "run", "blocks", OTHER) as run:
            run.finish({"made": "by another"})
        return locked(path, wait=wait)

    monkeypatch.setattr(files, "locked", late)
    with (
        pytest.raises(BadRun, match="model is pixels:16 there, pixels:8 here"),
        runs.opened(tmp_path / "run", "blocks", ONE) as run,
    ):
        run.finish({"made": "by this one"})
    with runs.opened(tmp_path / "run", "blocks", OTHER) as run:
        assert run.finished == {"made": "by another"}


def test_a_run_made_before_a_setting_existed_goes_on_with_its_default(tmp_path: Path) -> None:
    from twofold.steps import select

    config = select.Config("pixels:8", "digits", tmp_path / "run")
    with runs.opened(tmp_path / "run", "select", config):
        pass
    path = tmp_path / "run" / "config.toml"
    text = path.read_text()
    before = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("search ="))
    assert before != text
    path.write_text(before)
    with runs.opened(tmp_path / "run", "select", config):
        pass
    other = select.Config("pixels:8", "digits", tmp_path / "run", search="adaptive")
    with (
        pytest.raises(BadRun, match="search is grid there, adaptive here"),
        runs.opened(tmp_path / "run", "select", other),
    ):
        pass
