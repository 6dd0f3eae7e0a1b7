"""Recipes, their runs, and verdicts on claims."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import browsing
import tiny_models
import tiny_sources
from twofold import cli, files, results, settings
from twofold.backbones import base as backbones
from twofold.datasets import base as datasets
from twofold.errors import BadRun
from twofold.plots import curves
from twofold.records import Score
from twofold.steps import _architecture, _objectives, _trials
from twofold.workflows import (
    _claims,
    _costs,
    _evidence,
    _fitted,
    _given,
    _head_costs,
    _planned,
    _recipes,
    _reproduced,
    _rules,
    _sizes,
    reproduce,
)  # fmt: skip

Command = Callable[..., tuple[int, str, str]]
GIVEN = {
    "model": "run:m", "data": "digits", "imagenet": "i", "fine_grained": "f", "shots": 2, "seeds": 2, "images": 100,
    "num": 10, "pixels": "pixels:8", "epochs": 2, "seed": 0, "device": None, "precision": None, "augment": "none",
    "size": 8, "sampling_steps": 5, "alike": 50,
    "mapped": "digits", "labelled": "digits", "map_shots": 2, "trials": 2, "updates": 4, "fewer_updates": 2,
    "other": "digits", "other_mapped": "digits", "other_labelled": "digits", "other_map_shots": 2, "flip": False,
    "rival_images": 50, "controls": ["none"], "features": "f", "other_features": "g",
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


def test_at_the_papers_scale_claims_are_judged_by_its_runs_or_say_that_it_has_none() -> None:
    there = set(_recipes.runs("paper"))
    judged = {n for n in _claims.CLAIMS if (needs := _claims.needed(n, "paper")) and set(needs) <= there}
    assert judged == {3, 4, 5, 6, 7, 10, 12, 13, 14, 17}
    for number in judged:
        bearing = [recipe for recipe in map(_recipes.load, _recipes.names()) if number in recipe.claims]
        made = {run for recipe in bearing for run in _recipes.ordered(recipe.paper, "paper", set(GIVEN))}
        assert set(_claims.needed(number, "paper")) <= made, number
    for verdict in _claims.verdicts({}, {}, None, "paper"):
        asked = "--other" in verdict.measured or "no dense tasks" in verdict.measured
        assert verdict.word == "not tested" and asked is (verdict.number in (15, 16))
        assert ("the scale paper makes no run" in verdict.measured) is (verdict.number not in {*judged, 15, 16})


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


def write_answers(folder: Path, head: str, right: np.ndarray[Any, Any], **about: Any) -> Path:
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
    about = {"row": "run:m", "head": head, "control": False, **about}
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
    assert _rules.beats(pair)[0] == beats and _rules.matches(pair)[0] == matches


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.021, 0.05, "holds"),
        (0.003, 0.015, "does not hold"),
        (0.003, 0.05, "undecided"),
        (-0.1, -0.05, "does not hold"),
    ],
)
def test_far_above_is_more_than_what_counts_as_alike(low: float, high: float, word: str) -> None:
    """Claim 4: being better for sure, by half a point, is not to be far above."""
    assert _rules.far_above(_evidence.Pair(0.5, 0.6, (low + high) / 2, low, high, 0.01))[0] == word


@pytest.mark.parametrize(
    ("theirs", "ours", "epochs", "word"),
    [(0.1, 0.8, 28, "holds"), (0.1, 0.8, 10, "undecided"), (0.8, 0.1, 10, "does not hold")],
)
def test_an_encoder_whose_epochs_were_cut_decides_nothing_for_us(
    theirs: float, ours: float, epochs: int, word: str, tmp_path: Path
) -> None:
    """Claim 3: after few epochs a supervised encoder knows nothing yet."""
    chance = np.random.default_rng(0).random((2, 300))
    supervised = write_answers(tmp_path / "supervised", "linear", chance < theirs)
    (supervised / "config.toml").write_text(f'verb = "finetune"\n[settings]\nepochs = {epochs}\n')
    found = _claims.CLAIMS[3].judge(supervised, write_answers(tmp_path / "ours", "linear", chance < ours))  # type: ignore[misc]
    assert found[0] == word and ("10 epochs, not 28" in found[1]) is (epochs == 10)


def test_adm_steps_are_the_papers_noise() -> None:
    """PAPER facts, section 1.2: sqrt(1 - abar) / sqrt(abar)."""
    for t, kept, gone in ((90, 0.956, 0.295), (150, 0.887, 0.463), (500, 0.279, 0.960)):
        assert _reproduced.noise_ratio(t) == pytest.approx(gone / kept, rel=5e-3)


def test_an_axis_of_pools_says_the_pools(tmp_path: Path) -> None:
    ours, theirs = ([1, 2, 4], [60, 80, 90], [1, 1, 1], "ours"), ([1, 2, 4, 8], [62, 65, 63, 60], "theirs")
    curves.measured_beside_published(ours, theirs, "side of the pool", tmp_path / "pools.svg", logarithmic=True)
    drawn = (tmp_path / "pools.svg").read_text()
    assert all(f"<!-- {side} -->" in drawn for side in theirs[0]) and "10^" not in drawn


@pytest.fixture(autouse=True)
def _fewer_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    less = {"blocks": ["mid", "up.0.0"], "sigma": [0.02, 0.2, 2.0], "pool": [1, 2, 4]}
    monkeypatch.setitem(_recipes.runs("small"), "map", {**_recipes.runs("small")["map"], **less})


SMALL = ("--shots", 5, "--seeds", 1, "--epochs", 1, "--device", "cpu", "--precision", "fp32", "--quiet")


def test_a_figure_is_reproduced_and_then_done(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    arguments = ("reproduce", "p1-steps", "--model", f"run:{tiny_run}", "--out", tmp_path / "out", *SMALL)
    code, out, _ = command(*arguments, "--plan", "--json")
    assert code == 0 and not (tmp_path / "out").exists()
    cost = json.loads(out)["runs"]["map"]
    assert 0 < cost["head_seconds"] < cost["seconds"] == json.loads(out)["seconds"]
    code, out, err = command(*arguments, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert [claim["number"] for claim in facts["claims"]] == [5, 14] and not facts["failed"]
    page = Path(facts["page"]).read_text()
    for said in ("At which noise step", "arXiv 2307.08702", "twofold select", '<a href="p1-steps.svg"', "55.09"):
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
    real, page = select.run, tmp_path / "out" / "index.html"
    faults = (BadData("The disk is on fire. Put it out."), RuntimeError("a fault of ours"))

    def fails(config: Any) -> Any:
        assert _planned.NOT_YET in page.read_text()
        raise faults[0]

    monkeypatch.setattr(select, "run", fails)
    code, _, err = command(*arguments)
    assert code == 2 and "twofold: 2 of 3 runs failed; map: The disk is on fire. Put it out." in err
    assert "not begun, since map failed" in page.read_text() and "knn" in page.read_text()
    faults = faults[1:]
    code, _, err = command(*arguments)
    assert code == 2 and "map: RuntimeError: a fault of ours" in err
    assert "a fault of ours" in page.read_text() and _planned.NOT_YET not in page.read_text()
    monkeypatch.setattr(select, "run", real)
    code, _, err = command(*arguments)
    assert code == 0, err
    assert (tmp_path / "out" / "after" / "results.jsonl").exists()
    assert "fault" not in page.read_text()


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
    claims = json.loads(out)["claims"]
    assert [c["number"] for c in claims] == [5, 14] and all("sigma" in c["measured"] for c in claims)


@pytest.mark.parametrize(
    ("linear", "attention", "train", "word"),
    [(0.8, 0.5, 499, "undecided"), (0.8, 0.5, 1000, "does not hold"), (0.5, 0.8, 499, "holds")],
)
def test_few_updates_decide_nothing_against_heads_of_maps(
    linear: float, attention: float, train: int, word: str, tmp_path: Path
) -> None:
    """Claim 4: attention learns slowly, so that few updates may be why it is behind, and not why it leads."""
    chance = np.random.default_rng(0).random((2, 300))
    other = write_answers(tmp_path / "attention", "attention?updates=50&rate=0.001", chance < attention, train=train)
    found = _claims.CLAIMS[4].judge(write_answers(tmp_path / "ours", "linear", chance < linear), other)  # type: ignore[misc]
    assert found[0] == word and ("in 56 updates" in found[1]) == (train == 499)


def write_scores(folder: Path, scores: list[Score]) -> Path:
    folder.mkdir()
    results.append(folder, scores)
    return folder


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.02, 0.1, "holds"), (-0.1, -0.02, "does not hold"), (-0.02, 0.1, "undecided")]
)
def test_mirror_pairs_are_judged_by_their_paired_difference(low: float, high: float, word: str, tmp_path: Path) -> None:
    """Intervals of both means overlap; the one of their difference on the same images decides."""
    scores = [
        Score(name, value, "train", 100, (0,), *ends, {"control": control})
        for control in (False, True)
        for name, value, ends in (
            ("cka_mirrored", 0.6, (0.4, 0.8)), ("cka_unmirrored", 0.5, (0.3, 0.7)),
            ("cka_mirror_gain", 0.3 if control else (low + high) / 2, (0.2, 0.4) if control else (low, high)),
        )
    ]  # fmt: skip
    found = _claims.CLAIMS[13].judge(write_scores(tmp_path / "alike", scores))  # type: ignore[misc]
    assert found[0] == word and "untrained +0.300 (+0.200 to +0.400) more, so it is no merit of training" in found[1]


@pytest.mark.parametrize(
    ("untrained", "told"),
    [
        ((0.01, 0.05), "so training adds to it"),
        ((0.11, 0.2), "whether training adds to it is undecided"),
        ((0.3, 0.4), "so it is no merit of training"),
        ((None, None), "whether training adds to it is undecided"),
    ],
)
def test_what_training_adds_to_mirror_pairs_is_said_beyond_chance(
    untrained: tuple[float | None, float | None], told: str, tmp_path: Path
) -> None:
    scores = [
        Score(name, 0.15, "train", 100, (0,), *ends, {"control": control})
        for control, ends in ((False, (0.1, 0.2)), (True, untrained))
        for name in ("cka_mirrored", "cka_unmirrored", "cka_mirror_gain")
    ]
    assert told in _evidence.mirrors(write_scores(tmp_path / "alike", scores))[1]


@pytest.mark.parametrize(
    ("theirs", "ours", "word"),
    [
        ((0.5, 100), (0.2, 100), "holds"),
        ((0.2, 100), (0.5, 100), "does not hold"),
        ((0.30, 100), (0.31, 100), "undecided"),
        ((0.5, 50), (0.2, 100), "undecided"),
        ((0.5, 100), (0.2, 50), "holds"),
        ((0.2, 100), (0.5, 50), "undecided"),
        ((0.2, 50), (0.5, 100), "does not hold"),
    ],
)
def test_a_distance_of_fewer_images_is_too_large(
    theirs: tuple[float, int], ours: tuple[float, int], word: str, tmp_path: Path
) -> None:
    """So that it cannot be what makes the other one lower."""
    runs = [
        write_scores(tmp_path / name, [Score("fd_pixels_8", value, "all", n, (), value - 0.05, value + 0.05)])
        for name, (value, n) in (("theirs", theirs), ("ours", ours))
    ]
    found = _evidence.lower(*runs)
    assert found[0] == word and ("fewer" in found[1]) is (theirs[1] != ours[1])


@pytest.mark.parametrize(
    ("seen", "word", "verdict"),
    [
        (1000, "holds", "undecided"),
        (1000, "does not hold", "does not hold"),
        (250, "holds", "holds"),
        (250, "does not hold", "does not hold"),
        (100, "holds", "holds"),
        (100, "does not hold", "undecided"),
        (None, "holds", "undecided"),
        (None, "does not hold", "does not hold"),
        (1000, "undecided", "undecided"),
    ],
)
def test_unequal_budgets_decide_nothing_for_the_longer_training(
    seen: int | None, word: str, verdict: str, tmp_path: Path
) -> None:
    """What a short training may have made is undecided; that it wins all the same counts."""
    # Whatever the rival was trained like, it is held against the model's own budget.
    files.write_json(tmp_path / "finished.json", {"images": 250, "like": "run:another"})
    found = _rules.fairly((word, ""), tmp_path, "holds", seen)
    assert found[0] == verdict
    assert f"saw 250 images, the model {'an unknown number' if seen is None else f'{seen:,}'}" in found[1]


def test_a_claim_about_a_rival_asks_for_the_budget_of_the_model_itself(tmp_path: Path) -> None:
    chance = np.random.default_rng(0).random((2, 300))
    folders = {
        "gan-linear": write_answers(tmp_path / "theirs", "linear", chance < 0.6),
        "linear": write_answers(tmp_path / "ours", "linear", chance < 0.8),
        "gan": tmp_path / "gan",
    }
    (tmp_path / "gan").mkdir()
    files.write_json(tmp_path / "gan" / "finished.json", {"images": 1000, "like": "run:another"})
    for seen, word in ((1000, "holds"), (2000, "undecided"), (None, "undecided")):
        assert _claims.verdicts(folders, {}, seen)[0].word == word
    del folders["gan"]
    assert _claims.verdicts(folders, {}, 1000)[0].word == "not tested"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ([(-0.01, 0.04), (0.0, 0.03)], "holds"),
        ([(-0.01, 0.04), (0.02, 0.06)], "undecided"),
        ([(-0.01, 0.04), (0.06, 0.09)], "does not hold"),
        ([(-0.2, -0.1)], "does not hold"),
        ([], "few pools"),
        ([(None, None)], "few images"),
    ],
)
def test_the_pool_barely_changes_similarity(tmp_path: Path, changes: list[Any], word: str) -> None:
    found = [
        Score(
            "cka_pool_change", sum(e or 0 for e in ends) / 2, "train", 100, (0,), *ends, {"pool": 2, "control": False}
        )
        for ends in changes
    ]
    run = write_scores(tmp_path / "alike", found)
    if "few" in word:
        with pytest.raises(BadRun, match=word):
            _evidence.steady(run, 0.05)
    else:
        assert _evidence.steady(run, 0.05)[0] == word


def test_the_best_setting_depends_on_the_data(tmp_path: Path) -> None:
    judge: Any = _claims.CLAIMS[8].judge
    first = write_map(tmp_path / "first", dict(zip(STEPS, (0.5, 0.7, 0.9, 0.6, 0.3), strict=True)))
    other = write_map(tmp_path / "other", dict(zip(STEPS, (0.5, 0.9, 0.7, 0.6, 0.3), strict=True)))
    chance = np.random.default_rng(0).random((2, 300))
    own = write_answers(tmp_path / "own", "ridge", chance < 0.9)
    foreign = write_answers(tmp_path / "foreign", "ridge", chance < 0.6)
    assert judge(first, other, foreign, own)[0] == "holds"
    assert judge(first, first, foreign, own)[0] == "does not hold"
    assert judge(first, other, own, foreign)[0] == "does not hold"


class Many(datasets.Dataset):
    """As many labelled images as CIFAR-10 has here, none of which is ever read."""

    name, classes, fingerprint, image_size, channels = "many", tuple("abcdefghij"), "many", 32, 3

    def build(self, split: str) -> datasets.Rows:
        start, count = {"train": (0, 32_000), "val": (32_000, 8000), "test": (40_000, 1000)}[split]
        index = np.arange(start, start + count)
        return datasets.Rows(index % 10, index, lambda _: [])


def test_sizes_fit_the_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 and a network of 5 M parameters, at the speed of two cores: from everything, a week, to an hour."""
    wanted = _architecture.Wanted(32, 3, "plain", (64, 128, 128), 1)
    placement = backbones.Placement(torch.device("cpu"), torch.float32)
    with torch.device("meta"):
        unet = _architecture.network(wanted)
    network = _objectives.make("epsilon", "linear", 1000, False).backbone(unet, placement)
    meter = _costs.Meter(network, 0.0062, 0.0085, 0.06, {})
    monkeypatch.setattr(_costs, "meter", lambda *_, **__: meter)
    monkeypatch.setattr(_head_costs, "_seconds_an_operation", lambda _: 1 / 60e9)
    monkeypatch.setattr(_fitted, "_networks", lambda *_: (network, network))
    monkeypatch.setattr(datasets, "load", lambda *_, **__: Many())
    config = reproduce.Config("all", data="many", out=tmp_path / "out", images=200_000)
    given = _given.check(config)
    planned = reproduce._plan(config, reproduce._every(), given.known)
    sized = _fitted.sized(config, given, planned)
    assert all((meter.counts[part.name][0] == part.count) for part in sized.parts)
    later = [part for part in planned if part.verb != "pretrain"]
    costs = _costs.estimate(later, sized.known, meter)
    assert 0 < (_costs.total(costs) or 0) <= 60 * 60 and costs["cnn-2"].head_seconds
    sized.keep()
    assert sized.remembered is not None
    sizes = sized.remembered[2]
    mapped, labelled = ((tmp_path / "out" / name).read_text().split() for name in ("rows.txt", "labels.txt"))
    assert set(labelled) < set(mapped)
    for names, asked in ((mapped, sizes.rows), (labelled, sizes.labels)):  # of every class as many
        assert np.bincount(np.array(names, int) % 10).tolist() == [round(asked / 10)] * 10
    # The same command gets the same sizes, however fast the machine seems to be this time; other minutes other ones.
    monkeypatch.setattr(_costs, "meter", lambda *_, **__: replace(meter, forward=1e-9, training=1e-9, counts={}))
    monkeypatch.setattr(_head_costs, "_seconds_an_operation", lambda _: 0.0)
    assert _fitted.sized(config, given, planned).known == sized.known
    assert _fitted.sized(replace(config, minutes=61), given, planned).known["labelled", ""] == "many"
    assert _fitted.sized(replace(config, seeds=7), given, planned).known["seeds", ""] == 7


