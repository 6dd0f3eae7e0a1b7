"""The Inception network of torch-fidelity, that of the FID: TensorFlow's weights of 2015; needs twofold[fid].

inception          weights where torch-fidelity keeps them, fetched where they are missing and there is a network
inception:FILE     those of a file
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from twofold.backbones import _encoder, _folders
from twofold.backbones._taps import Place
from twofold.backbones.base import Placement
from twofold.errors import BadModel
from twofold.records import ModelName

SCHEMES = ("inception",)
FILE = "a file of torch-fidelity's Inception weights, inception:FILE"

SIDE = 299
SPARE = ("fc.",)  # the classifier behind the features
PUBLISHED = "weights-inception-2015-12-05-6726825d.pth"  # the last part begins the file's SHA-256
FEATURES = "Mixed_7c"  # the block that the FID is of, averaged over its map
INSTALL = "Install it: pip install 'twofold[fid]'."


@final
class InceptionBackbone(_encoder.Trunk):
    """Blocks are the layers of the trunk; the FID's features are the last one's, averaged over the map."""

    def __init__(self, network: nn.Module, placement: Placement, *, name: str, identity: str) -> None:
        super().__init__(network, SIDE, placement, name=name, identity=identity)
        self.preprocessing = {
            "size": SIDE,
            "resize": "bilinear as in TensorFlow 1, not antialiased",
            "range": "-1..0.9921875",
        }

    def places(self) -> list[Place]:
        """All layers."""
        return [Place(name, module) for name, module in self.network.named_children()]

    @torch.no_grad()
    def preprocess(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Stretched to 299 x 299 by torch-fidelity's own resizing, then (x - 128) / 128: float32 [B, 3, 299, 299]."""
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as resized

        together = [images] if isinstance(images, torch.Tensor) else [image[None] for image in images]
        found = [resized(x.to(self.placement.device).float(), size=(SIDE, SIDE), align_corners=False) for x in together]
        return (torch.cat(found) - 128) / 128


def is_published(identity: str) -> bool:
    """Whether features of this identity are those that a FID is of."""
    return identity.startswith(f"inception-{PUBLISHED.rpartition('-')[2].removesuffix('.pth')}")


def build(name: ModelName, placement: Placement) -> InceptionBackbone:
    """`inception`, `inception:FILE` or `inception?untrained`."""
    weightless = placement.weightless or name.untrained
    file = None if weightless else _file(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_folders.UNTRAINED_SEED)
        with torch.device("meta" if placement.weightless else "cpu"):
            network = _trunk()
    identity = f"inception-untrained-{_folders.UNTRAINED_SEED}" if name.untrained else ""
    if file is not None:
        _encoder.fit(network, _encoder.read(file), file, SPARE)
        identity = f"inception-{_folders.digest(file).hex()[:16]}"
    network = _folders.cast(network, placement.dtype).eval().requires_grad_(False)
    if not placement.weightless:
        network = network.to(device=placement.device, memory_format=torch.channels_last)
    return InceptionBackbone(network, placement, name=str(name), identity=identity)


def _trunk() -> nn.Sequential:
    """The layers of torch-fidelity's extractor, by its names; its own class reads a file of weights when it is made."""
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as theirs
    except ImportError as error:
        raise BadModel(f"inception needs the package torch-fidelity ({error}). {INSTALL}") from error
    conv: Any = theirs.BasicConv2d
    return nn.Sequential(OrderedDict(
        Conv2d_1a_3x3=conv(3, 32, kernel_size=3, stride=2), Conv2d_2a_3x3=conv(32, 32, kernel_size=3),
        Conv2d_2b_3x3=conv(32, 64, kernel_size=3, padding=1), MaxPool_1=nn.MaxPool2d(3, 2),
        Conv2d_3b_1x1=conv(64, 80, kernel_size=1), Conv2d_4a_3x3=conv(80, 192, kernel_size=3),
        MaxPool_2=nn.MaxPool2d(3, 2),
        Mixed_5b=theirs.InceptionA(192, 32), Mixed_5c=theirs.InceptionA(256, 64), Mixed_5d=theirs.InceptionA(288, 64),
        Mixed_6a=theirs.InceptionB(288), Mixed_6b=theirs.InceptionC(768, 128), Mixed_6c=theirs.InceptionC(768, 160),
        Mixed_6d=theirs.InceptionC(768, 160), Mixed_6e=theirs.InceptionC(768, 192),
        Mixed_7a=theirs.InceptionD(768), Mixed_7b=theirs.InceptionE_1(1280), Mixed_7c=theirs.InceptionE_2(2048),
    ))  # fmt: skip


def _file(name: ModelName) -> Path:
    """The file of weights: the one named, else torch-fidelity's in torch's cache, fetched where that is possible."""
    if name.argument:
        return Path(name.argument)
    path = Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED
    if not path.is_file():
        _fetch(path)
    return path


def _fetch(path: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path.parent.mkdir(parents=True, exist_ok=True)
    start = PUBLISHED.rpartition("-")[2].removesuffix(".pth")
    try:
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=start, progress=False)
    except Exception as error:
        raise BadModel(
            f"The weights of inception are not here and cannot be fetched ({error}). Put torch-fidelity's {PUBLISHED} "
            f"into {path.parent}, or give its place (inception:FILE, fid --weights FILE), or another --features MODEL."
        ) from error
