"""Mixtures against the released vectors, a transcription in float64, and what must hold for every mixture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ablatrix_models.masks import sample_cells, upsample
from ablatrix_models.mixing import Box, Mixture, erase, mixmask, sample_mixtures, unmix
from ablatrix_models.recipe.mask import Mask
from ablatrix_models.recipe.mixing import Mixing
from golden import load_golden


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(batch: int, size: int = 16) -> Tensor:
    """Image i is i + 1 everywhere, so that a mixed pixel tells whose it is."""
    return torch.arange(1.0, batch + 1)[:, None, None, None].expand(batch, 3, size, size).clone()


def reversed_rows(batch: int) -> Tensor:
    return torch.arange(batch - 1, -1, -1)


def share_of(images: Tensor, value: Tensor) -> list[float]:
    """For each row, the share of pixels that hold that row's `value`."""
    return (images == value[:, None, None, None]).double().mean((1, 2, 3)).tolist()


@pytest.mark.parametrize(("case", "size"), [("grid8_32px", 32), ("grid4_16px", 16)])
class TestReleasedMixMask:
    def test_reversed_partners(self, case: str, size: int):
        golden = {key.removeprefix(f"{case}__"): value for key, value in load_golden("mixmask_image_mixing_and_lambda").items()}
        images, cells = torch.from_numpy(golden["images_B3HW"]), torch.from_numpy(golden["grid_mask"]).bool()[None]

        mixture = mixmask(images, cells, reversed_rows(len(images)))

        np.testing.assert_array_equal(upsample(cells, size)[0, 0].float(), golden["pixel_mask"])
        np.testing.assert_array_equal(mixture.images, golden["mixed_reverse"])
        np.testing.assert_array_equal(mixture.images[mixture.restore], golden["switch_images_reverse"])
        np.testing.assert_array_equal(mixture.own, np.full(6, golden["lambda"]))
        assert mixture.other is not None
        np.testing.assert_array_equal(mixture.other, np.full(6, 1 - golden["lambda"]))

    def test_permuted_partners(self, case: str, size: int):
        golden = {key.removeprefix(f"{case}__"): value for key, value in load_golden("mixmask_image_mixing_and_lambda").items()}
        images, cells = torch.from_numpy(golden["images_B3HW"]), torch.from_numpy(golden["grid_mask"]).bool()[None]

        mixture = mixmask(images, cells, torch.from_numpy(golden["permutation"]))

        np.testing.assert_array_equal(mixture.images, golden["mixed_permuted"])
        np.testing.assert_array_equal(mixture.restore, golden["inverse_permutation_argsort"])
        np.testing.assert_array_equal(mixture.images[mixture.restore], golden["mixed_permuted_rows_reindexed_by_inverse"])


