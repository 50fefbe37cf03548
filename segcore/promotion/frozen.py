"""The frozen test set by name, to check that no part of it was used for training or validation later.

names = frozen_groups(data)        # when a decision is made; kept with the decisions
moved = moved_groups(data, names)  # before the next one; {} as long as the test set is frozen
"""

from collections.abc import Iterable

from segcore.data.prepared import PreparedData, test_regions


def frozen_groups(data: PreparedData) -> list[str]:
    """Names of the test set's parts, sorted: groups that are wholly in it, and its regions (images, planes or blocks).

    Regions are named too because their groups have other names after a change of `data.group`.
    """
    in_test = data.regions.groupby("group")["split"].agg(lambda splits: (splits == "test").all())
    tested = test_regions(data)
    return sorted({*tested["id"], *(group for group in tested["group"] if in_test[group])})


def moved_groups(data: PreparedData, groups: Iterable[str]) -> dict[str, str]:
    """Parts of an earlier test set that are now, as a whole or in part, in other splits, with these splits.

    Args:
        data: the present prepared data.
        groups: names as `frozen_groups` returned them; names without data are left out.
    """
    of_region = {name: {split} for name, split in zip(data.regions["id"], data.regions["split"], strict=True)}
    of_group = data.regions.groupby("group")["split"].agg(set).to_dict()
    group_of = dict(zip(data.regions["id"], data.regions["group"], strict=True))
    moved = {}
    for name in sorted(groups):
        found = [splits[name] for splits in (of_group, of_region) if name in splits]
        # a region may have the name of another group
        if found and {"test"} not in found:
            moved[name] = " and ".join(sorted(set().union(*found) - {"test"}))
    # regions of a group that is itself in the result
    return {n: s for n, s in moved.items() if group_of.get(n, n) == n or group_of[n] not in moved}
