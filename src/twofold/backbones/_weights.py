"""Files of weights as other projects publish them; nothing in one is ever executed."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from twofold.errors import BadModel


def content(path: Path, called: str, *, shapes_only: bool = False) -> Any:
    """What a safetensors file or a file of torch holds: tensors, in whatever order they were put.

    Args:
        path: the file.
        called: how an error names it.
        shapes_only: the values are not needed; they are mapped, so they cost no memory.

    Raises:
        BadModel: the file is damaged, no such file, or holds something that would have to be executed.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        with warnings.catch_warnings():
            # Torch warns of files that are refused anyway.
            warnings.simplefilter("ignore")
            # Torch's oldest format cannot be mapped.
            mapped = shapes_only and zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise BadModel(
            f"{called} holds more than tensors, or is no file of torch: it could run code and is refused. "
            "Give the plain state dict, or a .safetensors file."
        ) from error
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise BadModel(f"{called} is damaged or no file of weights ({reason}). Fetch it again.") from error