def contrast(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each row against its key and the queue, (batch,)."""
    positive = (queries * keys).sum(1, keepdim=True)
    return torch.nn.functional.cross_entropy(
        torch.cat([positive, queries @ queue], 1) / temperature, torch.zeros(len(keys)).long(), reduction="none"
    )


@pytest.mark.parametrize(
    ("case", "temperature", "share"),
    [("B6_D8_K12_T0.2_lambda0.40625", 0.2, 0.40625), ("B8_D16_K32_T0.1_lambda0.5", 0.1, 0.5), ("B5_D8_K10_T0.07_lambda0.0", 0.07, 0.0)],
)
def test_the_weights_give_the_released_loss_and_gradient(case: str, temperature: float, share: float):
    golden = {
        key.removeprefix(f"{case}__"): torch.from_numpy(value).double()
        for key, value in load_golden("mixmask_moco_loss_reverse_permutation").items()
    }
    keys, raw = torch.nn.functional.normalize(golden["raw_key_features_k"]), golden["raw_mixed_query_features"].requires_grad_()
    mixture = unmix(torch.zeros(len(keys), 3, 4, 4), share, None)

    features, queue = torch.nn.functional.normalize(raw), golden["queue_DxK_unit_columns_before"]
    assert mixture.other is not None
    own = mixture.own * contrast(features, keys, queue, temperature)
    other = mixture.other * contrast(features[mixture.restore], keys, queue, temperature)
    (own.mean() + other.mean()).backward()

    total = golden["loss_original"] + own.mean() + other.mean()
    torch.testing.assert_close(total, golden["total_f64"], rtol=1e-6, atol=1e-6)
    assert raw.grad is not None
    torch.testing.assert_close(raw.grad, golden["grad_mixed_q"], rtol=1e-5, atol=1e-6)


@given(batch=st.integers(1, 5), seed=st.integers(0, 2**32 - 1), per_image=st.booleans())
@settings(max_examples=25, deadline=None)
def test_mixmask_equals_a_pixel_by_pixel_transcription(batch: int, seed: int, per_image: bool):
    generator = seeded(seed)
    images = torch.randn(batch, 2, 5, 5, generator=generator, dtype=torch.float64)
    cells = torch.rand(batch if per_image else 1, 3, 3, generator=generator) > 0.5
    partners = torch.randperm(batch, generator=generator)

    mixture = mixmask(images, cells, partners)

    for i in range(batch):
        mask = cells[i if per_image else 0]
        kept = 0
        for y in range(5):
            for x in range(5):
                m = float(mask[y * 3 // 5, x * 3 // 5])
                kept += m
                for c in range(2):
                    assert float(mixture.images[i, c, y, x]) == m * float(images[i, c, y, x]) + (1 - m) * float(
                        images[partners[i], c, y, x]
                    )
        assert float(mixture.own[i]) == pytest.approx(kept / 25)
        assert mixture.other is not None
        assert float(mixture.other[partners[i]]) == pytest.approx(1 - kept / 25)


@pytest.mark.parametrize(
    "mix",
    [
        lambda images: mixmask(images, torch.eye(3).bool()[None], torch.tensor([2, 0, 1])).images,
        lambda images: unmix(images, 0.3, None).images,
        lambda images: unmix(images, 0.5, Box(0, 1, 2, 3)).images,
        lambda images: erase(images, torch.eye(3).bool()[None], 0.0).images,
    ],
    ids=["mixmask", "mixup", "cutmix", "erase"],
)
def test_gradients_reach_the_images(mix):
    images = torch.randn(3, 1, 4, 4, generator=seeded(), dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(mix, images)


@given(batch=st.integers(1, 7), grid=st.integers(2, 8), seed=st.integers(0, 2**32 - 1), per_image=st.booleans(), reverse=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_complementary_mask_with_the_inverse_permutation_swaps_the_two_terms(
    batch: int, grid: int, seed: int, per_image: bool, reverse: bool
):
    generator = seeded(seed)
    cells = torch.rand(batch if per_image else 1, grid, grid, generator=generator) > 0.5
    partners = reversed_rows(batch) if reverse else torch.randperm(batch, generator=generator)
    images = torch.randn(batch, 3, 9, 9, generator=generator)

    mixture = mixmask(images, cells, partners)
    swapped = mixmask(images, ~(cells[mixture.restore] if per_image else cells), mixture.restore)

    assert mixture.other is not None
    assert swapped.other is not None
    assert torch.equal(swapped.images, mixture.images[mixture.restore])
    torch.testing.assert_close(swapped.own, mixture.other)
    torch.testing.assert_close(swapped.other, mixture.own)


def test_the_switch_image_is_the_row_reversed_mixture():
    images, cells = torch.randn(6, 3, 8, 8, generator=seeded()), sample_cells(Mask(grid=4), 1, seeded(1))

    mixture = mixmask(images, cells, reversed_rows(6))

    switch = torch.where(upsample(cells, 8), images.flip(0), images)
    assert torch.equal(mixture.images.flip(0), switch)
    assert torch.equal(mixture.restore, reversed_rows(6))


@pytest.mark.parametrize("kind", ["mixmask", "unmix"])
def test_the_middle_image_of_an_odd_batch_mixes_with_itself(kind: str):
    images = torch.randn(5, 3, 8, 8, generator=seeded())

    (mixture,) = sample_mixtures(images, Mixing(kind=kind), Mask(grid=4), seeded(4))  # type: ignore[arg-type]

    torch.testing.assert_close(mixture.images[2], images[2])
    assert int(mixture.restore[2]) == 2
    assert not torch.equal(mixture.images[1], images[1])


CASES = [
    pytest.param(Mixing(kind=kind, permutation=permutation), per, id=f"{kind}-{permutation}-{per}")
    for kind in ("mixmask", "unmix", "both")
    for permutation in ("reverse", "random")
    for per in ("step", "image")
]


@pytest.mark.parametrize(("mixing", "per"), CASES)
@pytest.mark.parametrize("seed", range(3))
class TestEveryMixture:
    def test_weights_are_the_visible_shares_of_their_targets(self, mixing: Mixing, per, seed: int):
        mixing = dataclasses.replace(mixing, unmix_probability=0.0)
        images = numbered(6)

        mixtures = sample_mixtures(images, mixing, Mask(grid=8, per=per), seeded(seed))

        for mixture in mixtures:
            assert mixture.other is not None
            labels = images[:, 0, 0, 0]
            partners = torch.argsort(mixture.restore)
            mixed = partners != torch.arange(6)
            assert torch.equal(mixture.images[~mixed], images[~mixed])
            visible = torch.tensor(
                [share_of(mixture.images, labels), share_of(mixture.images[mixture.restore], labels)], dtype=torch.float32
            )
            torch.testing.assert_close(mixture.own[mixed], visible[0][mixed])
            torch.testing.assert_close(mixture.other[mixed], visible[1][mixed])

    def test_it_is_a_function_of_the_generator_alone(self, mixing: Mixing, per, seed: int):
        images = torch.randn(6, 3, 16, 16, generator=seeded(99))
        first, second = seeded(seed), seeded(seed)
        before = torch.get_rng_state()

        mixtures = sample_mixtures(images, mixing, Mask(grid=8, per=per), first)
        again = sample_mixtures(images, mixing, Mask(grid=8, per=per), second)

        assert torch.equal(first.get_state(), second.get_state())
        assert torch.equal(torch.get_rng_state(), before)
        for one, other in zip(mixtures, again, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.own, other.own)
            assert torch.equal(one.restore, other.restore)

    def test_the_images_that_came_in_are_left_alone(self, mixing: Mixing, per, seed: int):
        images = torch.randn(6, 3, 16, 16, generator=seeded(99))
        kept = images.clone()

        sample_mixtures(images, mixing, Mask(grid=8, per=per), seeded(seed))

        assert torch.equal(images, kept)


def test_one_mask_serves_the_whole_step_and_one_each_serves_every_image():
    images = numbered(6)
    own = lambda mixture: mixture.images[:, 0] == images[:, 0]  # noqa: E731 -- a formula

    (step,) = sample_mixtures(images, Mixing(kind="mixmask"), Mask(grid=8, per="step"), seeded())
    (image,) = sample_mixtures(images, Mixing(kind="mixmask"), Mask(grid=8, per="image"), seeded())

    assert len(torch.unique(own(step), dim=0)) == 1
    assert len(torch.unique(own(image), dim=0)) == 6


def test_with_both_unmix_comes_first_and_reverses_while_mixmask_draws_its_own_partners():
    first, second = sample_mixtures(numbered(16), Mixing(kind="both", permutation="random"), Mask(), seeded())

    assert torch.equal(first.restore, reversed_rows(16))
    assert torch.equal(second.restore.sort().values, torch.arange(16))
    assert not torch.equal(second.restore, reversed_rows(16))


def test_with_both_and_the_same_permutation_each_branch_reverses():
    first, second = sample_mixtures(numbered(16), Mixing(kind="both"), Mask(), seeded())

    assert torch.equal(first.restore, reversed_rows(16))
    assert torch.equal(second.restore, reversed_rows(16))


def test_random_partners_are_drawn_anew_at_every_step():
    generator = seeded()

    drawn = [
        sample_mixtures(numbered(8, 8), Mixing(kind="mixmask", permutation="random"), Mask(), generator)[0].restore for _ in range(400)
    ]

    counts = torch.nn.functional.one_hot(torch.stack(drawn), 8).sum(0)
    assert counts.min() > 50 - 4.5 * 6.6
    assert counts.max() < 50 + 4.5 * 6.6


@pytest.mark.parametrize("kind", ["mixmask", "unmix", "both"])
def test_without_the_switch_the_second_term_goes_and_lambda_stays(kind):
    with_switch = sample_mixtures(numbered(4), Mixing(kind=kind), Mask(), seeded())
    without = sample_mixtures(numbered(4), Mixing(kind=kind, switch=False), Mask(), seeded())

    assert all(mixture.other is None for mixture in without)
    for one, other in zip(with_switch, without, strict=True):
        assert torch.equal(one.own, other.own)
        assert torch.equal(one.images, other.images)


def test_no_mixing_gives_no_mixture_and_draws_nothing():
    generator = seeded(3)

    mixtures = sample_mixtures(numbered(4), Mixing(kind="none"), Mask(), generator)

    assert mixtures == ()
    assert torch.equal(generator.get_state(), seeded(3).get_state())


class TestErase:
    def test_it_keeps_weight_one_and_has_no_second_term(self):
        (mixture,) = sample_mixtures(numbered(4), Mixing(kind="erase"), Mask(), seeded())

        assert mixture.own.tolist() == [1.0] * 4
        assert mixture.other is None
        assert mixture.restore.tolist() == [0, 1, 2, 3]

    def test_zero_fills_what_the_mask_takes(self):
        (mixture,) = sample_mixtures(numbered(4), Mixing(kind="erase", erase_fill="zero"), Mask(grid=8), seeded())

        assert share_of(mixture.images, torch.zeros(4)) == pytest.approx([0.5] * 4, abs=0.04)
        assert share_of(mixture.images + (mixture.images == 0) * numbered(4), numbered(4)[:, 0, 0, 0]) == [1.0] * 4

    def test_gaussian_fill_is_standard_normal_and_differs_everywhere(self):
        images = torch.full((8, 3, 32, 32), 100.0)

        (mixture,) = sample_mixtures(images, Mixing(kind="erase", erase_fill="gaussian"), Mask(grid=8), seeded())

        noise = mixture.images[mixture.images != 100.0]
        assert len(noise) == pytest.approx(images.numel() / 2, rel=0.1)
        assert len(torch.unique(noise)) > 0.99 * len(noise)
        assert float(noise.mean()) == pytest.approx(0, abs=4.5 / len(noise) ** 0.5)
        assert float(noise.var()) == pytest.approx(1, abs=4.5 * (2 / len(noise)) ** 0.5)

    def test_gaussian_fill_is_a_function_of_the_generator_and_new_at_every_step(self):
        generator, mixing, mask = seeded(5), Mixing(kind="erase", erase_fill="gaussian"), Mask(grid=2, kind="discrete")

        steps = [sample_mixtures(numbered(2), mixing, mask, generator)[0].images for _ in range(8)]

        assert torch.equal(steps[0], sample_mixtures(numbered(2), mixing, mask, seeded(5))[0].images)
        noise = torch.cat([step[step != numbered(2)] for step in steps])
        assert len(torch.unique(noise)) > 0.99 * len(noise)


@pytest.mark.parametrize("kind", ["mixmask", "unmix", "both", "erase"])
@pytest.mark.parametrize("per", ["step", "image"])
class TestPlace:
    def mix(self, images: Tensor, kind, per) -> tuple[Mixture, ...]:
        return sample_mixtures(images, Mixing(kind=kind, permutation="random", erase_fill="zero"), Mask(per=per), seeded())

    def test_everything_follows_the_images_to_their_device(self, kind, per):
        mixtures = self.mix(torch.empty(4, 3, 16, 16, device="meta"), kind, per)

        tensors = [getattr(mixture, field.name) for mixture in mixtures for field in dataclasses.fields(mixture)]
        assert {tensor.device.type for tensor in tensors if tensor is not None} == {"meta"}

    def test_memory_layout_and_type_are_kept(self, kind, per):
        images = torch.randn(4, 3, 16, 16, generator=seeded()).to(torch.bfloat16, memory_format=torch.channels_last)

        for mixture in self.mix(images, kind, per):
            assert mixture.images.is_contiguous(memory_format=torch.channels_last)
            assert mixture.images.dtype == torch.bfloat16
            assert mixture.own.dtype == torch.float32
            assert mixture.restore.dtype == torch.int64
            assert mixture.own.shape == mixture.restore.shape == (4,)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 9), r"shape \(2, 3, 8, 9\), but \(batch, channels, size, size\) is needed"),
        (torch.zeros(3, 8, 8), r"shape \(3, 8, 8\), but"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"images are torch.uint8, but mixing needs normalised floats"),
    ],
)
def test_images_that_cannot_be_mixed_are_an_error(images: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        sample_mixtures(images, Mixing(kind="mixmask"), Mask(), seeded())
