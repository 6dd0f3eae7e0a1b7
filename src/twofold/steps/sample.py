"""Generate images with a diffusion model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from twofold import files, noise, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.claims import Claims
from twofold.errors import BadSetting
from twofold.plots import pictures
from twofold.records import Outcome
from twofold.runs import Run
from twofold.settings import Settings, setting
from twofold.steps import _drawn, _guidance, _samplers, _sharing, _workers

log = logging.getLogger("twofold")

SAMPLERS = tuple(_samplers.SAMPLERS)
WRITERS = 8  # files that are on their way to the disk at once


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold sample`."""

    model: str = setting(help="diffusion model: run:DIR, adm:FILE.pt or diffusers:DIR_OR_HUB_ID")
    out: Path = setting(help="folder of the run: PNGs in images/, and grid.png", identity=False)
    num: int = setting(
        64, help="number of images; a larger one later adds the missing", least=1, most=10**7, identity=False
    )
    sampler: str = setting("ddim", help=f"how noise is removed: {', '.join(SAMPLERS)}", choices=SAMPLERS)
    steps: int = setting(
        50, help="noise steps an image; heun and edm take two forward passes each", least=1, most=100_000
    )
    label: tuple[str, ...] | None = setting(
        None, help="classes told in turn, names or numbers, or all; none: no class", repeats=True, alone=_guidance.ALL
    )
    guidance: float = setting(
        1.0, help="how hard images are pulled towards their class; 0: no class, 1: the class alone", least=0, most=1000
    )
    batch: int = setting(100, help="images a forward pass", least=1, most=10**6, identity=False)
    seed: int = setting(0, help="seed of the noise; image i depends on it and on i alone", least=0, most=2**63 - 1)
    grid: int = setting(100, help="images in grid.png; 0: no grid", least=0, most=10**4, identity=False)
    workers: int = setting(1, help="processes that share the images", least=1, most=10**4, identity=False)
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)
    precision: str = setting("auto", help="number format of the network", choices=backbones.PRECISIONS)


def run(config: Config) -> Outcome:
    """Write the images that are not there yet, then the grid."""
    if config.workers > 1 and runs.processes() > 1:
        raise BadSetting("--workers starts processes, and so did torchrun. Give one of them.")
    drawing = Drawing.of(config, config.device or runs.own_gpu())
    inputs = {"model": drawing.backbone.fingerprint}
    with runs.opened(config.out, "sample", config, inputs, together=True) as run_:
        drawing = replace(drawing, config=_grown(config, run_))
        _begin(run_)
        _share(drawing)
        facts = {"images": str(config.out / "images"), "num": drawing.config.num, "grid": None}
        if config.grid and run_.writes:
            shown = [drawing.path(i) for i in range(min(drawing.config.num, config.grid))]
            pictures.image_grid(shown, config.out / "grid.png")
            facts["grid"] = str(config.out / "grid.png")
        run_.finish(facts)
    shown_in = f", the first of them in {facts['grid']}" if facts["grid"] else ""
    return Outcome(facts, f"{facts['num']} images in {facts['images']}{shown_in}.")


def _grown(config: Config, run_: Run) -> Config:
    """A run never shrinks: a smaller --num is answered with the images of a larger one that was done before."""
    there = (run_.finished or {}).get("num", 0)
    return replace(config, num=max(config.num, there if isinstance(there, int) else 0))


@dataclass(frozen=True, eq=False)
class Drawing:
    """A network and what is asked of it.

    Attributes:
        config: the settings.
        backbone: the network.
        classes: the class of image i is the entry i modulo their number; empty: no class is told.
    """

    config: Config
    backbone: DiffusionBackbone
    classes: tuple[int, ...]

    @classmethod
    def of(cls, config: Config, device: str | None) -> Drawing:
        """Load the network and hold the settings against it.

        Raises:
            BadModel, BadSetting, UnknownName: before any image is made.
        """
        if config.label is None and config.guidance != 1:
            raise BadSetting("--guidance pulls towards a class, and none is told. Give --label NAME, NUMBER or all.")
        # First without weights, whose reading may take minutes.
        _check(config, backbones.load(config.model, weightless=True))
        backbone = _check(config, backbones.load(config.model, device=device, precision=config.precision))
        return cls(config, backbone, _guidance.classes(backbone, config.label) if config.label else ())

    def path(self, index: int) -> Path:
        """The file of an image."""
        return _drawn.path(self.config.out, index, self._folders[self._label(index)] if self.classes else "")

    @cached_property
    def _folders(self) -> list[str]:
        return _guidance.folders(self.backbone)

    def _label(self, index: int) -> int:
        return self.classes[index % len(self.classes)]

    def images(self, indices: range) -> Any:
        """Images of these numbers, uint8 [B, H, W] or [B, H, W, 3]; image i depends on (seed, i) alone."""
        import torch

        config, backbone = self.config, self.backbone
        own = noise.normal(config.seed, indices, backbone.sample_shape, purpose=noise.SAMPLING)
        chances = partial(noise.torch_generators, config.seed, indices, purpose=noise.SAMPLING_STEPS)
        device = backbone.placement.device
        labels = torch.tensor([self._label(i) for i in indices], device=device) if self.classes else None
        estimate = _guidance.estimate(backbone, labels, config.guidance)
        with torch.inference_mode():
            x = torch.from_numpy(own).to(device)
            return backbone.pixels(_samplers.walk(backbone, config.sampler, config.steps, x, chances, estimate))


