"""Sizes of the runs that fit --minutes: found by estimates on this machine, and kept for the next time."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone
from twofold.workflows import _costs, _given, _sizes
from twofold.workflows._costs import Meter
from twofold.workflows._given import Asked, Given, Known
from twofold.workflows._planned import Part
from twofold.workflows._sizes import Sizes

log = logging.getLogger("twofold")

REMEMBERED = "sizes.json"


@dataclass(frozen=True)
class Sized:
    """What stands in the place of braces, in sizes that fit.

    Attributes:
        known: it.
        meter: the network and this machine's speed.
        parts: of the data sets, whose lists are to be written.
        remembered: where, for whom and which sizes are kept; None where there is nothing to keep.
        words: what was cut to fit, empty where nothing was.
    """

    known: Known
    meter: Meter
    parts: tuple[_sizes.Part, ...] = ()
    remembered: tuple[Path, dict[str, Any], Sizes] | None = None
    words: str = ""

    def keep(self) -> None:
        """Leave lists and sizes, so that the same command goes on with the same runs."""
        for part in self.parts:
            part.write()
        if self.remembered is not None:
            _sizes.remember(*self.remembered)


def sized(config: Asked, given: Given, everything: Sequence[Part]) -> Sized:
    """Find the sizes that fit --minutes, by all recipes, so that runs which recipes share stay the same."""
    if config.scale != "small":
        measure = config.plan
        meter = _costs.meter(given.model, None, measure=measure)
        return Sized(given.known, meter)
    meter = _costs.meter(*_networks(config, given), measure=True)
    counted = [part for part in everything if part.verb != "pretrain"]
    path, asked, minutes = config.out / REMEMBERED, _asked(config, given), _given.minutes(config)

    def with_sizes(sizes: Sizes) -> tuple[Known, list[_sizes.Part]]:
        known, parts = _given.of_sizes(config, sizes, config.data or _given.DIGITS, given.data, given.other)
        meter.counts.update({part.name: (part.count, part.classes) for part in parts})
        return given.known | known, parts

    def seconds(sizes: Sizes) -> float:
        return _costs.total(_costs.estimate(counted, with_sizes(sizes)[0], meter)) or 0.0

    found = _sizes.remembered(path, asked)
    if found is None:
        found, about = _sizes.fitting(seconds, minutes, _told(config))
        if about > 60 * minutes:
            log.warning("the smallest runs are taken, and may need %s", _costs.duration(about))
    if cut := _cut(config, found):
        log.info("%s", cut)
    known, parts = with_sizes(found)
    return Sized(known, meter, tuple(parts), (path, asked, found), cut)


def _told(config: Asked) -> dict[str, Any]:
    """Sizes that were asked for."""
    return {name: getattr(config, name) for name in ("seeds", "epochs", "num") if getattr(config, name) is not None}


def _asked(config: Asked, given: Given) -> dict[str, Any]:
    """What the sizes hang on, apart from the machine."""
    names = ("images", "size", "shots", "seeds", "epochs", "num", "other", "gan", "contrastive")
    of_model = given.model.identity if given.model is not None else None
    told = {name: getattr(config, name) for name in names}
    return {name: str(v) if isinstance(v, Path) else v for name, v in told.items()} | {
        "minutes": _given.minutes(config),
        "data": given.data.fingerprint,
        "model": of_model,
    }


def _cut(config: Asked, sizes: Sizes) -> str:
    """What was cut, in words; empty where nothing was."""
    whole = vars(replace(Sizes(), **_told(config)))
    told = [f"{_sizes.WORDS[name]} {value:g}" for name, value in vars(sizes).items() if value != whole[name]]
    return f"Cut to fit --minutes {_given.minutes(config):g}: {', '.join(told)}." if told else ""


def _networks(config: Asked, given: Given) -> tuple[Backbone, Backbone]:
    """The network as features are read and as it is trained; before it is there, one of its shape."""
    if config.model is not None and given.model is not None:
        placement = getattr(given.model, "placement", None)
        if placement is None or "float32" in str(placement.dtype):
            return given.model, given.model
        return given.model, backbones.load(config.model, device=config.device, precision="fp32")
    import torch

    from twofold.steps import _architecture, _objectives, pretrain
    from twofold.steps._trainer import Recipe

    recipe = Recipe.of(pretrain.Config(config.data or _given.DIGITS, config.out / "model", size=config.size))
    side = config.size or given.data.image_size
    assert side is not None
    objective = _objectives.make(recipe.objective, recipe.schedule, recipe.steps, recipe.learned_variance)
    unet = _architecture.network(recipe.wanted(side, given.data))
    found = []
    for how in (config.precision, "fp32"):
        placement = backbones.place(config.device, how)
        placed = copy.deepcopy(unet)
        # diffusers' own `to` warns of other precisions.
        torch.nn.Module.to(placed, placement.device, placement.dtype)
        torch.nn.Module.to(placed, memory_format=torch.channels_last)
        found.append(objective.backbone(placed, placement))
    return found[0], found[1]
