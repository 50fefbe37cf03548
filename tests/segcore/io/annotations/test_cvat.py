"""Shapes of `CVAT for images 1.1` are drawn by z_order; XML is parsed safely."""

import numpy as np
import pytest

from tests.support.coco import data_for, random_mask, square_mask
from tests.support.drawn import CAR, TREE, cvat, element, opened, points, refused

SQUARE, OTHER = square_mask(5, 5, 10, 10), square_mask(30, 5, 10, 20)
CAR_SHAPE, TREE_SHAPE = (
    element("polygon", points=points(CAR)),
    element("polygon", "tree", points=points(TREE)),
)


def test_polygons_are_objects_of_their_image(tmp_path):
    path = cvat(tmp_path / "a.xml", ("a.png", [CAR_SHAPE, TREE_SHAPE]), ("b.png", []))
    found, notes, counts = opened(path)
    np.testing.assert_array_equal(found.instances, SQUARE + 2 * OTHER)
    np.testing.assert_array_equal(found.classes, SQUARE + 2 * OTHER)
    assert notes == [] and counts == {"car": 1, "tree": 1}
    assert not opened(path, image="b.png")[0].classes.any()


def test_folders_and_other_extensions_lead_to_the_image(tmp_path):
    path = cvat(tmp_path / "a.xml", ("job/x/a.jpg", [CAR_SHAPE]), ("job/y/a.jpg", []))
    assert (
        opened(path, image="x/a.png")[0].classes.any() and not opened(path, image="y/a.png")[0].classes.any()
    )
    refused(path, "not-annotated", "does not list the image c.png", image="c.png")
    refused(path, "not-annotated", "only in other folders", image="z/a.png")


