"""Builds the item of one image by the patterns of the data section."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

from segcore.errors import DataError
from segcore.io import annotations
from segcore.io import images as images_format
from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts._builder import NUMBERS, Builder
from segcore.io.layouts._files import Folder
from segcore.io.layouts._item import Item
from segcore.io.layouts._names import printable
from segcore.params.data import Data


class Pairing(Builder):
    """Builds the Item of one image by patterns.

    Args:
        data: the data section of params.yaml.
        source: the source folder.
        match: of the image.
        free: whether `*` in data.masks stands for any text.
    """

    def __init__(self, data: Data, source: Folder, match: patterns.Match, free: bool = False) -> None:
        super().__init__(data, source, match)
        self._for_masks = replace(match, wild={}) if free else match

    def build_item(self) -> Item:
        """The image with its files, group and split.

        Raises:
            DataError: a pattern cannot be used for any image (kind "bad-pattern").
        """
        data, words = self.data, self.match.words
        item_id = patterns.item_id(self.match, data.image_patterns[0])
        if self.problem and self.problem.kind in ("outside", "bad-name"):
            return self.item(patterns.safe_id(str(self.image)), printable(self.image), None)
        channels = [
            path
            for number, pattern in enumerate(data.image_patterns[1:], 2)
            if (path := self._related_file("data.images", pattern, f"channel {number}", "missing-channel"))
        ]
        parts = self._parts()
        mask = parts[0][1] if parts else None
        if isinstance(data.masks, str) and len(parts) == 1:
            parts = []
        valid = self._related_file("data.valid", data.valid, "valid mask") if data.valid else None
        objects = self._related_file("data.objects", data.objects, NUMBERS) if data.objects else None
        word = "mask of" if data.annotators else "baseline"
        baselines = {
            name: self._related_file(f"data.baselines.{name}", pattern, f"{word} {name}")
            for name, pattern in data.baselines.items()
        }
        split = self.split(words["split"]) if "split" in words else None
        group = self.group(data.group)
        return self.item(
            item_id, group, mask, split, valid, baselines, channels=channels, parts=parts, objects=objects
        )

    def _parts(self) -> list[tuple[str, Path]]:
        """(class, file) of each file of the mask; the class is "" where values of the file say it."""
        data = self.data
        if isinstance(data.masks, str):
            filled = self._filled("data.masks", data.masks)
            if filled is None:
                return []
            if data.masks_have_numbers and len(found := self._matching(*filled)) > 1:
                return [("", path) for one in found if (path := self.file(one, "mask"))]
            path = self._only_match("data.masks", data.masks, filled, "mask")
            return [("", path)] if path else []
        parts, absent = [], []
        for name, pattern in data.masks.items():
            filled = self._filled("data.masks", pattern)
            found = self._matching(*filled) if filled else []
            parts += [(name, path) for one in found if (path := self.file(one, f"mask of {name}"))]
            absent += [] if found or filled is None else [(name, filled[1])]
        if absent and not parts:
            self.note_problem(self.source.missing(self.match.path, "mask of any class", absent[0][1]))
        elif absent:
            listed = ", ".join(f"{name} ({printable(path)})" for name, path in absent)
            self.notes.append(("class-absent", f"has no mask of {listed}"))
        return parts

    def _filled(self, setting: str, pattern: str) -> tuple[list[list[patterns.Token]], str] | None:
        """A pattern with the words of the image, and as text; None, with a problem stored, if that is impossible.

        The `*` of a file extension at the end, `.*`, stands for any text unless the text of the image's `*` fits.
        """
        match = self._for_masks if setting == "data.masks" else self.match
        try:
            components = patterns.fill(setting, pattern, match, self.cell)
            if patterns.has_free_ending(pattern) and not self.source.exists(_path(pattern, components)):
                components = patterns.fill(setting, pattern[:-2], match, self.cell)
                components[-1] += [("text", "."), ("*", "")]
        except DataError as error:
            if error.kind == "bad-pattern":
                raise
            self.note_problem(error)
            return None
        return components, str(_path(pattern, components))

    def _matching(self, components: list[list[patterns.Token]], path: str) -> list[PurePosixPath]:
        """Existing files that match a filled pattern, except the image."""
        wanted = self.source.actual(PurePosixPath(path))
        if not patterns.has_wildcards(components):
            return [wanted] if self.source.exists(wanted) or not self.source.is_inside(wanted) else []
        if not self.source.is_inside(wanted):
            return [wanted]
        if path.endswith(".*") and "*" not in path[:-1] and not patterns.has_wildcards([components[-1][:-1]]):
            found = self.source.of_stem(wanted.parent, wanted.name[:-2])
        else:
            found = [match.path for match in self.source.find(patterns.Pattern(components))]
        found = [one for one in found if one != self.match.path]
        found = [one for one in found if _is_readable(one.name)] or found
        return found if len(found) < 2 else [one for one in found if not self.source.is_metadata(one)]

    def _related_file(self, setting: str, pattern: str, what: str, kind: str = "missing-mask") -> Path | None:
        """The only file that a pattern gives for the image; None, with a problem stored, if there is none."""
        filled = self._filled(setting, pattern)
        return self._only_match(setting, pattern, filled, what, kind) if filled else None

    def _only_match(
        self,
        setting: str,
        pattern: str,
        filled: tuple[list[list[patterns.Token]], str],
        what: str,
        kind: str = "missing-mask",
    ) -> Path | None:
        found, path = self._matching(*filled), filled[1]
        if not found:
            remedy = self._remedy_for_wildcard(setting, pattern)
            return self.file(PurePosixPath(path), what, kind, remedy)
        if len(found) == 1:
            return self.file(found[0], what, kind)
        listed = ", ".join(printable(p) for p in found[:3])
        remedy = "use {stem} or another word of data.images in the pattern in params.yaml"
        if setting == "data.masks":
            remedy = (
                "if each file is of one class, give a pattern for each, data.masks: {class: pattern}; if each is one "
                f"object, set data.instances: true; else {remedy}"
            )
            if path.endswith(".*"):
                remedy = f"write the file extension in data.masks, such as {pattern[:-2]}{found[0].suffix}; {remedy}"
        self.note_problem(
            DataError(
                f"{printable(self.match.path.name)}: {len(found)} files match {path!r} as its {what}: {listed}",
                remedy,
                kind=kind,
            )
        )
        return None

    def _remedy_for_wildcard(self, setting: str, pattern: str) -> str:
        """Remedy where `*` of a pattern stands for text of the image's path; empty elsewhere."""
        name, (folder, _, last) = self.match.path.name, pattern.rpartition("/")
        texts = self.match.wild.get("*", [])
        if "*" not in last.removesuffix(".*") or not texts:
            return ""
        stands = f"`*` stands for the text of `*` in data.images, {printable(texts[-1])!r}"
        if texts[-1] == name:
            better = f"{folder}/{{stem}}.*".lstrip("/")
            return f"write {{stem}} in {setting}, where {stands}: such as {better!r}, in params.yaml"
        if setting != "data.masks" or "{" not in pattern:
            return ""
        return (
            f"add the file, or correct the pattern in params.yaml ({stands}); if each file there is one object, set "
            "data.instances: true"
        )


def _path(pattern: str, components: list[list[patterns.Token]]) -> PurePosixPath:
    return PurePosixPath("/" if pattern.startswith("/") else "", patterns.text_of(components))


def _is_readable(name: str) -> bool:
    """Whether a file has the extension of an image or of annotations."""
    return name.lower().endswith((*images_format.extensions(), *annotations.extensions()))
