"""Chance belongs to the image."""

from __future__ import annotations

import numpy as np
import pytest

from twofold import noise


def test_noise_ignores_batching_and_order() -> None:
    whole = noise.normal(0, [4, 5, 6, 7], (3, 2, 2))
    np.testing.assert_array_equal(whole[1:3], noise.normal(0, [5, 6], (3, 2, 2)))
    np.testing.assert_array_equal(whole[::-1], noise.normal(0, [7, 6, 5, 4], (3, 2, 2)))


@pytest.mark.parametrize("change", [{"seed": 1}, {"index": 5}, {"draw": 1}, {"purpose": noise.SAMPLING}])
def test_everything_that_names_a_noise_changes_it(change: dict[str, int]) -> None:
    named = {"seed": 0, "index": 4, "draw": 0, "purpose": noise.FEATURES}

    def drawn(seed: int, index: int, draw: int, purpose: int) -> np.ndarray:
        return noise.generator(seed, index, draw=draw, purpose=purpose).standard_normal(1000)

    one, other = drawn(**named), drawn(**{**named, **change})
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15


def test_noise_is_standard_normal() -> None:
    values = noise.normal(0, range(200), (3, 16, 16))
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert values.dtype == np.float32


def test_streams_of_neighbouring_images_do_not_overlap() -> None:
    long = noise.generator(0, 0).standard_normal(100_000)
    for index in (1, 2):
        assert not np.isin(noise.generator(0, index).standard_normal(1000), long).any()


def test_torch_generators_belong_to_the_image() -> None:
    import torch

    def first(indices: list[int]) -> list[float]:
        made = noise.torch_generators(0, indices, purpose=noise.SAMPLING_STEPS)
        return [torch.randn(1, generator=g).item() for g in made]

    assert first([3, 4]) == [first([3])[0], first([4])[0]]
    assert first([3]) != first([4])