def mask_element(mask, left, top, **over):
    """A mask as CVAT writes it: runs row by row, the first one outside."""
    flat = np.concatenate([[False], mask.ravel(), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    counts = counts[: len(counts) - (counts[-1] == 0)]
    rle = ", ".join(map(str, counts))
    return element("mask", rle=rle, left=left, top=top, height=mask.shape[0], width=mask.shape[1], **over)


@pytest.mark.parametrize("first", [False, True])
def test_masks_are_run_lengths_row_by_row_in_a_box(tmp_path, first):
    mask = random_mask()[:12, :9]
    mask[0, 0] = first
    expected = np.zeros((40, 50), np.uint8)
    expected[10:22, 20:29] = mask
    path = cvat(tmp_path / "a.xml", ("a.png", [mask_element(mask, 20, 10)]))
    np.testing.assert_array_equal(opened(path)[0].classes, expected)
    across = cvat(tmp_path / "b.xml", ("a.png", [mask_element(np.ones((12, 9), bool), -4, 35)]))
    found, notes, _ = opened(across)
    np.testing.assert_array_equal(found.classes, square_mask(0, 35, 5, 5))
    assert [kind for kind, _ in notes] == ["polygons-outside"]


def test_boxes_may_be_turned(tmp_path):
    box = {"xtl": 5, "ytl": 5, "xbr": 15, "ybr": 15}
    np.testing.assert_array_equal(
        opened(cvat(tmp_path / "a.xml", ("a.png", [element("box", **box)])))[0].classes, SQUARE
    )
    wide = element("box", xtl=10, ytl=15, xbr=30, ybr=25, rotation=90)
    found = opened(cvat(tmp_path / "b.xml", ("a.png", [wide])))[0].classes
    np.testing.assert_array_equal(found, square_mask(15, 10, 10, 20))


def test_ellipses_may_be_turned(tmp_path):
    turned = element("ellipse", cx=25, cy=20, rx=14, ry=6, rotation=30)
    found = opened(cvat(tmp_path / "a.xml", ("a.png", [turned])))[0].classes
    rows, columns = np.mgrid[:40, :50] + 0.5
    angle = np.radians(30)
    along = (columns - 25) * np.cos(angle) + (rows - 20) * np.sin(angle)
    across = -(columns - 25) * np.sin(angle) + (rows - 20) * np.cos(angle)
    level = np.hypot(along / 14, across / 6)
    clear = np.abs(level - 1) > 0.15
    np.testing.assert_array_equal(found[clear], (level < 1)[clear])
    assert found.sum() == pytest.approx(np.pi * 14 * 6, rel=0.03)


def test_shapes_of_a_higher_z_order_are_on_top_and_later_ones_of_the_same(tmp_path):
    first = element("polygon", "car", points=points(CAR), z_order=1)
    second = element("polygon", "tree", points=points(CAR), z_order=0)
    assert opened(cvat(tmp_path / "a.xml", ("a.png", [first, second])))[0].classes[7, 7] == 1
    third = element("polygon", "tree", points=points(CAR), z_order=1)
    found = opened(cvat(tmp_path / "b.xml", ("a.png", [first, third])))[0]
    assert (found.classes[7, 7], found.instances[7, 7]) == (2, 2)


def test_grouped_shapes_are_one_object(tmp_path):
    grouped = [
        element("polygon", points=points(corners), group_id=group) for corners, group in ((CAR, 4), (TREE, 4))
    ]
    found = opened(cvat(tmp_path / "a.xml", ("a.png", grouped)))[0]
    assert found.instances[7, [7, 35]].tolist() == [1, 1]


def test_an_attribute_is_the_class_where_the_settings_name_it(tmp_path):
    inner = '<attribute name="state">wet</attribute><attribute name="age">3</attribute>'
    path = cvat(tmp_path / "a.xml", ("a.png", [element("polygon", "car", inner, points=points(CAR))]))
    data = data_for({"wet": "tree"}).model_copy(update={"label_property": "state"})
    found, _, counts = opened(path, data)
    assert found.classes[7, 7] == 2 and counts == {"wet": 1}
    without = cvat(tmp_path / "b.xml", ("a.png", [CAR_SHAPE]))
    refused(without, "unknown-category", "null (1)", data=data)


def test_shapes_without_an_area_are_counted_and_tags_are_no_shapes(tmp_path):
    odd = [element("points", points="1,1"), element("polyline", points="1,1;2,2"), element("cuboid", xtl1=1)]
    odd += [element("skeleton", inner=element("points", points="1,1")), element("tag"), CAR_SHAPE]
    found, notes, _ = opened(cvat(tmp_path / "a.xml", ("a.png", odd)))
    text = "4 shapes without an area were left out: points (1), polyline (1), cuboid (1), skeleton (1)"
    assert notes == [("shapes-skipped", text)] and found.classes.sum() == 100


def test_outlines_beyond_the_image_are_clipped_and_counted(tmp_path):
    wide = element("box", xtl=-10, ytl=30, xbr=5, ybr=60)
    found, notes, _ = opened(cvat(tmp_path / "a.xml", ("a.png", [wide, CAR_SHAPE])))
    assert (found.instances == 1).sum() == 5 * 10
    text = "1 shapes reach outside of the image and were clipped: 1"
    assert notes == [("polygons-outside", text)]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotations>&b;</annotations>'
EXTERNAL = (
    '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotations><image name="&e;"/></annotations>'
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", ""),
        ("no xml", "is not XML"),
        ("<annotations>", "is not XML"),
        ("<annotation><object/></annotation>", "Pascal VOC"),
        ("<VRTDataset/>", "is not CVAT but <VRTDataset>"),
        ("<annotations><track id='0'/></annotations>", "CVAT for video"),
        ("<annotations><image/></annotations>", "image without a name"),
        (BOMB, "XML entities"),
        (EXTERNAL, "XML entities"),
        (
            "<annotations><image name='a.png' width='x' height='2'/></annotations>",
            "a size of 2 x x, which is no number",
        ),
    ],
)
def test_other_xml_is_refused(tmp_path, text, part):
    (tmp_path / "a.xml").write_text(text)
    refused(tmp_path / "a.xml", "polygons-unreadable" if text else "empty-file", part)


def test_damaged_shapes_are_refused_with_their_number(tmp_path):
    def damaged(kind, shape, *texts, **over):
        refused(cvat(tmp_path / "a.xml", ("a.png", [CAR_SHAPE, shape]), **over), kind, *texts)

    damaged("polygons-unreadable", element("polygon", points="1,x;2,2"), "shape 2 of a.png", "not a polygon")
    damaged("polygons-unreadable", element("polygon"), "shape 2")
    damaged("polygons-unreadable", element("box", xtl=1), "it lacks 'ytl'")
    damaged("polygons-unreadable", element("box", xtl=1, ytl="nan", xbr=3, ybr=3), "ytl is nan")
    counts = {"left": 0, "top": 0, "width": 2, "height": 2}
    damaged("polygons-unreadable", element("mask", rle="1,2", **counts), "sum to 3")
    damaged("polygons-unreadable", element("mask", rle="5,-1", **counts), "not a mask")
    damaged("polygons-unreadable", element("mask", rle="4", **{**counts, "width": 10**9}), "1000000000")
    damaged("unknown-category", element("polygon", "bus", points=points(CAR)), "bus (1)")
    damaged("size-mismatch", CAR_SHAPE, "annotations 30 x 50, image 40 x 50", size=(30, 50))


def test_fractions_are_refused_by_the_polygons_of_the_whole_file(tmp_path):
    small = element("polygon", points=points([[0, 0], [1, 0], [1, 1], [0, 1]]))
    path = cvat(tmp_path / "a.xml", ("a.png", [small]), ("b.png", [small]))
    refused(path, "size-mismatch", "fractions", "multiply x by the width")
    mixed = cvat(tmp_path / "b.xml", ("a.png", [small]), ("b.png", [TREE_SHAPE]))
    assert opened(mixed)[0].classes.sum() == 1
