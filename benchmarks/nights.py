"""Transcript of three nights of retraining: `python -m benchmarks.nights`.

The scene of the buildings sample is cut into tiles, and the tiles are divided into three batches. Night 1: the first
batch and the first champion. Night 2: a good batch arrives, and challengers start from the champion's weights. Night 3:
damaged files and wrong masks arrive. All runs in a clone of this project in a temporary folder; the reports are kept.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window
from ruamel.yaml import YAML

from benchmarks._clones import clone, environment
from segcore import params
from segcore.ingest import samples

TILE = 500
# fractions of the tiles; the rest arrives in the third night
NIGHTS = {"first": 0.36, "second": 0.44}
# age of the files in seconds
LONG_AGO = 3600


def tiles(folder: Path) -> list[tuple[str, Window]]:
    """Names and windows of the scene's tiles, shuffled, so that each batch has tiles of all parts of the scene."""
    with rasterio.open(next((folder / "images").glob("*.tif"))) as scene:
        down, across = scene.height // TILE, scene.width // TILE
    cells = [(r, c) for r in range(down) for c in range(across)]
    order = np.random.default_rng(0).permutation(len(cells))
    return [
        (
            f"r{cells[i][0]:02d}c{cells[i][1]:02d}",
            Window(cells[i][1] * TILE, cells[i][0] * TILE, TILE, TILE),
        )
        for i in order
    ]


def cut(sample: Path, target: Path, chosen: list[tuple[str, Window]]) -> None:
    """Write tiles of image and mask as GeoTIFFs with a modification time an hour ago."""
    for kind in ("images", "masks"):
        (target / kind).mkdir(parents=True, exist_ok=True)
        with rasterio.open(next((sample / kind).glob("*.tif"))) as scene:
            for name, window in chosen:
                profile = {
                    **scene.profile,
                    "width": TILE,
                    "height": TILE,
                    "transform": scene.window_transform(window),
                }
                profile |= {"tiled": False, "compress": "deflate"}
                for key in ("blockxsize", "blockysize"):
                    profile.pop(key, None)
                with rasterio.open(target / kind / f"{name}.tif", "w", **profile) as out:
                    out.write(scene.read(window=window))
                os.utime(target / kind / f"{name}.tif", (time.time() - LONG_AGO,) * 2)


def spoil(inbox: Path) -> None:
    """Damage a third of the pairs, which is detected, and exchange the masks of the others, which is not."""
    images = sorted((inbox / "images").glob("*.tif"))
    for number, path in enumerate(images[: len(images) // 3]):
        mask = inbox / "masks" / path.name
        if number % 3 == 0:
            path.write_bytes(path.read_bytes()[:3000])
        elif number % 3 == 1:
            mask.unlink()
        else:
            mask.write_bytes(b"")
    rest = images[len(images) // 3 :]
    pixels = []
    for path in rest:
        with rasterio.open(inbox / "masks" / path.name) as mask:
            pixels.append(mask.read())
    # each file keeps its georeference
    for path, others in zip(rest, pixels[1:] + pixels[:1], strict=True):
        with rasterio.open(inbox / "masks" / path.name, "r+") as mask:
            mask.write(others)
    for path in inbox.rglob("*.tif"):
        os.utime(path, (time.time() - LONG_AGO,) * 2)


def configure(project: Path, steps: int, architectures: list[str]) -> None:
    """Change params.yaml of the project: tiles instead of the scene, one seed, warm start."""
    yaml = YAML()
    document: Any = yaml.load(project / "params.yaml")
    document["seeds"] = [0]
    document["architectures"] = architectures
    document["data"]["source"] = "data/first"
    document["split"] |= {"block": None, "buffer": 0, "links": ["duplicate", "near-duplicate"]}
    document["train"]["common"]["steps"] = steps
    document["retrain"]["warm_start"] = {"enabled": True, "steps": steps}
    yaml.dump(document, project / "params.yaml")


def night(project: Path, title: str) -> None:
    """Run the flow and print its output."""
    print(f"\n## {title}\n", flush=True)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "flows.retrain"],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
        check=False,
    )
    shown = [line for line in done.stdout.splitlines() if line.strip() and "|" not in line[:40]]
    print("\n".join(shown), f"\nexit code {done.returncode}, {time.monotonic() - start:.0f} s", flush=True)
    if done.returncode:
        print(done.stderr[-3000:], flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.nights", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="folder of the clone, which is kept (default: temporary)")
    parser.add_argument("--steps", type=int, default=60, help="of each training (default: %(default)s)")
    parser.add_argument(
        "--architectures", nargs="+", default=["fcn", "unet", "deeplab"], help="default: all three"
    )
    arguments = parser.parse_args()
    root = arguments.folder or Path(tempfile.mkdtemp(prefix="segflow-nights-"))
    project, sample = clone(root / "project"), root / "sample"
    os.chdir(project)
    samples.fetch(samples.load_manifest(params.load().data.source), sample)
    chosen = tiles(sample)
    first, second = (round(len(chosen) * fraction) for fraction in NIGHTS.values())
    cut(sample, project / "data/first", chosen[:first])
    configure(project, arguments.steps, arguments.architectures)
    night(project, f"Night 1: {first} tiles, no champion yet")
    shutil.copytree(project / "reports/buildings", root / "report-1")
    inbox = project / "data/inbox"
    cut(sample, inbox, chosen[first : first + second])
    night(project, f"Night 2: {second} more tiles have arrived")
    shutil.copytree(project / "reports/buildings", root / "report-2")
    cut(sample, inbox, chosen[first + second :])
    spoil(inbox)
    night(
        project,
        f"Night 3: {len(chosen) - first - second} tiles, a third damaged, the others with wrong masks",
    )
    shutil.copytree(project / "reports/buildings", root / "report-3")
    print(f"\nPages: {root}/report-1, -2, -3", flush=True)


if __name__ == "__main__":
    main()
