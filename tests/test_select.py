"""Choosing on val and scoring on test: what each may see, and what each says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from twofold import cli, files, results, store
from twofold.datasets._arrays import Arrays
from twofold.errors import SealedSplit
from twofold.plots import heatmaps
from twofold.steps import select
from twofold.steps._judging import Judge

Command = Callable[..., tuple[int, str, str]]
TINY = ("--images", 512, "--widths", "16,16", "--probe-every", 256, "--log-every", 128, "--save-every", 256, "--quiet")
WHERE = ("--blocks", "1,mid", "--t", "20,100", "--pool", "1,2")


@pytest.fixture(scope="module")
def selected(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished `twofold select`, made where nobody can open test."""
    folder = tmp_path_factory.mktemp("selects") / "select"
    original = Arrays.build

    def build(self: Arrays, split: str) -> Any:
        assert split != "test", "select opened the test split"
        return original(self, split)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Arrays, "build", build)
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


def top1(run: Path) -> list[results.Score]:
    return [s for s in results.read(run) if s.name == "top1"]


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
    judged, judge = [], Judge.on_val
    monkeypatch.setattr(Judge, "on_val", lambda own, table, cell: judged.append(cell) or judge(own, table, cell))
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
    assert "--shots 200: digits has only" in one_line(command(*arguments, "--shots", 200))
    assert not (tmp_path / "out" / "features").exists()


def test_probe_scores_say_all_that_is_needed_to_believe_them(probed: Path, selected: Path, tiny_run: Path) -> None:
    scores = top1(probed)
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
    for s in top1(probed):
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
    (whole,) = (s for s in top1(probed) if s.about["row"] == str(tiny_run) and s.about["head"] == "ridge")
    assert few["value"] < whole.value and few["about"]["shots"] == 3


