"""Recipes, their runs, and verdicts on claims."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_models
import tiny_sources
from twofold import cli, files, results, settings
from twofold.records import Score
from twofold.steps import _trials
from twofold.workflows import _claims, _evidence, _planned, _recipes, _reproduced, reproduce

Command = Callable[..., tuple[int, str, str]]
GIVEN = {
    "model": "run:m", "data": "digits", "imagenet": "i", "fine_grained": "f", "shots": 2, "seeds": 2, "images": 100,
    "num": 10, "pixels": "pixels:8", "epochs": 2, "seed": 0, "device": None, "precision": None, "augment": "none",
    "size": 8, "sampling_steps": 5, "alike": 50,
    "mapped": "digits", "labelled": "digits", "map_shots": 2, "trials": 2, "updates": 4, "fewer_updates": 2,
    "other": "digits", "other_mapped": "digits", "other_labelled": "digits", "other_map_shots": 2, "flip": False,
    "rival_images": 50, "features": "f", "other_features": "g",
}  # fmt: skip
KNOWN = {(name, ""): value for name, value in GIVEN.items()}


@pytest.mark.parametrize("name", _recipes.names())
def test_a_recipe_says_what_it_asks_and_what_is_expected(name: str) -> None:
    recipe = _recipes.load(name)
    assert recipe.question.endswith("?") and recipe.source.startswith("arXiv") and recipe.expected.endswith(".")
    assert set(recipe.claims) <= set(_claims.CLAIMS) and recipe.claims
    if recipe.curve:
        assert len(recipe.curve["x"]) == len(recipe.curve["y"]) and recipe.curve["over"] in _reproduced.AXES


@pytest.mark.parametrize("scale", _recipes.SCALES)
@pytest.mark.parametrize("name", _recipes.names())
def test_a_recipes_runs_are_settings_of_verbs(name: str, scale: str, tmp_path: Path) -> None:
    """Each is a command that the command line takes, and stands behind what it needs."""
    names = _recipes.ordered(_recipes.load(name).runs(scale), scale, set(GIVEN))
    planned = _planned.parts(names, scale, tmp_path)
    _planned.check(planned, KNOWN)
    for position, part in enumerate(planned):
        assert set(part.needs) <= set(names[:position])
        known = {**KNOWN, **{(n, what): {"": tmp_path / n, "block": 1, "t": 0.0, "pool": 1}[what]
                             for n in names for what in ("", *_planned.CHOSEN)}}  # fmt: skip
        words = shlex.split(_planned.command(part, known))
        assert words[0] == "twofold" and "{" not in " ".join(words)
        _, module, rest = cli._asked(words[1:])
        assert module is part.module
        given = vars(cli._parser(part.verb, part.module).parse_args(rest))
        values = {n: v for n, v in given.items() if v is not None and n not in ("config", "json", "quiet")}
        told, meant = settings.build(part.module.Config, values, part.verb), part.config(known)
        differ = [n for n in values if getattr(told, n) != getattr(meant, n)]
        assert not differ, (part.name, differ)


@pytest.mark.parametrize("scale", _recipes.SCALES)
def test_what_is_told_has_no_runs_name(scale: str) -> None:
    """Else the run would be taken as given. A model may be both."""
    assert set(GIVEN) & set(_recipes.runs(scale)) <= {"model"}


def test_the_papers_claims_are_all_there() -> None:
    assert list(_claims.CLAIMS) == list(range(1, 20))
    for claim in _claims.CLAIMS.values():
        assert (claim.judge or claim.untested) and bool(claim.needs) is bool(claim.judge)
        # What is judged by runs on --other says so where it is not given.
        assert not claim.judge or bool(claim.untested) is any(name.startswith("other") for name in claim.needs)


def test_what_a_claim_needs_is_made_by_a_recipe_that_bears_on_it() -> None:
    for number, claim in _claims.CLAIMS.items():
        if not claim.needs:
            continue
        bearing = [recipe for recipe in map(_recipes.load, _recipes.names()) if number in recipe.claims]
        made = {run for recipe in bearing for run in _recipes.ordered(recipe.small, "small", set(GIVEN))}
        assert set(claim.needs) <= made, number


def write_map(folder: Path, accuracies: dict[float, float], n: int = 1000) -> Path:
    """What `select` leaves of one block and pool over steps."""
    folder.mkdir(exist_ok=True)
    cells = [
        {"cell": f"b4_t{s:g}_p2", "block": 4, "name": "mid", "t": s, "sigma": s, "pool": 2, "share": 0.5, "accuracy": a,
         "loss": 1 - a, "n": n}
        for s, a in accuracies.items()
    ]  # fmt: skip
    files.write_text(folder / "map.jsonl", "".join(json.dumps(c) + "\n" for c in cells))
    files.write_json(folder / "choice.json", max(cells, key=lambda c: c["accuracy"]))
    return folder


STEPS = (0.0, 0.1, 0.2, 0.5, 1.0)
SHAPES = {
    "a hill": ((0.5, 0.7, 0.9, 0.6, 0.3), 1000, "holds"),
    "two hills": ((0.5, 0.9, 0.5, 0.85, 0.3), 1000, "does not hold"),
    "two hills, few images": ((0.5, 0.7, 0.65, 0.7, 0.3), 30, "undecided"),
    "best at the clean image": ((0.9, 0.8, 0.6, 0.5, 0.3), 1000, "does not hold"),
    "nearly best at the clean image": ((0.899, 0.9, 0.6, 0.5, 0.3), 1000, "undecided"),
    "best at noise alone": ((0.3, 0.5, 0.6, 0.8, 0.9), 1000, "does not hold"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_one_hill(shape: str, tmp_path: Path) -> None:
    heights, n, word = SHAPES[shape]
    found = _claims.CLAIMS[5].judge(write_map(tmp_path / "map", dict(zip(STEPS, heights, strict=True)), n))  # type: ignore[misc]
    assert found[0] == word, found


def write_answers(folder: Path, head: str, right: np.ndarray[Any, Any]) -> Path:
    """What `probe` leaves: which of N images each of S seeds answers rightly."""
    n = right.shape[1]
    labels = np.zeros(n, np.int64)
    predicted = np.where(right, 0, 1)
    found = _trials.Predictions(
        np.arange(n), labels, np.arange(len(right)), predicted, np.ones(right.shape, np.float32),
        np.where(right, 0, 1), np.array(2), np.full(len(right), right.mean()), np.array(["{}"] * len(right)),
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / _trials.FOLDER).mkdir(exist_ok=True)
    found.save(_trials.path_of(folder, "run:m", head))
    about = {"row": "run:m", "head": head, "control": False}
    results.append(folder, [Score("top1", float(right.mean()), "test", n, tuple(range(len(right))), 0.0, 1.0, about)])
    return folder


@pytest.mark.parametrize(
    ("first", "second", "beats", "matches"),
    [(0.6, 0.8, "holds", "holds"), (0.8, 0.6, "does not hold", "does not hold"), (0.7, 0.7, "undecided", "undecided")],
)
def test_differences_are_judged_on_the_same_images(
    first: float, second: float, beats: str, matches: str, tmp_path: Path
) -> None:
    chance = np.random.default_rng(0).random((2, 300))
    one = write_answers(tmp_path / "one", "linear", chance < first)
    flipped = chance if first != second else np.random.default_rng(1).random((2, 300))
    other = write_answers(tmp_path / "other", "linear?epochs=3", flipped < second)
    pair = _evidence.pair(one, other, "linear")
    assert pair.value == pytest.approx(pair.second - pair.first) and pair.low <= pair.value <= pair.high
    assert _claims.beats(pair)[0] == beats and _claims.matches(pair)[0] == matches


def test_adm_steps_are_the_papers_noise() -> None:
    """PAPER facts, section 1.2: sqrt(1 - abar) / sqrt(abar)."""
    for t, kept, gone in ((90, 0.956, 0.295), (150, 0.887, 0.463), (500, 0.279, 0.960)):
        assert _reproduced.noise_ratio(t) == pytest.approx(gone / kept, rel=5e-3)


@pytest.fixture(autouse=True)
def _fewer_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    less = {"blocks": ["mid", "up.0.0"], "sigma": [0.02, 0.2, 2.0], "pool": [1, 2, 4]}
    monkeypatch.setitem(_recipes.runs("small"), "map", {**_recipes.runs("small")["map"], **less})


SMALL = ("--shots", 5, "--seeds", 1, "--epochs", 1, "--device", "cpu", "--precision", "fp32", "--quiet")


def test_a_figure_is_reproduced_and_then_done(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    arguments = ("reproduce", "p1-steps", "--model", f"run:{tiny_run}", "--out", tmp_path / "out", *SMALL)
    assert command(*arguments, "--plan")[0] == 0 and not (tmp_path / "out").exists()
    code, out, err = command(*arguments, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert [claim["number"] for claim in facts["claims"]] == [5, 14] and not facts["failed"]
    page = Path(facts["page"]).read_text()
    for said in ("At which noise step", "arXiv 2307.08702", "twofold select", "p1-steps.svg", "55.09"):
        assert said in page
    assert (tmp_path / "out" / "p1-steps.png").stat().st_size > 5000
    before = (tmp_path / "out" / "map" / "map.jsonl").stat().st_mtime_ns
    assert command(*arguments, "--json")[0] == 0
    assert (tmp_path / "out" / "map" / "map.jsonl").stat().st_mtime_ns == before


def test_a_run_that_fails_stops_no_other_and_is_tried_again(
    tiny_run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twofold.errors import BadData
    from twofold.steps import select

    arguments = ("reproduce", "p1-pools", "--model", f"run:{tiny_run}", "--out", tmp_path / "out", *SMALL)
    recipe = _recipes.load("p1-pools")
    monkeypatch.setitem(_recipes.runs("small"), "after", {"verb": "probe", "model": "{model}", "data": "{data}",
                        "choice": "{map}", "head": ["knn"], "shots": "{shots}", "controls": ["none"]})  # fmt: skip
    monkeypatch.setitem(_recipes.runs("small"), "beside", {"verb": "probe", "model": "{model}", "data": "{data}",
                        "block": ["mid"], "t": [30], "head": ["knn"], "controls": ["none"]})  # fmt: skip
    monkeypatch.setitem(recipe.__dict__, "small", ["map", "after", "beside"])
    real = select.run

    def fails(config: Any) -> Any:
        raise BadData("The disk is on fire. Put it out.")

    monkeypatch.setattr(select, "run", fails)
    code, _, err = command(*arguments)
    assert code == 2 and "twofold: 2 of 3 runs failed; map: The disk is on fire. Put it out." in err
    page = (tmp_path / "out" / "index.html").read_text()
    assert "not begun, since map failed" in page and "knn" in page
    monkeypatch.setattr(select, "run", real)
    code, _, err = command(*arguments)
    assert code == 0, err
    assert (tmp_path / "out" / "after" / "results.jsonl").exists()
    assert "fire" not in (tmp_path / "out" / "index.html").read_text()


def test_the_papers_scale_runs_on_their_layout(tmp_path: Path, command: Command) -> None:
    """A network of ADM-256's 37 blocks, and ImageNet's folders, both tiny."""
    flags = {"image_size": 32, "num_res_blocks": 2, "channel_mult": (1, 1, 1, 1, 2, 2), "attention_levels": (3, 4, 5)}
    model = f"adm:{tiny_models.adm(tmp_path, **flags)}"
    data = f"imagenet:{tiny_sources.imagenet(tmp_path / 'imagenet')}?partial"
    arguments = ("reproduce", "p1-steps", "--scale", "paper", "--model", model, "--data", data, *SMALL)
    code, out, err = command(*arguments, "--out", tmp_path / "out", "--plan", "--json")
    assert code == 0, err
    assert json.loads(out)["runs"]["steps"]["seconds"] > 0
    code, out, err = command(*arguments, "--out", tmp_path / "out", "--json")
    assert code == 0, err
    judged = files.read_lines(tmp_path / "out" / "steps" / "map.jsonl")
    assert [r["t"] for r in judged] == [10, 30, 50, 90, 150, 300, 500]


WRONG = {
    "no such recipe": (("p1-step",), "No recipe 'p1-step'. Did you mean 'p1-steps'"),
    "no model at the paper's scale": (("p1-steps", "--scale", "paper"), "needs --model adm:FILE"),
    "no such model": (("p1-steps", "--model", "run:nowhere"), "nowhere"),
    "no such data": (("p1-steps", "--data", "folder:nowhere"), "nowhere"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_is_one_line_before_any_work(what: str, tmp_path: Path, command: Command) -> None:
    more, says = WRONG[what]
    code, out, err = command("reproduce", *more, "--out", tmp_path / "out", "--quiet")
    assert (code, out) == (2, "") and err.count("\n") == 1 and says in err, err
    assert not (tmp_path / "out").exists()


def test_recipes_are_listed(command: Command) -> None:
    code, out, _ = command("reproduce")
    assert code == 0 and all(name in out for name in _recipes.names())
    assert reproduce.MANY == ("all", "claims")
