"""Numbers, times and colours as text, in the style of the report."""

import re

from segcore.class_colors import hex_color
from segcore.comparison.text import duration_text, interval_text, value_text
from segcore.plots.palette import DARK


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in [0, 1] as a percentage, without the per cent sign; a dash for None."""
    return "–" if value is None else f"{value * 100:.{digits}f}"


def points(value: float, unit: str = "%") -> str:
    """A signed difference; for scores in %, in percentage points."""
    return value_text(value, unit, signed=True).replace("-", "−")


def score(value: float | None, unit: str = "%") -> str:
    """A score as a number in its unit; the unit is not printed."""
    return "–" if value is None else value_text(value, unit).replace("-", "−")


def interval(low: float | None, high: float | None, unit: str = "%", signed: bool = False) -> str:
    """An interval as numbers in its unit; the unit is not printed."""
    return interval_text(low, high, unit, signed).replace("-", "−")


def amount(value: float | None) -> str:
    """A large number with three digits and k, M or G."""
    if value is None:
        return "–"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Seconds as s, min or h."""
    return "–" if seconds is None else duration_text(seconds)


def chance(value: float) -> str:
    """A p value."""
    return "<\N{NO-BREAK SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def unbroken(text: str) -> str:
    """Replace hyphens and spaces so that U-Net, `61.2 %` and `p = 0.2` are not broken at line ends."""
    text = re.sub(r"(?<=\w)-(?=\w)", "\N{NON-BREAKING HYPHEN}", text)
    return re.sub(r" (?=[%=<])|(?<=[=<]) ", "\N{NO-BREAK SPACE}", text)


def headline(text: str) -> str:
    """The first sentence of a text."""
    return _sentences(text)[0]


def details(text: str) -> str:
    """The text after its first sentence."""
    return " ".join(_sentences(text)[1:])


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=\.) (?=[A-Z])", text, maxsplit=1)


FILTERS = {
    f.__name__: f
    for f in (
        percent,
        points,
        score,
        interval,
        amount,
        duration,
        chance,
        hex_color,
        unbroken,
        headline,
        details,
    )
}


def theme() -> list[tuple[str, str, str]]:
    """(CSS variable, light, dark) of every colour that charts use."""
    return [(f"--{light[1:]}", light, dark) for light, dark in DARK.items()]
