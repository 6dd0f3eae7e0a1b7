"""Train a head through a network: streaming with augmentation, every weight, or with feedback (DifFeed)."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twofold import files, results, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset, Rows
from twofold.errors import BadSetting
from twofold.heads import base as heads
from twofold.records import Cell, Outcome, Score
from twofold.runs import Run
from twofold.settings import Settings, setting
from twofold.steps import _cells, _epochs, _labels, _metrics, _rows, _shots, _trials, _tuned
from twofold.steps._trials import Predictions

if TYPE_CHECKING:
    from twofold.heads._trained import Trained
    from twofold.heads._training import Candidate
    from twofold.steps._tuner import Tuner

log = logging.getLogger("twofold")

MODES = ("frozen", "full", "difffeed")
RECIPES = ("strong", "paper")
# Peak learning rates: PAPER.md 2 for the released code's; ours where AdamW has a warm-up.
RATES = {
    "paper": {"frozen": 1e-2, "full": 1e-3, "difffeed": 1e-2},
    "strong": {"frozen": 1e-3, "full": 3e-4, "difffeed": 1e-3},
}
DECAYS = {"paper": 0.0, "strong": 0.05}
BATCHES = {"frozen": 128, "full": 64, "difffeed": 16}
HEADS = {"frozen": "linear", "full": "linear", "difffeed": "attention?tokenizer=p2"}


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold finetune`."""

    model: str = setting(help=backbones.MODEL_HELP)
    data: str = setting(help="data set to classify")
    out: Path = setting(help="folder of the run: results.jsonl, metrics.jsonl, best.safetensors", identity=False)
    block: tuple[str, ...] = setting(help="block number or name whose features the head reads; several for difformer")
    mode: str = setting(
        "full", help="frozen: a head alone; full: every weight up to the block; difffeed: feedback nets", choices=MODES
    )
    t: tuple[float, ...] | None = setting(None, help="noise step in the model's own unit; several for difformer")
    sigma: tuple[float, ...] | None = setting(None, help="noise-to-signal ratio instead of --t")
    pool: int | None = setting(
        None, help="side of the grid that maps are averaged to; none: 1, or 0 for heads of maps", least=0, most=8192
    )
    head: str | None = setting(
        None, none="linear, for difffeed attention?tokenizer=p2", help="head trained by gradients"
    )
    recipe: str = setting("strong", help="AdamW with a cosine, or the released code's plain SGD", choices=RECIPES)
    epochs: int = setting(28, help="passes over the images", least=1, most=10**6)
    batch: int | None = setting(
        None, none="128, for full 64, for difffeed 16", help="images an update", least=2, most=10**6
    )
    rates: tuple[float, ...] | None = setting(
        None, none="what the recipe says", help="peak learning rates, of which val chooses", least=0, most=10**6
    )
    decays: tuple[float, ...] | None = setting(
        None, none="0.05, of the recipe paper 0", help="weight decays, of which val chooses", least=0, most=10**6
    )
    augment: tuple[str, ...] = setting(
        ("crop", "flip"), help="what happens to images of train", choices=_epochs.AUGMENTATIONS, alone="none"
    )
    shots: int = setting(
        0, help="labels a class to learn from, and as many of val to choose by; 0: all", least=0, most=10**9
    )
    seeds: int = setting(1, help="how many seeds (of all chance and of shots) are averaged", least=1, most=10**4)
    seed: int = setting(0, help="seed of first weights, order, augmentation, noise and shots", least=0, most=2**63 - 1)
    on_error: str = setting("stop", help=datasets.ON_ERROR_HELP, choices=datasets.ON_ERROR, identity=False)
    checkpointing: bool = setting(
        False, help="make activations again in the backward pass: less memory, slower, same numbers", identity=False
    )
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)
    precision: str = setting("auto", help="number format of the network", choices=backbones.PRECISIONS)


@dataclass(frozen=True)
class _Plan:
    """What is trained and on what; `lower`: it computes in bfloat16; `pairs`: where feedback goes."""

    dataset: Dataset
    backbone: Backbone
    lower: bool
    cells: tuple[Cell, ...]
    head: Trained
    pairs: dict[int, int]


def run(config: Config) -> Outcome:
    """Train, choose rate and epoch on val, open test once; a second run tells the same again."""
    head = _head(config)
    dataset = _dataset(config)
    backbone, lower = _tuned.loaded(config.model, config.mode, config.device or runs.own_gpu(), config.precision)
    if config.checkpointing:
        _recompute(config, backbone)
    plan = _Plan(dataset, backbone, lower, _read_at(config, backbone, head), head, _pairs(config, backbone))
    _check_company(config, dataset)
    made_from = {"model": backbone.fingerprint, "data": dataset.fingerprint}
    with runs.opened(config.out, "finetune", config, made_from, together=True) as run_:
        if run_.finished is None:
            from twofold.steps import _together

            dataset.tell_skipped()
            with _together.company(config.out, backbone.placement.device):
                _train(config, run_, plan)
                _together.wait()  # until what was found can be read
        (score,) = results.read(run_.folder, {"trained": int, "chosen": list, "val": float})
    return Outcome({"scores": [score.record()]}, _told(config, score))


