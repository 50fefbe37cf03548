"""What connected components of a perfect mask reach, and the settings that separate objects which they merge."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from segcore.class_colors import hex_color
from segcore.objects.ceiling import figures
from segcore.params import Params
from segcore.params.architectures import instance_networks
from segcore.params.data import Data

if TYPE_CHECKING:
    from tasks.data_card.objects import CardObjects

# share of merged objects from which separating them is advised
MANY = 0.05


def scores(objects: pd.DataFrame, ceiling: pd.DataFrame, data: Data) -> dict[str, Any] | None:
    """F1, PQ, count errors and merged objects of components of a perfect mask; None without objects.

    Args:
        objects: of `segcore.objects.planes.found`.
        ceiling: of the same function.
        data: the section `data` of params.yaml.
    """
    if objects.empty:
        return None
    sums = ceiling.groupby("class_index").sum().loc[data.foreground]
    of_class = figures(sums)
    sums["merged"] = objects.groupby("class_index")["merged"].sum()
    merged = sums["merged"].fillna(0).astype(int)
    rows = [
        {
            "name": data.classes[int(index)],
            "colour": hex_color(data.colors[int(index)]),
            "true": int(sums["true"][index]),
            "predicted": int(sums["predicted"][index]),
            "merged": int(merged[index]),
            **of_class.loc[index].to_dict(),
        }
        for index in data.foreground
        if sums["true"][index] or sums["predicted"][index]
    ]
    total = sums.sum()
    errors = figures(ceiling.groupby("at").sum())["count_error"].dropna()
    return {
        "rows": rows,
        "f1": float(of_class["f1"].mean()),
        "pq": float(of_class["pq"].mean()),
        "count_error": float(figures(total.to_frame().T)["count_error"].iloc[0]),
        "mean_error": float(errors.mean()),
        "median_error": float(errors.median()),
        "worst_error": float(errors.loc[errors.abs().idxmax()]),
        "merged": int(merged.sum()),
        "share": float(merged.sum() / len(objects)),
    }


def line(found: "CardObjects | None", data: Data, p: Params | None) -> str | None:
    """What components of a perfect mask reach, as a line for the terminal; None where they are the truth.

    Args:
        found: of `card_objects`.
        data: the section `data` of params.yaml.
        p: all parameters; None: remedies that are already set are named too.
    """
    best = scores(found.objects, found.ceiling, data) if found and data.instances != "components" else None
    if best is None:
        return None
    advice = remedies(data, p) if best["share"] > MANY else ""
    return (
        f"Connected components of a perfect mask have an F1 of {best['f1']:.1%}; {best['share']:.1%} of the "
        f"objects share one with another.{advice}"
    ).replace("%", " %")


def remedies(data: Data, p: Params | None) -> str:
    """A sentence with the settings that separate objects and are not set; "" if there are none."""
    networks = set(p.architectures) if p else set()
    is_set_by_remedy = {
        "evaluate.objects: watershed": bool(p and p.evaluate.objects == "watershed"),
        "data.touching: true": data.touching,
        "an instance network (architectures: mask_rcnn)": bool(networks & set(instance_networks())),
    }
    untried = [remedy for remedy, is_set in is_set_by_remedy.items() if not is_set]
    *others, last = untried or [""]
    return f" Try {', '.join(others)}{' or ' * bool(others)}{last}." if untried else ""
