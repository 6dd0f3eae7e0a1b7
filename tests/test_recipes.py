"""The recipes of trainings in `recipes/`: settings that `pretrain` takes, and networks that fit their images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from twofold import settings
from twofold.steps import _architecture, pretrain
from twofold.steps._architecture import Wanted

ROOT = Path(__file__).parent.parent
TRAININGS = sorted((ROOT / "recipes").glob("*_pretrain*.toml"))
SIDES = {"cifar10": 32}


def wanted(recipe: Path) -> Wanted:
    """The network of a recipe, for the side that its name says."""
    values = {**settings.read_file(recipe), "data": "folder:anywhere", "out": "anywhere"}
    config = settings.build(pretrain.Config, values, "pretrain")
    return Wanted(SIDES[recipe.stem.partition("_")[0]], 3, config.unet, config.widths, config.layers)


@pytest.mark.parametrize("recipe", TRAININGS, ids=lambda recipe: recipe.stem)
def test_a_training_can_be_started(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    _architecture.check(wanted(recipe))


def test_the_large_one_is_the_network_of_ho_et_al(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with torch.device("meta"):
        network = _architecture.network(wanted(ROOT / "recipes/cifar10_pretrain_gpu.toml"))
    assert sum(p.numel() for p in network.parameters()) == 35_746_307
    assert len(TRAININGS) == 2
