"""The papers' statements, each held against measured numbers: it holds, does not hold, or is undecided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twofold import results
from twofold.errors import UserError
from twofold.workflows import _evidence, _recipes, _rules
from twofold.workflows._rules import BARELY, FAILS, HOLDS, UNTESTED, Found


@dataclass(frozen=True)
class Verdict:
    """What became of one statement.

    Attributes:
        number: of the statement among both papers'.
        statement: what is claimed.
        paper: the paper's numbers.
        word: holds, does not hold, undecided, or not tested.
        measured: our numbers, or why there are none.
    """

    number: int
    statement: str
    paper: str
    word: str
    measured: str

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Claim:
    """One statement and how it is judged.

    Attributes:
        statement, paper: see `Verdict`.
        needs: names of the runs that it is judged by.
        judge: folders of these -> a word and the numbers.
        untested: why it cannot be judged, where there is no `judge`, or where its runs were not asked for.
        rival, favours: the run of a rival whose budget counts, and the word that is in the model's favour.
    """

    statement: str
    paper: str
    needs: tuple[str, ...] = ()
    judge: Callable[..., Found] | None = None
    untested: str = ""
    rival: str = ""
    favours: str = HOLDS


def needed(number: int, scale: str) -> tuple[str, ...]:
    """Names of the runs that a statement is judged by at a scale."""
    return PAPERS.get(number, CLAIMS[number].needs) if scale == "paper" else CLAIMS[number].needs


def verdicts(
    folders: Mapping[str, Path], failed: Mapping[str, str], seen: int | None, scale: str = "small"
) -> list[Verdict]:
    """Every statement's verdict; `failed` says why runs are not there, `seen` how many images the model saw."""
    return [_verdict(number, folders, failed, seen, scale) for number in CLAIMS]


def _verdict(
    number: int, folders: Mapping[str, Path], failed: Mapping[str, str], seen: int | None, scale: str
) -> Verdict:
    claim, needs = CLAIMS[number], needed(number, scale)
    lacking = [name for name in (*needs, *filter(None, [claim.rival])) if name not in folders]
    if claim.judge is None or lacking:
        broken = [f"the run {name} is not there: {failed[name]}" for name in lacking if name in failed]
        never = [f"the scale {scale} makes no run {name}" for name in lacking if name not in _recipes.runs(scale)]
        why = (broken or never or [claim.untested or f"the run {lacking[0]} is not there"])[0]
        return Verdict(number, claim.statement, claim.paper, UNTESTED, why)
    try:
        word, measured = claim.judge(*(folders[name] for name in needs))
        if claim.rival:
            word, measured = _rules.fairly((word, measured), folders[claim.rival], claim.favours, seen)
    except UserError as error:
        word, measured = UNTESTED, " ".join(str(error).split())
    return Verdict(number, claim.statement, claim.paper, word, measured)


def table(found: Sequence[Verdict]) -> str:
    """For a person."""
    return results.table(
        [("", "statement", "verdict", "measured"), *((str(v.number), v.statement, v.word, v.measured) for v in found)]
    )


