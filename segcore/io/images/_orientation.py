"""Images that are turned on reading: by an orientation tag (EXIF, TIFF), or onto another image."""

from dataclasses import replace

from segcore.data import axes
from segcore.data.raster import Info, Note, Order, Raster, Window
from segcore.io.images import Source

# how pixels are turned for viewers, by the value of the tag; the first stored row is on the right for 6
_ORDERS: dict[int, Order] = {
    2: (1, 2, -3),
    3: (1, -2, -3),
    4: (1, -2, 3),
    5: (1, 3, 2),
    6: (1, 3, -2),
    7: (1, -3, -2),
    8: (1, -3, 2),
}


class Turned:
    """An open image that is turned by an order.

    Args:
        source: the open image.
        order: how it is turned.
        notes: for the header.
    """

    def __init__(self, source: Source, order: Order, notes: tuple[Note, ...] = ()) -> None:
        info = source.info
        self.info = replace(turned_info(info, order), notes=(*info.notes, *notes))

        def read(window: Window, plane: int) -> tuple[object, object]:
            raster = source.read(window, plane)
            return raster.pixels, raster.valid

        self._read = axes.TurnedReader(read, order, (info.depth, info.height, info.width))

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels of a window of a plane, or of the whole plane.

        Raises:
            DataError: the file cannot be read.
        """
        pixels, valid = self._read(window or (0, 0, self.info.height, self.info.width), plane)
        return Raster(pixels, valid, self.info)


def turned_info(info: Info, order: Order) -> Info:
    """Header of an image that is turned by an order; without its position."""
    depth, height, width = axes.size_in((info.depth, info.height, info.width), order)
    block = info.block
    if block and order[0] in (1, -1):
        block = block if abs(order[1]) == 2 else block[::-1]
    return replace(
        info,
        depth=depth,
        height=height,
        width=width,
        block=block,
        order=axes.composed(info.order, order),
        transform=None,
        crs=None,
        gcps=None,
        gcps_crs=None,
        rpcs=None,
        spacing=None,
        affine=None,
        canonical=None,
        orientation=None,
    )


def upright(source: Source, tag: int | None) -> Source:
    """The image as viewers show it, with a note of kind "orientation-tag".

    Args:
        source: the open image, with pixels as stored.
        tag: value of the orientation tag of EXIF or TIFF; None, 1 and unknown values: as stored.
    """
    order = _ORDERS.get(tag or 1)
    if order is None:
        return source
    info = source.info
    if info.transform or info.crs or info.gcps or info.rpcs:
        text = f"orientation {tag} is not applied, because its georeference is that of the stored pixels"
        source.info = replace(info, notes=(*info.notes, ("orientation-tag", text)))
        return source
    text = (
        f"pixels are turned as viewers show them (orientation {tag}); labels of the same size are expected to be drawn "
        "on the turned picture"
    )
    return Turned(source, order, (("orientation-tag", text),))
