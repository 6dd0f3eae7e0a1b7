"""Choosing on val and scoring on test: what each may see, and what each says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from twofold import cli, files, results, store
from twofold.datasets.digits import Digits
from twofold.errors import SealedSplit
from twofold.steps import select

Command = Callable[..., tuple[int, str, str]]
WHERE = ("--blocks", "1,mid", "--t", "20,100", "--pool", "1,2")


@pytest.fixture(scope="module")
def selected(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished `twofold select`, made where nobody can open test."""
    folder = tmp_path_factory.mktemp("selects") / "select"
    original = Digits.build

    def build(self: Digits, split: str) -> Any:
        assert split != "test", "select opened the test split"
        return original(self, split)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Digits, "build", build)
        arguments = ["select", "--model", str(tiny_run), "--data", "digits", "--out", str(folder), *WHERE]
        assert cli.run([*arguments, "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def probed(tiny_run: Path, selected: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished `twofold probe` of that choice."""
    folder = tmp_path_factory.mktemp("probes") / "probe"
    arguments = ["probe", "--model", str(tiny_run), "--data", "digits", "--out", str(folder)]
    assert cli.run([*arguments, "--choice", str(selected), "--head", "ridge,knn", "--seeds", "2", "--quiet"]) == 0
    return folder


def probe(run: Path, out: Path) -> list[str]:
    return ["probe", "--model", str(run), "--data", "digits", "--out", str(out), "--quiet"]


def one_line(answer: tuple[int, str, str]) -> str:
    """The single line of a refused command."""
    code, out, err = answer
    assert (code, out) == (2, "") and err.startswith("twofold: ") and err.count("\n") == 1, err
    return err


def test_select_sees_no_test(selected: Path) -> None:
    opened = store.load(selected / "features", sealed=select.SEALED)
    assert opened.splits() == ["train", "val"]
    assert not (selected / "features" / "test").exists()
    with pytest.raises(SealedSplit):
        opened.labels("test")


def test_the_map_holds_every_cell_once(selected: Path) -> None:
    cells = [record["cell"] for record in files.read_lines(selected / "map.jsonl")]
    assert cells == [f"b{b}_t{t}_p{p}" for b in (1, 5) for t in (20, 100) for p in (1, 2)]
    assert (selected / "map.png").stat().st_size > 1000


def test_the_choice_is_the_best_of_the_map(selected: Path) -> None:
    judged = files.read_lines(selected / "map.jsonl")
    choice = json.loads((selected / "choice.json").read_text())
    assert choice["accuracy"] == max(record["accuracy"] for record in judged)
    (score,) = results.read(selected)
    assert (score.split, score.n, score.value) == ("val", 269, choice["accuracy"])


def test_choosing_prefers_accuracy_then_loss_then_cost_then_size() -> None:
    best = {"accuracy": 0.9, "loss": 0.2, "share": 0.3, "pool": 1}
    others = [
        {**best, "accuracy": 0.8, "loss": 0.0, "share": 0.0},
        {**best, "loss": 0.3, "share": 0.0},
        {**best, "share": 0.4},
        {**best, "pool": 2},
    ]
    assert select.choose([*others, best]) == best
    assert select.choose([best, *others]) == best
    # A difference in the tenth digit is rounding, not merit.
    assert select.choose([{**best, "accuracy": 0.9 + 1e-12, "share": 0.4}, best]) == best


def test_select_again_tells_the_same_and_adds_nothing(selected: Path, tiny_run: Path, command: Command) -> None:
    before = {f.name: f.read_bytes() for f in selected.iterdir() if f.suffix in (".json", ".jsonl", ".png")}
    arguments = ("select", "--model", tiny_run, "--data", "digits", "--out", selected, *WHERE, "--json", "--quiet")
    code, out, _ = command(*arguments)
    assert code == 0 and json.loads(out) == json.loads(before["finished.json"])
    assert {f.name: f.read_bytes() for f in selected.iterdir() if f.name in before} == before


def test_select_that_was_stopped_judges_only_the_rest(
    selected: Path, tiny_run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = shutil.copytree(selected, tmp_path / "stopped")
    for name in ("finished.json", "choice.json", "results.jsonl"):
        (stopped / name).unlink()
    lines = (stopped / "map.jsonl").read_text().splitlines(keepends=True)
    (stopped / "map.jsonl").write_text("".join(lines[:5]) + lines[5][:20])
    judged, judge = [], select._judge
    monkeypatch.setattr(select, "_judge", lambda config, table, cell: judged.append(cell) or judge(config, table, cell))
    assert command("select", "--model", tiny_run, "--data", "digits", "--out", stopped, *WHERE, "--quiet")[0] == 0
    assert len(judged) == 3
    for name in ("map.jsonl", "results.jsonl", "map.png"):
        assert (stopped / name).read_bytes() == (selected / name).read_bytes()


def test_select_from_few_labels(tiny_run: Path, selected: Path, tmp_path: Path, command: Command) -> None:
    arguments = ("select", "--model", tiny_run, "--data", "digits", *WHERE, "--features", selected / "features")
    found = {}
    for shots in (2, 20):
        code, out, _ = command(*arguments, "--out", tmp_path / str(shots), "--shots", shots, "--json", "--quiet")
        assert code == 0
        found[shots] = json.loads(out)["accuracy"]
    everything = json.loads((selected / "choice.json").read_text())["accuracy"]
    assert 0.1 < found[2] < found[20] <= everything + 0.02
    assert store.load(selected / "features").splits() == ["train", "val"]


def test_ties_of_log_odds_are_judged_as_probabilities(
    tiny_run: Path, selected: Path, tmp_path: Path, command: Command
) -> None:
    where = ("--blocks", "5", "--t", "20", "--pool", "2", "--features", selected / "features", "--head", "logistic")
    arguments = ("select", "--model", tiny_run, "--data", "digits", "--out", tmp_path / "out", *where, "--quiet")
    assert command(*arguments)[0] == 0
    (record,) = files.read_lines(tmp_path / "out" / "map.jsonl")
    # Saying one tenth of everything costs 0.09.
    assert record["accuracy"] > 0.8 and 0 < record["loss"] < 0.09


def test_select_refuses_more_shots_than_rows_before_any_work(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    arguments = ("select", "--model", tiny_run, "--data", "digits", "--out", tmp_path / "out", *WHERE, "--quiet")
    assert "--shots 200: class" in one_line(command(*arguments, "--shots", 200))
    assert not (tmp_path / "out" / "features").exists()


def test_probe_scores_say_all_that_is_needed_to_believe_them(probed: Path, selected: Path, tiny_run: Path) -> None:
    scores = results.read(probed)
    assert {(s.about["row"], s.about["head"]) for s in scores} == {
        (row, head) for row in (str(tiny_run), "pixels", "untrained") for head in ("ridge", "knn")
    }
    cell = json.loads((selected / "choice.json").read_text())["cell"]
    for s in scores:
        assert (s.name, s.split, s.n, s.seeds) == ("top1", "test", 450, (0, 1))
        assert s.low is not None and s.high is not None and 0 <= s.low <= s.value <= s.high <= 1
        assert s.about["control"] == (s.about["row"] != str(tiny_run))
        assert s.value == pytest.approx(sum(s.about["per_seed"]) / 2)
        assert len(s.about["chosen"]) == 2 and s.about["data"] == "digits"
        assert s.about["cell"] == ("b1_p8" if s.about["row"] == "pixels" else cell)
        assert (s.about["t"] is None) == (s.about["sigma"] is None) == (s.about["row"] == "pixels")


def test_seeds_change_the_noise_but_not_the_pixels(probed: Path) -> None:
    for s in results.read(probed):
        if s.about["row"] == "pixels":
            assert s.about["per_seed"][0] == s.about["per_seed"][1]
    stores = {folder.name.rpartition("-")[2] for folder in (probed / "features").iterdir()}
    assert stores == {"seed0", "seed1", "clean"}


def test_probe_again_tells_the_same_and_adds_no_score(
    probed: Path, selected: Path, tiny_run: Path, command: Command
) -> None:
    before = (probed / "results.jsonl").read_bytes()
    arguments = (*probe(tiny_run, probed), "--choice", selected, "--head", "ridge,knn", "--seeds", 2, "--json")
    for _ in range(2):
        code, out, _ = command(*arguments)
        assert code == 0 and len(json.loads(out)["scores"]) == 6
    # Killed before its last lines: only they are made again, and they are the same.
    (probed / "finished.json").unlink()
    lines = before.splitlines(keepends=True)
    (probed / "results.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:30])
    assert command(*arguments)[0] == 0
    assert (probed / "results.jsonl").read_bytes() == before


def test_probe_with_few_labels_is_worse_than_with_all(
    probed: Path, selected: Path, tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    arguments = (*probe(tiny_run, tmp_path / "few"), "--choice", selected, "--features", probed / "features")
    code, out, _ = command(*arguments, "--head", "ridge", "--shots", 3, "--controls", "none", "--json")
    assert code == 0
    (few,) = json.loads(out)["scores"]
    (whole,) = (s for s in results.read(probed) if s.about["row"] == str(tiny_run) and s.about["head"] == "ridge")
    assert few["value"] < whole.value and few["about"]["shots"] == 3


def test_test_labels_do_not_touch_what_is_learned(
    probed: Path, tiny_run: Path, selected: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the labels of test shuffled, what val chose and val's own accuracy stay, and test falls to chance."""
    from dataclasses import replace

    original = Digits.build

    def build(self: Digits, split: str) -> Any:
        rows = original(self, split)
        return replace(rows, labels=(rows.labels + 1 + rows.index % 9) % 10) if split == "test" else rows

    monkeypatch.setattr(Digits, "build", build)
    arguments = (*probe(tiny_run, tmp_path / "shuffled"), "--choice", selected, "--controls", "none", "--json")
    code, out, _ = command(*arguments, "--head", "ridge", "--seeds", 2)
    assert code == 0
    (shuffled,) = json.loads(out)["scores"]
    (honest,) = (s for s in results.read(probed) if s.about["row"] == str(tiny_run) and s.about["head"] == "ridge")
    assert shuffled["about"]["chosen"] == honest.about["chosen"]
    assert shuffled["about"]["val"] == honest.about["val"]
    assert shuffled["value"] < 0.3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "probe needs a place to read: --choice"),
        (["--block", "mid"], "give --t or --sigma"),
        (["--block", "mid", "--t", "20", "--sigma", "0.1"], "Both --t and --sigma"),
        (["--block", "mid", "--t", "20", "--pool", "5"], "Pool 5 is larger than block 5's map of 4x4"),
        (["--block", "99", "--t", "20"], "its blocks are 1 to 9"),
        (["--block", "mdi", "--t", "20"], "Did you mean 'mid'"),
        (["--block", "mid", "--t", "20", "--shots", "200"], "--shots 200: class"),
        (["--block", "mid", "--t", "20", "--head", "rigde"], "Did you mean 'ridge'"),
        (["--block", "mid", "--t", "20", "--controls", "pixel"], "Did you mean 'pixels'"),
        (["--choice", "SELECT", "--block", "mid"], "--choice RUN of twofold select, or --block"),
        (["--choice", "NONE"], "holds no choice.json"),
        (["--choice", "SELECT", "--model", "RUN?untrained"], "chose for the model"),
    ],
)
def test_probe_refuses_in_one_line_before_any_work(
    arguments: list[str], says: str, tiny_run: Path, selected: Path, tmp_path: Path, command: Command
) -> None:
    named = {"SELECT": str(selected), "NONE": str(tmp_path / "none"), "RUN?untrained": f"{tiny_run}?untrained"}
    assert says in one_line(command(*probe(tiny_run, tmp_path / "out"), *(named.get(a, a) for a in arguments)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("extra", [("--t", "100"), ("--sigma", "0.5"), ("--pool", "4")])
def test_probe_does_not_silently_ignore_a_place_beside_a_choice(
    extra: tuple[str, str], tiny_run: Path, selected: Path, tmp_path: Path, command: Command
) -> None:
    one_line(command(*probe(tiny_run, tmp_path / "out"), "--choice", selected, *extra, "--head", "ridge"))


@pytest.mark.parametrize("text", ["", "{}", '{"model": "RUN"}', "[]"])
def test_a_damaged_choice_is_one_clear_line(text: str, tiny_run: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "choice.json").write_text(text.replace("RUN", str(tiny_run)))
    assert "choice.json" in one_line(command(*probe(tiny_run, tmp_path / "out"), "--choice", tmp_path))
