"""Time and memory of the data steps, compared with plain alternatives: `make bench WHAT=data`; `OPTIONS=--quick`.

- reading: the commands ingest and prepare, start-up included, compared with only reading the same files with rasterio;
- growth: the same commands after 1 % of new images has been added, compared with the first time;
- loader: training samples per second, compared with a folder of PNGs and TorchGeo's RandomGeoSampler;
- memory: peak of ingest and prepare, all processes together, for a small and a large scene.

All files are written to a temporary folder. The table shows missed goals; the exit code is 0 in any case.
"""

import argparse
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks import _pictures, _steps

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sha_ni")
PACKAGES = ("numpy", "pandas", "pillow", "rasterio", "torch", "torchgeo", "torchvision")


class Sizes(NamedTuple):
    """Sizes of a run: (images, side) of two sets, batches per loader, sides of the scenes for memory."""

    chips: tuple[int, int]
    scenes: tuple[int, int]
    batches: int
    sides: tuple[int, int]


FULL = Sizes((1000, 512), (300, 2048), 60, (2_000, 20_000))
QUICK = Sizes((100, 512), (20, 1024), 12, (2_000, 4_000))


class Line(NamedTuple):
    """A row of the table: what was measured, both figures, their ratio, the goal, and whether it is met."""

    what: str
    ours: str
    other: str
    ratio: float
    goal: str
    met: bool

    def text(self) -> str:
        """The row in Markdown."""
        verdict = "met" if self.met else "GOAL MISSED"
        return f"| {self.what} | {self.ours} | {self.other} | {self.ratio:.2f} | {self.goal} | {verdict} |"


def machine(packages: Sequence[str] = PACKAGES) -> list[str]:
    """Cores, processor with instruction sets, load, and versions of packages."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    flags = [flag for flag in FLAGS if flag in facts.get("flags", "").split()]
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return [
        f"{len(os.sched_getaffinity(0))} cores, {facts.get('model name', platform.processor())} ({', '.join(flags)}), "
        f"load {load} before the start",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages),
    ]


def _both(folder: Path) -> float:
    return sum(_steps.run(step, folder).seconds for step in _steps.STEPS)


def reading(root: Path, name: str, count: int, side: int, tiled: bool) -> tuple[Line, float]:
    """Ingest and prepare compared with reading with rasterio; also the seconds of ingest and prepare."""
    source = _pictures.write_pairs(root / name, range(count), side, tiled)
    plain = min(_steps.plain_read(source) for _ in range(3))
    _steps.write_params(root / f"{name}-work", source)
    seconds = _both(root / f"{name}-work")
    what = f"reading: {count:,} {name} of {side} x {side}, ingest + prepare / rasterio"
    return Line(
        what, f"{seconds:.1f} s", f"{plain:.1f} s", seconds / plain, "≤ 2", seconds <= 2 * plain
    ), seconds


def growth(root: Path, name: str, count: int, side: int, first: float) -> Line:
    """Ingest and prepare after 1 % more images were added to a set."""
    more = max(1, count // 100)
    _pictures.write_pairs(root / name, range(count, count + more), side, tiled=True)
    seconds = _both(root / f"{name}-work")
    what = f"growth: {more} new of {count + more} {name}, ingest + prepare / their first time"
    return Line(
        what, f"{seconds:.1f} s", f"{first:.1f} s", seconds / first, "≤ 0.05", seconds <= 0.05 * first
    )


def loading(root: Path, name: str, batches: int) -> list[Line]:
    """Training samples per second with one and two workers, each the best of two runs."""
    from benchmarks import _loaders

    warnings.filterwarnings("ignore", module="torchgeo|torch.utils.data")
    tiles = {tile: _pictures.write_pngs(root / name, root / f"png{tile}", tile) for tile in (512, 1024)}
    lines = []
    for workers in (1, 2):

        def best(loader: Callable[..., object], *arguments: Path, count: int, n: int = workers) -> float:
            return max(_loaders.rate(lambda: loader(*arguments, n), count) for _ in range(2))  # type: ignore[arg-type,return-value]

        ours = best(_loaders.own_loader, root / f"{name}-work" / "data" / "prepared", count=4 * batches)
        others = {f"PNG tiles of {t}": best(_loaders.png_loader, p, count=batches) for t, p in tiles.items()}
        others["TorchGeo"] = best(_loaders.torchgeo_loader, root / name, count=batches)
        fastest = max(others.values())
        for label, rate in others.items():
            goal = "≥ 5" if rate == fastest else ""
            what = f"loader: samples per second, {workers} worker{'s' * (workers > 1)} / {label}"
            ratio = ours / rate
            lines.append(Line(what, f"{ours:.0f}", f"{rate:.0f}", ratio, goal, ratio >= 5 or not goal))
    return lines


def memory(root: Path, sides: tuple[int, int]) -> list[Line]:
    """Peak memory of each step for a small and a large scene."""
    peaks: dict[str, list[float]] = {step: [] for step in _steps.STEPS}
    for side in sides:
        source = root / f"scene{side}"
        _pictures.write_pair(source, 0, side, tiled=True)
        work = root / f"scene{side}-work"
        _steps.write_params(work, source, block=500)
        samples: dict[str, list[float]] = {step: [] for step in _steps.STEPS}
        # twice, because a peak lasts milliseconds and sampling can miss it
        for _ in range(2):
            for step in _steps.STEPS:
                samples[step].append(_steps.run(step, work, watch=True).peak)
            for name in ("data", "work"):
                shutil.rmtree(work / name)
        for step in _steps.STEPS:
            peaks[step].append(max(samples[step]))
        shutil.rmtree(work)
        shutil.rmtree(source)
    return [
        Line(
            f"memory: peak of {step}, a scene of side {sides[1]:,} pixels / {sides[0]:,}",
            f"{large:.0f} MB",
            f"{small:.0f} MB",
            large / small,
            "≤ 1.1",
            large <= 1.1 * small,
        )
        for step, (small, large) in peaks.items()
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, only to check that it runs")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder (12 GB needed)")
    parser.add_argument(
        "--only", choices=("reading", "loader", "memory"), help="one part; reading includes growth"
    )
    parser.add_argument(
        "--scenes", type=int, help="number of scenes of `reading` and `growth` (30 MB each; default: 300)"
    )
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    if arguments.scenes:
        sizes = sizes._replace(scenes=(arguments.scenes, sizes.scenes[1]))
    print("\n".join(machine()), "", sep="\n")
    print("| what | segflow | other | ratio | goal | |\n|---|---|---|---|---|---|", flush=True)
    root = Path(tempfile.mkdtemp(prefix="segflow-bench-", dir=arguments.folder))

    def show(*lines: Line) -> None:
        print(*(line.text() for line in lines), sep="\n", flush=True)

    try:
        if arguments.only in (None, "reading"):
            show(reading(root, "chips", *sizes.chips, tiled=False)[0])
            line, first = reading(root, "scenes", *sizes.scenes, tiled=True)
            show(line, growth(root, "scenes", *sizes.scenes, first))
        if arguments.only in (None, "memory"):
            show(*memory(root, sizes.sides))
        if arguments.only in (None, "loader"):
            few = (min(sizes.scenes[0], 30), sizes.scenes[1])
            reading(root, "loaded", *few, tiled=True)
            show(*loading(root, "loaded", sizes.batches))
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
