"""Numbers behind verdicts: curves from maps that `select` left, differences from predictions on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twofold import files, results, runs
from twofold.analyses import base as analyses
from twofold.errors import BadRun
from twofold.heads import base as heads
from twofold.records import Score
from twofold.steps import _judging, _trials
from twofold.workflows import _head_costs

FAR = 2.5  # standard errors that a point may lie off the nearest single hill
EPOCHS = 28  # of the papers' trainings; fewer may be too short
UPDATES = 100  # of heads of maps; fewer may be too few
CLEAR = 2.0  # standard errors of a difference that are beyond chance


@dataclass(frozen=True)
class Curve:
    """Accuracy on val over one axis, the other settings those of the best cell.

    Attributes:
        over: sigma, block or pool.
        x, y: along it, ascending; accuracies as shares.
        n: val images.
    """

    over: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    n: int

    @property
    def top(self) -> int:
        """Position of the best."""
        return int(np.argmax(self.y))

    @property
    def misfit(self) -> float:
        """How far the worst point lies off the nearest curve with one hill, in standard errors."""
        y = np.asarray(self.y)
        fits = [np.concatenate([_rising(y[:k]), _rising(y[k:][::-1])[::-1]]) for k in range(len(y) + 1)]
        return float(min(np.max(np.abs(y - fit) / self._errors) for fit in fits))

    @property
    def _errors(self) -> NDArray[np.float64]:
        y = np.asarray(self.y)
        # Half an image is the least that can be told apart.
        errors: NDArray[np.float64] = np.sqrt(np.maximum(y * (1 - y) / self.n, (0.5 / self.n) ** 2))
        return errors

    def apart(self, better: int, worse: int) -> bool:
        """Whether one point lies above another beyond chance, as if both were of other images (which is cautious)."""
        errors = self._errors
        return self.y[better] - self.y[worse] > CLEAR * float(np.hypot(errors[better], errors[worse]))

    def at_most(self, better: int, worse: int) -> float:
        """The most that one point may lie above another within chance."""
        errors = self._errors
        return self.y[better] - self.y[worse] + CLEAR * float(np.hypot(errors[better], errors[worse]))

    def of(self, position: int) -> str:
        """One point in words."""
        return f"{100 * self.y[position]:.1f} % at {self.over} {self.x[position]:.3g}"

    @property
    def text(self) -> str:
        """First, best and last point in words."""
        seen = list(dict.fromkeys((0, self.top, len(self.x) - 1)))
        return f"{', '.join(map(self.of, seen))} ({self.n} val images)"


def curve(selected: Path, over: str) -> Curve:
    """The curve through the best cell of a run of `select`.

    Raises:
        BadRun: the run is damaged, or read a single value along this axis.
    """
    judged = files.read_lines(selected / "map.jsonl", _judging.JUDGED)
    best = files.read_json(selected / "choice.json", _judging.JUDGED)
    others = [name for name in ("t", "block", "pool") if name != {"sigma": "t"}.get(over, over)]
    along = sorted((r for r in judged if all(r[n] == best[n] for n in others)), key=lambda r: r[over] or 0)
    if len(along) < 3:
        raise BadRun(f"{selected} has {len(along)} cells along {over} through its best; a curve takes three.")
    return Curve(over, tuple(float(r[over] or 0) for r in along), tuple(r["accuracy"] for r in along), best["n"])


def middle(selected: Path) -> int:
    """The bottleneck's block number.

    Raises:
        BadRun: the network has none.
    """
    for record in files.read_lines(selected / "map.jsonl", _judging.JUDGED):
        if record["name"] == "mid":
            return int(record["block"])
    raise BadRun(f"{selected} read no block named mid: its network is no U-Net, or the bottleneck was not asked for.")


def _rising(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest curve that never falls."""
    from sklearn.isotonic import isotonic_regression

    return np.asarray(isotonic_regression(y)) if len(y) else y


@dataclass(frozen=True)
class Pair:
    """Two methods' accuracies on the same test images, and the second's less the first's with its interval.

    Attributes:
        first, second: mean accuracies.
        value, low, high: the difference and its 95 % interval over images and seeds.
        p: of the sign-flip test.
    """

    first: float
    second: float
    value: float
    low: float
    high: float
    p: float

    @property
    def text(self) -> str:
        """In words."""
        told = f"{100 * self.value:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f}) points"
        return f"{100 * self.second:.1f} against {100 * self.first:.1f} %: {told}, {results.p_text(self.p)}"


def pair(first: Path, second: Path, head: str = "") -> Pair:
    """Two runs of `probe` or `finetune`; of several heads the one named `head`, else the best on val.

    Raises:
        BadRun: they did not answer for the same images, or have no predictions.
    """
    one, other = _predictions(first, head), _predictions(second, head)
    same = one.index.shape == other.index.shape and (one.index == other.index).all()
    if not same or len(one.seeds) != len(other.seeds):
        raise BadRun(f"{first} and {second} answer for other images or seeds. Make them on the same data.")
    tables = {"first": one.right.T.astype(float), "second": other.right.T.astype(float)}
    (score,) = analyses.load("paired").measure(tables)
    assert score.low is not None and score.high is not None
    means = float(one.right.mean()), float(other.right.mean())
    return Pair(*means, score.value, score.low, score.high, score.about["p"])


def accuracy(run: Path) -> float:
    """On test, of the head that is best on val."""
    return float(_predictions(run, "").right.mean())