OTHER = "it takes a second data set, of other or finer classes: give --other DATA"
CLAIMS = {
    1: Claim(
        "frozen diffusion features with a linear head beat the GAN's", "61.95 and 64.96 against BigBiGAN's 60.8",
        ("gan-linear", "linear"), lambda theirs, ours: _rules.beats(_evidence.pair(theirs, ours, "linear")),
        rival="gan",
    ),
    2: Claim(
        "the same weights generate better than the GAN", "FID 26.21 against 28.54",
        ("gan-fd", "fd"), lambda theirs, ours: _evidence.lower(theirs, ours), rival="gan",
    ),
    3: Claim(
        "a linear head on frozen features matches a supervised U-Net encoder", "64.96 against 64.32",
        ("supervised", "linear"), _rules.supervised,
    ),
    4: Claim(
        "an attention head is far above linear on frozen features", "71.89 (P1), 74.6 (P2) against 64.96",
        ("linear", "attention"),
        lambda one, other: _rules.learned(_rules.far_above(_evidence.pair(one, other, "linear")), other),
    ),
    5: Claim(
        "accuracy over the noise step is one hill, worse at clean and at very noisy images",
        "49.23 at t = 10, 55.09 at 90, 34.67 at 500", ("map",), _rules.steps,
    ),
    6: Claim(
        "accuracy over the block is one hill, best just behind the bottleneck",
        "41.23 at b = 15, 61.95 at 24, 30.08 at 33 of 37", ("map",), _rules.blocks,
    ),
    7: Claim(
        "some pooling beats none and global averaging", "61.95, 64.98, 62.93, 60.08 for 1, 2, 4, 8", ("map",),
        _rules.pools,
    ),
    8: Claim(
        "the best setting depends on the data", "CUB: 34.91 at b = 19 with pool 4, 27.59 at b = 24",
        ("map", "other-map", "other-foreign", "other-linear"), _rules.depends, OTHER,
    ),
    9: Claim(
        "on fine-grained data the features fall behind contrastive ones but for Aircraft", "31.57 against 43.86 on CUB",
        ("other-linear", "other-contrastive"),
        lambda ours, theirs: _rules.beats(_evidence.pair(ours, theirs, "linear")), OTHER, "contrastive", FAILS,
    ),
    10: Claim(
        "DifFormer and DifFeed beat attention", "76.0 and 77.0 against 74.6",
        ("attention-p2", "difformer", "difffeed"),
        lambda first, one, two: _rules.all_beat(first, {"DifFormer": one, "DifFeed": two}),
    ),
    11: Claim(
        "P2's heads beat SimCLR on all fine-grained sets", "71.0 against 43.9 on CUB",
        ("other-contrastive", "other-attention", "other-difformer", "other-difffeed"),
        lambda theirs, one, two, three: _rules.all_beat(theirs, {"attention": one, "DifFormer": two, "DifFeed": three}),
        OTHER, "contrastive",
    ),
    12: Claim(
        "DifFeed matches DifFormer with fewer passes", "77.0 against 76.0 with 2 passes against 3",
        ("difformer", "difffeed"), lambda one, other: _rules.matches(_evidence.pair(one, other)),
    ),
    13: Claim(
        "mirrored blocks of encoder and decoder are alike", "0.6 to 0.8 for b = 4 to 18 and 38 - b",
        ("alike-blocks",), lambda run: _evidence.mirrors(run),
    ),
    14: Claim(
        "the input needs noise: features of the clean image are poor", "0.16 to 0.3 of CKA to all others",
        ("map",), _rules.clean,
    ),
    15: Claim("features of several blocks help segmentation", "42.3 to 44.3 mIoU", untested="no dense tasks here"),
    16: Claim("detection: above a ResNet-50, below MAE", "41.8, 38.0, 48.3 box AP", untested="no dense tasks here"),
    17: Claim(
        "the size of the pool barely changes CKA", "means 0.600 to 0.603", ("alike-pools",),
        lambda run: _evidence.steady(run, BARELY),
    ),
    18: Claim(
        "more attention blocks help slowly", "91.66 to 92.70 from one to five",
        ("attention", "attention-2", "attention-3"), _rules.slowly,
    ),
    19: Claim(
        "more parameters of linear heads and CNNs do not always help", "89.58 at 16 M, 88.28 at 65 M",
        ("map", "cnn", "cnn-2"), _rules.monotonous,
    ),
}  # fmt: skip
# What stands in the place of `needs` at the scale paper.
PAPERS = {
    3: ("supervised", "linear-2"), 4: ("linear-2", "attention"), 5: ("steps",), 6: ("blocks",), 7: ("pools",),
    14: ("steps",),
}  # fmt: skip
