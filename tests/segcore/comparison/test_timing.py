"""Of latencies only what the rounds show is claimed."""

from segcore.comparison.leaderboard import leaderboard_text
from segcore.comparison.results import Comparison
from segcore.comparison.timing import Timing, fastest, timing, timing_notes
from tests.segcore.comparison.test_compare import compared

TITLES = {"fcn": "FCN", "unet": "U-Net"}


def cost(median: float, low: float, high: float, **more: object) -> dict[str, object]:
    """Costs with a tile of 0.25 megapixels, so that times per megapixel are four times those of a tile."""
    latency = {"latency_ms": median, "latency_low_ms": low, "latency_high_ms": high, "latency_batch": 1}
    return {**latency, "ms_per_megapixel": 4 * median, **more}


def test_a_network_is_the_fastest_only_where_the_rounds_agree_and_do_not_overlap() -> None:
    quick, slow = timing(cost(10, 9.5, 10.5)), timing(cost(12, 11, 12.5))
    assert quick == Timing(40, 38, 42) and slow is not None
    assert fastest({"unet": slow, "fcn": quick}).name == "fcn"
    overlap = fastest({"unet": Timing(44, 41, 46), "fcn": quick})
    assert (overlap.name, overlap.reason) == (None, "intervals overlap")
    busy = fastest({"unet": Timing(100, 80, 130), "fcn": quick})
    assert (busy.name, busy.reason) == (None, "rounds disagree by 50 %")
    # on a busy machine the other network was measured at another moment
    assert fastest({"unet": Timing(1005), "fcn": Timing(147)}).name is None
    assert fastest({"unet": Timing(1005, 1000, 1010, apart=True), "fcn": quick}).name is None


def test_notes_say_what_the_times_show() -> None:
    shown = timing_notes({"fcn": cost(10, 9.5, 10.5), "unet": cost(12, 11, 12.5)}, TITLES)
    assert shown == ["FCN is the fastest here."]
    (denied,) = timing_notes({"fcn": cost(10, 9, 11.5), "unet": cost(11, 9, 12.5)}, TITLES)
    assert denied == "No order of times is shown: rounds disagree by 32 %."
    apart = timing_notes({"fcn": {"ms_per_megapixel": 147.0, "apart": True}, "unet": None}, TITLES)
    assert apart[0].startswith("† Measured at different moments")
    assert timing_notes({"fcn": None}, TITLES) == []
    trained: dict[str, dict[str, object] | None] = {name: {"train_seconds": 9.0} for name in TITLES}
    assert timing_notes(trained, TITLES) == ["Training times are of different moments."]


def test_figures_of_different_machines_are_marked() -> None:
    costs = {
        "fcn": cost(10, 9.5, 10.5, train_machine="EPYC", memory_machine="H200"),
        "unet": cost(12, 11, 12.5, train_machine="H200", memory_machine="H200"),
    }
    assert timing_notes(costs, TITLES)[1:] == [
        "Training time is of different machines: FCN on EPYC, U-Net on H200."
    ]


def test_a_table_of_costs_shows_the_spread_or_the_mark() -> None:
    comparison = Comparison.from_json(compared({"fcn": [0.7], "unet": [0.95]}))
    names = [row.architecture for row in comparison.models]
    together = leaderboard_text(comparison, {name: cost(10, 9.5, 10.5) for name in names})
    assert "40.0 [38.0, 42.0]" in together and "No order of times is shown" in together
    alone = {
        name: {"ms_per_megapixel": 147.0, "latency_ms": 10, "latency_batch": 1, "apart": True}
        for name in names
    }
    assert "147.0 †" in leaderboard_text(comparison, alone)


def test_long_times_have_four_significant_digits() -> None:
    long = Timing(16_543.21, 15_852.8, 17_484.3)
    assert (long.median, long.spread) == ("16,540", "15,850 to 17,480")
    assert (Timing(999.94).median, Timing(1234.5).median) == ("999.9", "1,234")
