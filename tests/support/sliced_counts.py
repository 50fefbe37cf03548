"""Evaluation tables with one word, whose sites are scored differently."""

import numpy as np
import pandas as pd

from segcore.tables.counts import count, counts_table
from segcore.tables.slices import PREFIX

CLASSES = ["background", "road", "roof"]


def table(sites: list[str], skill: dict[str, float], seed: int, without: str = "") -> pd.DataFrame:
    """Two images per cluster, one cluster per site of `sites`; `without` has no roof."""
    rng, images, site_of = np.random.default_rng(seed), [], {}
    for index, site in enumerate(sites):
        for image in range(2):
            truth = np.random.default_rng([index, image])
            label = truth.integers(0, 2 if site == without else 3, (16, 16)).astype(np.uint8)
            right = rng.random(label.shape) < skill.get(site, 0.9)
            name = f"i{index:02d}-{image}"
            images.append((name, f"c{index:02d}", count(np.where(right, label, (label + 1) % 3), label, 3)))
            site_of[name] = site
    counts = counts_table(images, CLASSES)
    return counts.assign(**{f"{PREFIX}site": counts["item"].map(site_of)})
