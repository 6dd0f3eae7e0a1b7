"""`twofold select --search adaptive`: fewer forward passes, the same rules."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twofold import files, store
from twofold.datasets import base as datasets
from twofold.steps import _adaptive
from twofold.steps._adaptive import Halving, golden_section
from twofold.steps._judging import Judge
from twofold.steps._part import Part

SIGMAS = "0.01,0.02,0.04,0.08,0.15,0.3,0.6,1,2,4,8,16"
WHERE = ("--blocks", "1,mid,up.0.0", "--sigma", SIGMAS, "--pool", "1,2")


@pytest.fixture(scope="module")
def adaptive(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished adaptive search."""
    from twofold import cli

    out = tmp_path_factory.mktemp("adaptive") / "run"
    assert cli.run(select(tiny_run, out)) == 0
    return out


def select(run: Path, out: Path, *more: str) -> list[str]:
    where = ["select", "--model", str(run), "--data", "digits", "--out", str(out), *WHERE]
    return [*where, "--search", "adaptive", "--quiet", *more]


def test_a_quarter_of_the_passes_is_enough(adaptive: Path) -> None:
    facts = json.loads((adaptive / "finished.json").read_text())
    assert facts["grid_passes"] == 12 * (1078 + 269)
    assert 0 < facts["passes"] <= facts["grid_passes"] / 4
    # The passes that are told are those whose features are stored.
    rows = 0
    stores = sorted(adaptive.glob("features*"))
    assert len(stores) == 2
    for folder in stores:
        opened = store.load(folder)
        for split in opened.splits():
            rows += len(opened.labels(split)) * len({cell.tap.t for cell in opened.cells(split)})
    assert rows == facts["passes"] and not (adaptive / "features" / "test").exists()
    judged = files.read_lines(adaptive / "map.jsonl")
    assert facts["cells"] == len(judged) < facts["of"] == 72
    assert facts["accuracy"] == max(r["accuracy"] for r in judged) and {r["n"] for r in judged} == {269}
    assert (adaptive / "map.png").stat().st_size > 1000


def test_it_judges_whole_steps_as_the_grid_does(adaptive: Path, tiny_run: Path, tmp_path: Path, command: Any) -> None:
    judged = files.read_lines(adaptive / "map.jsonl")
    (t, *_) = {r["t"] for r in judged}
    blocks = ",".join(sorted({str(r["block"]) for r in judged if r["t"] == t}))
    arguments = ("select", "--model", tiny_run, "--data", "digits", "--out", tmp_path / "grid", "--blocks", blocks)
    assert command(*arguments, "--t", t, "--pool", "1,2", "--quiet")[0] == 0
    grid = {r["cell"]: r for r in files.read_lines(tmp_path / "grid" / "map.jsonl")}
    for record in judged:
        if record["t"] == t:
            assert grid[record["cell"]] == pytest.approx(record)


def test_the_same_seed_chooses_the_same_and_a_killed_search_goes_on(
    adaptive: Path, tiny_run: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = shutil.copytree(adaptive, tmp_path / "run")
    for name in ("finished.json", "choice.json", "results.jsonl", "map.jsonl", "map.png"):
        (stopped / name).unlink()
    lines = (stopped / "looks.jsonl").read_text().splitlines(keepends=True)
    (stopped / "looks.jsonl").write_text("".join(lines[:-3]) + lines[-3][:20])
    shutil.rmtree(stopped / "features")
    looks, within = [], Judge.within
    monkeypatch.setattr(Judge, "within", lambda own, table, cell: looks.append(cell) or within(own, table, cell))
    code, _, _ = command(*select(tiny_run, stopped), "--json")
    assert code == 0 and len(looks) == 3
    for name in ("looks.jsonl", "map.jsonl", "results.jsonl", "map.png"):
        assert (stopped / name).read_bytes() == (adaptive / name).read_bytes(), name
    whole, again = (json.loads((f / "choice.json").read_text()) for f in (adaptive, stopped))
    assert {**whole, "features": ""} == {**again, "features": ""}


def test_few_labels(tiny_run: Path, tmp_path: Path, command: Any) -> None:
    code, out, _ = command(*select(tiny_run, tmp_path / "run", "--shots", "3", "--trials", "2"), "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["passes"] <= facts["grid_passes"] / 4 and facts["accuracy"] > 0.3


def test_few_steps_are_refused(tiny_run: Path, tmp_path: Path, command: Any) -> None:
    where = ("select", "--model", tiny_run, "--data", "digits", "--out", tmp_path / "out", "--search", "adaptive")
    for steps, says in (("20", "there is 1"), ("20,50,90", "there are 3")):
        code, _, err = command(*where, "--t", steps)
        assert code == 2 and f"leaves most noise steps out, and {says}. Give" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [2, 5, 12, 40])
def test_golden_section_finds_the_top_of_every_curve_with_one(count: int) -> None:
    where = [math.log(0.01 * 1.5**k) for k in range(count)]
    for top in range(count):
        looks: list[int] = []

        def value(k: int, top: int = top, looks: list[int] = looks) -> float:
            looks.append(k)
            return -abs(where[k] - where[top]) - 0.1 * (k > top)

        seen = golden_section(where, value, count)
        assert max(seen, key=lambda k: seen[k]) == top and len(set(looks)) == len(looks) == len(seen)
        assert len(seen) <= 4 + 2.1 * math.log2(count)
        assert len(golden_section(where, value, 3)) <= 3


def test_halving_keeps_the_places_that_were_best() -> None:
    places = [(block, 1) for block in range(1, 17)]
    halving = Halving(places)

    def records(t: float) -> list[dict[str, Any]]:
        cells = halving.cells(t)
        return [{"block": c.tap.block, "pool": 1, "accuracy": c.tap.block / 16, "loss": 0.1} for c in cells]

    left = []
    for t in range(5):
        value = halving.after(records(t))
        assert value == pytest.approx(np.mean([16, 15, 14]) / 16)
        left.append([block for block, _ in halving.places])
    assert [len(own) for own in left] == [16, 8, 4, 4, 4]
    assert left[-1] == [13, 14, 15, 16]


def test_a_part_has_its_share_of_every_class_and_the_same_images() -> None:
    whole = datasets.load("digits", sealed=("test",))
    part, again, other = (Part(whole, 0.25, seed, least=4) for seed in (0, 0, 1))
    for split in ("train", "val"):
        rows, all_ = part.build(split), whole.build(split)
        counts = np.bincount(rows.labels) / np.bincount(all_.labels)
        assert counts == pytest.approx(0.23, abs=0.03)
        place = {int(i): k for k, i in enumerate(all_.index)}
        images = all_.read([place[int(i)] for i in rows.index[:3]])
        assert all((a == b).all() for a, b in zip(rows.read([0, 1, 2]), images, strict=True))
        assert (rows.index == again.build(split).index).all()
        assert not np.array_equal(rows.index, other.build(split).index)
    assert part.fingerprint == again.fingerprint != other.fingerprint
    assert _adaptive._count(part) < 0.3 * _adaptive._count(whole)
