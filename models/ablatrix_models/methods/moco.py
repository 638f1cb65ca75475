"""MoCo v1 and v2: contrast with keys from a momentum encoder and a queue of earlier keys."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ablatrix_models.augment import TwoViews
from ablatrix_models.backbones import build_backbone
from ablatrix_models.distributed import gather_rows, own_rows
from ablatrix_models.losses import info_nce, log_negatives, unit
from ablatrix_models.methods.contract import Diagnostics, Method, Mixture, mixture_loss, take, total
from ablatrix_models.methods.heads import mlp
from ablatrix_models.methods.momentum import follow, follower
from ablatrix_models.recipe import method as config
from ablatrix_models.recipe.backbone import ResNet


class MoCo(Method):
    """MoCo (He et al. 2020; v2: Chen et al. 2020) with MixMask's mixtures on the query side (MixMask, eq. 6).

    One step: the key encoder moves, keys are made of the plain views, the queries meet keys and queue, and only
    then do the keys enter the queue. Mixtures never reach the key encoder. Symmetric: both directions of the clean
    term, and each mixture of view a against the keys of both views (Un-Mix's CIFAR code). A mixture is encoded once:
    its switched counterpart has the same features in another order.
    """

    queue: Tensor
    pointer: Tensor

    def __init__(self, settings: config.MoCo, backbone: ResNet) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = build_backbone(backbone, settings.bn_splits)
        width = self.encoder.width_out
        widths = (width, settings.dim) if settings.head == "linear" else (width, width, settings.dim)
        self.head = mlp(widths, norm=False)
        self.key_encoder: nn.Module = follower(self.encoder)
        self.key_head: nn.Module = follower(self.head)
        self.register_buffer("queue", unit(torch.randn(settings.queue, settings.dim)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def loss(self, views: TwoViews, mixtures: Sequence[Mixture], generator: torch.Generator) -> tuple[Tensor, Diagnostics]:
        """See `Method.loss`; the keys enter the queue after the loss is taken."""
        plain = (views.a, views.b) if self.settings.symmetric else (views.a,)
        queries = [gather_rows(unit(self.project(view))) for view in plain]
        mixed = [gather_rows(unit(self.project(mixture.images))) for mixture in mixtures]
        keys = [self._keys(view, generator) for view in ((views.b, views.a) if self.settings.symmetric else (views.b,))]
        # The backward pass needs the negatives as they were, so the queue's next state is written elsewhere.
        negatives = self.queue.clone()
        loss, diagnostics = moco_loss(queries, keys, mixed, mixtures, negatives, self.settings.temperature)
        diagnostics["cosine.positive"] = (queries[0].detach() * keys[0]).sum(dim=1).mean()
        self._enqueue(torch.cat(keys[::-1]))
        return loss, diagnostics

    @torch.no_grad()
    def before_step(self) -> None:
        """Move the key encoder, as the release does in front of its keys."""
        follow(self.key_encoder, self.encoder, self.settings.momentum)
        follow(self.key_head, self.head, self.settings.momentum)

    @torch.no_grad()
    def _keys(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Unit keys of the global batch, encoded in shuffled order so that they share batch norm groups with other images.

        The shuffle crosses ranks, as in the released code: each encodes its share of the shuffled batch.
        """
        if not self.settings.shuffle_bn or self.settings.bn_splits == 1:
            return gather_rows(unit(self.key_head(self.key_encoder(images))))
        images = gather_rows(images)
        order = torch.randperm(len(images), generator=generator)
        order, back = (index.to(images.device, non_blocking=True) for index in (order, order.argsort()))
        return gather_rows(unit(self.key_head(self.key_encoder(images[own_rows(order)]))))[back]

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """Overwrite the oldest rows, in place and without asking the device where they are."""
        if len(keys) > len(self.queue):
            raise ValueError(
                f"A queue of {len(self.queue)} keys cannot take the {len(keys)} keys of one step. "
                "Raise method.queue, or lower schedule.batch_size."
            )
        rows = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue.index_copy_(0, rows, keys.to(self.queue.dtype))
        self.pointer.add_(len(keys)).remainder_(len(self.queue))


def moco_loss(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    mixed: Sequence[Tensor],
    mixtures: Sequence[Mixture],
    queue: Tensor,
    temperature: float,
) -> tuple[Tensor, Diagnostics]:
    """MixMask's MoCo loss from unit features (MixMask, eq. 4-6 and Algorithm 1; symmetric as in Un-Mix's CIFAR code).

    queries[d], keys[d]: (batch, dim), direction d's clean pair. mixed[m]: (batch, dim), features of mixtures[m],
    compared with every direction's keys. queue: (negatives, dim). Returns the scalar and its parts.
    """
    clean = [
        info_nce(query, key, log_negatives(query, queue, temperature), temperature).mean() for query, key in zip(queries, keys, strict=True)
    ]

    def mixture_term(features: Tensor, mixture: Mixture) -> Tensor:
        negatives = log_negatives(features, queue, temperature)

        def term(rows: Tensor | None) -> Tensor:
            reordered, their_negatives = take(features, rows), take(negatives, rows)
            return sum((info_nce(reordered, key, their_negatives, temperature) for key in keys), start=negatives.new_zeros(()))

        return mixture_loss(mixture, term)

    return total(torch.stack(clean).sum(), [mixture_term(f, m) for f, m in zip(mixed, mixtures, strict=True)])
