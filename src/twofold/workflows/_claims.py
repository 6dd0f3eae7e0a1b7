"""The papers' statements, each held against measured numbers: it holds, does not hold, or is undecided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twofold import results
from twofold.errors import UserError
from twofold.workflows import _evidence, _recipes
from twofold.workflows._evidence import Curve, Pair

HOLDS, FAILS, UNDECIDED, UNTESTED = "holds", "does not hold", "undecided", "not tested"
AGAINST = {HOLDS: FAILS, FAILS: HOLDS}
Found = tuple[str, str]  # a word, and the numbers behind it
SOFT = 2.0  # points within which two methods "match"
BARELY = 0.05  # of CKA, which "barely changes"


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
            word, measured = fairly((word, measured), folders[claim.rival], claim.favours, seen)
    except UserError as error:
        word, measured = UNTESTED, " ".join(str(error).split())
    return Verdict(number, claim.statement, claim.paper, word, measured)


def table(found: Sequence[Verdict]) -> str:
    """For a person."""
    return results.table(
        [("", "statement", "verdict", "measured"), *((str(v.number), v.statement, v.word, v.measured) for v in found)]
    )


def beats(pair: Pair) -> Found:
    """The second is better than the first: the paired interval lies above zero, or below it."""
    word = HOLDS if pair.low > 0 else FAILS if pair.high < 0 else UNDECIDED
    return word, pair.text


def fairly(found: Found, rival: Path, favours: str, seen: int | None) -> Found:
    """A verdict against a rival of other images than the model saw: the word that this may have made is undecided.

    `favours` is the word in the model's favour; `seen` None counts as more images, since foreign networks learn long.
    """
    images, (word, measured) = _evidence.images_of(rival), found
    told = f"the rival saw {images:,} images, the model {'an unknown number' if seen is None else f'{seen:,}'}"
    if images == seen:
        return word, f"{measured}; {told}"
    helped = favours if seen is None or images < seen else AGAINST[favours]
    known = "not known to be equal" if seen is None else "not equal"
    return (UNDECIDED if word == helped else word), f"{measured}; budgets are {known}: {told}"


def matches(pair: Pair) -> Found:
    """The second is not worse than the first by more than `SOFT` points."""
    word = HOLDS if 100 * pair.low > -SOFT else FAILS if 100 * pair.high < -SOFT else UNDECIDED
    return word, f"{pair.text}; matching is not being worse by more than {SOFT:g} points"


def far_above(pair: Pair) -> Found:
    """The second is better than the first by more than `SOFT` points."""
    word = HOLDS if 100 * pair.low > SOFT else FAILS if 100 * pair.high < SOFT else UNDECIDED
    return word, f"{pair.text}; far above is better by more than {SOFT:g} points"


def peaks(curve: Curve, low: float, high: float, where: str) -> Found:
    """One hill, whose top lies inside (low, high] and stands above both ends beyond chance."""
    top, told = curve.top, curve.text
    if curve.misfit > _evidence.FAR:
        return FAILS, f"{told}; further from one hill than chance ({curve.misfit:.1f} standard errors)"
    at = curve.x[top]
    if not low < at <= high:
        ends = [k for k in range(len(curve.x)) if low < curve.x[k] <= high]
        rival = max(ends, key=lambda k: curve.y[k], default=None)
        apart = rival is None or curve.apart(top, rival)
        return (FAILS if apart else UNDECIDED), f"{told}; the top is not {where}"
    if curve.apart(top, 0) and curve.apart(top, len(curve.x) - 1):
        return HOLDS, told
    return UNDECIDED, f"{told}; an end is within chance of the top"


def _supervised(other: Path, ours: Path) -> Found:
    """As good as an encoder that learned from labels; one of too few epochs decides nothing in our favour."""
    (word, told), cut = matches(_evidence.pair(other, ours, "linear")), _evidence.cut_short(other)
    return (UNDECIDED if cut and word == HOLDS else word), told + cut


def _steps(selected: Path) -> Found:
    curve = _evidence.curve(selected, "sigma")
    return peaks(curve, curve.x[0], curve.x[-2], "between the clean and the noisiest step")


def _blocks(selected: Path) -> Found:
    curve = _evidence.curve(selected, "block")
    middle = _evidence.middle(selected)
    return peaks(curve, middle, (middle + curve.x[-1]) / 2, "in the first half of the decoder")


def _pools(selected: Path) -> Found:
    curve = _evidence.curve(selected, "pool")
    return peaks(curve, curve.x[0], curve.x[-2], "between averaging all and pooling nothing")


def _clean(selected: Path) -> Found:
    """The nearly clean image is worse than the best noised one; that it is not is said where it cannot be chance."""
    curve = _evidence.curve(selected, "sigma")
    best = max(range(1, len(curve.x)), key=lambda k: curve.y[k])
    told = (
        f"at the best block and pool {curve.of(0)} on the nearly clean image, {curve.of(best)} on the best noised one"
    )
    if curve.apart(best, 0):
        return HOLDS, told
    return (FAILS if 100 * curve.at_most(best, 0) < SOFT else UNDECIDED), told


def _slowly(one: Path, two: Path, three: Path) -> Found:
    """More blocks help, but by little: from one to three less than half of what is left to gain."""
    pair, first = _evidence.pair(one, three), _evidence.accuracy(one)
    gained = pair.value / max(1 - first, 1e-9)
    told = f"{pair.text}, {_evidence.accuracy(two) * 100:.1f} % with two"
    if pair.low > 0:
        return (HOLDS if gained < 0.5 else FAILS), told
    return (FAILS if pair.high < 0 else UNDECIDED), told


def _monotonous(selected: Path, small: Path, large: Path) -> Found:
    """More weights do not always help: a larger pool (linear) or a wider CNN is worse somewhere, beyond chance."""
    curve, pair = _evidence.curve(selected, "pool"), _evidence.pair(small, large)
    worse = any(curve.apart(k, k + 1) for k in range(len(curve.x) - 1))
    told = f"linear over the pool: {curve.text}; four times the CNN's width: {pair.text}"
    if worse or pair.high < 0:
        return HOLDS, told
    always = all(curve.apart(k + 1, k) for k in range(len(curve.x) - 1)) and pair.low > 0
    return (FAILS if always else UNDECIDED), told


def _depends(selected: Path, other: Path, foreign: Path, own: Path) -> Found:
    """On the other data its own best setting beats the first one's, by test images that chose neither."""
    first, second = _evidence.setting(selected), _evidence.setting(other)
    if first == second:
        return FAILS, f"on both {first} is best"
    pair = _evidence.pair(foreign, own, "ridge")
    told = f"best at {second} on the other data, at {first} on the first; on the other read there: {pair.text}"
    word = HOLDS if pair.low > 0 else FAILS if 100 * pair.high < SOFT else UNDECIDED
    return word, told


