"""Classes for class-conditional models: which are asked for, what they are called, how hard images are pulled there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from twofold.backbones.base import DiffusionBackbone
from twofold.errors import BadSetting, unknown
from twofold.steps._samplers import Estimate

if TYPE_CHECKING:
    from torch import Tensor

ALL = "all"


def classes(backbone: DiffusionBackbone, asked: Sequence[str]) -> tuple[int, ...]:
    """The class numbers of names and numbers; `all` is each class once.

    Raises:
        BadSetting, UnknownName: the model has no classes, none of that name or number, or several of that name.
    """
    if not backbone.classes:
        raise BadSetting(f"{backbone.name} knows no classes, so a label means nothing to it. Leave --label out.")
    if tuple(asked) == (ALL,):
        return tuple(range(backbone.classes))
    known = _called(backbone.class_names)
    return tuple(_class(one, backbone, known) for one in asked)


def _called(names: Sequence[str]) -> dict[str, list[int]]:
    """The classes of each name; a synonym of one class that is the whole name of another is that one's."""
    whole: dict[str, list[int]] = {}
    parts: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        whole.setdefault(name, []).append(k)
        for word in dict.fromkeys(_synonyms(name)):
            parts.setdefault(word, []).append(k)
    return parts | whole


def _class(asked: str, backbone: DiffusionBackbone, known: dict[str, list[int]]) -> int:
    if asked in known:
        if len(known[asked]) > 1:
            shared = ", ".join(map(str, known[asked]))
            raise BadSetting(f"Several classes of {backbone.name} are called {asked!r}. Give one of: {shared}.")
        return known[asked][0]
    number = asked.lstrip("-").isdecimal()
    # Where names are numbers, as of folders 1, 2 and 3, a number that is no name may mean this or that.
    if known and (not number or any(word.isdecimal() for word in known)):
        raise unknown(f"class of {backbone.name}", asked, known)
    if asked.isdecimal() and int(asked) < backbone.classes:
        return int(asked)
    raise BadSetting(f"--label of {backbone.name} must be 0 to {backbone.classes - 1}, or all; not {asked}.")


def _synonyms(name: str) -> list[str]:
    """ImageNet's classes are called by several words with commas between."""
    return [word.strip() for word in name.split(",")]


def folders(backbone: DiffusionBackbone) -> list[str]:
    """What the folders of all classes are called: a name each, or numbers with zeros so that they sort as classes do.

    Of classes that are called the same (ImageNet has two cranes), each has its number behind it.
    """
    if not backbone.class_names:
        width = len(str(backbone.classes - 1))
        return [f"{k:0{width}d}" for k in range(backbone.classes)]
    names = [re.sub(r"[/\\\0]+", "_", _synonyms(name)[0]).strip(". ") for name in backbone.class_names]
    counts = Counter(name.casefold() for name in names)
    return [name if name and counts[name.casefold()] == 1 else f"{name} {k}".strip() for k, name in enumerate(names)]


def estimate(backbone: DiffusionBackbone, labels: Tensor | None, weight: float) -> Estimate:
    """The network told classes, pulled towards them: no class + weight (class - no class).

    Classifier-free guidance (Ho and Salimans 2022, eq. 6) on the estimate of the clean image; that is the same as on
    the noise, since one is a linear function of the other. 0 is no class, 1 the class alone. The variance, where one
    is learned, is that of the class.
    """

    def guided(x: Tensor, t: float) -> tuple[Tensor, Tensor | None]:
        told, variance = backbone.estimate(x, t, labels)
        if labels is None or weight == 1:
            return told, variance
        untold = backbone.denoise(x, t)
        return untold + weight * (told - untold), variance

    return guided
