"""Denoise, fill in, enlarge or vary images with a diffusion model that was trained for none of it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold import noise, plots, runs, settings
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.errors import BadData, BadModel, BadSetting
from twofold.records import Outcome
from twofold.settings import Settings, setting
from twofold.steps import _edited, _samplers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from twofold.steps._editing import Keep

log = logging.getLogger("twofold")

# Of each task: the settings that are its own, and defaults of steps and average (docs/editing.md).
OWN = {"denoise": ("noise_level",), "inpaint": ("mask",), "superres": ("factor",), "vary": ("t", "sigma")}
DEFAULTS = {"denoise": (1, 1), "inpaint": (50, 8), "superres": (50, 8), "vary": (50, 1)}
FRESH = 0.85  # share of new noise a step in inpaint and superres (DDNM's eta)
MOST_SHOWN = 16  # images in the before/after picture


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold edit`."""

    task: str = setting(help=f"what to do: {', '.join(OWN)}", positional=True, choices=tuple(OWN))
    model: str = setting(help="diffusion model: run:DIR, adm:FILE.pt or diffusers:DIR_OR_HUB_ID")
    image: tuple[Path, ...] = setting(help="image files, and folders of them, with commas between them")
    out: Path = setting(help="a file ending in .png for one result; else a folder outside of --image's", identity=False)
    noise_level: float | None = setting(
        None, none="estimated", help="denoise: standard deviation in grey levels (0..255)", least=0.01, most=10**4
    )
    mask: Path | None = setting(None, help="inpaint: image of the same size, white where to fill in")
    factor: int | None = setting(None, none="2 of superres", help="superres: 2 or 4", least=2, most=4)
    t: float | None = setting(None, help="vary: noise step to go back to, in the model's unit")
    sigma: float | None = setting(None, none="1 of vary", help="vary: how far to go back, as noise-to-signal ratio")
    num: int = setting(1, help="results an image", least=1, most=10**4)
    steps: int | None = setting(
        None, none="1 of denoise, else 50", help="noise steps on the way down", least=1, most=10**5
    )
    average: int | None = setting(
        None, none="8 of inpaint and superres, else 1",
        help="runs whose mean is the result: higher PSNR, smoother images", least=1, most=10**4,
    )  # fmt: skip
    rounds: int = setting(1, help="how often each step is walked", least=1, most=1000)
    picture: Path | None = setting(None, help="before/after picture to write, a PNG file", identity=False)
    batch: int = setting(64, help="images a forward pass", least=1, most=10**6, identity=False)
    seed: int = setting(0, help="seed of the noise; it belongs to the image's own pixels", least=0, most=2**63 - 1)
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)
    precision: str = setting("auto", help="number format of the network", choices=backbones.PRECISIONS)


def run(config: Config) -> Outcome:
    """Write the results that are not there yet, and the picture."""
    from twofold.steps import _images

    config = complete(config)
    _edited.check_places(config.out, config.image, config.picture)
    paths = _images.paths(config.image)
    outs = _edited.paths(config.out, paths, config.num, [config.mask] if config.mask else [], config.picture)
    # First without weights, whose reading may take minutes.
    side = _check(config, backbones.load(config.model, weightless=True))
    _check_sizes(config, paths, side)
    if config.mask and not _missing(_images.picture(config.mask)).any():
        raise BadData(f"{config.mask} has no white pixel (128 of 255 or more), so nothing is to be filled in. Mend it.")
    backbone = backbones.load(config.model, device=config.device, precision=config.precision)
    editor = Editor(config, _samplers.generating(config.model, backbone))
    _edit(editor, paths, outs)
    if config.picture:
        plots.before_after(
            [(_before(config, path), some) for path, some in zip(paths[:MOST_SHOWN], outs[:MOST_SHOWN], strict=True)],
            config.picture,
            _edited.mark(_edited.PICTURE),
        )
    told = [{"image": str(path), "results": [str(o) for o in some]} for path, some in zip(paths, outs, strict=True)]
    facts = {"task": config.task, "images": told, "picture": str(config.picture) if config.picture else None}
    shown = f", shown in {config.picture}" if config.picture else ""
    return Outcome(facts, f"{len(paths) * config.num} results of {config.task} in {config.out}{shown}.")