def _check_company(config: Config, dataset: Dataset) -> None:
    """Every process must have an image of every batch, and of every split."""
    least = min(_batch(config), *(len(_learned(config, dataset, split, config.seed)) for split in datasets.SPLITS))
    if least < runs.processes():
        raise BadSetting(
            f"{runs.processes()} processes were started, and a batch or a split has {least} images. Start fewer."
        )


def _recompute(config: Config, backbone: Backbone) -> None:
    if config.mode == "frozen" or not isinstance(backbone, DiffusionBackbone):
        raise BadSetting("--checkpointing is for --mode full or difffeed; a frozen network has no backward pass.")
    backbone.recompute()


def _dataset(config: Config) -> Dataset:
    """The data, held against what is asked of it."""
    dataset = datasets.load(config.data, on_error=config.on_error)
    _labels.check(dataset)
    if config.shots:
        _shots.check(dataset, config.shots)
    return dataset


def _head(config: Config) -> Trained:
    """The head, which must be one that gradients train."""
    name = config.head or HEADS[config.mode]
    head = heads.load(name)
    from twofold.heads._trained import Trained

    if not isinstance(head, Trained):
        raise BadSetting(f"--head {name} is not trained by gradients. `twofold probe` fits it on frozen features.")
    maps = head.maps or head.several
    if config.pool is not None and maps is not (config.pool == 0):
        what = "maps: give --pool 0, or leave --pool out" if maps else "pooled rows: give --pool 1 or more"
        raise BadSetting(f"The head {name} reads {what}.")
    return head


def _read_at(config: Config, backbone: Backbone, head: Trained) -> tuple[Cell, ...]:
    """Where it is read: every block at every step."""
    diffusion = isinstance(backbone, DiffusionBackbone)
    if config.mode != "frozen" and not diffusion:
        raise BadSetting(f"--mode {config.mode} needs a diffusion model; {config.model} is none. Give --mode frozen.")
    if "all" in config.block:
        raise BadSetting("finetune --block is one block or several, not all. `twofold select` finds the best of all.")
    if diffusion and config.t is None and config.sigma is None:
        raise BadSetting(f"{config.model} is a diffusion model: give --t or --sigma with --block.")
    pool = (0 if head.maps or head.several else 1) if config.pool is None else config.pool
    cells = tuple(_cells.asked(backbone, config.block, _cells.steps(backbone, config.t, config.sigma), (pool,)))
    _rows.check_reads(head, len(cells))
    return cells


def _pairs(config: Config, backbone: Backbone) -> dict[int, int]:
    """Where feedback goes."""
    from twofold.steps import _through

    return _through.mirror_pairs(backbone) if config.mode == "difffeed" else {}


def _train(config: Config, run_: Run, plan: _Plan) -> None:
    """Everything that writes: checkpoints while it trains, then weights, one score, and that it is done."""
    from twofold.steps import _through, _tuner

    seeds = range(config.seed, config.seed + config.seeds)
    folders = {seed: run_.folder if seed == config.seed else run_.folder / f"seed-{seed}" for seed in seeds}
    own = _through.own_weights(plan.backbone, plan.cells, config.mode)
    first = {name: w.detach().clone() for name, w in own.items()}
    # The first seed comes last, so that its weights are in the network when that is saved.
    answered = [_one_seed(config, plan, first, seed, folders[seed]) for seed in reversed(seeds)][::-1]
    if not run_.writes:
        return
    if not results.read(run_.folder):
        found = _trials.joined([one for one, _ in answered])
        found.save(_trials.path_of(run_.folder, config.model, _head_told(config)))
        results.append(run_.folder, [_score(config, plan, found, trained=answered[0][1])])
    if config.mode == "full" and isinstance(plan.backbone, DiffusionBackbone) and (whole := plan.backbone.pipeline()):
        whole.save_pretrained(run_.folder)
    files.write_json(run_.folder / _tuned.FILE, _about(config, plan))
    run_.finish({"chosen": [json.loads(one.chosen[0]) for one, _ in answered]})
    for folder in folders.values():
        (folder / _tuner.STATE).unlink(missing_ok=True)


