"""Perceptual hash and thumbnail of a picture. Import-light, because every reader process imports it."""

import numpy as np

# side of the thumbnail in pixels
SIDE = 32


def _grey(pixels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(h, w) uint8: each band stretched between its 2nd and 98th percentile, then their mean; 0 where invalid."""
    total = np.zeros(valid.shape, np.float32)
    used = 0
    for band in range(pixels.shape[2]):
        values = pixels[..., band].astype(np.float32)
        sound = valid & np.isfinite(values)
        if not sound.any():
            continue
        low, high = _percentiles(values[sound])
        if high <= low:
            low, high = values[sound].min(), values[sound].max()
        if high > low:
            total += np.clip((np.where(sound, values, low) - low) / (high - low), 0, 1)
            used += 1
    grey: np.ndarray = np.rint(total * (255 / max(used, 1))).astype(np.uint8)
    return grey


def _percentiles(values: np.ndarray) -> tuple[np.float32, np.float32]:
    """2nd and 98th percentile by nearest rank; numpy's function takes longer than the rest of a signature."""
    ordered = np.sort(values)
    return ordered[round(0.02 * (len(ordered) - 1))], ordered[round(0.98 * (len(ordered) - 1))]


def signature(pixels: np.ndarray, valid: np.ndarray) -> tuple[str, bytes]:
    """Perceptual hash and thumbnail of a picture, small enough to store for every item.

    Args:
        pixels: (h, w, C), any dtype.
        valid: (h, w) bool, or 0 and 1.

    Returns:
        Perceptual hash (imagehash.phash, 64 bits as 16 hex digits), and a 32 x 32 uint8 grey thumbnail as bytes.
    """
    import imagehash
    from PIL import Image

    picture = Image.fromarray(_grey(pixels, np.asarray(valid) > 0))
    small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    return str(imagehash.phash(picture)), np.asarray(small).tobytes()
