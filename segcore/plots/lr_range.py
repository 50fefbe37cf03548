"""The curve of a learning-rate range test."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from segcore.plots.palette import INK, MUTED
from segcore.plots.style import RC, new_figure


def lr_range(
    rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float], marked: dict[str, float]
) -> Figure:
    """Loss against learning rate, the latter on a logarithmic scale.

    Args:
        rates: learning rate of each batch.
        losses: training loss of each batch.
        smooth: running mean of the losses.
        marked: label -> learning rate at which a line is drawn.
    """
    with mpl.rc_context(RC):
        figure, (axes,) = new_figure(7.2, 3.4)
        axes.plot(rates, losses, ".", color=MUTED, alpha=0.5, markersize=4, label="one batch")
        axes.plot(rates, smooth, color=INK, linewidth=1.8, label="running mean")
        for number, (name, rate) in enumerate(marked.items()):
            axes.axvline(rate, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
            axes.annotate(
                f"{name}: {rate:.1e}", (rate, 0.04 + 0.08 * number), (4, 0), xycoords=("data", "axes fraction"),
                textcoords="offset points", color=INK,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        axes.legend(loc="upper right")
    return figure
