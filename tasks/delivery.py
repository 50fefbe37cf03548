"""One delivery: the settled files of the inbox, copied to a scratch folder, as items.

Files that have not settled or cannot be read are empty files there. So images and masks are paired as if all were
there, and an item that needs such a file waits or is quarantined with the true reason.
"""

import filecmp
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from segcore.errors import DataError
from segcore.files import cached_json
from segcore.ingest import catalog, companions
from segcore.ingest.inbox import Inbox, Listing, Unreadable
from segcore.ingest.inbox_files import InboxFile, Refusal
from segcore.ingest.item_reading import BatchItem
from segcore.ingest.source_files import files_of_item, files_of_row
from segcore.io import images, layouts
from segcore.io.layouts._names import printable
from segcore.params.data import Data
from tasks import console

# columns of an item of a delivery that is quarantined
QUARANTINE = ["id", "image", "label", "kind", "reason", "remedy"]


@dataclass
class Delivery:
    """Files and items of one look at the inbox.

    Attributes:
        table: catalogue of the items, accepted or quarantined; those that wait for a file are left out.
        files: settled files that were copied.
        kept: files that were accepted earlier and stay in the inbox (retrain.taken: keep).
        waiting: files that have not settled or changed while they were copied, with the time of their last change.
        refused: files and folders that cannot be used.
        incomplete: files that wait for their image.
        strays: settled files that belong to no item.
        blocked: files of items that wait, which stay in the inbox.
        stray_reason: why strays belong to no item.
        listing: what describes all items, if it has come: it goes with each batch, and stays in the inbox.
        valid: items that are new; set once the delivery was compared with all accepted items.
    """

    table: pd.DataFrame
    files: list[InboxFile] = field(default_factory=list)
    kept: set[InboxFile] = field(default_factory=set)
    waiting: dict[str, float] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    stray_reason: str = ""
    listing: list[str] = field(default_factory=list)
    valid: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=catalog.COLUMNS))


# kept images are copied only where an item needs them; those in several files, as .vrt, are copied to be found whole
_PLACEABLE = tuple(e for e in images.extensions() if e not in (".vrt", ".mhd", ".nhdr"))


def _progress(rows: Iterable[Any], total: int) -> Iterable[Any]:
    return console.progress(rows, "receive", total=total) if total else rows


