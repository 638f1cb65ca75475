"""How fast are two 32-pixel MoCo views, against torchvision on Pillow images and against kornia?

Command: python benchmarks/augment.py [--batch 512] [--rounds 9]. One thread, processor time, seeded 1/f noise, no download.
Bars: at least 6x torchvision and, where kornia is installed, 1.8x kornia, by the lower quartile of the paired ratios. Before
any clock starts, the views must agree with torchvision's. Exit code: 0 passed, 1 failed, 2 inconclusive.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.v2 import functional

from ablatrix_models.augment import apply, draw, two_views
from ablatrix_models.recipe.augment import Augment
from paired import paired_ratios

SIZE = 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
MOCO = Augment(crop_scale=(0.08, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey_p=0.2)
BARS = {"torchvision": 6.0, "kornia": 1.8}
ADJUST = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation, functional.adjust_hue)


def photographs(count: int) -> Tensor:
    """uint8 (count, 3, 32, 32) with the 1/f spectrum of photographs."""
    frequency = torch.hypot(torch.fft.fftfreq(SIZE)[:, None], torch.fft.rfftfreq(SIZE)[None]).clamp(min=1 / SIZE)
    white = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    noise = torch.fft.irfft2(torch.fft.rfft2(white) / frequency, s=(SIZE, SIZE))
    return (noise / noise.std(dim=(1, 2, 3), keepdim=True) * 60 + 120).round().clamp(0, 255).to(torch.uint8)


def ours(images: Tensor) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    return lambda: two_views(images, MOCO, MOCO, SIZE, MEAN, STD, generator)


def torchvision_on_pillow(images: Tensor) -> Callable[[], object]:
    """What CIFAR10's __getitem__ and a two-crop transform do, and the default collation; no workers."""
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    view = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=MOCO.crop_scale),
            transforms.RandomHorizontalFlip(MOCO.flip),
            transforms.RandomApply([transforms.ColorJitter(*MOCO.jitter)], MOCO.jitter_p),
            transforms.RandomGrayscale(MOCO.grey_p),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def batch() -> list[Tensor]:
        pairs = [(view(image), view(image)) for image in map(Image.fromarray, arrays)]
        return [torch.stack(views) for views in zip(*pairs, strict=True)]

    return batch


def kornia_batched(images: Tensor) -> Callable[[], object]:
    """kornia's own batched transforms with parameters per image; its faster cropping mode."""
    from kornia import augmentation  # pyright: ignore[reportMissingImports]

    view = augmentation.ImageSequential(
        augmentation.RandomResizedCrop((SIZE, SIZE), scale=MOCO.crop_scale, resample="bilinear", cropping_mode="resample"),
        augmentation.RandomHorizontalFlip(p=MOCO.flip),
        augmentation.ColorJitter(*MOCO.jitter, p=MOCO.jitter_p),
        augmentation.RandomGrayscale(p=MOCO.grey_p),
        augmentation.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )

    def batch() -> tuple[Tensor, Tensor]:
        floats = images.to(torch.float32).div_(255)
        return view(floats), view(floats)

    return batch


def check_fidelity(images: Tensor) -> None:
    """The gate: crop and flip within 2 levels of Pillow's and 95 % equal; jitter within 1e-3 level of the float path."""
    parameters = draw(MOCO, len(images), SIZE, SIZE, torch.Generator().manual_seed(1))
    cropped = apply(images, parameters, Augment(jitter_p=0.0, grey_p=0.0), SIZE)
    coloured = apply(images, parameters, Augment(grey_p=0.0), SIZE)
    levels, equal, jitter_error = 0.0, 0.0, 0.0
    for i, image in enumerate(images):
        box = [int(side[i]) for side in (parameters.top, parameters.left, parameters.height, parameters.width)]
        pillow = functional.resized_crop(functional.to_pil_image(image), *box, size=[SIZE, SIZE], antialias=True)  # type: ignore[misc]
        pillow = functional.pil_to_tensor(functional.horizontal_flip(pillow) if parameters.flip[i] else pillow)
        difference = ((cropped[i] * 255 + 0.5).floor() - pillow).abs()
        levels, equal = max(levels, float(difference.max())), equal + float((difference == 0).float().mean()) / len(images)
        expected = cropped[i]
        for transform in parameters.order[i].tolist() if parameters.jitter[i] else []:
            factor = (parameters.brightness, parameters.contrast, parameters.saturation, parameters.hue)[transform][i]
            expected = ADJUST[transform](expected, float(factor))
        jitter_error = max(jitter_error, float((coloured[i] - expected).abs().max()) * 255)
    print(f"fidelity: crop and flip differ by at most {levels:.0f} levels, {equal:.1%} equal; jitter by at most {jitter_error:.1e} levels")
    if levels > 2 or equal < 0.95 or jitter_error > 1e-3:
        sys.exit("The views are not torchvision's, so their speed means nothing.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = photographs(arguments.batch)
    check_fidelity(images)
    cases = {"ours": ours(images), "torchvision": torchvision_on_pillow(images)}
    if importlib.util.find_spec("kornia"):
        cases["kornia"] = kornia_batched(images)

    rounds = paired_ratios(cases, arguments.rounds)

    print(f"{arguments.batch} images, two views each, {arguments.rounds} rounds, others used {rounds.other_load:.1f} cores")
    print(f"{'case':<12} {'images/s':>9} {'ours is':>8} {'quartiles':>15} {'bar':>5}  verdict")
    print(f"{'ours':<12} {arguments.batch / rounds.median_seconds('ours'):>9.0f}")
    verdicts = []
    for name in list(cases)[1:]:
        ratio = rounds.ratio(name, "ours")
        verdicts.append(rounds.verdict(ratio, BARS[name]))
        quartiles = f"[{ratio.lower:.2f}, {ratio.upper:.2f}]"
        speed = arguments.batch / rounds.median_seconds(name)
        print(f"{name:<12} {speed:>9.0f} {ratio.median:>7.2f}x {quartiles:>15} {BARS[name]:>4}x  {verdicts[-1]}")
    return 1 if "failed" in verdicts else 0 if set(verdicts) == {"passed"} else 2


if __name__ == "__main__":
    sys.exit(main())
