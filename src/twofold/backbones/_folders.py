"""Pipeline folders of diffusers: finding them, reading their parts, and telling their contents apart."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold.errors import BadModel, UserError
from twofold.records import ModelName

if TYPE_CHECKING:
    import torch

    from twofold.backbones.base import Placement

UNTRAINED_SEED = 0

# What a pipeline needs from the hub; never pickles, never code.
SETTINGS_FILES = ("*.json", "*.txt", "*.model")
WEIGHT_FILES = ("*/diffusion_pytorch_model*.safetensors", "*/model*.safetensors")


@contextmanager
def reading(what: object, advice: str = "Save or train the model again.") -> Iterator[None]:
    """Turn a library's error about a foreign file into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BadModel(f"{what} cannot be read: {reason.rstrip('.')}. {advice}") from error


def local(name: ModelName, *, weights: bool = True) -> Path:
    """The folder of a pipeline on this machine; a hub id is fetched, or found in the hub's cache."""
    folder = Path(name.argument)
    if (folder / "model_index.json").is_file():
        return folder
    if name.scheme == "run" and (folder / "config.toml").exists():
        raise BadModel(f"{folder} holds no model: it is not a finished run of `twofold pretrain`. Run that first.")
    if name.scheme == "diffusers" and not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name.argument):
        return _fetched(name.argument, weights)
    what = "is not a folder" if not folder.is_dir() else "has no model_index.json"
    raise BadModel(f"{name}: {name.argument or '(empty)'} {what}. Give the folder of a run or of a diffusers pipeline.")


def _fetched(hub_id: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = [*SETTINGS_FILES, *(WEIGHT_FILES if weights else ())]
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=wanted, etag_timeout=5))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise BadModel(
            f"diffusers:{hub_id} is no folder here, and the hub does not give it ({reason.rstrip('.')}). Fetch the "
            f"pipeline where there is a network, for instance with `hf download {hub_id}`, and give diffusers:DIR."
        ) from error
    if not (folder / "model_index.json").is_file():
        raise BadModel(f"diffusers:{hub_id} holds no pipeline: it has no model_index.json. Give another id.")
    return folder


def pipeline_class(folder: Path) -> str:
    """The pipeline class that a model_index.json names."""
    try:
        return str(json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadModel(
            f"{folder / 'model_index.json'} is damaged: it names no _class_name. Save the pipeline again."
        ) from error


def absent(folder: Path) -> dict[str, None]:
    """The optional parts that a pipeline was saved without, as its loader wants to be told."""
    content = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return {name: None for name, value in content.items() if value == [None, None]}


def part(kind: Any, folder: Path, placement: Placement, *, untrained: bool = False, dtype: Any = None) -> Any:
    """A network of diffusers from its folder, frozen: with its weights, with random ones, or with none at all."""
    import torch

    dtype = dtype or placement.dtype
    # Some networks draw random numbers before they read their weights.
    with torch.random.fork_rng(devices=[]), reading(f"The network in {folder}"):
        network = _read(kind, folder, placement, untrained, dtype)
        return network.to(device=placement.device, memory_format=torch.channels_last).eval().requires_grad_(False)


def _read(kind: Any, folder: Path, placement: Placement, untrained: bool, dtype: torch.dtype) -> Any:
    if placement.weightless or untrained:
        with reading(folder / "config.json"):
            config = kind.load_config(folder, local_files_only=True)
            return shapes(kind, config, dtype) if placement.weightless else fresh(kind, config, dtype)
    if not any(folder.glob("*.safetensors")):
        raise BadModel(f"{folder} has no .safetensors weights. Save the model with safe_serialization=True.")
    with reading(f"The weights in {folder}"), _silence():
        network, found = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=dtype, output_loading_info=True
        )
    if found["missing_keys"]:
        raise BadModel(f"The weights in {folder} lack {found['missing_keys'][0]}. Save or train the model again.")
    return network


@contextmanager
def _silence() -> Iterator[None]:
    """Keep diffusers from logging what is said in one line of our own."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def shapes(kind: Any, config: dict[str, Any], dtype: torch.dtype) -> Any:
    """A network without weights."""
    import torch

    with torch.device("meta"):
        return cast(kind.from_config(config), dtype)


def fresh(kind: Any, config: dict[str, Any], dtype: torch.dtype) -> Any:
    """A network with random weights of a fixed seed; the global generator is left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED_SEED)
        return cast(kind.from_config(config), dtype)


def cast(network: Any, dtype: torch.dtype) -> Any:
    """All weights in one number format; diffusers' own `to` warns where there is nothing to warn of.

    Batch norms stay in single precision: their weights must be of the format of their running statistics.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in network.modules():
        for parameter in () if isinstance(module, _BatchNorm) else module.parameters(recurse=False):
            parameter.data = parameter.data.to(dtype)
    return network


def scheduler(kind: Any, folder: Path) -> Any:
    """A scheduler of diffusers from a pipeline's folder."""
    path = folder / "scheduler" / "scheduler_config.json"
    with reading(f"The schedule {path}", "Save the model again."):
        if not path.is_file():
            raise FileNotFoundError("there is no such file")
        return kind.from_pretrained(path.parent, local_files_only=True)


def class_names(folder: Path, count: int) -> tuple[str, ...]:
    """What the classes of a run are called, as it noted when it finished; none where it does not name `count`."""
    path = folder / "finished.json"
    if not count or not path.is_file():
        return ()
    with reading(path, "Run the same `twofold pretrain` again."):
        names = json.loads(path.read_text(encoding="utf-8")).get("classes") or ()
    return tuple(map(str, names)) if len(names) == count else ()


def identity(folder: Path, parts: Sequence[str], untrained: bool = False, dtype: str = "") -> str:
    """Hash of the parts' settings, and of their weights or the seed they were drawn with."""
    told = hashlib.sha256(dtype.encode())
    for name in parts:
        for file in sorted((folder / name).glob("*.json")):
            told.update(_plain(file))
        for file in () if untrained else sorted((folder / name).glob("*.safetensors")):
            told.update(digest(file))
    if untrained:
        told.update(f"untrained {UNTRAINED_SEED}".encode())
    return told.hexdigest()[:16]


def digest(file: Path) -> bytes:
    """SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


def _plain(file: Path) -> bytes:
    """Settings without names that begin with an underscore: those are the saving library's notes."""
    with reading(file):
        content = json.loads(file.read_text(encoding="utf-8"))
    kept = {k: v for k, v in content.items() if not k.startswith("_")} if isinstance(content, dict) else content
    return json.dumps(kept, sort_keys=True).encode()
