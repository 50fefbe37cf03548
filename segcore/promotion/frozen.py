"""The frozen test set by name, to check that no part of it was used for training or validation later.

names = frozen_groups(data)          # when a decision is made; kept with the decisions
moved = moved_groups(data, names)  # before the next one; {} as long as the test set is frozen
"""

from collections.abc import Iterable

from segcore.data.prepared import PreparedData, test_regions


def frozen_groups(data: PreparedData) -> list[str]:
    """Names of all parts of the test set, sorted: groups, and regions of scenes that are divided into blocks."""
    in_test = data.regions.groupby("group")["split"].agg(lambda splits: (splits == "test").all())
    tested = test_regions(data)
    return sorted({g if in_test[g] else r for g, r in zip(tested["group"], tested["id"], strict=True)})


def moved_groups(data: PreparedData, groups: Iterable[str]) -> dict[str, str]:
    """Parts of an earlier test set that are now, as a whole or in part, in other splits, with these splits.

    Args:
        data: the present prepared data.
        groups: names as `frozen_groups` returned them; names without data are left out.
    """
    regions = data.regions[["group", "id", "split"]].itertuples(index=False)
    splits: dict[str, set[str]] = {}
    for group, name, split in regions:
        for key in {group, name}:
            splits.setdefault(key, set()).add(split)
    others = {name: splits.get(name, set()) - {"test"} for name in groups}
    return {name: " and ".join(sorted(found)) for name, found in sorted(others.items()) if found}
