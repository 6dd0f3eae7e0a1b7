"""How alike are blocks, noise steps, pools and networks? Linear CKA on images of one data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from twofold import results, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.errors import BadData, BadSetting
from twofold.records import Outcome, Score
from twofold.runs import Run
from twofold.settings import setting
from twofold.steps import _cells, _fill, _likeness, _sides
from twofold.steps._likeness import Pair
from twofold.steps._part import Drawn
from twofold.steps._sides import Side

LEAST = 4  # rows: fewer have no unbiased estimate
SIGMA = 0.31  # t = 90 of the papers' linear schedule


@dataclass(frozen=True)
class Config(_fill.Reading):
    """Settings of `twofold compare`."""

    models: tuple[str, ...] = setting(help="one or two networks; one is compared with itself; see --model of extract")
    data: str = setting(help="data set whose images both read: digits, ...")
    out: Path = setting(help="folder of the run: cka.npz, cka.csv, heat maps", identity=False)
    blocks: tuple[str, ...] = setting(("all",), help="block numbers or names, or all; see twofold blocks", alone="all")
    other_blocks: tuple[str, ...] | None = setting(
        None, none="as --blocks", help="blocks of the second network", alone="all"
    )
    t: tuple[float, ...] | None = setting(
        None, help="noise steps in each network's own unit, the first against all; none: sigma 0.31"
    )
    sigma: tuple[float, ...] | None = setting(None, help="noise-to-signal ratios instead of --t")
    pool: tuple[int, ...] = setting(
        (1,), help="sides of the grid that maps are averaged to; 0 keeps the map", least=0, most=8192
    )
    noise: str = setting(
        "independent",
        help="independent: columns see other noise than rows, as in the papers; shared: the same",
        choices=("independent", "shared"),
    )
    controls: str = setting(
        "none", help="untrained: the same comparison with random weights beside it", choices=("none", "untrained")
    )
    split: str = setting("val", help="split whose images are read", choices=datasets.SPLITS)
    rows: int = setting(10_000, help="images, drawn at random, or all where there are fewer", least=LEAST, most=10**9)
    minibatch: int = setting(256, help="images of a minibatch of CKA, at least", least=LEAST, most=10**6)
    features: str | None = setting(None, help="folder or address of the stores; none: OUT/features", identity=False)


def run(config: Config) -> Outcome:
    """Read features that are not there yet, compare all pairs in one reading of the stores, write and draw."""
    _check(config)
    runs.check_free(config.out, "compare", config)
    dataset = datasets.load(config.data, on_error=config.on_error)
    rows = _drawn(config, dataset)
    # First without weights, whose reading may take minutes.
    _compared(config, partial(backbones.load, weightless=True))
    sides, pairs = _compared(config, config.load)
    inputs = {f"model_{k + 1}": side.backbone.fingerprint for k, side in enumerate(sides)}
    with runs.opened(config.out, "compare", config, inputs | {"data": dataset.fingerprint}) as run_:
        if done := run_.again(_told):
            return done
        dataset.tell_skipped()
        where = config.features or str(config.out / "features")
        filled = [side.filled(where, rows, config.split) for side in sides]
        stores = [(side, store) for side, (store, _) in zip(sides, filled, strict=True)]
        sums = _sides.similar(stores, config.split, config.minibatch)
        facts = _conclude(config, run_, pairs, sums, len(rows.build(config.split)), dataset.provenance)
        facts["passes"] = sum(made for _, made in filled)
        run_.finish(facts)
    return Outcome(facts, f"{config.out}: {_told(facts)}")


def _check(config: Config) -> None:
    if len(config.models) > 2:
        raise BadSetting(f"compare --models names {len(config.models)} networks. Give one or two.")
    if config.workers > 1 or config.ray is not None:
        raise BadSetting("compare reads the rows that it draws by itself. Leave --workers and --ray out.")
    if len(config.models) == 1 and config.other_blocks is not None:
        raise BadSetting("compare --other-blocks is of a second network, and --models names one. Leave it out.")


def _drawn(config: Config, dataset: datasets.Dataset) -> Drawn:
    """The images that all networks read."""
    there = len(dataset.build(config.split))
    if there < LEAST:
        raise BadData(
            f"The {config.split} split of {config.data} has {there} images; CKA needs {LEAST}. "
            "Give another --split, or more images."
        )
    return Drawn(dataset, config.split, config.rows, config.seed)


def _compared(config: Config, load: Callable[[str], Backbone]) -> tuple[list[Side], list[Pair]]:
    """The sides, each once, and the pairs of them that are looked at."""
    untrained = [_untrained(model) for model in config.models]
    named = [(config.models, False)]
    if config.controls == "untrained":
        if untrained == list(config.models):
            raise BadSetting("compare --controls untrained: no network of --models has weights that were trained.")
        named.append((tuple(untrained), True))
    sides: list[Side] = []
    pairs = []
    loaded: dict[str, Backbone] = {}
    for models, control in named:
        for model in models:
            if model not in loaded:
                loaded[model] = load(model)
        row, column = _both(config, models, loaded)
        numbers = [_number(sides, side) for side in (row, column)]
        name = "cka-untrained" if control else "cka"
        pairs.append((name, numbers, control))
    starts = [sum(len(side.cells) for side in sides[:k]) for k in range(len(sides))]
    return sides, [Pair(name, sides[a], sides[b], (starts[a], starts[b]), control) for name, (a, b), control in pairs]


def _untrained(model: str) -> str:
    """The same network with random weights; of what has none, itself."""
    name = backbones.parse(model)
    return model if name.untrained or name.scheme in backbones.ARGUMENT_FREE else f"{model}?untrained"


def _both(config: Config, models: Sequence[str], loaded: dict[str, Backbone]) -> tuple[Side, Side]:
    """Rows and columns: two networks, or one with two noise samples."""
    given = [(models[0], config.blocks), (models[-1], config.other_blocks or config.blocks)]
    noisy = any(isinstance(loaded[model], DiffusionBackbone) for model in models)
    reading = config.alone
    other = replace(reading, seed=reading.seed ^ _sides.SECOND) if config.noise == "independent" else reading
    found = []
    for (model, blocks), how in zip(given, (reading, other), strict=True):
        backbone = loaded[model]
        clean = noisy and not isinstance(backbone, DiffusionBackbone)
        asked = (None, None) if clean else (config.t, config.sigma)
        steps = _cells.steps(backbone, *asked) if asked != (None, None) else _default(backbone)
        cells = tuple(_cells.asked(backbone, blocks, steps, config.pool))
        found.append(Side(model, backbone, cells, reading if steps == [None] else how))
    return found[0], found[1]


def _default(backbone: Backbone) -> list[float | None]:
    return [backbone.step(SIGMA)] if isinstance(backbone, DiffusionBackbone) else [None]


def _number(sides: list[Side], side: Side) -> int:
    """The place of a side among all; what is read the same way stands there once."""
    for k, there in enumerate(sides):
        if there.backbone is side.backbone and there.cells == side.cells and there.reading == side.reading:
            return k
    sides.append(side)
    return len(sides) - 1


def _conclude(
    config: Config, run_: Run, pairs: Sequence[Pair], sums: Any, rows: int, provenance: dict[str, Any]
) -> dict[str, Any]:
    """Write numbers, scores and figures; gives what the run says of itself."""
    matrix = sums.cka()
    about = {"data": config.data, "noise": config.noise, "minibatch": config.minibatch, "seed": config.seed}
    found = [s for pair in pairs for s in _likeness.scores(pair, sums, config.split, rows, about | provenance)]
    (run_.folder / "results.jsonl").unlink(missing_ok=True)
    results.append(run_.folder, found)
    pictures = []
    for pair in pairs:
        _likeness.write(pair, matrix, run_.folder)
        title = f"CKA on {rows:,} {config.split} images of {_last(config.data)}"
        pictures += _likeness.draw(pair, matrix, _names(pair), title, run_.folder)
    return {
        "models": list(config.models), "data": config.data, "split": config.split, "n": rows,
        "means": [_mean(score) for score in found], "matches": _likeness.matches(pairs[0], matrix),
        "same": pairs[0].same, "pictures": [str(path) for path in pictures], **provenance,
    }  # fmt: skip


def _names(pair: Pair) -> tuple[str, str]:
    """What stands beside the rows and the columns."""
    row, column = (_short(side.model) for side in (pair.row, pair.column))
    return row, f"{column}, other noise" if row == column and pair.row is not pair.column else column


def _short(model: str) -> str:
    """A network's name as an axis has room for it."""
    name = backbones.parse(model)
    last = _last(name.argument.partition("@")[0]) or name.scheme
    if name.scheme == "pixels":  # the argument is their side, and no name
        return model
    return f"{last}, untrained" if name.untrained else last


def _last(name: str) -> str:
    """A name without the way to its folder."""
    return name.rstrip("/").rpartition("/")[2]


def _mean(score: Score) -> dict[str, Any]:
    told = {"name": score.name, "cka": round(score.value, 4), "low": score.low, "high": score.high}
    return told | {name: score.about[name] for name in ("steps", "sigmas", "pool", "control")}


def _told(facts: dict[str, Any]) -> str:
    first = facts["means"][0]
    ends = f" ({first['low']:.3f} to {first['high']:.3f})" if first["low"] is not None else ""
    told = f"mean CKA {first['cka']:.3f}{ends} of {len(facts['matches'])} blocks on {facts['n']:,} images"
    if facts["same"]:
        return f"{told}; figures: {', '.join(facts['pictures'])}"
    best = ", ".join(f"{m['block']}:{m['best']}" for m in facts["matches"])
    return f"{told}; best match of each block of {facts['models'][-1]}: {best}; figures: {', '.join(facts['pictures'])}"
