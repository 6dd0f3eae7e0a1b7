"""Diffusion models as unified image representations: pre-train once, then generate and classify.

    import twofold

    backbone = twofold.load_backbone("run:DIR")
    data = twofold.load_dataset("digits")
    store = twofold.load_store(Path("DIR"))
    classifier = twofold.DiffusionClassifier("run:DIR", "mid", t=30).fit(images, labels)

Names are imported when they are first used, so that `import twofold` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twofold.backbones.base import load as load_backbone
    from twofold.datasets.base import load as load_dataset
    from twofold.errors import TwofoldError, UserError
    from twofold.estimators import DiffusionClassifier, DiffusionFeatures
    from twofold.store import load as load_store

__version__ = "0.1.0"

__all__ = [
    "DiffusionClassifier",
    "DiffusionFeatures",
    "TwofoldError",
    "UserError",
    "load_backbone",
    "load_dataset",
    "load_store",
]

_HOMES = {
    "DiffusionClassifier": ("twofold.estimators", "DiffusionClassifier"),
    "DiffusionFeatures": ("twofold.estimators", "DiffusionFeatures"),
    "TwofoldError": ("twofold.errors", "TwofoldError"),
    "UserError": ("twofold.errors", "UserError"),
    "load_backbone": ("twofold.backbones.base", "load"),
    "load_dataset": ("twofold.datasets.base", "load"),
    "load_store": ("twofold.store", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"twofold has no public name {name!r}; it has {', '.join(__all__)}")
    module, inner = _HOMES[name]
    return getattr(importlib.import_module(module), inner)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
