"""How far apart two sets of images are: Frechet and kernel distance, precision and recall."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from twofold import results, runs
from twofold.analyses import base as analyses
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.errors import BadData, BadSetting
from twofold.records import Cell, Outcome, Score, number_text
from twofold.settings import setting
from twofold.steps import _cells, _fill, _image_sets, _memory, _spread
from twofold.steps._image_sets import Side, Stored

log = logging.getLogger("twofold")

MEASURES = {"fd": "frechet", "kid": "kid", "pr": "precision_recall"}
INCEPTION = "inception"
MEASURED = {"measure": str}  # what the `about` of a score must hold
TABLES = ("generated", "real")  # what analyses call the two sides


@dataclass(frozen=True)
class Config(_fill.Reading):
    """Settings of `twofold fid`."""

    a: str = setting(help=f"what is judged, for instance samples: {_image_sets.HELP}", positional=True)
    b: str = setting(help=f"what it is compared with, for instance real images: {_image_sets.HELP}", positional=True)
    _: KW_ONLY
    features: str | None = setting(
        None, none="inception, or what a store was read with", help="network whose features are compared: any MODEL"
    )
    weights: Path | None = setting(
        None, none="in torch's cache", help="file of torch-fidelity's Inception weights, instead of --features"
    )
    out: Path | None = setting(
        None, none="nothing is kept", help="folder of the run: scores, and the features, so that it can go on",
        identity=False,
    )  # fmt: skip
    block: str | None = setting(None, none="the deepest of an encoder", help="block number or name")
    t: float | None = setting(None, help="noise step in the unit of a diffusion model, with --block")
    sigma: float | None = setting(None, help="noise-to-signal ratio instead of --t")
    pool: int | None = setting(
        None, none="1, all pixels of pixels", help="side of the grid that maps are averaged to", least=1, most=8192
    )
    measures: tuple[str, ...] = setting(
        tuple(MEASURES),
        help="fd: Frechet distance, kid: kernel distance, pr: precision and recall; the last two take time that grows "
        "with the square of the number of images",
        choices=tuple(MEASURES),
        identity=False,
    )
    memory: float | None = _memory.setting()
    dtype: str = setting("float32", help="number format in the store", choices=("float16", "float32"))
    precision: str = setting("fp32", help="number format of the network", choices=backbones.PRECISIONS)


def run(config: Config) -> Outcome:
    """Read what was not read yet, then measure; without --out nothing is kept."""
    _spread.check(config)
    if config.weights is not None and config.features is not None:
        raise BadSetting("--weights are those of inception, and --features names a network. Give one of them.")
    if config.weights or config.features:
        backbones.named(_model(config, []))
    sides = [_image_sets.parse(given, config.on_error) for given in (config.a, config.b)]
    _check_enough(config, sides)
    backbone, cell = _network(config, sides)
    if config.out is None:
        with tempfile.TemporaryDirectory(prefix="twofold-fid-") as folder:
            return _told(config, _compare(config, sides, backbone, cell, Path(folder)))
    inputs = {"features": backbone.fingerprint} if backbone else {}
    inputs |= {n: side.fingerprint for n, side in zip("ab", sides, strict=True)}
    with runs.opened(config.out, "fid", config, inputs) as run_:
        outcome = _told(config, _compare(config, sides, backbone, cell, run_.folder))
        run_.finish(outcome.facts)
        return outcome


def _check_enough(config: Config, sides: Sequence[Side]) -> None:
    """Raise `BadData` where a side has too few images for a measure."""
    least = max(analyses.load(MEASURES[name]).least for name in config.measures)
    for side in sides:
        if side.count < least:
            raise BadData(f"{side.name} has {side.count} images; {least} are needed. Give more, or fewer --measures.")


def _network(config: Config, sides: Sequence[Side]) -> tuple[Backbone | None, Cell]:
    """The network that reads the images, None where all features are in stores; and where it is read.

    Raises:
        BadModel, BadSetting, BadStore, UnknownName: before any image is read.
    """
    stored = [side for side in sides if isinstance(side, Stored)]
    if stored and config.sigma is not None:
        raise BadSetting(f"{stored[0].name} is a store, whose columns are named by --t. Give that instead of --sigma.")
    backbone, model = None, _model(config, stored)
    cell = _image_sets.the_cell(stored, config.block, config.t, config.pool) if stored else None
    if len(stored) < len(sides):
        # First without weights, whose reading may take minutes.
        cell = cell or _cell(config, backbones.load(model, weightless=True))
        backbone = config.load(model)
    elif config.features or config.weights:
        raise BadSetting("Both sides are stores, which know what they were read with. Leave --features, --weights out.")
    own = _fill.key_of(backbone, config) if backbone else {}
    _image_sets.check_alike(sides, [side.store.key if isinstance(side, Stored) else own for side in sides])
    assert cell is not None
    return backbone, cell


def _model(config: Config, stored: Sequence[Stored]) -> str:
    """The MODEL string of the network: as told, else that of a store, else the FID's."""
    if config.weights is not None:
        return f"{INCEPTION}:{config.weights}"
    return config.features or (str(stored[0].store.about["model"]) if stored else INCEPTION)


