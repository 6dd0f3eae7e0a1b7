"""Heads fitted on train, settled on val, and what they answer on test: kept for every image, so that it can be paired.

RUN/predictions/<row>-<head>.npz     arrays of numbers and text, no pickles; see `Predictions`
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import files
from twofold import tables as tables_
from twofold.errors import BadRun
from twofold.heads import base as heads
from twofold.heads.base import Head
from twofold.steps import _shots
from twofold.store import Table

FOLDER = "predictions"
Tables = dict[str, Table]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What heads of S seeds answer on N test images.

    Attributes:
        index: int64 [N], the images' numbers.
        labels: int64 [N].
        seeds: int64 [S].
        predicted: int64 [S, N], the likeliest label.
        confidence: float32 [S, N], its probability.
        rank: int64 [S, N], how many classes are held at least as likely as the right one, which is not counted.
        classes: int64, how many classes the heads know.
        val: float64 [S], accuracy on val.
        chosen: text [S], what val chose, as JSON.
    """

    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    seeds: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    rank: NDArray[np.int64]
    classes: NDArray[np.int64]
    val: NDArray[np.float64]
    chosen: NDArray[np.str_]

    @property
    def right(self) -> NDArray[np.bool_]:
        """[S, N]."""
        right: NDArray[np.bool_] = self.predicted == self.labels
        return right

    def save(self, path: Path) -> None:
        """Write the whole file at once."""
        with files.replacing(path) as temporary:
            np.savez_compressed(temporary, **{f.name: getattr(self, f.name) for f in fields(self)})


def load(path: Path) -> Predictions:
    """Read what `save` wrote; nothing in the file is executed."""
    try:
        with path.open("rb") as file, files.undamaged(path, ""), np.load(file, allow_pickle=False) as found:
            return _checked(Predictions(**{f.name: found[f.name] for f in fields(Predictions)}))
    except (zipfile.BadZipFile, EOFError, OSError, BadRun) as error:
        raise BadRun(
            f"{path} cannot be read: {error or 'it ends early'}. Make its run again in another folder."
        ) from error


def _checked(found: Predictions) -> Predictions:
    shape = (len(found.seeds), len(found.labels))
    same = {found.predicted.shape, found.confidence.shape, found.rank.shape} == {shape}
    if not same or found.index.shape != found.labels.shape or found.val.shape != found.seeds.shape:
        raise ValueError("its arrays do not fit one another")
    return found


def path_of(folder: Path, row: str, head: str) -> Path:
    """Where the predictions of a row and head stand in a run; settings behind a head's name make another file."""
    name = head.partition("?")[0]
    told = hashlib.sha256(f"{row} {head}".encode()).hexdigest()[:8]
    plain = re.sub(r"[^A-Za-z0-9.]+", "_", row).strip("_")[-40:]
    return folder / FOLDER / f"{plain}-{name}-{told}.npz"


Keep = Callable[[Head, dict[str, Any], float], None]


