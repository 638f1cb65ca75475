"""How fast is a SiameseIM training step beside one written as the paper has it, and how much memory does its loss take?

Command: python benchmarks/siameseim.py [--images 8] [--rounds 7]. One CPU thread. The plain step has the same networks and weights, but
attention with its matrix of scores, UniGrad with its tokens x tokens products, fp32, and AdamW one parameter after the other. Cases:
ViT-S/16 at 224 pixels, and the smoke profile's ViT at 32. Gate: in float64 both give the same loss and gradient, within 1e-7. There is no
bar on the ratio: attention is a small share of these steps, so that on a CPU it shows that nothing is lost; bf16 is timed where the
processor has it. The memory is the peak of a process that takes the loss and its gradient for 8,192 tokens of 384, above that of one
which only holds them. Exit code: 0 the gate holds, 1 it does not.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import Attention
from torch import Tensor

from ablatrix_models.augment import TwoViews
from ablatrix_models.augment.geometry import same_geometry
from ablatrix_models.descent import Descent
from ablatrix_models.methods import build_method
from ablatrix_models.recipe import Recipe
from ablatrix_models.siamese_im.patch_masks import sample_removed
from ablatrix_models.siamese_im.unigrad import layer_norm, unigrad
from masks import ADAMW, SIZES
from paired import paired_ratios

LAMBDA = 0.02
TOKENS, DIM = 8192, 384


def plain_unigrad(prediction: Tensor, target: Tensor) -> Tensor:
    """Tao et al. 2023, eq. 4, with every product of a prediction and a target; signs, means and 1/dim as released."""
    attraction = (prediction - target).square().sum(dim=1).mean()
    repulsion = (prediction @ target.T).square().mean(dim=1).mean()
    return (attraction + LAMBDA * repulsion) / prediction.shape[1]


def our_unigrad(prediction: Tensor, target: Tensor) -> Tensor:
    """The same number in O(dim^2) memory."""
    return torch.stack(unigrad(prediction, target, LAMBDA)).sum()


def plain_loss(method: Any, views: TwoViews, removed: Tensor) -> Tensor:
    """SiameseIM's loss through the plain form."""
    prediction = method.predict(views.a, views.geometry, removed).flatten(0, 1)
    with torch.no_grad():
        target = layer_norm(method.target_head(method.target_encoder.tokens(views.b))[:, 1:]).flatten(0, 1)
    return plain_unigrad(prediction, target)


def in_full(method: Any) -> Any:
    """The method with its attention written out."""
    for module in method.modules():
        if isinstance(module, Attention):
            module.fused_attn = False
    return method


def setting(recipe: Recipe, images: int) -> tuple[Any, TwoViews, Tensor]:
    """One method, and the views and masks of a step."""
    torch.manual_seed(0)
    method: Any = build_method(recipe).train()
    a, b = torch.randn(2, images, 3, recipe.data.image_size, recipe.data.image_size)
    removed = sample_removed(method.settings.mask, images, method.encoder.grid, torch.Generator().manual_seed(0))
    return method, TwoViews(a, b, same_geometry(images)), removed


def steps_of(recipe: Recipe, images: int) -> dict[str, Callable[[], object]]:
    """A plain step, ours, and ours in bf16 where the processor multiplies in it."""
    method, views, removed = setting(recipe, images)
    plain = in_full(copy.deepcopy(method))
    adamw = torch.optim.AdamW(plain.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, foreach=False, fused=False)

    def plain_step() -> None:
        plain.before_step()
        adamw.zero_grad()
        plain_loss(plain, views, removed).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        adamw.step()

    def ours(dtype: torch.dtype | None) -> Callable[[], object]:
        own = copy.deepcopy(method)
        descent = Descent(recipe.optimizer, own.parameter_groups(), torch.device("cpu"))

        def step() -> None:
            own.before_step()
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                loss = own.masked_loss(views, removed)[0]
            descent.step((one for one in [loss]), 1.0)

        return step

    cases = {"plain": plain_step, "ours, fp32": ours(None)}
    return cases | ({"ours, bf16": ours(torch.bfloat16)} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else {})


def difference(recipe: Recipe, images: int) -> tuple[float, float]:
    """Of both steps in float64: the difference of the losses, and of the gradients over their norm."""
    method, views, removed = setting(recipe, images)
    method = method.double()
    views = TwoViews(views.a.double(), views.b.double(), views.geometry)
    plain = in_full(copy.deepcopy(method))
    losses = method.masked_loss(views, removed)[0], plain_loss(plain, views, removed)
    for loss in losses:
        loss.backward()
    ours, theirs = (torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]) for m in (method, plain))
    return abs(losses[0].item() - losses[1].item()), ((ours - theirs).norm() / theirs.norm()).item()


def _peak(form: str, answer: Any) -> None:
    torch.set_num_threads(1)
    prediction, target = torch.randn(TOKENS, DIM, requires_grad=True), torch.randn(TOKENS, DIM)
    if form != "none":
        {"plain": plain_unigrad, "ours": our_unigrad}[form](prediction, target).backward()
    # Not getrusage: its maximum outlives the exec of a new process, and so would be the parent's.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    answer.put(int(found[1]) / 1024 if found else float("nan"))


def peak_mib(form: str) -> float:
    """Peak resident memory of a fresh process that takes the loss in this form, in MiB."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_peak, args=(form, answer))
    process.start()
    found = answer.get()
    process.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="images in the step")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sound = True
    for name, sections in SIZES.items():
        recipe = Recipe.read(sections | {"optimizer": ADAMW})
        loss, gradient = difference(recipe, arguments.images)
        sound &= loss < 1e-7 and gradient < 1e-7
        print(f"{name}: in float64 the losses differ by {loss:.1e}, the gradients by {gradient:.1e}")
        cases = steps_of(recipe, arguments.images)
        rounds = paired_ratios(cases, arguments.rounds)
        for case in cases:
            ratio = rounds.ratio("plain", case)
            rate = arguments.images / rounds.median_seconds(case)
            print(f"  {case:<11} {rate:8.1f} images/s   {ratio.median:.2f}x [{ratio.lower:.2f}, {ratio.upper:.2f}]")
        print(f"  others used {rounds.other_load:.1f} cores")
    base, plain, ours = (peak_mib(form) for form in ("none", "plain", "ours"))
    print(f"UniGrad of {TOKENS:,} x {DIM}: plain {plain - base:.0f} MiB, ours {ours - base:.0f} MiB above {base:.0f} MiB")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