def _cell(config: Config, backbone: Backbone) -> Cell:
    """Where a network is read: as asked, or the deepest block of an encoder, averaged over the map."""
    noisy = isinstance(backbone, DiffusionBackbone)
    if noisy and (config.block is None or (config.t is None and config.sigma is None)):
        raise BadSetting(
            f"{backbone.name} is a diffusion model, so where it is read must be said. Give --block and --t; "
            f"`twofold blocks {backbone.name}` lists its blocks."
        )
    t, sigma = ([value] if value is not None else None for value in (config.t, config.sigma))
    block = backbone.block(backbone.blocks[-1].number if config.block is None else config.block)
    pixels = backbones.parse(backbone.name).scheme == "pixels"
    pool = config.pool or (block.size if pixels else 1)
    return _cells.asked(backbone, [block.name], _cells.steps(backbone, t, sigma), [pool])[0]


def _compare(config: Config, sides: Sequence[Side], backbone: Backbone | None, cell: Cell, folder: Path) -> list[Score]:
    """All scores; what is in the folder already is neither read nor measured again."""
    places = (folder / "features" / name for name in "ab")
    stored = [_read(config, side, backbone, cell, where) for side, where in zip(sides, places, strict=True)]
    memory = _memory.bytes_for(config.memory) // len(stored)
    tables = {name: side.table(cell, memory) for name, side in zip(TABLES, stored, strict=True)}
    about = _about(stored, cell) | {"dimensions": tables["real"].shape[1]}
    if "fd" in config.measures:
        _warn(about)
    known = {score.about["measure"] for score in results.read(folder, MEASURED)}
    for measure in config.measures:
        if measure not in known:
            found = analyses.load(MEASURES[measure]).measure(tables)
            results.append(folder, [named(score, measure, about) for score in found])
    return [score for score in results.read(folder) if score.about["measure"] in config.measures]


def _read(config: Config, side: Side, backbone: Backbone | None, cell: Cell, where: Path) -> Stored:
    """A side's features: those that are stored, or what the network sees in images, in a store of the run."""
    if isinstance(side, Stored):
        return side
    assert backbone is not None
    target = _fill.open_store(where, backbone, side.dataset, config)
    _spread.fill(target, backbone, side.dataset, side.splits, [cell], config)
    return Stored(side.name, target, side.splits, side.part)


def _about(stored: Sequence[Stored], cell: Cell) -> dict[str, Any]:
    """What all scores say of themselves."""
    a, b = stored
    model, where = str(a.store.about["model"]), a.store.about_cell(a.splits[0], cell)
    published = is_fid(a.store.key, where)
    return {
        "a": a.name, "b": b.name, "a_n": a.count, "b_n": b.count, "a_split": a.part, "b_split": b.part,
        "features": model, "backbone": a.store.key["backbone"], "word": "" if published else word(model, cell),
        "cell": str(cell), "block": where["name"], "t": cell.tap.t, "sigma": where["sigma"], "pool": cell.pool,
    }  # fmt: skip


def is_fid(key: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether features are those that a FID is of: torch-fidelity's weights, in single precision, at its layer.

    Args:
        key: of a store.
        where: what the store says of a cell.
    """
    from twofold.backbones import inception

    at_the_end = (where["name"], where["pool"]) == (inception.FEATURES, 1)
    return inception.is_published(key["backbone"]) and key["precision"] == "float32" and at_the_end


def word(model: str, cell: Cell) -> str:
    """What features are called in the name of a score: `torchvision:squeezenet1_1@FILE` is `squeezenet1_1`.

    A diffusion model is none without its tap: `run:runs/digits` is `digits_b8_t30_p1`.
    """
    name = backbones.parse(model)
    own = f"{name.scheme}_{name.argument}" if name.scheme == "pixels" else name.argument.partition("@")[0]
    plain = INCEPTION if name.scheme == INCEPTION else Path(own).name.removesuffix(".pt")
    network = re.sub(r"\W+", "_", f"{plain}_untrained" if name.untrained else plain).strip("_") or name.scheme
    return network if cell.tap.t is None else f"{network}_{cell}"


def named(score: Score, measure: str, about: dict[str, Any]) -> Score:
    """A score that says which features it is of; only those of the published Inception need not."""
    own = {n: v for n, v in about.items() if n != "word"} | score.about | {"measure": measure}
    split = about["b_split" if score.name == "recall" else "a_split"]
    name = f"{score.name}_{about['word']}" if about["word"] else {"fd": "fid"}.get(score.name, score.name)
    return replace(score, name=name, split=split, about=own)


def _warn(about: dict[str, Any]) -> None:
    for side in "ab":
        if about[f"{side}_n"] <= about["dimensions"]:
            log.warning(
                "%s has %s images for %s features: their covariance is not known, and the Frechet distance is too "
                "large. Compare only with distances of as many images.", about[side], about[f"{side}_n"],
                about["dimensions"],
            )  # fmt: skip


def _told(config: Config, scores: Sequence[Score]) -> Outcome:
    """The scores as a table."""
    about = scores[0].about
    noise = "" if about["t"] is None else f" at t = {number_text(about['t'])}"
    lines = [("", "value", "95 % interval")]
    for s in scores:
        assert s.low is not None and s.high is not None
        lines.append((s.name, f"{s.value:.4g}", f"{s.low:.4g} to {s.high:.4g}"))
    told = (
        f"{about['a']} ({about['a_n']:,} images) against {about['b']} ({about['b_n']:,}): "
        f"{about['dimensions']:,} features of {about['features']}, {about['block']}{noise}"
    )
    facts = {"scores": [s.record() for s in scores], "out": None if config.out is None else str(config.out)}
    return Outcome(facts, f"{told}\n{results.table(lines)}")
