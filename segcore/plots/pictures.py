"""Arrays as pictures, and pictures as data URIs."""

import base64
import io

import numpy as np
from PIL import Image

# colour of invalid pixels
LEFT_OUT = (58, 64, 74)


def to_rgb(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Raw values (H, W, C) of any dtype as (H, W, 3) uint8: the first three bands, or the first one as grey.

    8-bit values are shown as they are; others are stretched from their 2nd to their 98th percentile.
    """
    bands = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    if bands.dtype == np.uint8:
        return np.where(valid[..., None], bands, np.array(LEFT_OUT, np.uint8))
    if not valid.any():
        return np.full((*valid.shape, 3), LEFT_OUT, np.uint8)
    low, high = np.percentile(bands[valid].astype(np.float64), (2, 98), axis=0)
    scaled = (bands - low) / np.maximum(high - low, 1e-9) * 255
    return np.where(valid[..., None], np.clip(np.nan_to_num(scaled), 0, 255), LEFT_OUT).astype(np.uint8)


def data_uri(picture: np.ndarray, side: int = 512) -> str:
    """A picture (H, W, C) uint8 as a data URI of at most `side` pixels: RGB as JPEG 4:4:4, RGBA as PNG."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    kind = "png" if picture.shape[-1] == 4 else "jpeg"
    if kind == "png":
        image.save(buffer, "PNG", optimize=True)
    else:
        # no chroma subsampling, which would smear thin errors; no `optimize`, which fails on noisy small pictures
        image.save(buffer, "JPEG", quality=86, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
