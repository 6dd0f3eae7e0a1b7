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
