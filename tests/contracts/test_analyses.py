"""What every analysis promises; a new analysis is tested the day its file lands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from twofold import registry
from twofold.analyses import base
from twofold.datasets import base as datasets
from twofold.errors import BadData
from twofold.records import Score
from twofold.tables import OnDisk

Tables = dict[str, np.ndarray]


def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    rows = datasets.load("digits").build(split)
    return np.stack([image[0].numpy().ravel() / 255 for image in rows.read(range(len(rows)))]), rows.labels


def real_digits() -> Tables:
    """Half of test as `generated`: as real as held-out images can be."""
    x, y = digits("train")
    test, _ = digits("test")
    return {"real": x, "real_labels": y, "held_out": test[::2], "generated": test[1::2]}


def answers() -> Tables:
    """What counts on 50 images for 3 seeds."""
    chance = np.random.default_rng(0)
    return {name: (chance.random((50, 3)) < share).astype(float) for name, share in (("first", 0.9), ("second", 0.7))}


def two_views() -> Tables:
    """Digits and a random projection of them."""
    x, _ = digits("val")
    return {"first": x, "second": x @ np.random.default_rng(0).normal(size=(64, 8))}


def two_halves() -> Tables:
    """Features [N, 6] of two sets that differ a little."""
    chance = np.random.default_rng(0)
    return {"generated": chance.normal(0.3, 1, (80, 6)), "real": chance.normal(0, 1, (120, 6))}


TABLES: dict[str, Callable[[], Tables]] = {
    "recognised": real_digits, "paired": answers, "cka": two_views, "frechet": two_halves, "kid": two_halves,
    "precision_recall": two_halves,
}  # fmt: skip


@pytest.fixture(scope="module", params=sorted(TABLES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def tables(name: str) -> Tables:
    return TABLES[name]()


def measure(name: str, tables: Tables) -> list[Score]:
    return list(base.load(name).measure(tables))


def test_every_member_has_tables() -> None:
    assert set(registry.names("analyses")) == set(TABLES)


def test_a_missing_table_is_one_clear_line(name: str, tables: Tables) -> None:
    assert set(base.load(name).needs) <= set(tables)
    for lacking in base.load(name).needs:
        with pytest.raises(BadData, match=f"lacks the table '{lacking}'"):
            measure(name, {n: t for n, t in tables.items() if n != lacking})


def test_a_value_that_is_not_finite_is_one_clear_line(name: str, tables: Tables) -> None:
    for broken in (n for n in base.load(name).needs if not n.endswith("_labels")):
        for value in (np.nan, np.inf):
            damaged = tables[broken].copy()
            damaged[0, 0] = value
            with pytest.raises(BadData, match=f"'{broken}' holds values that are not finite"):
                measure(name, {**tables, broken: damaged})


def test_tables_that_do_not_fit_are_one_clear_line(name: str, tables: Tables) -> None:
    for odd in (n for n in base.load(name).needs if not n.endswith("_labels")):
        less = tables[odd][1:] if base.load(name).same == "rows" else tables[odd][:, 1:]
        with pytest.raises(BadData):
            measure(name, {**tables, odd: less})


def test_too_few_rows_are_one_clear_line(name: str, tables: Tables) -> None:
    analysis = base.load(name)
    for short in analysis.needs if analysis.least > 1 else ():
        with pytest.raises(BadData, match=f"has {analysis.least - 1} rows; .* needs {analysis.least}"):
            few = analysis.needs if analysis.same == "rows" else (short,)
            measure(name, {**tables, **{n: tables[n][: analysis.least - 1] for n in few}})


def test_rows_on_disk_and_cut_anyhow_give_the_same_scores(
    name: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = base.load(name)
    if analysis.needs != ("generated", "real"):
        pytest.skip("reads whole tables")
    monkeypatch.setattr(base, "PIECE", 100)  # numbers: some rows at a time
    unread = {n: OnDisk(t.shape, t.dtype, 2**20, 7, partial(chunk, t)) for n, t in tables.items()}
    for found, expected in zip(analysis.measure(unread), measure(name, tables), strict=True):
        assert found.value == pytest.approx(expected.value, rel=1e-9)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def chunk(table: np.ndarray, number: int) -> np.ndarray:
    return table[7 * number : 7 * number + 7]


def test_scores_say_what_they_are_of(name: str, tables: Tables) -> None:
    scores = measure(name, tables)
    assert scores
    for score in scores:
        assert score.name and score.split and score.n > 0 and np.isfinite(score.value)
        assert score.low is None or score.low <= score.value <= score.high
        assert Score.from_record(score.record()) == score
    assert [(s.name, s.value, s.low) for s in measure(name, tables)] == [(s.name, s.value, s.low) for s in scores]


def recognised(tables: Tables) -> dict[tuple[str, str], Score]:
    return {(s.name, s.split): s for s in measure("recognised", tables)}


def test_real_digits_are_recognised_as_often_as_held_out_ones() -> None:
    found = recognised(real_digits())
    assert found["sure", "test"].value > 0.8
    assert 0.93 < found["sure_ratio", "generated"].value < 1.07
    assert found["classes_seen", "generated"].value == 10
    sure = found["sure", "generated"]
    assert sum(found["classes_seen", "generated"].about["counts"].values()) == round(sure.value * sure.n)


def test_noise_is_hardly_ever_recognised() -> None:
    tables = real_digits()
    chance = np.random.default_rng(0)
    # As bright and as varied as the digits, pixel by pixel, but without their shape.
    noise = chance.normal(tables["real"].mean(), tables["real"].std(), (300, 64)).clip(0, 1)
    assert recognised({**tables, "generated": noise})["sure", "generated"].value < 0.05


def test_noise_shows_no_class() -> None:
    tables = real_digits()
    found = recognised({**tables, "generated": np.random.default_rng(0).uniform(0, 1, (500, 64))})
    assert found["sure", "generated"].value == 0
    assert found["classes_seen", "generated"].value == 0
    assert set(found["classes_seen", "generated"].about["counts"].values()) == {0}


def test_one_digit_over_and_over_is_one_class() -> None:
    tables = real_digits()
    same = np.repeat(tables["held_out"][:1], 30, 0)
    assert recognised({**tables, "generated": same})["classes_seen", "generated"].value == 1


def test_recognising_needs_several_images_of_every_class() -> None:
    tables = real_digits()
    x, y = tables["real"], tables["real_labels"]
    for kept in (y == 0, np.isin(np.arange(len(y)), [np.flatnonzero(y == k)[0] for k in range(10)])):
        with pytest.raises(BadData, match="needs two classes"):
            recognised({**tables, "real": x[kept], "real_labels": y[kept]})


def test_recognising_refuses_one_class_that_is_too_small() -> None:
    tables = real_digits()
    x, y = tables["real"], tables["real_labels"]
    kept = (y != 3) | (np.cumsum(y == 3) <= 2)
    with pytest.raises(BadData):
        recognised({**tables, "real": x[kept], "real_labels": y[kept]})