class Staging:
    """Copies the files of a delivery and reads its items.

    Args:
        data: settings.
        folder: scratch folder; its subfolder `files` has the copies, `items` the packed items.
    """

    def __init__(self, data: Data, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.files, self.store = folder / "files", folder / "items"
        self.files.mkdir(parents=True)

    def take(
        self, box: Inbox, listing: Listing, settle: float, now: float, taken: set[InboxFile]
    ) -> Delivery:
        """Copy what is new and has settled, and read its items.

        Args:
            box: the inbox.
            listing: its content.
            settle: seconds for which a file must be unchanged.
            now: seconds since 1970.
            taken: files that were accepted earlier and may still be in the inbox.

        Raises:
            DataError: the disk is full, the inbox is gone, or a pattern of the data section is wrong.
        """
        since = listing.unchanged_since
        found = Delivery(pd.DataFrame(columns=catalog.COLUMNS), refused=list(listing.refused))
        found.kept = {file for file in since if file in taken}
        new = [file for file in since if file not in taken]
        found.waiting = {file.path: since[file] for file in new if now - since[file] < settle}
        for file in new:
            if file.path not in found.waiting:
                self._copy(box, file, found, now)
        if found.files:
            self._read(box, found, now)
        return found

    def _copy(self, box: Inbox, file: InboxFile, found: Delivery, now: float) -> None:
        try:
            if box.copy(file, self.files / file.path):
                found.files.append(file)
            else:
                found.waiting[file.path] = now
        except Unreadable as error:
            found.refused.append(error.refusal)

    def _read(self, box: Inbox, found: Delivery, now: float) -> None:
        lists = companions.lists(self.data)
        # without an extension, it is a folder that cannot be listed
        unusable = [refusal.path for refusal in found.refused if PurePosixPath(refusal.path).suffix]
        for path in (*found.waiting, *unusable):
            if printable(path) == path and not any(pattern.match(path) for pattern in lists):
                self._place(path)
        table = catalog.read(self.data, self._items(box, found, now), self.folder, _progress)
        of_items = {path for row in table.to_dict("records") for path in self.paths(row)}
        _keep_whole(table, self, found)
        settled = {file.path for file in found.files}
        shared = companions.shared(self.data, {*settled, *(file.path for file in found.kept)})
        left = sorted(settled - of_items - set(shared))
        found.incomplete = sorted({*found.incomplete, *companions.without_image(self.data, left)} & settled)
        found.strays = [path for path in left if path not in found.incomplete]
        if any(pattern.match(path) for pattern in lists for path in found.waiting):
            # they may be named in the list that is still arriving
            found.strays = []
        found.stray_reason = companions.why_stray(self.data)
        found.listing = [path for path in shared if (self.files / path).is_file()]

    def _place(self, path: str) -> None:
        """Put an empty file in the place of one that was not copied."""
        target = self.files / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        except (FileExistsError, NotADirectoryError):
            # a store has both a file and a folder of this name
            return

    def _items(self, box: Inbox, found: Delivery, now: float) -> list[BatchItem]:
        """Items with at least one new file; their files that were accepted earlier are copied again."""
        kept = {file.path: file for file in found.kept}
        if kept:
            self._copy_kept(box, found, kept, now)
        return [BatchItem(item, self.files, catalog.FIRST) for item in self._find(found)]

    def _copy_kept(self, box: Inbox, found: Delivery, kept: dict[str, InboxFile], now: float) -> None:
        images_only = {path for path in kept if path.lower().endswith(_PLACEABLE)}
        for path in kept:
            if path in images_only:
                self._place(path)
            else:
                self._copy_again(box, kept[path], found, now)
        needed: set[str] = set()
        for item in self._find(found):
            paths = {path.relative_to(self.files).as_posix() for path in files_of_item(item, self.files)}
            needed |= paths if paths - set(kept) else set()
        for path in images_only:
            (self.files / path).unlink()
            if path in needed:
                self._copy_again(box, kept[path], found, now)

    def _copy_again(self, box: Inbox, file: InboxFile, found: Delivery, now: float) -> None:
        new = list(found.files)
        self._copy(box, file, found, now)
        found.files = new
        if not (self.files / file.path).exists():
            self._place(file.path)

    def _find(self, found: Delivery) -> list[Any]:
        """Items by the layout; none where only masks or only images have come."""
        while True:
            try:
                return layouts.find(self.data, self.files)
            except DataError as error:
                bad = companions.damaged_list(self.data, self.files, error)
                if bad is not None:
                    found.refused.append(Refusal(bad, error.kind, error.what, error.remedy))
                    found.files = [file for file in found.files if file.path != bad]
                    (self.files / bad).unlink()
                    continue
                missing = error.kind in ("no-images", "no-list")
                if not missing and not self._is_sound_pattern(error):
                    raise
                return []

    def _is_sound_pattern(self, error: DataError) -> bool:
        """Whether the patterns find items in the data, so that the delivery has only masks or misplaced files."""
        if error.kind != "bad-pattern":
            return False
        for folder in (Path(self.data.source), *catalog.batch_folders(self.data).values()):
            try:
                return bool(layouts.find(self.data, folder))
            except DataError:
                continue
        return False

    def paths(self, row: dict[Any, Any]) -> set[str]:
        """Paths of an item's files, relative to the inbox, from its row in the catalogue."""
        return {path.relative_to(self.files).as_posix() for path in files_of_row(row, self.files)}


def _keep_whole(table: pd.DataFrame, staging: Staging, found: Delivery) -> None:
    """Leave out items that wait for a file; quarantine those with a file that cannot be used, with its reason."""
    refused = {refusal.path: refusal for refusal in found.refused}
    data, left_out, named = staging.data, [], set()
    for index, row in zip(table.index, table.to_dict("records"), strict=True):
        paths, image = staging.paths(row), str(row["image"])
        bad = sorted((paths | {image}) & set(refused))
        folder = next((path for path in refused if f", {path}/" in row["reason"]), None)
        if bad or folder:
            refusal = refused[bad[0] if bad else str(folder)]
            reason = f"{image}: its mask is in {refusal.reason.replace(': ', ', which ', 1)}"
            catalog.quarantine(table, index, refusal.kind, refusal.reason if bad else reason, refusal.remedy)
            named.update(bad)
            continue
        if paths & set(found.waiting):
            pass
        elif row["kind"] == "unreadable" and not (staging.files / image).exists():
            # a list names it
            if not _was_accepted(data, image, row["label"], staging.files):
                found.incomplete += [*paths, *([data.listing] if data.listing else [])]
        elif row["kind"] in ("missing-mask", "missing-channel") and companions.is_rather_a_mask(data, image):
            found.incomplete += sorted(paths)
        else:
            continue
        left_out.append(index)
        found.blocked |= paths
    found.refused = [refusal for refusal in found.refused if refusal.path not in named]
    found.table = table.drop(index=left_out)


def _was_accepted(data: Data, image: str, label: str | None, files: Path) -> bool:
    """Whether an image that a list names is in the data; annotations of many images must be the same there."""
    for folder in (Path(data.source), *catalog.batch_folders(data).values()):
        if not (folder / image).exists():
            continue
        if data.listing or label is None or not (files / label).is_file():
            return True
        if (folder / label).is_file() and filecmp.cmp(folder / label, files / label, shallow=False):
            return True
    return False


def refusals(found: Delivery) -> pd.DataFrame:
    """Rows of quarantine for paths that cannot be used and belong to no item."""
    rows = [(printable(r.path), printable(r.path), None, r.kind, r.reason, r.remedy) for r in found.refused]
    return pd.DataFrame(rows, columns=QUARANTINE)


def read_taken(path: Path) -> set[InboxFile]:
    """Files that were accepted earlier and may still be in the inbox.

    A damaged list counts as empty: the files are then read again, and recognised by their content.
    """
    try:
        return {InboxFile(*entry) for entry in cached_json(path, list) or []}
    except TypeError:
        return set()
