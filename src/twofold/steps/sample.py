"""Generate images with a diffusion model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold import files, noise, plots, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import DiffusionBackbone
from twofold.errors import BadModel, BadSetting
from twofold.records import Outcome
from twofold.settings import Settings, setting
from twofold.steps import _drawn

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("twofold")

SAMPLERS = ("ddim", "ddpm")
GRID_MOST = 100


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold sample`."""

    model: str = setting(help="diffusion model: run:DIR or diffusers:DIR")
    out: Path = setting(help="folder of the run: PNGs in images/, and grid.png", identity=False)
    num: int = setting(64, help="number of images", least=1, most=10**7)
    sampler: str = setting("ddim", help="how noise is removed", choices=SAMPLERS)
    steps: int = setting(50, help="forward passes an image", least=1, most=100_000)
    batch: int = setting(100, help="images a forward pass", least=1, most=10**6)
    seed: int = setting(0, help="seed of the noise; image i depends on it and on i alone", least=0, most=2**63 - 1)
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)
    precision: str = setting("auto", help="number format of the network", choices=backbones.PRECISIONS)


def run(config: Config) -> Outcome:
    """Write the images that are not there yet, then the grid."""
    backbone = backbones.load(config.model, device=config.device, precision=config.precision)
    if not isinstance(backbone, DiffusionBackbone):
        raise BadModel(f"{config.model} cannot generate: it is not a diffusion model. Give run:DIR or diffusers:DIR.")
    length = backbone.schedule.get("num_train_timesteps", 0)
    if not length:
        raise BadModel(f"{config.model} has no ladder of whole noise steps, which {' and '.join(SAMPLERS)} need.")
    if config.steps > length:
        raise BadSetting(f"sample --steps must be at most {length}, the model's noise steps; not {config.steps}.")
    images = config.out / "images"
    with runs.opened(config.out, "sample", config, {"model": backbone.fingerprint}) as run_:
        images.mkdir(exist_ok=True)
        files.sweep(images)
        _write_missing(config, backbone)
        shown = [_drawn.path(config.out, i) for i in range(min(config.num, GRID_MOST))]
        plots.image_grid(shown, config.out / "grid.png")
        facts = {"images": str(images), "num": config.num, "grid": str(config.out / "grid.png")}
        run_.finish(facts)
    return Outcome(facts, f"{config.num} images in {images}, the first {len(shown)} in {config.out / 'grid.png'}.")


def _write_missing(config: Config, backbone: DiffusionBackbone) -> None:
    """Generate in fixed groups of `batch`, so that an interruption does not change what is computed together."""
    groups = [range(s, min(s + config.batch, config.num)) for s in range(0, config.num, config.batch)]
    todo = [g for g in groups if not all(_drawn.path(config.out, i).exists() for i in g)]
    with runs.progress(config.num, "sample", done=config.num - sum(map(len, todo))) as bar:
        for group in todo:
            pixels = generate(backbone, config.sampler, config.steps, config.seed, group)
            for index, image in zip(group, pixels, strict=True):
                _save(image, _drawn.path(config.out, index))
            bar.advance(len(group))


def generate(backbone: DiffusionBackbone, sampler: str, steps: int, seed: int, indices: range) -> Any:
    """Images of these numbers, uint8 [B, H, W] or [B, H, W, 3]; image i depends on (seed, i) alone."""
    import torch

    scheduler = _scheduler(backbone, sampler)
    scheduler.set_timesteps(steps)
    shape = backbone.sample_shape
    x = torch.from_numpy(noise.normal(seed, indices, shape, purpose=noise.SAMPLING)).to(backbone.placement.device)
    chances = noise.torch_generators(seed, indices, purpose=noise.SAMPLING_STEPS)
    for t in scheduler.timesteps:
        x = _step(scheduler, backbone.denoise(x, int(t)), t, x, chances)
    return backbone.pixels(x)


def _step(scheduler: Any, clean: Tensor, t: Tensor, x: Tensor, chances: list[Any]) -> Tensor:
    stepped: Tensor = scheduler.step(clean, t, x, generator=chances).prev_sample
    return stepped


def _scheduler(backbone: DiffusionBackbone, sampler: str) -> Any:
    """A sampler of diffusers on the backbone's own schedule, told that it is given estimates of the clean image."""
    from diffusers import DDIMScheduler, DDPMScheduler

    kind = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler}[sampler]
    # "trailing" starts at the last, noisiest step, as training did (Lin et al. 2023, arXiv 2305.08891, table 2).
    return kind.from_config(
        backbone.schedule,
        prediction_type="sample",
        # Latents have no ends to clip to.
        clip_sample=backbone.preprocessing["range"] == "-1..1",
        clip_sample_range=1.0,
        timestep_spacing="trailing",
    )


def _save(image: Any, path: Path) -> None:
    from PIL import Image

    with files.replacing(path) as temporary:
        Image.fromarray(image).save(temporary)