def _all_beat(first: Path, others: Mapping[str, Path]) -> Found:
    """All are better than the first; one interval above zero is not enough."""
    pairs = {name: _evidence.pair(first, run) for name, run in others.items()}
    words = {beats(pair)[0] for pair in pairs.values()}
    word = words.pop() if len(words) == 1 else FAILS if FAILS in words else UNDECIDED
    return word, "; ".join(f"{name} {pair.text}" for name, pair in pairs.items())


OTHER = "it takes a second data set, of other or finer classes: give --other DATA"
CLAIMS = {
    1: Claim(
        "frozen diffusion features with a linear head beat the GAN's", "61.95 and 64.96 against BigBiGAN's 60.8",
        ("gan-linear", "linear"), lambda theirs, ours: beats(_evidence.pair(theirs, ours, "linear")), rival="gan",
    ),
    2: Claim(
        "the same weights generate better than the GAN", "FID 26.21 against 28.54",
        ("gan-fd", "fd"), lambda theirs, ours: _evidence.lower(theirs, ours), rival="gan",
    ),
    3: Claim(
        "a linear head on frozen features matches a supervised U-Net encoder", "64.96 against 64.32",
        ("supervised", "linear"), _supervised,
    ),
    4: Claim(
        "an attention head is far above linear on frozen features", "71.89 (P1), 74.6 (P2) against 64.96",
        ("linear", "attention"), lambda one, other: far_above(_evidence.pair(one, other, "linear")),
    ),
    5: Claim(
        "accuracy over the noise step is one hill, worse at clean and at very noisy images",
        "49.23 at t = 10, 55.09 at 90, 34.67 at 500", ("map",), _steps,
    ),
    6: Claim(
        "accuracy over the block is one hill, best just behind the bottleneck",
        "41.23 at b = 15, 61.95 at 24, 30.08 at 33 of 37", ("map",), _blocks,
    ),
    7: Claim(
        "some pooling beats none and global averaging", "61.95, 64.98, 62.93, 60.08 for 1, 2, 4, 8", ("map",), _pools
    ),
    8: Claim(
        "the best setting depends on the data", "CUB: 34.91 at b = 19 with pool 4, 27.59 at b = 24",
        ("map", "other-map", "other-foreign", "other-linear"), _depends, OTHER,
    ),
    9: Claim(
        "on fine-grained data the features fall behind contrastive ones but for Aircraft", "31.57 against 43.86 on CUB",
        ("other-linear", "other-contrastive"), lambda ours, theirs: beats(_evidence.pair(ours, theirs, "linear")),
        OTHER, "contrastive", FAILS,
    ),
    10: Claim(
        "DifFormer and DifFeed beat attention", "76.0 and 77.0 against 74.6",
        ("attention-p2", "difformer", "difffeed"),
        lambda first, one, two: _all_beat(first, {"DifFormer": one, "DifFeed": two}),
    ),
    11: Claim(
        "P2's heads beat SimCLR on all fine-grained sets", "71.0 against 43.9 on CUB",
        ("other-contrastive", "other-attention", "other-difformer", "other-difffeed"),
        lambda theirs, one, two, three: _all_beat(theirs, {"attention": one, "DifFormer": two, "DifFeed": three}),
        OTHER, "contrastive",
    ),
    12: Claim(
        "DifFeed matches DifFormer with fewer passes", "77.0 against 76.0 with 2 passes against 3",
        ("difformer", "difffeed"), lambda one, other: matches(_evidence.pair(one, other)),
    ),
    13: Claim(
        "mirrored blocks of encoder and decoder are alike", "0.6 to 0.8 for b = 4 to 18 and 38 - b",
        ("alike-blocks",), lambda run: _evidence.mirrors(run),
    ),
    14: Claim(
        "the input needs noise: features of the clean image are poor", "0.16 to 0.3 of CKA to all others",
        ("map",), _clean,
    ),
    15: Claim("features of several blocks help segmentation", "42.3 to 44.3 mIoU", untested="no dense tasks here"),
    16: Claim("detection: above a ResNet-50, below MAE", "41.8, 38.0, 48.3 box AP", untested="no dense tasks here"),
    17: Claim(
        "the size of the pool barely changes CKA", "means 0.600 to 0.603", ("alike-pools",),
        lambda run: _evidence.steady(run, BARELY),
    ),
    18: Claim(
        "more attention blocks help slowly", "91.66 to 92.70 from one to five",
        ("attention", "attention-2", "attention-3"), _slowly,
    ),
    19: Claim(
        "more parameters of linear heads and CNNs do not always help", "89.58 at 16 M, 88.28 at 65 M",
        ("map", "cnn", "cnn-2"), _monotonous,
    ),
}  # fmt: skip
# What stands in the place of `needs` at the scale paper.
PAPERS = {
    3: ("supervised", "linear-2"), 4: ("linear-2", "attention"), 5: ("steps",), 6: ("blocks",), 7: ("pools",),
    14: ("steps",),
}  # fmt: skip
