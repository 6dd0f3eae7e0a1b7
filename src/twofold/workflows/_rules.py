"""Rules by which the papers' statements are judged: numbers of runs -> a word, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twofold.workflows import _evidence
from twofold.workflows._evidence import Curve, Pair

HOLDS, FAILS, UNDECIDED, UNTESTED = "holds", "does not hold", "undecided", "not tested"
AGAINST = {HOLDS: FAILS, FAILS: HOLDS}
Found = tuple[str, str]  # a word, and the numbers behind it
SOFT = 2.0  # points within which two methods "match"
BARELY = 0.05  # of CKA, which "barely changes"


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


def learned(found: Found, *probed: Path) -> Found:
    """What few updates of heads of maps, which learn slowest, may have decided against them is undecided."""
    (word, told), cut = found, _evidence.few_updates(*probed)
    return (UNDECIDED if cut and word == FAILS else word), told + cut


def supervised(other: Path, ours: Path) -> Found:
    """As good as an encoder that learned from labels; one of too few epochs decides nothing in our favour."""
    (word, told), cut = matches(_evidence.pair(other, ours, "linear")), _evidence.cut_short(other)
    return (UNDECIDED if cut and word == HOLDS else word), told + cut


def steps(selected: Path) -> Found:
    """Accuracy over the noise step is one hill between both ends."""
    curve = _evidence.curve(selected, "sigma")
    return peaks(curve, curve.x[0], curve.x[-2], "between the clean and the noisiest step")


def blocks(selected: Path) -> Found:
    """Accuracy over the block is one hill, whose top is in the first half of the decoder."""
    curve = _evidence.curve(selected, "block")
    middle = _evidence.middle(selected)
    return peaks(curve, middle, (middle + curve.x[-1]) / 2, "in the first half of the decoder")


def pools(selected: Path) -> Found:
    """Accuracy over the pool is one hill between both ends."""
    curve = _evidence.curve(selected, "pool")
    return peaks(curve, curve.x[0], curve.x[-2], "between averaging all and pooling nothing")


def clean(selected: Path) -> Found:
    """The nearly clean image is worse than the best noised one; that it is not is said where it cannot be chance."""
    curve = _evidence.curve(selected, "sigma")
    best = max(range(1, len(curve.x)), key=lambda k: curve.y[k])
    told = (
        f"at the best block and pool {curve.of(0)} on the nearly clean image, {curve.of(best)} on the best noised one"
    )
    if curve.apart(best, 0):
        return HOLDS, told
    return (FAILS if 100 * curve.at_most(best, 0) < SOFT else UNDECIDED), told


def slowly(one: Path, two: Path, three: Path) -> Found:
    """More blocks help, but by little: from one to three less than half of what is left to gain."""
    pair, first = _evidence.pair(one, three), _evidence.accuracy(one)
    gained = pair.value / max(1 - first, 1e-9)
    told = f"{pair.text}, {_evidence.accuracy(two) * 100:.1f} % with two"
    if pair.low > 0:
        return (HOLDS if gained < 0.5 else FAILS), told
    return learned(((FAILS if pair.high < 0 else UNDECIDED), told), three)


def monotonous(selected: Path, small: Path, large: Path) -> Found:
    """More weights do not always help: a larger pool (linear) or a wider CNN is worse somewhere, beyond chance."""
    curve, pair = _evidence.curve(selected, "pool"), _evidence.pair(small, large)
    worse = any(curve.apart(k, k + 1) for k in range(len(curve.x) - 1))
    told = f"linear over the pool: {curve.text}; four times the CNN's width: {pair.text}"
    if worse or pair.high < 0:
        return HOLDS, told
    always = all(curve.apart(k + 1, k) for k in range(len(curve.x) - 1)) and pair.low > 0
    return (FAILS if always else UNDECIDED), told


def depends(selected: Path, other: Path, foreign: Path, own: Path) -> Found:
    """On the other data its own best setting beats the first one's, by test images that chose neither."""
    first, second = _evidence.setting(selected), _evidence.setting(other)
    if first == second:
        return FAILS, f"on both {first} is best"
    pair = _evidence.pair(foreign, own, "ridge")
    told = f"best at {second} on the other data, at {first} on the first; on the other read there: {pair.text}"
    word = HOLDS if pair.low > 0 else FAILS if 100 * pair.high < SOFT else UNDECIDED
    return word, told


def all_beat(first: Path, others: Mapping[str, Path]) -> Found:
    """All are better than the first; one interval above zero is not enough."""
    pairs = {name: _evidence.pair(first, run) for name, run in others.items()}
    words = {beats(pair)[0] for pair in pairs.values()}
    word = words.pop() if len(words) == 1 else FAILS if FAILS in words else UNDECIDED
    told = "; ".join(f"{name} {pair.text}" for name, pair in pairs.items())
    return learned((word, told), *others.values())
