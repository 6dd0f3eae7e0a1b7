"""Everything that a training must remember, written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from twofold import files


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values by name, in place of what was there."""
    # Through memory, since a full disk shows as an error of the file and not of torch.
    content = io.BytesIO()
    torch.save(dict(state), content)
    with files.replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())
