"""Un-Mix against the released boxes and images, its stated law, and its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablatrix_models.mixing import Box, draw_unmix, unmix
from ablatrix_models.recipe.mixing import Mixing
from golden import load_golden


class ReleasedStream:
    """numpy's legacy stream behind the names that the samplers call."""

    def __init__(self, seed: int) -> None:
        self.stream = np.random.RandomState(seed)

    def uniform(self, a: float, b: float, /) -> float:
        return a + (b - a) * self.stream.rand()

    def betavariate(self, alpha: float, beta: float, /) -> float:
        return self.stream.beta(alpha, beta)

    def randint(self, a: int, b: int, /) -> int:
        return int(self.stream.randint(a, b + 1))


def test_unmix_draws_the_released_boxes_in_the_released_order():
    rows = load_golden("unmix_rand_bbox_by_seed")["rows_f64"]

    drawn = [draw_unmix(Mixing(unmix_probability=0.0), int(row[1]), ReleasedStream(int(row[0]))) for row in rows]

    assert [box for _, box in drawn] == [Box(*map(int, row[5:9])) for row in rows]
    np.testing.assert_allclose([share for share, _ in drawn], rows[:, 9], rtol=0, atol=1e-12)


def test_unmix_draws_the_released_lambda_where_mixup_is_certain():
    rows = load_golden("unmix_rand_bbox_by_seed")["rows_f64"]

    drawn = [draw_unmix(Mixing(unmix_probability=1.0), int(row[1]), ReleasedStream(int(row[0]))) for row in rows]

    assert {box for _, box in drawn} == {None}
    np.testing.assert_array_equal([share for share, _ in drawn], rows[:, 4])


@pytest.mark.parametrize("seed", range(40))
def test_unmix_mixes_the_released_images(seed: int):
    golden = load_golden("unmix_image_mixing_prob0.5_beta1")
    case = {key.removeprefix(f"seed{seed:02}__"): value for key, value in golden.items() if key.startswith(f"seed{seed:02}__")}
    images = torch.from_numpy(golden["images_B3HW"])

    share, box = draw_unmix(Mixing(), images.shape[-1], ReleasedStream(seed))
    mixture = unmix(images, share, box)

    assert (box is None) == (case["kind"] == "mixup")
    assert share == pytest.approx(float(case["loss_lambda"]), abs=1e-12)
    np.testing.assert_allclose(mixture.own, np.full(4, case["loss_lambda"]), rtol=1e-6)
    if box is not None:
        assert box == Box(*map(int, case["bbx1_bby1_bbx2_bby2"]))
    if "mixed_images" in case:
        np.testing.assert_allclose(mixture.images, case["mixed_images"], rtol=1e-5, atol=1e-6)


def test_mixup_weighs_the_own_image_by_lambda_and_the_reversed_one_by_the_rest():
    images = torch.arange(1.0, 5.0)[:, None, None, None].expand(4, 3, 8, 8)

    mixture = unmix(images, 0.3, None)

    assert mixture.images[:, 0, 0, 0].tolist() == pytest.approx([0.3 * i + 0.7 * (5 - i) for i in range(1, 5)], rel=1e-6)
    assert mixture.own.tolist() == pytest.approx([0.3] * 4, rel=1e-6)
    assert mixture.other is not None
    assert mixture.other.tolist() == pytest.approx([0.7] * 4, rel=1e-6)


def test_unmix_chooses_mixup_with_its_probability_and_cutmix_raises_lambda_by_a_fifth():
    stream = ReleasedStream(0)

    drawn = [draw_unmix(Mixing(unmix_probability=0.3), 32, stream) for _ in range(20_000)]

    mixup = [share for share, box in drawn if box is None]
    cutmix = [share for share, box in drawn if box is not None]
    assert len(mixup) / len(drawn) == pytest.approx(0.3, abs=0.015)
    assert np.mean(mixup) == pytest.approx(0.5, abs=0.02)
    assert np.mean(cutmix) == pytest.approx(0.7, abs=0.02)


@given(size=st.integers(1, 64), seed=st.integers(0, 2**32 - 1), beta=st.floats(0.05, 20.0))
@settings(max_examples=60, deadline=None)
def test_a_box_lies_inside_the_image_and_lambda_is_what_it_leaves(size: int, seed: int, beta: float):
    share, box = draw_unmix(Mixing(unmix_probability=0.0, unmix_beta=beta), size, ReleasedStream(seed))

    assert box is not None
    assert 0 <= box.top <= box.bottom <= size
    assert 0 <= box.left <= box.right <= size
    assert share == pytest.approx(1 - (box.bottom - box.top) * (box.right - box.left) / size**2, abs=1e-12)