def run(
    read: Callable[[int], Sequence[Tables]], head: str, shots: int, seeds: Sequence[int], keep: Keep | None = None
) -> Predictions:
    """Fit, choose, open test, for every seed.

    Args:
        read: gives for a seed the tables of train, val and test that each voting head reads; one seed's at a time.
        head: name of the head.
        shots: labels a class; 0 for all.
        seeds: of noise and shots.
        keep: is given the fitted head of the first seed, what val chose, and its accuracy on val.
    """
    return joined([_answered(read(seed), head, shots, seed, keep if seed == seeds[0] else None) for seed in seeds])


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of one seed each, on the same images, as one."""
    first = parts[0]
    together = {f.name: np.concatenate([getattr(one, f.name) for one in parts]) for f in fields(Predictions)
                if f.name not in ("index", "labels", "classes")}  # fmt: skip
    return replace(first, **together)


@dataclass(frozen=True, eq=False)
class _Trial:
    """A fitted head, what val chose, and its scores [N, K] on val (before refitting) and on test."""

    head: Head
    choice: dict[str, Any]
    val: NDArray[Any]
    val_labels: NDArray[np.int64]
    test: NDArray[Any]


def _trial(tables: Tables, name: str, shots: int, seed: int) -> _Trial:
    """Fit, choose, open test.

    With all labels the head is fitted again on train and val once val has chosen its strength. With K shots it
    learns from K rows a class of train, and val has K a class too: more would be labels that are not paid for.
    """
    val, test = tables["val"], tables["test"]
    views = [table for split, table in tables.items() if split.startswith("train")]
    if shots:
        rows = _shots.draw(views[0].y, shots, seed)
        views = [view.some(rows) for view in views]
        val = val.some(_shots.at_most(val.y, shots, seed))
    train = _stacked(views)
    chosen = heads.load(name).fit(train.x, train.y, val=(val.x, val.y))
    final = chosen
    if not shots:
        both = _stacked([train, val])
        final = chosen.settled().fit(both.x, both.y)
    return _Trial(final, chosen.choice, chosen.scores(val.x), val.y, final.scores(test.x))


def _stacked(tables: Sequence[Table]) -> Table:
    """Rows under rows."""
    y, index = (np.concatenate([getattr(table, name) for table in tables]) for name in ("y", "index"))
    return Table(tables_.below([table.x for table in tables]), y, index)


def _mean(voters: Sequence[_Trial], split: str) -> NDArray[np.float64]:
    """Class probabilities [N, K], averaged over heads."""
    mean: NDArray[np.float64] = np.mean([one.head.probabilities(getattr(one, split)) for one in voters], 0)
    return mean


def _ranked(voters: Sequence[_Trial], split: str) -> NDArray[Any]:
    """What decides: one head's own scores, whose order probabilities may lose where they are 0, else the votes."""
    return getattr(voters[0], split) if len(voters) == 1 else _mean(voters, split)


def _accuracy(voters: Sequence[_Trial]) -> float:
    answers = voters[0].head.classes_[_ranked(voters, "val").argmax(1)]
    return float((answers == voters[0].val_labels).mean())


def _answered(voters: Sequence[Tables], head: str, shots: int, seed: int, keep: Keep | None) -> Predictions:
    """Fit, choose, open test, for one seed."""
    trials = [_trial(tables, head, shots, seed) for tables in voters]
    if keep is not None:
        keep(trials[0].head, trials[0].choice, _accuracy(trials))
    chosen = [t.choice for t in trials] if len(trials) > 1 else trials[0].choice
    ranked, mean = _ranked(trials, "test"), _mean(trials, "test")
    test, classes = voters[0]["test"], trials[0].head.classes_
    return answers(test.index, test.y, classes, ranked, mean, seed=seed, val=_accuracy(trials), chosen=chosen)


def answers(
    index: NDArray[np.int64], labels: NDArray[np.int64], classes: NDArray[np.int64], ranked: NDArray[Any],
    probabilities: NDArray[np.float64], *, seed: int, val: float, chosen: Any,
) -> Predictions:  # fmt: skip
    """What one seed answers on test: the likeliest label, its probability, and the right label's rank.

    Args:
        index, labels: [N], of the images.
        classes: labels [K] that the columns stand for; a right label that is none of them ranks last.
        ranked: [N, K], what decides, larger is likelier.
        probabilities: [N, K].
        seed, val, chosen: see `Predictions`.
    """
    each, first = np.arange(len(labels)), ranked.argmax(1)
    known = np.isin(labels, classes)
    own = ranked[each, np.searchsorted(classes, np.where(known, labels, classes[0]))]
    rank = np.where(known, (ranked >= own[:, None]).sum(1) - 1, len(classes)).astype(np.int64)
    confidence = probabilities[each, first].astype(np.float32)
    return Predictions(
        index, labels, np.array([seed]), classes[first][None], confidence[None], rank[None], np.array(len(classes)),
        val=np.array([val]), chosen=np.array([json.dumps(chosen)]),
    )  # fmt: skip
