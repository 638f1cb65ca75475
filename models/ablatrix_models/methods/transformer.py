"""What frameworks on a ViT have in common."""

from __future__ import annotations

from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from ablatrix_models.methods.contract import Method
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.siamese_im.schedule import target_momentum
from ablatrix_models.siamese_im.vit import Encoder, token_groups


class TransformerMethod(Method):
    """A framework whose encoder is a ViT: it has CLS features, and groups of what decays."""

    encoder: Encoder  # narrower than the contract, which reads it only

    def __init__(self, backbone: ViT, image_size: int) -> None:
        super().__init__()
        self.encoder = Encoder(backbone, image_size)  # pyright: ignore[reportIncompatibleVariableOverride]

    def cls_features(self, images: Tensor) -> Tensor:
        """The encoder's CLS output (batch, width) of whole images, after its norm where it has one; set eval mode first."""
        return self.encoder.tokens(images)[:, 0]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Matrices, and with them CLS and mask token, decay; vectors do not (methods 1.7)."""
        return token_groups(self)


class FollowSettings(Protocol):
    """What a recipe says of the networks that follow."""

    @property
    def momentum(self) -> float:
        """At the start."""
        ...

    @property
    def momentum_schedule(self) -> Literal["cosine", "constant"]:
        """To 1 by cosine at every step, or constant."""
        ...


Settings = TypeVar("Settings", bound=FollowSettings)


class FollowedTransformer(TransformerMethod, Generic[Settings]):
    """One that other networks follow, with an EMA momentum that depends on how far the run is (methods 1.5)."""

    def __init__(self, settings: Settings, backbone: ViT, image_size: int) -> None:
        super().__init__(backbone, image_size)
        self.settings, self.progress = settings, 0.0

    @property
    def momentum(self) -> float:
        """The EMA momentum of the next step."""
        return target_momentum(self.settings.momentum, self.progress, constant=self.settings.momentum_schedule == "constant")

    def after_step(self, progress: float, epoch: int, epochs: int) -> None:
        """Note how far the run is, for the next step's momentum. Raises ValueError for a progress outside 0..1."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is {progress:g}, but it is a share of the run. Pass steps done over all steps.")
        self.progress = progress

    def get_extra_state(self) -> Tensor:
        """The progress, which the state dict must hold for an exact continuation."""
        return torch.tensor(self.progress, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the progress back."""
        self.progress = float(state)
