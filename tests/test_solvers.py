"""The heads with closed or convex solutions against scikit-learn's and plain double precision, on real sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as TheirRidge
from sklearn.neighbors import KNeighborsClassifier

from twofold.errors import BadData
from twofold.heads import _pieces, base
from twofold.heads._shifted import Shifted
from twofold.heads._standard import Scale
from twofold.heads.knn import TEMPERATURE, NearestNeighbours
from twofold.heads.logistic import Logistic, Solver
from twofold.heads.ridge import Ridge

# Of one piece; of several, solved in single precision; fewer rows than columns; the same of several pieces.
SHAPES = {"small": (150, 20), "tall": (3000, 500), "wide": (60, 300), "very wide": (130, 9000)}


def correlated(rows: int, columns: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Columns that hang together and lie off zero, float16; classes that overlap."""
    chance = np.random.default_rng(rows)
    labels = chance.integers(0, classes, rows)
    labels[:classes] = range(classes)
    hidden = chance.standard_normal((rows, 12)) + 0.7 * chance.standard_normal((classes, 12))[labels]
    x = hidden @ chance.standard_normal((12, columns)) + 0.3 * chance.standard_normal((rows, columns)) + 5
    return x.astype(np.float16), labels


@pytest.fixture(scope="module", params=SHAPES)
def table(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    return correlated(*SHAPES[request.param])


def scaled(x: np.ndarray) -> np.ndarray:
    scale = Scale.of(x)
    return (x.astype(np.float64) - scale.mean) * scale.factor


def test_pieces_are_what_the_shapes_above_say() -> None:
    several = {name: rows > _pieces.piece_rows(np.empty((0, columns))) for name, (rows, columns) in SHAPES.items()}
    assert several == {"small": False, "tall": True, "wide": False, "very wide": True}


def test_scale_is_mean_and_variance(table: tuple[np.ndarray, np.ndarray]) -> None:
    x = table[0].astype(np.float64)
    found, variance = Scale.of(table[0]), x.var(0)
    np.testing.assert_allclose(found.mean, x.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.factor, 1 / np.sqrt(variance + np.median(variance)), rtol=1e-5)


def test_ridge_is_the_exact_solution(table: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = table
    rows, target = scaled(x), np.eye(4)[y]
    unit = np.square(rows).sum() / min(x.shape)
    for strength in (1e-5, 1e-2, 10.0):
        found = Ridge((strength,)).fit(x, y)
        exact = TheirRidge(strength * unit).fit(rows, target)
        np.testing.assert_allclose(found.weight_, exact.coef_.T, atol=1e-5 * np.abs(exact.coef_).max())
        np.testing.assert_allclose(found.scores(x), exact.predict(rows), atol=2e-5)


@pytest.mark.parametrize("side", [1, 2, 3, 40, 257])
@pytest.mark.parametrize("rank", [0, 5, 400])
def test_shifted_systems_are_solved_as_each_by_itself(side: int, rank: int) -> None:
    chance = torch.Generator().manual_seed(side)
    x = torch.randn(rank, side, dtype=torch.float64, generator=chance)
    whole, target = x.T @ x, torch.randn(side, 3, dtype=torch.float64, generator=chance)
    told = whole.triu() + torch.full_like(whole, torch.nan).tril(-1)  # what lies below is not read
    system = Shifted(told, target.clone())
    for shift in (1e-3, 1.0, 1e4):
        found = system.solve(shift)
        residual = whole @ found + shift * found - target
        assert float(residual.norm() / (whole.norm() + shift) / found.norm()) < 1e-14
    assert torch.equal(system.solve(1.0), system.solve(1.0))


def test_logistic_is_scikit_learns_optimum(table: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = table
    rows = scaled(x)

    def loss(weight: np.ndarray, bias: np.ndarray, c: float) -> float:
        chances = torch.from_numpy(rows @ weight + bias).log_softmax(1).numpy()
        return float(-chances[np.arange(len(y)), y].mean() + np.square(weight).sum() / (2 * c * len(y)))

    for c in (1e-3, 1.0):
        found = Logistic((c,), tolerance=1e-5).fit(x, y)
        theirs = LogisticRegression(C=c, tol=1e-6, max_iter=20_000).fit(rows, y)
        best = loss(theirs.coef_.T, theirs.intercept_, c)
        assert loss(found.weight_, found.bias_, c) == pytest.approx(best, abs=2e-6)
        apart = np.abs(found.weight_ - theirs.coef_.T).max() / np.abs(theirs.coef_).max()
        assert apart < 0.03
        assert (found.predict(x) == theirs.predict(rows)).mean() > 0.998


def test_the_path_ends_where_single_solutions_do(table: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = table
    scale, labels = Scale.of(x), torch.from_numpy(y)
    path = list(Solver(scale, x, labels, 4, 100).path([1e-3, 1e-2, 2e-2, 1.0], 1e-5))
    for c, weights in zip((1e-3, 1.0), (path[0], path[-1]), strict=True):
        alone = Solver(scale, x, labels, 4, 100).solve(None, c, 1e-6)
        np.testing.assert_allclose(weights, alone, atol=0.03 * float(alone.abs().max()))


def test_neighbours_are_scikit_learns(table: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = table
    rows = scaled(x)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    half = len(x) // 2

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((np.square(distances.min(1, keepdims=True)) - np.square(distances)) / 2 / TEMPERATURE)

    found = NearestNeighbours((7,)).fit(x, y).scores(x[:half])
    theirs = KNeighborsClassifier(7, weights=weights).fit(rows, y).predict_proba(rows[:half])
    np.testing.assert_allclose(found, theirs, atol=2e-3)


def test_of_equal_neighbours_the_first_in_the_table_count() -> None:
    """A thousand equal rows, more than a piece holds."""
    x = np.zeros((1000, 4000), np.float32)
    x[0, 0], x[1, 1] = 1, 1
    y = np.where(np.arange(1000) < 500, 3, 8)
    head = NearestNeighbours((20,)).fit(x, y)
    assert (head.predict(x[400:600]) == 3).all()


@pytest.mark.parametrize("name", ["ridge", "logistic", "knn", "linear?updates=30&epochs=1"])
def test_where_a_table_lies_does_not_matter(name: str, tmp_path: Path) -> None:
    """An array, a memory map, a Zarr array, double precision, a list: the same numbers."""
    x, y = correlated(300, 40)
    np.save(tmp_path / "x.npy", x)
    on_disk = zarr.create_array(str(tmp_path / "x.zarr"), data=x, chunks=(64, 40))
    expected = base.load(name).fit(x, y, val=(x[:50], y[:50])).scores(x)
    for same in (np.load(tmp_path / "x.npy", mmap_mode="r"), on_disk, x.astype(np.float64), x.tolist(), x[::-1][::-1]):
        found = base.load(name).fit(same, y, val=(same[:50], y[:50])).scores(same)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["ridge", "logistic", "knn", "linear?updates=30&epochs=1"])
def test_same_machine_same_number_and_more_threads_the_same_answers(name: str) -> None:
    x, y = correlated(1500, 200)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            found.append(base.load(name).fit(x, y, val=(x[:300], y[:300])).scores(x))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], found[2], atol=1e-4 * np.abs(found[0]).max())
    assert (found[0].argmax(1) == found[2].argmax(1)).mean() > 0.999


@pytest.mark.parametrize("name", ["ridge", "logistic", "knn", "linear?updates=30&epochs=1"])
def test_a_value_that_is_not_finite_is_counted_wherever_it_stands(name: str) -> None:
    x, y = correlated(3000, 500)
    spoilt = x.copy()
    spoilt[[7, 2950, 2999], [3, 0, 499]] = [np.nan, np.inf, -np.inf]
    with pytest.raises(BadData, match="3 of 3000 feature rows"):
        base.load(name).fit(spoilt, y)
    with pytest.raises(BadData, match="3 of 3000 feature rows"):
        base.load(name).fit(x, y).scores(spoilt)


def test_a_sum_that_overflows_is_no_value_that_is_not_finite() -> None:
    x = np.full((4, 3), 3e38, np.float32) * np.array([[1], [1], [0.5], [0.5]], np.float32)
    assert sum(len(piece) for _, piece in _pieces.pieces(x, check=True)) == 4
