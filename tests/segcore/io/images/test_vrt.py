"""A VRT may mosaic GeoTIFFs in its folder tree; any other use is refused."""

import numpy as np
import pytest

from segcore.io import images
from segcore.io.images import geotiff
from tests.support.images import NOISE, kind_of
from tests.support.tiff import write_tiff
from tests.support.tiny import write_tif


def vrt(name, extra="", inner="", band="", relative=1):
    source = (
        f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{name}</SourceFilename><SourceBand>%d</SourceBand>'
        '<SrcRect xOff="0" yOff="0" xSize="50" ySize="40"/><DstRect xOff="0" yOff="0" xSize="50" ySize="40"/>'
        f"{inner}</SimpleSource>"
    )
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}" {band}>{source % i}</VRTRasterBand>' for i in (1, 2, 3)
    )
    return f'<VRTDataset rasterXSize="50" rasterYSize="40">{extra}{bands}</VRTDataset>'


def test_a_vrt_reads_the_files_in_its_folder_tree(tmp_path):
    write_tif(tmp_path / "tiles" / "a b.tif", NOISE)
    (tmp_path / "a.vrt").write_text(vrt("tiles/a b.tif"))
    assert np.array_equal(images.read(tmp_path / "a.vrt").pixels, NOISE)
    assert geotiff.sources(tmp_path / "a.vrt") == [(tmp_path / "tiles" / "a b.tif").resolve()]


def test_a_vrt_of_a_tiff_of_several_pages_names_the_page(tmp_path):
    write_tiff(tmp_path / "a.tif", [(NOISE[0], {}), (NOISE[1], {}), (NOISE[2], {}), (NOISE[0], {254: 4})])
    (tmp_path / "a.vrt").write_text(vrt("a.tif"))
    kind, what = kind_of(tmp_path / "a.vrt")
    assert kind == "pages" and "a.tif has 3 pages" in what
    text = vrt("a.tif")
    for page in (1, 2, 3):
        text = text.replace(">a.tif<", f">GTIFF_DIR:{page}:a.tif<", 1)
        text = text.replace(f"<SourceBand>{page}<", "<SourceBand>1<")
    (tmp_path / "a.vrt").write_text(text)
    assert np.array_equal(images.read(tmp_path / "a.vrt").pixels, NOISE)
    assert geotiff.sources(tmp_path / "a.vrt") == [(tmp_path / "a.tif").resolve()]


OUTSIDE = {
    "page of another folder": {"name": "GTIFF_DIR:1:../a.tif"},
    "page on the network": {"name": "GTIFF_DIR:1:/vsicurl/http://localhost/a.tif", "relative": 0},
    "parent folder": {"name": "../a.tif"},
    "absolute path": {"name": "/etc/hostname", "relative": 0},
    "network": {"name": "/vsicurl/http://localhost/a.tif", "relative": 0},
    "archive": {"name": "/vsizip/in.zip/a.tif", "relative": 0},
    "relative network": {"name": "/vsicurl/http://localhost/a.tif"},
    "url": {"name": "http://localhost/a.tif", "relative": 0},
    "nested": {"name": "&lt;VRTDataset/&gt;", "relative": 0},
    "no tiff": {"name": "notes.txt"},
    "other vrt": {"name": "other.vrt"},
    "python": {"name": "in.tif", "band": 'subClass="VRTDerivedRasterBand"'},
    "python function": {"name": "in.tif", "extra": "<PixelFunctionCode>import os</PixelFunctionCode>"},
    "raw band": {"name": "in.tif", "band": 'subClass="VRTRawRasterBand"'},
    "options": {"name": "in.tif", "inner": '<OpenOptions><OOI key="A">B</OOI></OpenOptions>'},
    "entity": {"name": "in.tif", "extra": "<!-- --><!DOCTYPE a>"},
    "attribute": {"name": "in.tif", "inner": '<NODATA SourceFilename="/etc/hostname">0</NODATA>'},
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_a_vrt_that_leaves_its_folder_or_runs_code_is_refused(tmp_path, case):
    folder = tmp_path / "in"
    write_tif(tmp_path / "a.tif", NOISE)
    write_tif(folder / "in.tif", NOISE)
    (folder / "notes.txt").write_text("text")
    (folder / "other.vrt").write_text(vrt("in.tif"))
    (folder / "a.vrt").write_text(vrt(**OUTSIDE[case]))
    assert kind_of(folder / "a.vrt")[0] == "outside"


def test_a_link_out_of_a_vrts_folder_is_refused(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.tif").symlink_to(tmp_path / "a.tif")
    (tmp_path / "in" / "a.vrt").write_text(vrt("link.tif"))
    assert kind_of(tmp_path / "in" / "a.vrt")[0] == "outside"


def test_entities_are_never_expanded(tmp_path):
    bomb = '<!DOCTYPE V [<!ENTITY a "x"><!ENTITY b "&a;&a;&a;">]>' + vrt("&b;")
    (tmp_path / "a.vrt").write_text(bomb)
    assert kind_of(tmp_path / "a.vrt") == ("outside", "a.vrt: declares XML entities")


def test_a_missing_source_of_a_vrt_is_named(tmp_path):
    (tmp_path / "a.vrt").write_text(vrt("gone.tif"))
    kind, what = kind_of(tmp_path / "a.vrt")
    assert kind == "unreadable" and "gone.tif is missing" in what


@pytest.mark.parametrize("text", ["<VRTDataset", "<html></html>", "no xml", "\udcff", "<VRTDataset/>"])
def test_files_that_are_not_vrt_are_unreadable(tmp_path, text):
    (tmp_path / "a.vrt").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert kind_of(tmp_path / "a.vrt")[0] == "unreadable"
