"""Objects that a crop cuts off: those of which little is visible are neither object nor background."""

from collections.abc import Sequence

import torch
from torch import Tensor

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.params.training import ObjectTraining

# object numbers have 32 bits; above them is the place of the item or crop
_SHIFT = 33


class CutObjects:
    """Rules for cut objects, with the area of each object of the data.

    Args:
        data: prepared data with objects.
        rules: `min_visible` and `min_area`.
        device: of the crops.
    """

    def __init__(self, data: PreparedData, rules: ObjectTraining, device: torch.device) -> None:
        self.rules = rules
        objects = data.objects
        items = sorted(objects["item"].unique())
        self._place = {item: place for place, item in enumerate(items)}
        place = torch.tensor(objects["item"].map(self._place).to_numpy("int64"))
        keys, order = ((place << _SHIFT) | torch.tensor(objects["id"].to_numpy("int64"))).sort()
        self._keys = keys.to(device)
        self._areas = torch.tensor(objects["area"].to_numpy("int64"))[order].to(device)

    def ignored(
        self, items: Sequence[str], label: Tensor, instance: Tensor, present: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Labels and object numbers of crops in which the pixels of cut objects are IGNORE and 0.

        These are objects of which less than `min_visible` is in the crop, and those at the edge of the crop with fewer
        than `min_area` pixels in it.

        Args:
            items: the item of each of the N crops.
            label: (N, H, W) int64.
            instance: (N, H, W) int64, numbers of the item's objects, 0 for none.
            present: N tensors int64 of any shape, object numbers of the pixels that each crop is resized from.
        """
        device = label.device
        numbers = [of_crop[of_crop > 0] for of_crop in present]
        slots = torch.arange(len(numbers), device=device)
        keys, counts = torch.unique(
            torch.cat([n | (slot << _SHIFT) for n, slot in zip(numbers, slots, strict=True)]),
            return_counts=True,
        )
        place = torch.tensor([self._place.get(item, 0) for item in items], device=device)
        of_item = (place[keys >> _SHIFT] << _SHIFT) | (keys & ((1 << _SHIFT) - 1))
        areas = self._areas[torch.searchsorted(self._keys, of_item)]
        dropped = counts < self.rules.min_visible * areas.double()

        inside = instance > 0
        pixels = torch.searchsorted(keys, (instance | (slots << _SHIFT)[:, None, None])[inside])
        edge = torch.zeros_like(inside)
        edge[:, [0, -1]] = edge[:, :, [0, -1]] = True
        visible = torch.bincount(pixels, minlength=len(keys))
        at_edge = torch.bincount(pixels[edge[inside]], minlength=len(keys)) > 0
        dropped |= at_edge & (visible < self.rules.min_area)
        gone = inside.masked_scatter(inside, dropped[pixels])
        return label.masked_fill(gone, IGNORE), instance.masked_fill(gone, 0)
