"""A rival's run from beginning to end: the budget, the training, what is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from twofold import files, runs
from twofold.datasets import base as datasets
from twofold.errors import BadSetting
from twofold.records import Outcome
from twofold.rivals.base import Common, Rival
from twofold.steps import _course

if TYPE_CHECKING:
    from twofold.backbones._network import DiffusionNetwork

C = TypeVar("C", bound=Common)
Make = Callable[[C, "DiffusionNetwork"], Rival]


def run(config: C, make: Make[C]) -> Outcome:
    """Train to the end, from the last checkpoint if there is one."""
    name = type(config).__module__.rpartition(".")[2]
    config = replace(config, images=config.images or _budget(config.like))
    from twofold.rivals import _net
    from twofold.steps import _probing

    # First without weights: settings are held against the network before anything is made.
    make(config, _net.like(config.like, weightless=True))
    dataset = datasets.load(config.data, sealed=("test",))
    if config.probe_every and not _probing.possible(dataset):
        raise BadSetting(f"--probe-every: {config.data} has no two classes with images to judge on. Leave it out.")
    backbone = _net.like(config.like, device=config.device)
    inputs = {"data": dataset.fingerprint, "like": backbone.fingerprint}
    with runs.opened(config.out, f"rival {name}", config, inputs) as run_:
        if done := run_.again(_course.told):
            return done
        _net.refresh(backbone.network, config.seed)
        facts = _trained(config, make, backbone, dataset, run_)
        run_.finish(facts)
    return Outcome(facts, f"{config.out}: {_course.told(facts)}")


def _trained(
    config: C, make: Make[C], backbone: DiffusionNetwork, dataset: datasets.Dataset, run_: runs.Run
) -> dict[str, Any]:
    from twofold.rivals._trainer import Trainer

    diffusion = 3 * backbone.cost(backbone.blocks[-1].number).operations
    rival = make(config, backbone)
    trainer = Trainer(config, rival, backbone, dataset)
    operations = trainer.operations()
    facts = _course.train(config, trainer, run_)
    left = rival.leave(run_.folder)
    # A backward pass costs two forward ones.
    budget = {"parameters_beside": trainer.beside, "operations_per_image": operations, "like_operations": diffusion}
    return {**facts, **budget, "like": config.like, **left}


def _budget(like: str) -> int:
    """As many images as a run saw."""
    path = Path(like.partition("?")[0].removeprefix("run:")) / "finished.json"
    if not path.exists():
        raise BadSetting(f"{like} does not say how many images it saw: it has no finished.json. Give --images.")
    found: int = files.read_json(path, {"images": int})["images"]
    return found
