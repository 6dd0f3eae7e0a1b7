"""Scores on disk and their intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from twofold import files, results
from twofold.records import Score


def test_scores_survive_the_disk(tmp_path: Path) -> None:
    score = Score("top1", 0.5, "test", 10, (0, 1), 0.4, 0.6, {"head": "ridge"})
    results.append(tmp_path, [score])
    results.append(tmp_path, [score])
    assert results.read(tmp_path) == [score, score]


def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    files.append_lines(path, [{"a": 1}])
    with path.open("a") as file:
        file.write('{"a": 2')
    assert files.read_lines(path) == [{"a": 1}]
    files.append_lines(path, [{"a": 3}])
    assert files.read_lines(path) == [{"a": 1}, {"a": 3}]


def test_interval_covers_what_it_should() -> None:
    """A 95 % interval holds the true share in about 95 of 100 experiments."""
    chance = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        low, high = results.bootstrap_interval(chance.random(200) < 0.7, seed=seed)
        hits += low <= 0.7 <= high
    assert 88 <= hits <= 100


def test_interval_grows_with_the_spread_over_seeds() -> None:
    same = np.tile(np.arange(100) < 80, (3, 1))
    apart = np.stack([np.arange(100) < k for k in (60, 80, 100)])
    widths = [np.diff(results.bootstrap_interval(v))[0] for v in (same, apart)]
    assert widths[1] > 1.5 * widths[0]


def test_replacing_leaves_nothing_half_done(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    try:
        with files.replacing(path) as temporary:
            temporary.write_text("new")
            raise RuntimeError
    except RuntimeError:
        pass
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