def _one_seed(config: Config, plan: _Plan, first: dict[str, Any], seed: int, folder: Path) -> tuple[Predictions, int]:
    """What the training of one seed answers on test, and how many weights it trained.

    A training that was killed goes on from its state; of one that is done only test is read again.
    """
    from twofold.steps import _through, _tuner
    from twofold.steps._epochs import Stream

    if runs.is_main():
        files.sweep(folder)

    def tuner(candidates: tuple[Candidate, ...]) -> Tuner:
        _through.put_back(plan.backbone, first)
        classes = len(plan.dataset.classes)
        network = _through.Through(plan.backbone, plan.cells, plan.head, classes, config.mode, seed, plan.pairs)
        return _tuner.Tuner(network, config.recipe, config.epochs, candidates, plan.lower)

    train, val, test = (
        Stream(plan.backbone, _learned(config, plan.dataset, split, seed), seed, _batch(config), config.augment)
        for split in datasets.SPLITS
    )
    groups = _groups(config)
    with runs.progress(len(groups) * config.epochs * len(train.rows), f"{config.mode}, seed {seed}") as bar:
        chosen = _tuner.best_of(groups, tuner, train, val, folder, bar)
    final = tuner(groups[0][:1]).network
    _tuner.load_best(final, folder)
    trained = sum(p.numel() for p in final.parameters() if p.requires_grad)
    scores = _tuner.scores(final, test, plan.lower)
    found = _trials.answers(
        test.rows.index, test.rows.labels, np.arange(scores.shape[1]), scores.numpy(), _tuner.probabilities(scores),
        seed=seed, val=chosen["val"], chosen=chosen,
    )  # fmt: skip
    return found, trained


def _groups(config: Config) -> list[tuple[Candidate, ...]]:
    """Every rate with every decay, by what is trained in one pass: all heads of a frozen network, else one."""
    from twofold.heads._training import Candidate

    rates = config.rates or (RATES[config.recipe][config.mode],)
    decays = config.decays or (DECAYS[config.recipe],)
    found = tuple(dict.fromkeys(Candidate(rate, decay) for rate in rates for decay in decays))
    return [found] if config.mode == "frozen" else [(one,) for one in found]


def _learned(config: Config, dataset: Dataset, split: str, seed: int) -> Rows:
    """The rows of a split, or K shots of it: val has K too, for more would be labels that are not paid for."""
    rows = dataset.build(split)
    if not config.shots or split == "test":
        return rows
    draw = _shots.draw if split == "train" else _shots.at_most
    return rows.some(draw(rows.labels, config.shots, seed))


def _batch(config: Config) -> int:
    return config.batch or BATCHES[config.mode]


def _about(config: Config, plan: _Plan) -> dict[str, Any]:
    """tuned.json, for `twofold predict`; its weights are those of the first seed."""
    return {
        "model": config.model, "fingerprint": plan.backbone.fingerprint, "cells": [*map(str, plan.cells)],
        "mode": config.mode, "head": config.head or HEADS[config.mode], "seed": config.seed, "batch": _batch(config),
        "precision": config.precision, "labels": list(plan.dataset.classes),
    }  # fmt: skip


def _head_told(config: Config) -> str:
    return f"{config.head or HEADS[config.mode]}, {config.mode}"


def _score(config: Config, plan: _Plan, found: Predictions, trained: int) -> Score:
    top1 = next(_metrics.measure(found))
    where = _rows.Row(config.model, plan.backbone, (plan.cells,), control=False).about
    feeding: dict[str, int] = {}
    if config.mode == "difffeed":  # a first pass to the deepest block whose map is fed back
        first = plan.backbone.cost(max(plan.pairs)).operations
        feeding = {"passes": where["passes"] + 1, "operations": where["operations"] + first}
    about = plan.dataset.provenance | where | feeding | {
        "data": config.data, "head": _head_told(config), "shots": config.shots,
        "chosen": [json.loads(one) for one in found.chosen], "val": float(found.val.mean()),
        "per_seed": top1.per_seed, "trained": trained, "mode": config.mode, "recipe": config.recipe,
    }  # fmt: skip
    seeds = tuple(int(seed) for seed in found.seeds)
    return Score(top1.name, top1.value, "test", len(found.labels), seeds, top1.low, top1.high, about)


def _told(config: Config, score: Score) -> str:
    chosen = score.about["chosen"]
    rates, epochs = (" ".join(f"{one[name]:g}" for one in chosen) for name in ("rate", "epoch"))
    rows = [
        ("mode", "head", "trained weights", "rate", "epoch", "val, %", "top-1 on test, %", "n"),
        (
            config.mode, score.about["head"], f"{score.about['trained']:,}", rates, epochs,
            f"{100 * score.about['val']:.1f}", results.percent(score), str(score.n),
        ),
    ]  # fmt: skip
    return results.table(rows)
