"""ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 validation photographs of 1,000 classes.

Source: O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", arXiv 1409.0575.
Its val is test here; val is 13 images a class of train. Classes are named by their wnids, in their order.
"""

from __future__ import annotations

from twofold.datasets import _imagenet
from twofold.datasets._files import Files


def build(argument: str) -> Files:
    """`imagenet:DIR[?partial]`; DIR holds train/ and val/."""
    return _imagenet.build("imagenet", argument, train=1_281_167, classes=1000)
