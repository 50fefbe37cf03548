"""Styles of the outputs in QGIS, as QML: class rasters, probabilities, and layers of polygons."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

from segcore.class_colors import hex_color

# colours of probabilities, in equal steps from 0 to 1: viridis
_RAMP = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")


def write_style(raster: Path, style: str) -> str:
    """Write a style beside a raster, which QGIS then shows in it; returns the name of the file.

    Raises:
        OSError: the disk is full or not writable.
    """
    path = raster.with_suffix(".qml")
    path.write_text(style, encoding="utf-8")
    return path.name


def raster_style(names: Sequence[str], colors: Sequence[Sequence[int]]) -> str:
    """QML of a class raster: colours and names of the classes; pixels without data are transparent.

    Args:
        names: of the classes.
        colors: red, green and blue of each.
    """
    entries = "".join(
        f'<paletteEntry value="{index}" color="{hex_color(color)}" label={quoteattr(name)} alpha="255"/>'
        for index, (name, color) in enumerate(zip(names, colors, strict=True))
    )
    return _of_raster("paletted", 1, "", f"<colorPalette>{entries}</colorPalette>")


def probability_style(band: int) -> str:
    """QML of a raster of probabilities: a colour ramp from 0 to 1; pixels without data are transparent.

    QGIS applies the scale in the file before it looks a colour up.

    Args:
        band: that is shown first, from 1; the ramp fits every band.
    """
    last = len(_RAMP) - 1
    items = "".join(
        f'<item value="{step / last:g}" color="{color}" label="{step / last:g}" alpha="255"/>'
        for step, color in enumerate(_RAMP)
    )
    shader = (
        '<rastershader><colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" '
        f'minimumValue="0" maximumValue="1">{items}</colorrampshader></rastershader>'
    )
    return _of_raster("singlebandpseudocolor", band, ' classificationMin="0" classificationMax="1"', shader)


def layer_style(names: Sequence[str], colors: Sequence[Sequence[int]], wanted: Sequence[int]) -> str:
    """QML of polygons with a field `class`: filled half transparent in the colours of the classes.

    Args:
        names: of all classes.
        colors: red, green and blue of each.
        wanted: indices of the classes that have polygons.
    """
    categories = "".join(
        f'<category value="{index}" symbol="{place}" label={quoteattr(names[index])} render="true" type="long"/>'
        for place, index in enumerate(wanted)
    )
    symbols = "".join(_symbol(str(place), colors[index], 102) for place, index in enumerate(wanted))
    return _qml(
        f'<renderer-v2 type="categorizedSymbol" attr="class" symbollevels="0" forceraster="0">'
        f"<categories>{categories}</categories><symbols>{symbols}</symbols></renderer-v2>"
    )


def outline_style() -> str:
    """QML of polygons: black outlines."""
    symbol = _symbol("0", (0, 0, 0), 0)
    return _qml(
        f'<renderer-v2 type="singleSymbol" symbollevels="0"><symbols>{symbol}</symbols></renderer-v2>'
    )


def _symbol(name: str, color: Sequence[int], opacity: int) -> str:
    rgb = ",".join(map(str, color))
    values = {
        "color": f"{rgb},{opacity}",
        "outline_color": f"{rgb},255",
        "outline_style": "solid",
        "outline_width": "0.4",
        "outline_width_unit": "MM",
        "style": "solid",
    }
    props = "".join(f'<prop k="{key}" v="{value}"/>' for key, value in values.items())
    return (
        f'<symbol type="fill" name="{name}" alpha="1" clip_to_extent="1">'
        f'<layer class="SimpleFill" enabled="1" locked="0" pass="0">{props}</layer></symbol>'
    )


def _of_raster(kind: str, band: int, attributes: str, colors: str) -> str:
    return _qml(
        f'<pipe><rasterrenderer type="{kind}" band="{band}" alphaBand="-1" opacity="1"{attributes}>'
        f"<rasterTransparency/>{colors}</rasterrenderer></pipe>"
    )


def _qml(content: str) -> str:
    return (
        f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'><qgis version=\"3.16\">{content}</qgis>"
    )
