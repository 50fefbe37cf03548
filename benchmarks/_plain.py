"""Predict a scene with a plain script (read all, loop over windows, stitch, write) or with segflow, under a limit.

    python -m benchmarks._plain MODE BUNDLE SCENE OUTPUT TILE OVERLAP LIMIT_BYTES

MODE is `plain` or `segflow`. Prints the seconds of the prediction, without start-up, and peak memory in MB. LIMIT_BYTES
limits the memory of the process; 0: no limit.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
import rasterio
import torch

from segcore.inference.tiling import blend_weights, tile_starts
from segcore.models.base.bundle import load_bundle
from segcore.params import Predict
from segcore.prediction.predictor import Predictor


def plain(bundle: Path, scene: Path, target: Path, tile: int, overlap: int) -> None:
    """Read the whole scene, loop, stitch; network, windows and blending are those of segflow."""
    model = load_bundle(bundle, "cuda" if torch.cuda.is_available() else "cpu")
    device = next(model.parameters()).device
    with rasterio.open(scene) as source:
        image, profile = source.read().astype(np.float32), source.profile
    height, width = image.shape[1:]
    total = np.zeros((model.num_classes, height, width), np.float32)
    weight = np.zeros((height, width), np.float32)
    rows, cols = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    for row in rows:
        for col in cols:
            area = (slice(row, row + tile), slice(col, col + tile))
            window = torch.from_numpy(image[:, *area]).to(device)[None]
            probabilities = model.predict(window)[0].cpu().numpy()
            down = blend_weights(probabilities.shape[1], overlap, row == 0, row == rows[-1])
            across = blend_weights(probabilities.shape[2], overlap, col == 0, col == cols[-1])
            tile_weight = down[:, None] * across
            total[:, *area] += probabilities * tile_weight
            weight[area] += tile_weight
    classes = (total / weight).argmax(axis=0).astype(np.uint8)
    with rasterio.open(target, "w", **{**profile, "count": 1, "compress": "deflate"}) as out:
        out.write(classes, 1)


def main() -> None:
    """Command line."""
    mode, bundle, scene, output, tile, overlap, limit = sys.argv[1:]
    if int(limit):
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    if mode == "plain":
        start = time.perf_counter()
        plain(Path(bundle), Path(scene), folder / "plain.tif", int(tile), int(overlap))
    else:
        predictor = Predictor(Path(bundle), Predict(tile=int(tile), overlap=int(overlap)))
        start = time.perf_counter()
        predictor.predict_file(Path(scene), folder, "segflow")
    seconds = time.perf_counter() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
