"""Heads of every kind through `twofold probe`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twofold.errors import BadData
from twofold.records import Cell
from twofold.steps import _labels, _tables, _trials
from twofold.store import Table


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
    lines = (tmp_path / "probe" / "results.jsonl").read_text().splitlines()
    scores = [score for score in map(json.loads, lines) if score["name"] == "top1"]
    rows = {(s["about"]["row"], s["about"]["head"]) for s in scores}
    assert rows == {(row, head) for row in (str(tiny_run), "pixels", "untrained") for head in heads.split(",")}
    assert {s["about"]["pool"] for s in scores} == {0}
    assert max(s["value"] for s in scores) > 0.2  # ten classes


def probe(command: Any, *arguments: object) -> dict[str, Any]:
    code, out, err = command("probe", "--quiet", "--json", *arguments)
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    return told


@pytest.fixture
def where(tiny_run: Path, tmp_path: Path) -> tuple[object, ...]:
    """The tiny model on digits, ten labels a class, no controls; stores are shared within a test."""
    features = ("--features", tmp_path / "features", "--controls", "none")
    return ("--model", tiny_run, "--data", "digits", "--shots", 10, *features)


def test_difformer_joins_blocks_and_steps_of_a_real_network(
    where: tuple[object, ...], tmp_path: Path, command: Any
) -> None:
    head = "difformer?width=16&blocks=1&rate=0.003&decay=0.1&epochs=40&updates=40"
    taps = ("--block", "down.0.0,mid", "--t", "20,60", "--head", head)
    (score,) = probe(command, *where, "--out", tmp_path / "probe", *taps)["scores"]
    about = score["about"]
    assert about["cell"] == "b2_t20_p0+b2_t60_p0+b5_t20_p0+b5_t60_p0" and about["steps"] == [20, 60]
    assert (about["passes"], about["pool"], about["block"]) == (2, 0, "down.0.0, mid")
    assert score["value"] > 0.3  # ten classes


def test_rows_of_several_taps_stand_beside_one_another(where: tuple[object, ...], tmp_path: Path, command: Any) -> None:
    """A wide head sees what every narrow one sees: no block drowns the others, however small its numbers."""
    values = {}
    for name, block in (("first", "1"), ("second", "mid"), ("both", "1,mid")):
        taps = ("--block", block, "--t", 20, "--pool", 2, "--head", "ridge", "--seeds", 3)
        (score,) = probe(command, *where, "--out", tmp_path / name, *taps)["scores"]
        values[name] = score["value"]
    assert values["both"] > min(values["first"], values["second"])
    sizes = {"b1_t1_p1": 1e-3, "b2_t1_p1": 1e3}
    joined = _tables._joined([Fake(sizes)], [Cell.parse(name) for name in sizes], ("train", "test"), 2**30)  # type: ignore[list-item]
    assert joined["train"].x.shape == (50, 8)
    assert joined["train"].x[:, :4].var() == pytest.approx(joined["train"].x[:, 4:].var(), rel=0.3)
    assert (joined["test"].x[:, :4] / joined["train"].x[:, :4]).mean() == pytest.approx(1)


class Fake:
    """A store whose cells are noise of a given size, the same in all splits."""

    def __init__(self, sizes: dict[str, float]) -> None:
        self.sizes = sizes

    def read(self, split: str, cell: Cell) -> Table:
        chance = np.random.default_rng(cell.tap.block)
        x = self.sizes[str(cell)] * chance.standard_normal((50, 4)).astype(np.float32)
        return Table(x, np.zeros(50, np.int64), np.arange(50))


def test_neighbouring_steps_vote(where: tuple[object, ...], tmp_path: Path, command: Any) -> None:
    taps = ("--block", "mid", "--pool", 2, "--head", "ridge,logistic")
    found = probe(command, *where, "--out", tmp_path / "vote", *taps, "--t", 60, "--vote", 3)["scores"]
    for score in found:
        about = score["about"]
        assert about["vote"] == about["passes"] == len(about["steps"]) == 3 and about["steps"][1] == 60
        low, middle, high = about["sigmas"]
        assert middle / low == pytest.approx(1.5, rel=0.05) and high / middle == pytest.approx(1.5, rel=0.05)
        assert len(about["chosen"][0]) == 3  # each head its own strength
    given = probe(command, *where, "--out", tmp_path / "given", *taps, "--t", "10,20,90", "--vote", 3)["scores"]
    assert given[0]["about"]["steps"] == [10, 20, 90]
    # At the end of the ladder the neighbours are all on one side.
    first = probe(command, *where, "--out", tmp_path / "end", *taps, "--t", 0, "--vote", 3)["scores"]
    assert first[0]["about"]["steps"][0] == 0 and len(set(first[0]["about"]["steps"])) == 3


def test_draws_can_stand_beside_one_another(where: tuple[object, ...], tmp_path: Path, command: Any) -> None:
    taps = ("--block", "mid", "--t", 100, "--pool", 1, "--head", "ridge", "--draws", 3, "--seeds", 2)
    found = probe(command, *where, "--out", tmp_path / "wide", *taps, "--draws-as", "concatenate")["scores"]
    assert found[0]["about"]["passes"] == 3
    # Three draws of two seeds: six noises, none shared.
    assert len(list((tmp_path / "features").glob("*-seed*"))) == 6
    code, _, err = command("probe", *where, "--out", tmp_path / "maps", "--block", "mid", "--t", 9, "--head", "cnn",
                           "--draws-as", "concatenate")  # fmt: skip
    assert code == 2 and "--draws-as concatenate widens rows, and the head cnn reads maps" in err


def test_rows_are_paired_with_the_first_and_with_another_run(
    where: tuple[object, ...], tmp_path: Path, command: Any
) -> None:
    taps = ("--block", "mid", "--t", 20, "--head", "ridge,knn")
    found = probe(command, *where, "--out", tmp_path / "first", *taps)
    (apart,) = (m for m in found["measures"] if m["name"] == "top1_difference")
    ridge, knn = found["scores"]
    assert apart["value"] == pytest.approx(knn["value"] - ridge["value"])
    assert apart["about"]["against"] == {"row": ridge["about"]["row"], "head": "ridge"} and 0 < apart["about"]["p"] <= 1
    # The same head against itself in another run differs nowhere; its answers are those of the first run.
    again = probe(command, *where, "--out", tmp_path / "again", *taps, "--against", tmp_path / "first")
    same, other = (m for m in again["measures"] if m["name"] == "top1_difference")
    assert (same["value"], same["about"]["p"]) == (0, 1) and other["value"] == apart["value"]
    for name, says in (("none", "is not a finished run of `twofold probe`"), ("first", "has 1 seeds, not 2")):
        code, _, err = command("probe", *where, "--out", tmp_path / "no", *taps, "--against", tmp_path / name,
                               "--seeds", 2)  # fmt: skip
        assert code == 2 and says in err and not (tmp_path / "no").exists()


def test_what_was_counted_is_written_beside_the_scores(where: tuple[object, ...], tmp_path: Path, command: Any) -> None:
    taps = ("--block", "mid", "--t", 20, "--head", "ridge")
    found = probe(command, *where, "--out", tmp_path / "probe", *taps)
    names = [m["name"] for m in found["measures"]]
    assert names == ["top5", "mean_per_class", "calibration_error"]
    assert all(m["low"] <= m["value"] <= m["high"] for m in found["measures"])
    (table,) = (tmp_path / "probe" / "confusion").iterdir()
    rows = [line.split(",") for line in table.read_text().splitlines()]
    counts = np.array([[int(n) for n in row[1:]] for row in rows[1:]])
    assert rows[0] == ["label", *map(str, range(10))] and counts.sum() == 450
    assert np.trace(counts) / 450 == pytest.approx(found["scores"][0]["value"])
    assert (tmp_path / "probe" / "confusion.png").stat().st_size > 1000
    # What can be counted from predictions is not computed again: without a line of results, the same lines come back.
    lines = (tmp_path / "probe" / "results.jsonl").read_bytes()
    for name in ("finished.json", "results.jsonl"):
        (tmp_path / "probe" / name).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_trials, "run", None)
        probe(command, *where, "--out", tmp_path / "probe", *taps)
    assert (tmp_path / "probe" / "results.jsonl").read_bytes() == lines


def test_a_choice_of_other_data_is_taken_only_when_asked(
    where: tuple[object, ...], tiny_run: Path, tmp_path: Path, command: Any
) -> None:
    choice = tmp_path / "choice"
    taps = ("--blocks", "mid", "--t", 20, "--pool", 1, "--quiet")
    assert command("select", "--model", tiny_run, "--data", "digits", "--out", choice, *taps)[0] == 0
    told = json.loads((choice / "choice.json").read_text())
    (choice / "choice.json").write_text(json.dumps({**told, "data": "folder:pictures"}))
    code, _, err = command("probe", *where, "--out", tmp_path / "probe", "--choice", choice, "--head", "ridge")
    assert code == 2 and "chose for the data folder:pictures" in err and "--other-data" in err
    (score,) = probe(command, *where, "--out", tmp_path / "probe", "--choice", choice, "--head", "ridge",
                     "--other-data")["scores"]  # fmt: skip
    assert score["about"]["choice"] == str(choice) and score["about"]["cell"] == "b5_t20_p1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--t", 20, "--head", "difformer"), "The head DifFormer joins several maps, and there is one: give several"),
        (("--t", "20,60", "--head", "difformer", "--vote", 2), "there is one for each step that votes"),
        (("--t", "20,60", "--head", "attention"), "The head Attention reads one map, not 2"),
        (("--t", "20,60", "--head", "attention,difformer"), "attention reads one map and difformer reads several maps"),
        (("--t", "20,60", "--head", "difformer", "--pool", 2), "The head difformer reads maps: give --pool 0"),
        (("--t", "20,60", "--vote", 3), "--vote 3: --t gives 2. Give 3 steps"),
        (("--t", 20, "--vote", 0), "--vote must be at least 1"),
        (("--t", "20,x"), "--t must be a number, or several"),
        (("--t", 20, "--draws-as", "mean"), "No value for --draws-as: 'mean'"),
    ],
)
def test_what_does_not_go_together_is_one_line_before_any_work(
    arguments: tuple[object, ...], says: str, where: tuple[object, ...], tmp_path: Path, command: Any
) -> None:
    code, _, err = command("probe", *where, "--out", tmp_path / "probe", "--block", "mid", *arguments)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "probe").exists() and not (tmp_path / "features").exists()


def test_voting_needs_noise(tmp_path: Path, command: Any) -> None:
    taps = ("--block", 1, "--pool", 2, "--vote", 3, "--head", "ridge")
    code, _, err = command("probe", "--model", "pixels:8", "--data", "digits", "--out", tmp_path / "out", *taps)
    assert code == 2 and "--vote 3: the model has no noise steps" in err


def pictures(folder: Path, counts: dict[str, int]) -> str:
    """A folder data set with so many images a class, `train/a` or `a`."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(np.full((8, 8), k + len(name), np.uint8)).save(folder / name / f"{k}.png")
    return f"folder:{folder}"


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"a": 9}, "has one class only (a)"),
        ({"a": 9, "b": 1}, "val of folder:PICTURES has no image of b"),
        ({"train/a": 9, "val/b": 9, "test/a": 1}, "train has no image of b, other splits have"),
        ({"train/a": 1, "train/b": 1, "val/c": 1, "test/d": 1}, "has 2 images for 4 classes"),
        ({"train/a": 5, "train/b": 5, "val/a": 1, "test/a": 1}, "val of folder:PICTURES has no image of b"),
    ],
)
@pytest.mark.parametrize("verb", ["probe", "select"])
def test_labels_that_cannot_work_are_one_line(
    verb: str, counts: dict[str, int], says: str, tmp_path: Path, command: Any
) -> None:
    data = pictures(tmp_path / "pictures", counts)
    where = ("--block", 1, "--head", "ridge") if verb == "probe" else ()
    code, _, err = command(verb, "--model", "pixels:8", "--data", data, "--out", tmp_path / "out", "--quiet", *where)
    assert code == 2 and says.replace("PICTURES", str(tmp_path / "pictures")) in err and err.count("\n") == 1, err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.array([0.0, 1, 1, 0]), "are float64 of shape"),
        (np.array([0, -1, 1, -1]), "2 of 4 images in train of fake have no label"),
        (np.array([0, 1, 7, 0]), "1 of 4 images in train of fake have no label"),
        (np.array([], np.int64), "train of fake has no images"),
    ],
)
def test_labels_that_are_missing_or_not_whole_are_one_line(labels: np.ndarray, says: str) -> None:
    class FakeData:
        name, classes = "fake", ("a", "b")

        def build(self, split: str) -> Any:
            return SimpleNamespace(labels=labels)

    with pytest.raises(BadData, match=says):
        _labels.check(FakeData())  # type: ignore[arg-type]


def test_a_table_with_a_value_that_was_not_written_is_one_line(
    where: tuple[object, ...], tmp_path: Path, command: Any
) -> None:
    taps = ("--block", "mid", "--t", 20, "--head", "ridge")
    probe(command, *where, "--out", tmp_path / "probe", *taps)
    chunk = next((tmp_path / "features").glob("*/train/features/*/c/0/0"))
    chunk.write_bytes(b"\x00\x7e" * (chunk.stat().st_size // 2))  # NaN in half precision
    code, _, err = command("probe", *where, "--out", tmp_path / "again", *taps, "--quiet")
    assert code == 2 and "the checksum of 0/0 is wrong" in err and err.count("\n") == 1