def _edit(editor: Editor, paths: Sequence[Path], outs: Sequence[Sequence[Path]]) -> None:
    """All images, some at a time; colours that a network of grey images cannot keep are told of."""
    from twofold.steps import _images

    config, lost = editor.config, 0
    with runs.progress(len(paths), "edit") as bar:
        at_once = max(1, config.batch // (config.num * (config.average or 1)))
        for start in range(0, len(paths), at_once):
            rows = slice(start, start + at_once)
            pictures = [_images.picture(path) for path in paths[rows]]
            editor.write(pictures, outs[rows])
            lost += sum(bool((picture != picture[:1]).any()) for picture in pictures)
            bar.advance(len(pictures))
    if lost and editor.backbone.sample_shape[0] == 1:
        log.warning("%s is of grey images: the colours of %s of %s are lost", config.model, lost, len(paths))


@dataclass(frozen=True, eq=False)
class Editor:
    """A network and what is asked of it."""

    config: Config
    backbone: DiffusionBackbone

    @cached_property
    def _mask(self) -> Tensor | None:
        from twofold.steps import _images

        return _images.picture(self.config.mask) if self.config.mask else None

    @cached_property
    def _told(self) -> dict[str, Any]:
        """What the marks of all results have in common."""
        from twofold.steps import _images

        mask = {} if self._mask is None else {"mask": _images.own_number(self._mask)}
        return settings.as_mapping(self.config, identity_only=True) | {"model": self.backbone.fingerprint} | mask

    def write(self, pictures: Sequence[Tensor], outs: Sequence[Sequence[Path]]) -> None:
        """Edit images, uint8 [3, H, W], whose results are not all there.

        Raises:
            BadRun: a result's file is there and is of something else.
        """
        from twofold.steps import _images

        numbers = [_images.own_number(p) for p in pictures]
        keys = [self._key(number) for number in numbers]
        todo = [k for k, some in enumerate(outs) if not _edited.are_done(some, keys[k])]
        if not todo:
            return
        results = self.edited([pictures[k] for k in todo], [numbers[k] for k in todo])
        for k, some in zip(todo, results, strict=True):
            for image, out in zip(some, outs[k], strict=True):
                _edited.save(image, out, keys[k])

    def edited(self, pictures: Sequence[Tensor], numbers: Sequence[int]) -> NDArray[np.uint8]:
        """Results [B, num, H, W] or [B, num, H, W, 3] of pictures uint8 [3, H, W]; chance belongs to the numbers."""
        import numpy as np
        import torch

        config, backbone = self.config, self.backbone
        assert config.steps and config.average
        draws = [(k, draw) for k in range(len(pictures)) for draw in range(config.num * config.average)]
        with torch.inference_mode():
            x = backbone.preprocess([self._enlarged(p) for p in pictures]).float()
            starts = [self._start(p) for p in pictures]
            parts = [draws[at : at + config.batch] for at in range(0, len(draws), config.batch)]
            found = torch.cat([self._walked(x, starts, numbers, part) for part in parts])
            mean = found.view(-1, config.average, *found.shape[1:]).mean(1)
            pixels = np.concatenate([backbone.pixels(some) for some in torch.split(mean, config.batch)])
        return pixels.reshape(len(pictures), config.num, *pixels.shape[1:])

    def _walked(
        self, x: Tensor, starts: Sequence[float | None], numbers: Sequence[int], draws: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Clean images [B, C, h, w] of some draws, each the place of its image in `x` and its own number."""
        import torch

        from twofold.steps import _editing

        config, backbone = self.config, self.backbone
        generators = [noise.generator(config.seed, numbers[k], draw=d, purpose=noise.EDITS) for k, d in draws]
        chance = _editing.chances(generators, backbone.sample_shape, backbone.placement.device)
        x = x[torch.tensor([k for k, _ in draws], device=x.device)]
        ladders = [backbone.process.karras_steps(config.steps or 1, starts[k]) for k, _ in draws]
        steps = torch.tensor(ladders, device=x.device).T.contiguous()
        y = self._begun(x, backbone.coefficients(steps[0]), chance)
        fresh = FRESH if config.task in ("inpaint", "superres") else 0.0
        return _editing.walk(backbone, y, steps, self._keep(x), chance, fresh=fresh, rounds=config.rounds)

    def _enlarged(self, picture: Tensor) -> Tensor:
        from twofold.steps import _editing

        return _editing.enlarged(picture, self.config.factor) if self.config.factor else picture

    def _start(self, picture: Tensor) -> float | None:
        """The sigma at which an image's way down begins; None: with nothing but noise."""
        from twofold.steps import _editing

        config = self.config
        if config.task == "denoise":
            # One grey level is 1 / 127.5 of the range -1..1.
            grey = picture.float().mean(0, keepdim=True) if self.backbone.sample_shape[0] == 1 else picture
            level = config.noise_level or _editing.noise_level(grey.permute(1, 2, 0).numpy())
            return level / 127.5
        if config.task == "vary":
            return self.backbone.process.sigma(config.t) if config.t is not None else config.sigma or 1.0
        return None

    def _begun(self, x: Tensor, coefficients: tuple[Tensor, Tensor], chance: Any) -> Tensor:
        """Where the way down begins, divided by the signal."""
        signal, spread = coefficients
        return x if self.config.task == "denoise" else x + spread / signal * chance()

    def _keep(self, x: Tensor) -> Keep:
        """What a clean estimate must hold to."""
        from twofold.steps import _editing

        if self._mask is not None:
            return _editing.known_pixels(x, _missing(self._mask).to(x.device))
        if self.config.factor:
            return _editing.known_means(_editing.shrunk(x, self.config.factor), self.config.factor)
        return _editing.in_range if not _is_latent(self.backbone) else lambda x: x

    def _key(self, number: int) -> str:
        """A result's own mark: of the same settings, network, image and mask."""
        told = self._told | {"image": number}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def complete(config: Config) -> Config:
    """The settings with the task's defaults; those of other tasks are refused."""
    for task, names in OWN.items():
        for name in names:
            if task != config.task and getattr(config, name) is not None:
                raise BadSetting(f"--{name.replace('_', '-')} is of edit {task}; leave it out of edit {config.task}.")
    if config.task == "inpaint" and config.mask is None:
        raise BadSetting("edit inpaint needs --mask FILE: an image of the same size, white where to fill in.")
    if config.t is not None and config.sigma is not None:
        raise BadSetting("Both --t and --sigma are given. Give one of them.")
    factor = (config.factor or 2) if config.task == "superres" else None
    if factor == 3:
        raise BadSetting("--factor must be 2 or 4, not 3.")
    steps, average = DEFAULTS[config.task]
    return replace(
        config, factor=factor, steps=config.steps or steps, average=config.average or average,
    )  # fmt: skip


def _check(config: Config, loaded: Backbone) -> int:
    """The side of images that the task takes, if the network can do it."""
    backbone = _samplers.generating(config.model, loaded)
    if _is_latent(backbone) and config.task != "vary":
        raise BadModel(
            f"{config.model} denoises latents, not pixels, so edit {config.task} means nothing to it. Give a model of "
            "pixels, or use edit vary."
        )
    if config.t is not None:
        backbone.check_step(config.t)
    if config.sigma is not None:
        backbone.step(config.sigma)
    if backbone.image_size % (config.factor or 1):
        raise BadSetting(f"--factor {config.factor} does not divide the model's {backbone.image_size} pixels.")
    return backbone.image_size // (config.factor or 1)


def _is_latent(backbone: DiffusionBackbone) -> bool:
    return backbone.preprocessing.get("range") == "latents"


def _check_sizes(config: Config, paths: Sequence[Path], side: int) -> None:
    from twofold.datasets import _decode

    for path in [*paths, *([config.mask] if config.mask else [])]:
        if not path.is_file():
            raise BadData(f"{path} is not a file. Give an image of {side}x{side} pixels, white where to fill in.")
        width, height, _ = _decode.header(path)
        if (width, height) != (side, side):
            raise BadData(
                f"{path} has {width}x{height} pixels; edit {config.task} of this model takes {side}x{side}. "
                "Crop or resize it first."
            )


def _missing(mask: Tensor) -> Tensor:
    """Which pixels are to be filled in, bool [h, w]: the white ones of a mask uint8 [3, h, w]."""
    return mask.float().mean(0) >= 128


def _before(config: Config, path: Path) -> NDArray[np.uint8]:
    """What was given, as it is shown: missing pixels are orange."""
    import torch

    from twofold.steps import _images

    image = _images.picture(path)
    if config.mask:
        missing = _missing(_images.picture(config.mask))
        image = torch.where(missing, torch.tensor([230, 159, 0], dtype=torch.uint8).view(3, 1, 1), image)
    found: NDArray[np.uint8] = image.permute(1, 2, 0).numpy()
    return found
