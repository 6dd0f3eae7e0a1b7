"""Heads of every kind through `twofold probe`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("heads", "pool", "says"),
    [
        ("attention,ridge", None, "attention reads maps, the other heads pooled rows"),
        ("attention", 2, "The head attention reads maps: give --pool 0"),
        ("ridge", 0, "The head ridge reads pooled rows: give --pool 1 or more"),
    ],
)
def test_heads_and_pools_that_do_not_fit_are_refused(
    heads: str, pool: int | None, says: str, tiny_run: Path, tmp_path: Path, command: Any
) -> None:
    where = ("--model", tiny_run, "--data", "digits", "--out", tmp_path / "probe", "--block", "mid", "--t", 30)
    given = () if pool is None else ("--pool", pool)
    code, _, err = command("probe", *where, "--head", heads, *given)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "probe").exists()


def test_heads_that_read_maps_beside_their_controls(tiny_run: Path, tmp_path: Path, command: Any) -> None:
    where = ("--model", tiny_run, "--data", "digits", "--out", tmp_path / "probe", "--block", "down.0.0", "--t", 30)
    short = "rate=0.003&decay=0.1&epochs=1&updates=30"
    heads = f"attention?{short},cnn?{short}&width=16"
    code, _, err = command("probe", *where, "--head", heads, "--shots", 10)
    assert code == 0, err
    scores = [json.loads(line) for line in (tmp_path / "probe" / "results.jsonl").read_text().splitlines()]
    rows = {(s["about"]["row"], s["about"]["head"]) for s in scores}
    assert rows == {(row, head) for row in (str(tiny_run), "pixels", "untrained") for head in heads.split(",")}
    assert {s["about"]["pool"] for s in scores} == {0}
    assert max(s["value"] for s in scores) > 0.2  # ten classes