def _check(config: Config, loaded: Backbone) -> DiffusionBackbone:
    """The backbone, if it can do what the settings say."""
    backbone = _samplers.generating(config.model, loaded)
    most = backbone.process.length
    if most is not None and config.steps > most:
        raise BadSetting(f"sample --steps must be at most {most}, the model's noise steps; not {config.steps}.")
    if config.label is not None:
        _guidance.classes(backbone, config.label)
    return backbone


@dataclass(frozen=True, eq=False)
class Group:
    """Images that are made together, always the same ones, so that an interruption does not change them."""

    rows: range

    @property
    def name(self) -> str:
        """By which processes agree on who makes it."""
        return f"{self.rows.start}"

    chunk = name


@dataclass(frozen=True, kw_only=True)
class Task(_workers.Task):
    """What another process must know to make a share of the images."""

    config: Config

    def work(self, begun: Callable[[], None]) -> int:
        """Make images; gives how many."""
        drawing = Drawing.of(self.config, self.settle(self.config.device))
        begun()
        return _write_missing(drawing)


def _begin(run_: Run) -> None:
    """Nobody writes before the first process has made the folder and cleared it of what killed writers left."""
    if run_.writes:
        images = run_.folder / "images"
        images.mkdir(exist_ok=True)
        for folder in (images, *(p for p in images.iterdir() if p.is_dir())):
            files.sweep(folder)
    if runs.processes() > 1:
        from torch import distributed

        distributed.init_process_group("gloo")
        distributed.barrier()
        distributed.destroy_process_group()


def _share(drawing: Drawing) -> None:
    """Make all images that are missing, with as many processes as are asked for."""
    config = drawing.config
    if config.workers == 1 or not any(_lacking(drawing, group) for group in _groups(config)):
        _write_missing(drawing)
        return
    with _workers.started(Task(config=replace(config, workers=1)), config.workers, "images") as workers:
        _write_missing(drawing)
        for worker in workers:
            worker.made()


def _groups(config: Config) -> list[Group]:
    return [Group(range(s, min(s + config.batch, config.num))) for s in range(0, config.num, config.batch)]


def _lacking(drawing: Drawing, group: Group) -> bool:
    return not all(drawing.path(i).exists() for i in group.rows)


def _write_missing(drawing: Drawing) -> int:
    """Make what is missing and nobody else makes; gives how many images. Files are written while the next are made."""
    config, made = drawing.config, 0
    todo = [group for group in _groups(config) if _lacking(drawing, group)]
    left = sum(len(group.rows) for group in todo)
    with (
        runs.progress(config.num, "sample", done=config.num - left) as bar,
        Claims(config.out / ".claims") as claims,
        ThreadPoolExecutor(WRITERS) as writers,
    ):
        writing: list[Future[None]] = []
        for group in _sharing.share(todo, claims, lambda group: _lacking(drawing, group), bar):
            pixels = drawing.images(group.rows)
            _settled(writing)
            paths = [drawing.path(i) for i in group.rows]
            writing = [writers.submit(_save, *pair) for pair in zip(pixels, paths, strict=True) if not pair[1].exists()]
            made += len(group.rows)
            bar.advance(len(group.rows))
        _settled(writing)
    return made


def _settled(writing: list[Future[None]]) -> None:
    """Wait for files to be written; the first that could not be is an error here."""
    for one in writing:
        one.result()


def _save(image: Any, path: Path) -> None:
    from PIL import Image

    with files.replacing(path) as temporary:
        Image.fromarray(image).save(temporary)