def test_smaller_sizes_cost_less() -> None:
    for larger, smaller in pairwise(_sizes.LADDER):
        assert larger != smaller
        for name, value in vars(smaller).items():
            assert value <= (getattr(larger, name) or np.inf), name


def test_heads_are_counted() -> None:
    """More updates, wider networks, more rows: more work; and as many operations as the layers have."""
    shapes = {"b1_t0_p0": (8, 4, 4)}

    def work(head: str, *count: int) -> Any:
        return _head_costs.of(head, shapes, 2, 3, count or (100, 20, 50))  # type: ignore[arg-type]

    given = "rate=0.1&decay=0"
    one, two = (work(f"linear?updates={n}&epochs=1&{given}").operations for n in (1000, 2000))
    forward = 2 * 8 * 2**2 * 3
    assert one == forward * (3 * 100 * 1000 * 2 + 20 + 50) and two > 1.9 * one
    assert work("cnn?width=64").operations > work("cnn?width=32").operations > 0
    assert work("ridge", 512, 0, 1) == _head_costs.squares(512, 32) + _head_costs.squares(512, 32)
    assert _head_costs.squares(_head_costs.CUBE, 4096).cubes == pytest.approx(1)
    for head in ("knn", "logistic", "attention?attention_heads=4", "mlp"):
        assert work(head).operations > 0
    two_maps = {f"b{k}_t0_p0": (8, 4, 4) for k in (1, 2)}
    assert _head_costs.of("difformer?width=8&attention_heads=2", two_maps, 1, 3, (100, 20, 50)).operations > 0


