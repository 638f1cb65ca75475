"""Where the second view lies, seen from the first: crops and flips as relative geometry (methods 1.1 and 1.2)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ablatrix_models.augment.parameters import Parameters


@dataclass(frozen=True)
class RelativeGeometry:
    """View b in units of view a's box, for a batch; each field is (batch,), float64 but for `flipped`.

    Boxes are read in the frame of their own view, mirrored where that view is; so a flip of both changes no meaning.
    """

    row_offset: Tensor  # (top_b - top_a) / height_a
    column_offset: Tensor  # (left_b - left_a) / width_a; of use where not `flipped`
    row_scale: Tensor  # height_b / height_a
    column_scale: Tensor  # width_b / width_a
    flipped: Tensor  # bool: exactly one of the two is mirrored
    mirrored_offset: Tensor  # (image width - left_a - left_b) / width_a; of use where `flipped`

    def __len__(self) -> int:
        return len(self.row_offset)

    def to(self, device: torch.device) -> RelativeGeometry:
        """The same on `device`."""
        return RelativeGeometry(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in dataclasses.fields(self)})

    def positions(self, grid: int) -> tuple[Tensor, Tensor]:
        """Centres of b's patches on a's grid, in patches, 0 the centre of a's first: rows and columns, each (batch, grid) float64.

        The released code's formula (methods 1.2): the paper's equation 2 lacks the half patch and the flips.
        """
        centres = torch.arange(grid, dtype=torch.float64, device=self.row_scale.device) + 0.5
        rows = self.row_scale[:, None] * centres + grid * self.row_offset[:, None] - 0.5
        signed = torch.where(self.flipped, -self.column_scale, self.column_scale)
        start = torch.where(self.flipped, self.mirrored_offset, self.column_offset)
        return rows, signed[:, None] * centres + grid * start[:, None] - 0.5


def relative_geometry(a: Parameters, b: Parameters, image_width: int, *, flip_first: tuple[bool, bool] = (True, True)) -> RelativeGeometry:
    """The geometry of two drawn views of images `image_width` pixels wide.

    flip_first: whether each view's boxes were drawn in the mirrored image (`Augment.flip_first`); if not, they are read there.
    Raises ValueError where the views are of different batches, or were rotated, which no crop box can tell.
    """
    if len(a) != len(b):
        raise ValueError(f"view a has {len(a)} images and view b {len(b)}. Draw both for the same batch.")
    if a.rotation_deg.any() or b.rotation_deg.any():
        raise ValueError("the views were rotated, but positions know crops and flips alone. Set augment.rotation_deg to 0.")
    left_a, left_b = (_left(view, image_width, first).double() for view, first in zip((a, b), flip_first, strict=True))
    height, width = a.height.double(), a.width.double()
    return RelativeGeometry(
        row_offset=(b.top - a.top) / height,
        column_offset=(left_b - left_a) / width,
        row_scale=b.height / height,
        column_scale=b.width / width,
        flipped=a.flip ^ b.flip,
        mirrored_offset=(image_width - left_a - left_b) / width,
    )


def _left(view: Parameters, image_width: int, flip_first: bool) -> Tensor:
    """The box's left edge in the view's own frame."""
    return view.left if flip_first else torch.where(view.flip, image_width - view.left - view.width, view.left)


def same_geometry(count: int) -> RelativeGeometry:
    """Of views that are the same crop of each of `count` images."""
    zeros, ones = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
    return RelativeGeometry(zeros, zeros, ones, ones, torch.zeros(count, dtype=torch.bool), zeros)
