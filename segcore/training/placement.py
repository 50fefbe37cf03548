"""Objects that an instance network cannot be trained to find, such as a second one in a cell of its grid."""

from typing import NamedTuple

from segcore.models.base.instance import InstanceModel
from segcore.training.sampler import Sampler

# crops that are looked at, about a second's work
_CROPS = 100


class Unplaced(NamedTuple):
    """Number of objects that are no target, of all objects, and of crops that they are in."""

    objects: int
    total: int
    crops: int


def unplaced(model: InstanceModel, sampler: Sampler) -> Unplaced | None:
    """Objects of the first crops of a training that are no target; None for a network that takes all.

    Args:
        model: on the CPU.
        sampler: of the training.
    """
    found = Unplaced(0, 0, 0)
    settings = sampler.settings
    for step in range(min(settings.steps, -(-_CROPS // settings.batch))):
        truth = model.truth(sampler.batch(step))
        without = model.unplaced(truth)
        if without is None:
            return None
        found = Unplaced(found.objects + int(without), found.total + len(truth), found.crops + settings.batch)
    return found
