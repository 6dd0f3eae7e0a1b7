"""Write a network as a diffusers folder (safetensors), which loads in seconds and opens in diffusers itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from twofold import files
from twofold.backbones import base as backbones
from twofold.backbones.base import DiffusionBackbone
from twofold.errors import BadModel, BadRun
from twofold.records import Outcome
from twofold.settings import Settings, setting


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold convert`."""

    model: str = setting(help=backbones.MODEL_HELP, positional=True)
    out: Path = setting(help="folder to write", positional=True)
    precision: str = setting("fp32", help="number format of the weights", choices=("fp32", "bf16", "fp16"))


def run(config: Config) -> Outcome:
    """Write the folder whole or not at all; one that is there already is left alone."""
    out = config.out
    if (out / "model_index.json").exists():
        return Outcome({"folder": str(out)}, f"{out} is done already: it holds a pipeline. Read it as diffusers:{out}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadRun(f"{out} is there and holds something else. Give a new folder.")
    backbone = backbones.load(config.model, device="cpu", precision=config.precision)
    if not isinstance(backbone, DiffusionBackbone) or (pipeline := backbone.pipeline()) is None:
        raise BadModel(f"{config.model} has no other form: convert turns adm:FILE.pt and runs into diffusers folders.")
    with files.scratch(out.with_name(f".{out.name}.unfinished")) as scratch:
        pipeline.save_pretrained(scratch)
        if backbone.class_names:
            # As beside the networks that a training keeps; diffusers has no place for names.
            files.write_json(scratch / "finished.json", {"classes": list(backbone.class_names)})
        if out.exists():
            out.rmdir()
        scratch.rename(out)
    return Outcome({"folder": str(out)}, f"{out}: read it as diffusers:{out}.")