def _predictions(run: Path, head: str) -> _trials.Predictions:
    """What the model's own row answers, not its controls; a head that is not there leaves the best on val."""
    scores = _answered(run)
    named = [s for s in scores if head and str(s.about["head"]).partition("?")[0] == head] or scores
    found = [_trials.load(_trials.path_of(run, str(s.about["row"]), str(s.about["head"]))) for s in named]
    return max(found, key=lambda one: float(one.val.mean()))


def _answered(run: Path) -> list[Score]:
    """Top-1 of the model's own rows."""
    scores = [s for s in results.read(run) if s.name == "top1" and not s.about.get("control")]
    if not scores:
        raise BadRun(f"{run} has no scores on test. Run its command again.")
    return scores


def lower(first: Path, second: Path) -> tuple[str, str]:
    """Whether the second's Fréchet distance is lower than the first's, beyond both intervals.

    Fewer generated images alone make a distance larger, which its interval does not hold: it decides nothing then.
    """
    one, other = (_distance(run) for run in (first, second))
    told = f"{other.name} {results.ends(other)} against {results.ends(one)}"
    if one.n != other.n:
        told += f", of {other.n:,} and {one.n:,} images: fewer make it larger"
    if below(other, one):
        return ("undecided" if one.n < other.n else "holds"), told
    return ("does not hold" if below(one, other) and other.n >= one.n else "undecided"), told


def below(one: Score, other: Score) -> bool:
    """Whether the whole of one interval lies below the other's."""
    return one.high is not None and other.low is not None and one.high < other.low


def _distance(run: Path) -> Score:
    for score in results.read(run):
        if score.name == "fid" or score.name.startswith("fd_"):
            return score
    raise BadRun(f"{run} has no Fréchet distance. Run its command again.")


def setting(selected: Path) -> str:
    """Block, step and pool that a run of `select` chose, in words."""
    best = files.read_json(selected / "choice.json", _judging.JUDGED)
    noise = "clean" if best["sigma"] is None else f"sigma {best['sigma']:.3g}"
    return f"block {best['block']} ({best['name']}), {noise}, pool {best['pool']}"


def images_of(rival: Path) -> int:
    """How many images a rival's training saw."""
    told = files.read_json(rival / "finished.json", {"images": int})
    return int(told["images"])


def cut_short(tuned: Path) -> str:
    """That a run of `finetune` learned for fewer epochs than the papers' heads, in words; else empty."""
    epochs = runs.read_config(tuned).get("settings", {}).get("epochs")
    return f"; it learned for {epochs} epochs, not {EPOCHS}" if isinstance(epochs, int) and epochs < EPOCHS else ""


def few_updates(*probed: Path) -> str:
    """That heads of runs of `probe` learned in few updates, in words; else empty."""
    abouts = [score.about for run in probed for score in _answered(run) if "train" in score.about]
    counts = [_head_costs.updates(heads.load(str(about["head"])), int(about["train"])) for about in abouts]
    least = min(counts, default=UPDATES)
    return f"; in {least} updates, where fewer than {UPDATES} decide nothing against it" if least < UPDATES else ""


def mirrors(run: Path) -> tuple[str, str]:
    """Whether mirrored blocks are more alike than other pairs of the two halves: their difference on the same images.

    The untrained network stands beside it, since skip connections alone make mirrored blocks alike.
    """
    found = {(s.name, bool(s.about["control"])): s for s in results.read(run)}
    gain = found.get(("cka_mirror_gain", False))
    if gain is None or gain.low is None or gain.high is None:
        what = "mirrored blocks: it compares two networks, or few blocks" if gain is None else (
            "interval: it has too few images"
        )  # fmt: skip
        raise BadRun(f"{run.name} has no {what}.")
    one, other = (found[name, False].value for name in ("cka_mirrored", "cka_unmirrored"))
    told = f"CKA {one:.2f} of mirror pairs, {other:.2f} of other pairs of the halves: {_gain(gain)} more"
    control = found.get(("cka_mirror_gain", True))
    if control is not None:
        told += f"; untrained {_gain(control)} more, {_merit(gain, control)}"
    return ("holds" if gain.low > 0 else "does not hold" if gain.high < 0 else "undecided"), told


def _merit(gain: Score, control: Score) -> str:
    """What training has to do with it, beyond both intervals."""
    if below(control, gain):
        return "so training adds to it"
    return "so it is no merit of training" if below(gain, control) else "whether training adds to it is undecided"


def _gain(score: Score) -> str:
    ends = "" if score.low is None or score.high is None else f" ({score.low:+.3f} to {score.high:+.3f})"
    return f"{score.value:+.3f}{ends}"


def steady(run: Path, barely: float) -> tuple[str, str]:
    """Whether the mean similarity of blocks is the same at every pool that all of them have, on the same images.

    It is where no interval of a change reaches `barely`, and is not where one lies wholly beyond it.
    """
    changes = [s for s in results.read(run) if s.name == "cka_pool_change" and not s.about["control"]]
    ends = [(s.low, s.high) for s in changes if s.low is not None and s.high is not None]
    if not changes or len(ends) < len(changes):
        lack = "pools that all blocks have" if not changes else "images for an interval"
        raise BadRun(f"{run.name} has too few {lack}.")
    told = ", ".join(f"{_gain(s)} at pool {s.about['pool']}" for s in changes)
    told = f"mean CKA against that at the first pool: {told}; barely is less than {barely:g}"
    if any(low > barely or high < -barely for low, high in ends):
        return "does not hold", told
    return ("holds" if all(-barely < low and high < barely for low, high in ends) else "undecided"), told
