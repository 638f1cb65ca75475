"""SimCLR: contrast among all images of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ablatrix_models.augment import TwoViews
from ablatrix_models.backbones import build_backbone
from ablatrix_models.distributed import gather_rows
from ablatrix_models.losses import nt_xent
from ablatrix_models.methods.contract import Diagnostics, Method, Mixture, mixture_loss, total
from ablatrix_models.methods.heads import mlp
from ablatrix_models.recipe import method as config
from ablatrix_models.recipe.backbone import ResNet


class SimCLR(Method):
    """SimCLR (Chen et al. 2020) as in MixMask's base: encoder per view, head on two views concatenated.

    A mixture of view a meets the plain view b in a second two-view NT-Xent, where its rows are negatives as well
    (Un-Mix's recipe for any two-view framework). There the head sees both concatenated, as a second call would.
    """

    def __init__(self, settings: config.SimCLR, backbone: ResNet) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = build_backbone(backbone)
        widths = (self.encoder.width_out, settings.hidden, settings.dim)
        self.head = mlp(widths, norm=True, output_norm=settings.output_norm)

    def loss(self, views: TwoViews, mixtures: Sequence[Mixture], generator: torch.Generator) -> tuple[Tensor, Diagnostics]:
        """See `Method.loss`; draws nothing."""
        first, second = self.encoder(views.a), self.encoder(views.b)
        embedded = self._head_of_both(first, second)
        pairs = [self._head_of_both(second, self.encoder(mixture.images)) for mixture in mixtures]
        return simclr_loss(embedded, pairs, mixtures, self.settings.temperature)

    def _head_of_both(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Both (batch, dim) embeddings of the global batch, normalised by statistics over the two views together."""
        one, other = self.head(torch.cat([first, second])).chunk(2)
        return gather_rows(one), gather_rows(other)


def simclr_loss(
    views: tuple[Tensor, Tensor],
    pairs: Sequence[tuple[Tensor, Tensor]],
    mixtures: Sequence[Mixture],
    temperature: float,
) -> tuple[Tensor, Diagnostics]:
    """NT-Xent of the views plus, for each mixture, NT-Xent of view b with the mixture in both orders.

    views: embeddings of a and b; pairs[m]: of b and mixtures[m]; all (batch, dim), not normalised.
    Returns the scalar and its parts.
    """

    def mixture_term(pair: tuple[Tensor, Tensor], mixture: Mixture) -> Tensor:
        table = nt_xent(*pair, temperature)
        targets = torch.arange(len(table), device=table.device)
        return mixture_loss(mixture, lambda rows: table[targets, targets if rows is None else rows])

    clean = nt_xent(*views, temperature).diagonal().mean()
    return total(clean, [mixture_term(pair, mixture) for pair, mixture in zip(pairs, mixtures, strict=True)])
