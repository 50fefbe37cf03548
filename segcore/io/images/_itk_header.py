"""Headers of MetaImage and NRRD files, as far as safety needs them: data files, compression and position."""

from dataclasses import dataclass
from pathlib import Path

from segcore.errors import DataError
from segcore.io.images._checks import RESTORE, check_file

# longest header in bytes
_MOST_BYTES = 2**20
_MOST_FILES = 4096


@dataclass(frozen=True)
class Header:
    """Facts of a header.

    Attributes:
        fields: by their names in lower case.
        files: data files, absolute; the file itself where it holds its data.
        offset: of the data in a file that holds its own.
        encoding: "raw", "zlib" (or gzip), or "other", such as text.
        has_position: whether it has an origin or directions.
    """

    fields: dict[str, str]
    files: tuple[Path, ...]
    offset: int
    encoding: str
    has_position: bool


def read_header(path: Path) -> Header:
    """Header of a .mha, .mhd, .nrrd or .nhdr file.

    Raises:
        DataError: it is no such file, or its data files are missing or outside its folder.
    """
    check_file(path)
    with path.open("rb") as file:
        start = file.read(_MOST_BYTES)
    is_nrrd = start.startswith(b"NRRD")
    if is_nrrd != path.name.lower().endswith((".nrrd", ".nhdr")):
        raise _damaged(path, "is not " + ("MetaImage" if is_nrrd else "NRRD"))
    fields, listed, offset = _nrrd(start) if is_nrrd else _metaimage(start)
    if not {"sizes", "dimsize"} & set(fields):
        raise _damaged(path, "is not a MetaImage or NRRD file, or its header is damaged")
    if is_nrrd:
        data = fields.get("data file", fields.get("datafile", ""))
        gzip = fields.get("encoding", "raw").lower()
        encoding = {"raw": "raw", "gzip": "zlib", "gz": "zlib"}.get(gzip, "other")
        position = {"space directions", "space origin"}
    else:
        data = fields["elementdatafile"]
        data = "" if data.upper() == "LOCAL" else data
        encoding = "zlib" if fields.get("compresseddata", "").lower() == "true" else "raw"
        encoding = "other" if fields.get("binarydata", "true").lower() == "false" else encoding
        position = {"transformmatrix", "rotation", "orientation", "offset", "position", "origin"}
    names = listed if data.upper().startswith("LIST") else _numbered(path, data) if "%" in data else [data]
    files = tuple(_inside(path, name) for name in names) if data else (path,)
    return Header(fields, files, offset, encoding, bool(position & set(fields)))


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path.name}: {what}", RESTORE, kind="unreadable")


def _nrrd(start: bytes) -> tuple[dict[str, str], list[str], int]:
    """Fields, listed data files, and the number of bytes up to the data."""
    for gap in (b"\r\n\r\n", b"\n\n"):
        head, found, _ = start.partition(gap)
        if found:
            break
    fields, listed = dict[str, str](), list[str]()
    for line in head.decode("utf-8", "replace").splitlines()[1:]:
        key, colon, value = line.partition(":")
        if fields.get("data file", "").upper().startswith("LIST"):
            listed.append(line.strip())
        elif colon and not line.startswith("#") and not value.startswith("="):
            name = key.strip().lower()
            fields["data file" if name == "datafile" else name] = value.strip()
    return fields, [name for name in listed if name], len(head) + len(found)


def _metaimage(start: bytes) -> tuple[dict[str, str], list[str], int]:
    """Fields, listed data files, and the number of bytes up to the data."""
    fields, at = dict[str, str](), 0
    while "elementdatafile" not in fields and at < len(start):
        line = start[at:].split(b"\n", 1)[0]
        at += len(line) + 1
        key, _, value = line.decode("utf-8", "replace").partition("=")
        fields[key.strip().lower()] = value.strip()
    if "elementdatafile" not in fields:
        return {}, [], at
    rest = start[at:] if fields["elementdatafile"].upper().startswith("LIST") else b""
    return (
        fields,
        [name for line in rest.decode("utf-8", "replace").splitlines() if (name := line.strip())],
        at,
    )


def _numbered(path: Path, data: str) -> list[str]:
    """Names that a pattern such as "slice%03d.raw 1 20 1" stands for."""
    try:
        pattern, *numbers = data.split()
        first, last, step = ([int(n) for n in numbers] + [1])[:3]
        count = range(first, last + (1 if step > 0 else -1), step)
        if len(count) > _MOST_FILES:
            raise ValueError(f"{len(count)} files")
        return [pattern % number for number in count]
    except (ValueError, TypeError) as error:
        raise _damaged(
            path, f"names its data files by {data[:80]!r}, which is no pattern of names"
        ) from error


def _inside(path: Path, name: str) -> Path:
    """A data file, which must be in the folder of its header.

    Raises:
        DataError: it is elsewhere, missing or empty.
    """
    folder = path.parent.absolute()
    try:
        target = folder / name
        is_inside = target.resolve().is_relative_to(folder.resolve())
        exists = is_inside and target.is_file()
    # RuntimeError: a loop of links
    except (OSError, ValueError, RuntimeError):
        is_inside, exists = False, False
    if not is_inside:
        raise DataError(
            f"{path.name}: its data file {name[:80]!r} is outside its folder",
            "put both files into one folder and name the data file without a path, or save the volume as one file "
            "(.mha, .nrrd)",
            kind="outside",
        )
    if not exists:
        raise DataError(
            f"{path.name}: its data file {name[:80]} is missing",
            "put it beside the header, or save the volume as one file (.mha, .nrrd)",
            kind="unreadable",
        )
    check_file(target)
    return target