def test_a_head_that_is_named_twice_is_scored_once(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    arguments = ("probe", "--model", "pixels:8", "--data", "digits", "--out", tmp_path / "out", "--block", 1)
    code, out, _ = command(*arguments, "--pool", 2, "--head", "ridge,ridge,knn", "--json", "--quiet")
    assert code == 0 and [s["about"]["head"] for s in json.loads(out)["scores"]] == ["ridge", "knn"]


def test_test_labels_do_not_touch_what_is_learned(
    probed: Path, tiny_run: Path, selected: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the labels of test shuffled, what val chose and val's own accuracy stay, and test falls to chance."""
    from dataclasses import replace

    original = Arrays.build

    def build(self: Arrays, split: str) -> Any:
        rows = original(self, split)
        return replace(rows, labels=(rows.labels + 1 + rows.index % 9) % 10) if split == "test" else rows

    monkeypatch.setattr(Arrays, "build", build)
    arguments = (*probe(tiny_run, tmp_path / "shuffled"), "--choice", selected, "--controls", "none", "--json")
    code, out, _ = command(*arguments, "--head", "ridge", "--seeds", 2)
    assert code == 0
    (shuffled,) = json.loads(out)["scores"]
    (honest,) = (s for s in top1(probed) if s.about["row"] == str(tiny_run) and s.about["head"] == "ridge")
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
        (["--block", "all", "--t", "20"], "--block must be one block or several, not all"),
        (["--block", "mid", "--t", "20", "--controls", "none,pixels"], "--controls none stands alone"),
        (["--block", "mid", "--t", "20", "--shots", "200"], "--shots 200: digits has only"),
        (["--block", "mid", "--t", "20", "--head", "rigde"], "Did you mean 'ridge'"),
        (["--block", "mid", "--t", "20", "--controls", "pixel"], "Did you mean 'pixels'"),
        (["--choice", "SELECT", "--block", "mid"], "--choice RUN of twofold select, or --block"),
        (["--choice", "NONE"], "holds no choice.json"),
        (["--choice", "SELECT", "--model", "RUN?untrained"], "choice.json chose for the model"),
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


def unfinished(run: Path) -> Path:
    (run / "finished.json").unlink()
    return run


def altered(file: Path, **changed: object) -> str:
    """The file's first line of JSON, or the whole, with other values."""
    text = file.read_text()
    return json.dumps({**json.loads(text.splitlines()[0] if file.suffix == ".jsonl" else text), **changed}) + "\n"


BROKEN = [
    ("select", "finished.json", "{"),
    ("select", "finished.json", "{}"),
    ("select", "finished.json", "5"),
    ("select", "finished.json", {"accuracy": "x"}),
    ("select", "finished.json", '{"accuracy": 1}'),
    ("select", "config.toml", 'verb = "select"\nidentity = 5\n'),
    ("select", "config.toml", 'verb = "select"\ninputs = 5\n'),
    ("select", "config.toml", "verb = 5\n"),
    ("select", "map.jsonl", "{\n"),
    ("select", "map.jsonl", "[1]\n"),
    ("select", "map.jsonl", '{"a": 1}\n'),
    ("select", "map.jsonl", {"accuracy": "x"}),
    ("select", "map.jsonl", {"share": None}),
    ("select", "map.jsonl", {"n": True}),
    ("select", "map.jsonl", b"\xff\n"),
    ("select", "map.jsonl", {"t": float("nan")}),
    ("select", "map.jsonl", {"block": 99}),
    ("select", "map.jsonl", {"sigma": None}),
    ("select", "map.jsonl", {"accuracy": float("nan")}),
    ("probe", "finished.json", "{"),
    ("probe", "finished.json", "{}"),
    ("probe", "results.jsonl", "{\n"),
    ("probe", "results.jsonl", '{"a": 1}\n'),
    ("probe", "results.jsonl", {"value": "x"}),
    ("probe", "results.jsonl", {"low": "a"}),
    ("probe", "results.jsonl", {"n": 10**400}),
    ("probe", "results.jsonl", {"strange": 1}),
    ("probe", "results.jsonl", {"seeds": ["x"]}),
    ("probe", "results.jsonl", {"about": {}}),
    ("pretrain", "finished.json", "{"),
    ("pretrain", "finished.json", "{}"),
    ("pretrain", "finished.json", {"images": "x"}),
    ("pretrain", "metrics.jsonl", "{\n"),
    ("pretrain", "metrics.jsonl", '{"a": 1}\n'),
    ("pretrain", "metrics.jsonl", {"seconds": "x"}),
]


@pytest.mark.parametrize(("verb", "name", "damage"), BROKEN, ids=lambda value: str(value)[:40])
def test_a_damaged_run_is_one_line_that_names_the_file(
    verb: str, name: str, damage: object, selected: Path, probed: Path, tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    run = shutil.copytree({"select": selected, "probe": probed, "pretrain": tiny_run}[verb], tmp_path / "run")
    if name in ("map.jsonl", "metrics.jsonl"):
        unfinished(run)
    (run / name).write_bytes(
        damage if isinstance(damage, bytes)
        else (altered(run / name, **damage) if isinstance(damage, dict) else str(damage)).encode()
    )  # fmt: skip
    arguments: dict[str, tuple[object, ...]] = {
        "select": ("select", "--model", tiny_run, "--data", "digits", "--out", run, *WHERE, "--quiet"),
        "probe": (*probe(tiny_run, run), "--choice", selected, "--head", "ridge,knn", "--seeds", 2),
        "pretrain": ("pretrain", "--data", "digits", "--out", run, *TINY),
    }
    assert f"{run / name} is damaged" in one_line(command(*arguments[verb]))


def retrained(run: Path) -> Path:
    """The same run with other weights, as if it had been made again."""
    (file,) = (run / "unet").glob("*.safetensors")
    save_file({name: w + 0.01 for name, w in load_file(file).items()}, file, {"format": "pt"})
    return run


CHANGED = "made from is not the same now: {} is"


def test_done_is_not_said_of_another_model_at_the_same_path(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    model = shutil.copytree(tiny_run, tmp_path / "model")
    shared = ("--model", model, "--data", "digits", "--quiet")
    where = {
        "select": ("--blocks", "mid", "--t", "20", "--pool", "1"),
        "probe": ("--block", "mid", "--t", "20", "--head", "ridge", "--controls", "none"),
    }
    commands = {verb: (verb, *shared, "--out", tmp_path / verb, *more) for verb, more in where.items()}
    commands["sample"] = ("sample", "--model", model, "--out", tmp_path / "sample", "--num", 4, "--steps", 2, "--quiet")
    for arguments in commands.values():
        assert command(*arguments)[0] == command(*arguments)[0] == 0
    # Half of the samples are made again: they must not come from the other model.
    (tmp_path / "sample" / "images" / "000001.png").unlink()
    retrained(model)
    for verb, arguments in commands.items():
        assert CHANGED.format("model") in one_line(command(*arguments)), verb
    assert not (tmp_path / "sample" / "images" / "000001.png").exists()


def test_done_is_not_said_of_another_choice_at_the_same_path(
    tiny_run: Path, selected: Path, tmp_path: Path, command: Command
) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    choice = json.loads((selected / "choice.json").read_text())
    arguments = (*probe(tiny_run, tmp_path / "out"), "--choice", chosen, "--head", "ridge", "--controls", "none")
    choice.update(block=5, t=20.0, pool=1, cell="b5_t20_p1")
    files.write_json(chosen / "choice.json", choice)
    assert command(*arguments)[0] == 0
    # What does not change where features are read does not make it another run.
    files.write_json(chosen / "choice.json", {**choice, "loss": 0.5})
    assert command(*arguments)[0] == 0
    files.write_json(chosen / "choice.json", {**choice, "pool": 2, "cell": "b5_t20_p2"})
    assert "choice is b5_t20_p1 there, b5_t20_p2 here" in one_line(command(*arguments))


def test_training_is_not_continued_on_other_images(tmp_path: Path, command: Command) -> None:
    pictures(tmp_path / "pictures")
    arguments = ("pretrain", "--data", f"folder:{tmp_path}/pictures", "--out", tmp_path / "run", "--images", 8)
    small = ("--widths", "8,8", "--batch", 8, "--probe-every", 0, "--quiet")
    assert command(*arguments, *small)[0] == command(*arguments, *small)[0] == 0
    (tmp_path / "pictures" / "b.png").unlink()
    assert CHANGED.format("data") in one_line(command(*arguments, *small))


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for name in "abcdefghij":
        Image.fromarray(np.full((8, 8), ord(name), np.uint8)).save(folder / f"{name}.png")
    return folder


def test_a_choice_holds_for_the_network_however_it_is_named(
    tiny_run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "choice"
    arguments = (
        "select",
        "--model",
        tiny_run,
        "--data",
        "digits",
        "--out",
        out,
        "--blocks",
        "mid",
        "--t",
        20,
        "--quiet",
    )
    assert command(*arguments)[0] == 0
    monkeypatch.chdir(tiny_run.parent)
    for k, name in enumerate((tiny_run.name, f"./{tiny_run.name}", f"run:{tiny_run}", f"diffusers:{tiny_run}")):
        run = ("probe", "--model", name, "--data", "digits", "--out", tmp_path / f"probe{k}", "--choice", out)
        code, _, err = command(*run, "--head", "ridge", "--controls", "none", "--quiet")
        assert code == 0, err


def test_a_head_of_maps_cannot_judge_cells(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    arguments = ("select", "--model", tiny_run, "--data", "digits", "--out", tmp_path / "out", "--head", "cnn?width=8")
    assert "--head cnn?width=8 reads maps" in one_line(command(*arguments))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"model": "RUN"}', "[]"])
def test_a_damaged_choice_is_one_clear_line(text: str, tiny_run: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "choice.json").write_text(text.replace("RUN", str(tiny_run)))
    assert "choice.json" in one_line(command(*probe(tiny_run, tmp_path / "out"), "--choice", tmp_path))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"block": 99}, "has no block 99"),
        ({"pool": 0}, "pool 0 does not fit"),
        ({"pool": 64}, "pool 64 does not fit"),
        ({"t": None}, "t = none is not a noise step"),
        ({"t": 5000.0}, "t = 5000 is not a noise step"),
        ({"t": "soon"}, "t is 'soon'"),
        ({"data": "folder:pictures"}, "chose for the data folder:pictures, not for digits"),
        ({"cell": "b1_t20_p1"}, "it says both b5_t20_p1 and b1_t20_p1"),
        ({"cell": "mine"}, "it says both b5_t20_p1 and mine"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_before_the_run_begins(
    changed: dict[str, object], says: str, selected: Path, tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    choice = json.loads((selected / "choice.json").read_text()) | {"block": 5, "t": 20.0, "pool": 1} | changed
    step = f"_t{choice['t']:g}" if isinstance(choice["t"], float) else ""
    choice["cell"] = changed.get("cell", f"b{choice['block']}{step}_p{choice['pool']}")
    files.write_json(tmp_path / "choice.json", choice)
    told = one_line(command(*probe(tiny_run, tmp_path / "out"), "--choice", tmp_path, "--head", "ridge"))
    assert str(tmp_path / "choice.json") in told and says in told
    assert not (tmp_path / "out").exists()


def test_a_choice_without_a_step_is_refused(selected: Path, tiny_run: Path, tmp_path: Path, command: Command) -> None:
    choice = json.loads((selected / "choice.json").read_text())
    del choice["t"]
    files.write_json(tmp_path / "choice.json", choice)
    told = one_line(command(*probe(tiny_run, tmp_path / "out"), "--choice", tmp_path, "--head", "ridge"))
    assert "choice.json is damaged: it lacks t" in told
    assert not (tmp_path / "out").exists()


def test_a_map_of_one_cell_has_no_accuracy_above_100(tmp_path: Path) -> None:
    panels = {"pool 1": np.array([[0.974]])}
    heatmaps.selection_map(panels, ["mid"], ["90"], ("pool 1", 0, 0), "one", tmp_path / "map.svg")
    told = [float(text) for text in re.findall(r"<!-- ([\d.]+) -->", (tmp_path / "map.svg").read_text())]
    assert 97.4 in told and max(told) <= 100
