"""Scenes that are read in a thread of their own, so that a file system that does not answer costs one scene only."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from segcore.data.raster import Raster, Window
from segcore.errors import DataError
from segcore.ingest.source_files import stamp, time_limit
from segcore.io import images
from segcore.io.layouts._item import Item
from segcore.params import Data

T = TypeVar("T")
# of ACQUISITIONDATETIME, which is as in ISO 8601, and of the date of a TIFF
_TIME_FORMATS = (None, "%Y:%m:%d %H:%M:%S")
# words of the ingest that have no meaning for a scene, which has no labels
_PAIR, _OF_LABELS = "remove the pair", "; labels of the same size"


class Limited:
    """A thread that runs functions one after the other, each within a time limit.

    A function that exceeds it is left behind: the thread is a daemon, so that the process can end all the same.

    Args:
        name: of what is read, for errors.

    Attributes:
        is_late: whether a function exceeded its time limit; those that come after it would wait for it.
    """

    def __init__(self, name: str) -> None:
        self._name, self._seconds, self.is_late = name, time_limit(), False
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function = job
            try:
                future.set_result(function())
            # raised again where the result is awaited
            except BaseException as error:  # noqa: BLE001
                future.set_exception(error)
            # the result of the last job must not stay in memory until the next one comes
            del job, future, function

    def allow(self, seconds: float) -> None:
        """Set the time limit of the next functions."""
        self._seconds = seconds

    def call(self, function: Callable[[], T]) -> T:
        """Result of a function.

        Raises:
            DataError: it took longer than the time limit. Its own errors are raised with a remedy for a scene, which
                has no mask.
        """
        future: Future[T] = Future()
        self._jobs.put((future, function))
        try:
            return future.result(self._seconds)
        except DataError as error:
            if _PAIR not in error.remedy:
                raise
            raise DataError(
                error.what, error.remedy.replace(_PAIR, "remove the scene"), error.kind
            ) from error
        except TimeoutError as error:
            if future.done():
                raise
            self.is_late = True
            raise DataError(
                f"{self._name}: reading took longer than {self._seconds:.0f} s",
                "check that its disk or network folder answers, or copy the file to a disk of this machine; if that "
                "is so, the file is damaged or far too complex: restore or remove it",
                kind="slow",
            ) from error

    def close(self) -> None:
        """End the thread after the functions that were given to it."""
        self._jobs.put(None)


class _LimitedSource:
    """An open image (`segcore.io.images.Source`) whose reads have a time limit."""

    def __init__(self, source: images.Source, context: object, limited: Limited) -> None:
        notes = tuple((kind, text.partition(_OF_LABELS)[0]) for kind, text in source.info.notes)
        self.info, self._source, self._limited = replace(source.info, notes=notes), source, limited
        # A read that never ends keeps this object, and so the open file, which no other thread may close.
        self._context = context

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        return self._limited.call(lambda: self._source.read(window, plane))


@contextmanager
def opened(scene: Path, data: Data, channels: Sequence[Path] = ()) -> Iterator[images.Source]:
    """Open a scene as the training data were; opening it and each read have a time limit, as at the ingest.

    Args:
        scene: its file, or the first of several.
        data: as in the training.
        channels: files of its further bands.

    Raises:
        DataError: the scene cannot be read, or reading it takes too long.
    """
    limited = Limited(scene.name)
    try:
        limited.allow(time_limit(limited.call(lambda: _stamp(scene, channels))))
        context = limited.call(lambda: images.open_declared([scene, *channels], data))
        try:
            source = limited.call(context.__enter__)
        except DataError as error:
            if error.kind != "pages" or data.pages is not None:
                raise
            # The setting that the error of the ingest names is that of the training.
            raise DataError(
                error.what,
                "the model was trained without data.pages: save each page as a file of its own, or train with it",
                kind="pages",
            ) from error
        try:
            yield _LimitedSource(source, context, limited)
        finally:
            if not limited.is_late:
                limited.call(lambda: context.__exit__(None, None, None))
    finally:
        limited.close()


def stamp_of(scene: Path, channels: Sequence[Path] = ()) -> str:
    """Stamp of a scene: names, sizes and modification times of its files.

    Args:
        scene: its file, or the first of several.
        channels: files of its further bands.

    Raises:
        DataError: a file is missing, empty or not readable, or its file system does not answer.
    """
    return within_limit(scene, lambda: _stamp(scene, channels))


def within_limit(scene: Path, function: Callable[[], T]) -> T:
    """Result of a function that reads a scene, within the time limit; errors as of `Limited.call`."""
    limited = Limited(scene.name)
    try:
        return limited.call(function)
    finally:
        limited.close()


def acquisition_time(scene: Path) -> str | None:
    """When a GeoTIFF was taken, by its tags, such as "2024-05-06T10:20:30Z"; None: they do not say, or another format.

    Read are ACQUISITIONDATETIME, where GDAL has the time of satellite images, and the date of a TIFF, which has no time
    zone and is taken as UTC.

    Raises:
        DataError: its file system does not answer.
    """
    return within_limit(scene, lambda: _tagged_time(scene))


def _tagged_time(scene: Path) -> str | None:
    import rasterio

    from segcore.io.images._gdal import environment, failures, quiet

    try:
        with (
            environment(),
            failures(scene),
            quiet(),
            rasterio.open(str(scene.absolute()), driver="GTiff") as file,
        ):
            texts = [file.tags(ns="IMAGERY").get("ACQUISITIONDATETIME"), file.tags().get("TIFFTAG_DATETIME")]
    except DataError:
        # of another format, or gone meanwhile
        return None
    for text, form in zip(texts, _TIME_FORMATS, strict=True):
        # OverflowError: a time zone leads beyond the years 1 to 9999
        with suppress(ValueError, OverflowError):
            time = datetime.strptime(text or "", form) if form else datetime.fromisoformat(text or "")
            time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
            return time.replace(microsecond=0, tzinfo=None).isoformat() + "Z"
    return None


def _stamp(scene: Path, channels: Sequence[Path]) -> str:
    return stamp(Item(scene.name, "", Path(scene.name), channels=tuple(channels)), scene.parent)
