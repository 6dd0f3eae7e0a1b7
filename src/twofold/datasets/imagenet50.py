"""ImageNet-50: the 50 classes of ImageNet that P1's heads were compared on (PAPER.md sections 2 and 9).

Source: W. Van Gansbeke et al., "SCAN: Learning to Classify Images without Labels", arXiv 2005.12320.
Read from ImageNet's own folders; its val (2,500 images) is test here, and val is 13 images a class of train.
"""

from __future__ import annotations

from twofold.datasets import _imagenet
from twofold.datasets._files import Files

WNIDS = (
    "n01601694", "n01669191", "n01755581", "n01770393", "n01855672", "n02018207", "n02058221", "n02096177",
    "n02097130", "n02099267", "n02100877", "n02104365", "n02106030", "n02114855", "n02125311", "n02133161",
    "n02484975", "n02489166", "n02747177", "n02906734", "n03124170", "n03272010", "n03337140", "n03483316",
    "n03498962", "n03710721", "n03717622", "n03733281", "n03759954", "n03775071", "n03814639", "n03837869",
    "n03838899", "n03854065", "n03954731", "n03983396", "n04026417", "n04200800", "n04209239", "n04311004",
    "n04380533", "n04428191", "n04443257", "n04509417", "n04525305", "n04554684", "n04606251", "n07583066",
    "n07711569", "n07753592",
)  # fmt: skip


def build(argument: str) -> Files:
    """`imagenet50:DIR[?partial]`; DIR holds ImageNet's train/ and val/, whole or these 50 classes of it."""
    return _imagenet.build("imagenet50", argument, only=WNIDS, classes=len(WNIDS))