def test_heads_of_maps_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a pass of each kind of network; how it is trained is no other network, and heads of rows are not timed."""
    shapes, count = {f"b{k}_t0_p0": (8, 4, 4) for k in (1, 2)}, (100, 20, 50)
    _head_costs._seconds_an_operation.cache_clear()
    timed: list[int] = []
    monkeypatch.setattr(_head_costs, "fastest", lambda work: timed.append(1) or work() or 2.0)

    def work(head: str, maps: int = 1) -> Any:
        some = dict(list(shapes.items())[:maps])
        return _head_costs.of(head, some, 2, 3, count, measure=True)

    short, long = (work(f"cnn?width=4&rate=0.1&decay=0.1&updates={n}") for n in (50, 100))
    assert len(timed) == 1 and short.timed == short.operations > 0 and long.seconds > 1.5 * short.seconds
    assert short.duration(1e9, 1e9) == short.seconds
    two = work("difformer?width=8&attention_heads=2", 2)
    assert len(timed) == 2 and (two + short).seconds == two.seconds + short.seconds
    rows = work("linear")
    assert len(timed) == 2 and rows.timed == 0 and rows.duration(0.5, 0.0) == rows.operations / 2


def test_a_part_of_a_data_set_is_what_its_string_opens(tmp_path: Path) -> None:
    dataset = datasets.load("digits")
    some = _sizes.part(dataset, "digits", 200, tmp_path / "some.txt")
    some.write()
    opened = datasets.load(some.name)
    counted = tuple(len(opened.build(split)) for split in datasets.SPLITS)
    assert abs(sum(some.count[:2]) - 200) <= 5 and np.abs(np.subtract(counted, some.count)).max() <= 10
    assert np.bincount(opened.build("train").labels).min() >= some.least > 0
    assert _sizes.part(dataset, "digits", 0, tmp_path / "all.txt").name == "digits"
    assert _sizes.part(opened, some.name, 100, tmp_path / "fewer.txt").name == some.name


def test_other_data_are_read_with_the_network_of_the_first(
    tiny_run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for k in range(2):
            (tmp_path / "other" / split / str(k)).mkdir(parents=True)
            for n in range(count):
                pixels = (rng.random((8, 8, 3)) * 80 + 90 * k).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "other" / split / str(k) / f"{split}{k}{n}.png")
    less = {"blocks": ["mid", "up.0.0"], "sigma": [0.02, 0.2, 2.0], "pool": [1, 2]}
    monkeypatch.setitem(_recipes.runs("small"), "other-map", {**_recipes.runs("small")["other-map"], **less})
    faster = {"head": ["ridge"], "controls": ["none"]}
    monkeypatch.setitem(_recipes.runs("small"), "other-linear", {**_recipes.runs("small")["other-linear"], **faster})
    arguments = ("reproduce", "p1-cub-grid", "--model", f"run:{tiny_run}", "--out", tmp_path / "out", *SMALL)
    code, out, err = command(*arguments, "--json")
    assert code == 0 and json.loads(out)["claims"][0]["word"] == "not tested", err
    assert "--other" in json.loads(out)["claims"][0]["measured"]
    code, out, err = command(*arguments, "--other", f"folder:{tmp_path / 'other'}", "--json")
    assert code == 0 and json.loads(out)["claims"][0]["word"] != "not tested", (out, err)
    assert "best" in json.loads(out)["claims"][0]["measured"]


@pytest.mark.browser
def test_the_page_in_a_browser(browser: Any, tiny_run: Path, tmp_path: Path, command: Command) -> None:
    arguments = ("reproduce", "p1-pools", "--model", f"run:{tiny_run}", "--out", tmp_path / "out", *SMALL)
    assert command(*arguments)[0] == 0
    page = tmp_path / "out" / "index.html"
    for width in (375, 1280):
        browsing.show(browser, page, width)
        browser.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        loaded = "return [...document.images].every((i) => i.complete && i.naturalWidth > 0)"
        assert browser.execute_script("return document.images.length") and browser.execute_script(loaded)
    # On a phone the numbers behind a verdict are seen without scrolling the table.
    browsing.show(browser, page, 375)
    ends = "return [...document.querySelectorAll('#claims td')].map((c) => c.getBoundingClientRect().right)"
    assert max(browser.execute_script(ends)) <= 375
    browser.execute_script("arguments[0].click()", browser.find_element("css selector", "#p1-pools table a"))
    assert browser.current_url.endswith("report/index.html#run-map")
    assert browser.find_element("id", "run-map").text == "map"
    assert browsing.complaints(browser) == []


WRONG = {
    "a rival that is none": (
        ("p1-main", "--gan", "nowhere"),
        "--gan nowhere is no finished run of `twofold rival gan`",
    ),
    "no such other data": (("claims", "--other", "folder:nowhere"), "nowhere"),
    "no such recipe": (("p1-step",), "No recipe 'p1-step'. Did you mean 'p1-steps'"),
    "no model at the paper's scale": (("p1-steps", "--scale", "paper"), "needs --model adm:FILE"),
    "no such model": (("p1-steps", "--model", "run:nowhere"), "nowhere"),
    "no such data": (("p1-steps", "--data", "folder:nowhere"), "nowhere"),
    "a model without noise steps": (("p1-steps", "--model", "pixels"), "pixels is no diffusion model"),
    "a recipe without runs at this scale": (
        ("rivals", "--scale", "paper", "--data", "digits", "--model", "{run}"),
        "The recipe rivals has no runs at the scale paper",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_is_one_line_before_any_work(
    what: str, tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    more, says = WRONG[what]
    code, out, err = command("reproduce", *(w.format(run=tiny_run) for w in more), "--out", tmp_path / "out", "--quiet")
    assert (code, out) == (2, "") and err.count("\n") == 1 and says in err, err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("learned", "fingerprint", "refused"),
    [
        ("folder:birds", "another", True),
        ("digits", "another", False),
        ("digits?labels=few.txt", "another", False),
        ("folder:copy", "the same", False),
    ],
)
def test_a_rival_that_is_given_must_have_learned_from_the_same_images(
    learned: str, fingerprint: str, refused: bool, tmp_path: Path, command: Command
) -> None:
    """Of another name and other content; a list of labels changes no image."""
    own = datasets.load("digits").fingerprint if fingerprint == "the same" else fingerprint
    (tmp_path / "gan").mkdir()
    told = f'verb = "rival gan"\n[settings]\ndata = "{learned}"\n[inputs]\ndata = "{own}"\n'
    (tmp_path / "gan" / "config.toml").write_text(told)
    files.write_json(tmp_path / "gan" / "finished.json", {"images": 10, "like": "run:another"})
    given = ("p1-steps", "--gan", tmp_path / "gan", "--model", "run:nowhere", "--out", tmp_path / "out", "--quiet")
    code, _, err = command("reproduce", *given)
    assert code == 2 and (f"learned from {learned}" in err) is refused, err


@pytest.mark.parametrize(("name", "says"), [("index.html", "index.html"), ("config.toml", "is a run of `transfer`")])
def test_files_of_others_are_left_alone(name: str, says: str, tiny_run: Path, tmp_path: Path, command: Command) -> None:
    """A page of the user's own, or a run, where --out leads by mistake."""
    (tmp_path / name).write_text('verb = "transfer"\n')
    given = ("--model", f"run:{tiny_run}", "--out", tmp_path, *SMALL)
    code, _, err = command("reproduce", "p1-steps", *given)
    assert code == 2 and says in err and err.count("\n") == 1, err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_recipes_are_listed(command: Command) -> None:
    code, out, _ = command("reproduce")
    assert code == 0 and all(name in out for name in _recipes.names())
    assert reproduce.MANY == ("all", "claims")
