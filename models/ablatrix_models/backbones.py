"""ResNets without a classifier. They map images to pooled features and tell their width as `width_out`; the ViT is `siamese_im.vit`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from ablatrix_models.batchnorm import SplitBatchNorm, block_order
from ablatrix_models.recipe.backbone import ResNet as ResNetConfig

_DEPTHS: dict[str, tuple[Any, list[int]]] = {
    "resnet18": (resnet.BasicBlock, [2, 2, 2, 2]),
    "resnet50": (resnet.Bottleneck, [3, 4, 6, 3]),
}


_LEAST_CHANNELS = 7


def bears_channels_last(network: nn.Module, device: torch.device) -> bool:
    """Whether `network` can be trained on `device` in channels-last memory, of which the result is independent but for rounding.

    On a CPU not where a strided 1x1 convolution has fewer than 7 input channels, as in ResNets narrower than about 0.11: there torch
    2.14.1 writes beyond its memory in the backward pass, and the process dies sooner or later (docs/notes.md).
    """
    convolutions = (part for part in network.modules() if isinstance(part, nn.Conv2d))
    narrow = any(c.kernel_size == (1, 1) and c.stride != (1, 1) and c.in_channels < _LEAST_CHANNELS for c in convolutions)
    return device.type != "cpu" or not narrow


def build_backbone(config: ResNetConfig, bn_splits: int = 1) -> ResNet:
    """A randomly initialised encoder, drawn from torch's global generator.

    bn_splits: groups of the batch with batch norm statistics of their own; 1 is plain batch norm.
    """
    return ResNet(config, bn_splits)


class ResNet(resnet.ResNet):
    """torchvision's ResNet (He et al. 2016) with another stem or width, and without its classifier.

    At width 1 and with the ImageNet stem its weights equal torchvision's under the same seed. The CIFAR stem
    keeps PyTorch's default convolution weights, because the released code replaces that layer after the
    initialisation. Input (batch, 3, height, width); output (batch, width_out).
    """

    width_out: int

    def __init__(self, config: ResNetConfig, bn_splits: int = 1) -> None:
        # Plain object attribute: torchvision's constructor calls `_make_layer` before ours goes on.
        object.__setattr__(self, "_multiplier", config.width)
        block, layers = _DEPTHS[config.name]
        norm_layer = partial(SplitBatchNorm, splits=bn_splits) if bn_splits > 1 else nn.BatchNorm2d
        super().__init__(block, layers, norm_layer=norm_layer)
        self._replace_stem(config, norm_layer)
        self.width_out = self._channels(512) * block.expansion
        self.fc = nn.Identity()  # type: ignore[assignment]

    def _channels(self, planes: int) -> int:
        return round(planes * self._multiplier)  # type: ignore[operator]

    def _make_layer(self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False) -> nn.Sequential:
        if planes == 64:  # the first stage takes the stem's channels, which torchvision fixes at 64
            self.inplanes = self._channels(64)
        return super()._make_layer(block, self._channels(planes), blocks, stride, dilate)

    def _replace_stem(self, config: ResNetConfig, norm_layer: Any) -> None:
        channels = self._channels(64)
        if config.stem == "cifar":
            self.conv1 = nn.Conv2d(3, channels, 3, stride=1, padding=1, bias=False)
        elif channels != 64:
            self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        if channels != 64:
            self.bn1 = norm_layer(channels)
        if not config.pools:
            self.maxpool = nn.Identity()  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features (batch, width_out) of images (batch, 3, height, width)."""
        splits = getattr(self.bn1, "splits", 1)
        blocks = self.training and splits > 1 and not x.is_cuda and len(x) % splits == 0
        if not blocks or x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        # Regrouping once, in front, spares every batch norm two copies of its channels-last activations.
        order = block_order(len(x), splits)
        self._group(consecutive=True)
        try:
            features = super().forward(x[order].contiguous(memory_format=torch.channels_last))
        finally:
            self._group(consecutive=False)
        return features[order.argsort()]

    def _group(self, *, consecutive: bool) -> None:
        for module in self.modules():
            if isinstance(module, SplitBatchNorm):
                module.consecutive = consecutive
