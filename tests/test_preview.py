"""The preview: radiological convention from any storage, the planes chosen, and that anything at all can be drawn."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scripts.prompts import Prompt
from scripts.results.preview import WIDTH, _legend, _Sheet, draw_preview
from scripts.results.view import PLANES, PreviewTarget, choose_planes, turn, window_of

RAS = np.diag([1.0, 2.0, 3.0, 1.0])
STORAGES = ("RAS", "LPS", "PIR", "ASL", "IRP")


def target(mask: np.ndarray, prompt: Prompt | None = None, name: str = "liver") -> PreviewTarget:
    return PreviewTarget(name, mask, (255, 0, 0), prompt or Prompt(name, text=name))


def block(shape: tuple[int, ...], *extents: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*extent) for extent in extents)] = 1
    return mask


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def restored(volume: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same volume in another storage: its voxels, its affine, and the matrix to the new voxels."""
    wanted = nib.orientations.axcodes2ornt(tuple(codes))
    transform = nib.orientations.ornt_transform(nib.io_orientation(affine), wanted)
    back = nib.orientations.inv_ornt_aff(transform, volume.shape)
    return nib.apply_orientation(volume, transform), affine @ back, np.linalg.inv(back)


def test_right_is_at_image_left_front_is_up_and_the_head_is_up() -> None:
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    view = turn(volume, RAS, [])
    axial, coronal, sagittal = (view.cut(view.image, plane, 0) for plane in PLANES)
    right, front, head = 3, 4, 5
    left, back, feet = 0, 0, 0
    assert axial.shape == (5, 4)
    assert axial[0, 0] == volume[right, front, head]
    assert axial[-1, -1] == volume[left, back, head]
    assert coronal[0, 0] == volume[right, front, head]
    assert coronal[-1, -1] == volume[left, front, feet]
    assert sagittal[0, 0] == volume[right, front, head]
    assert sagittal[-1, -1] == volume[right, back, feet]
    assert [plane.letters for plane in PLANES] == ["RLAP", "RLSI", "APSI"]


@pytest.mark.parametrize("codes", STORAGES)
def test_every_storage_of_a_volume_gives_the_same_view(codes: str) -> None:
    volume = np.random.default_rng(0).normal(size=(4, 5, 6))
    mask, point = volume > 0.3, np.array([[1.0, 2, 5]])
    prompt = Prompt("x", points=point, point_labels=[1], box=[[0, 1, 2], [2, 3, 5]])
    reference = turn(volume, RAS, [target(mask, prompt)])
    stored, affine, matrix = restored(volume, RAS, codes)
    moved = Prompt(
        "x",
        points=nib.affines.apply_affine(matrix, point),
        point_labels=[1],
        box=nib.affines.apply_affine(matrix, prompt.box),
    )
    view = turn(stored, affine, [target(restored(mask, RAS, codes)[0], moved)])
    np.testing.assert_array_equal(view.image, reference.image)
    np.testing.assert_array_equal(view.targets[0].mask, reference.targets[0].mask)
    np.testing.assert_array_equal(view.targets[0].prompt.points, reference.targets[0].prompt.points)
    np.testing.assert_array_equal(view.targets[0].prompt.box, reference.targets[0].prompt.box)
    np.testing.assert_allclose(view.spacing, [1, 2, 3])
    assert view.window == reference.window
    assert np.shares_memory(view.image, stored), "volumes are turned, not copied"


@pytest.mark.parametrize("codes", STORAGES)
def test_a_plane_is_named_by_its_index_in_the_stored_image(codes: str) -> None:
    stored, affine, _ = restored(np.zeros((4, 5, 6)), RAS, codes)
    stored = stored.copy()
    stored[1, 2, 3] = 1
    view = turn(stored, affine, [])
    found = np.argwhere(view.image)[0]
    assert dict(view.stored_index(axis, int(found[axis])) for axis in range(3)) == {"i": 1, "j": 2, "k": 3}


def test_planes_go_through_the_largest_cross_sections() -> None:
    mask = block((20, 20, 20), (5, 8), (5, 8), (5, 6))
    mask[10:19, 10:19, 12] = 1
    view = turn(np.zeros((20, 20, 20)), np.diag([-1.0, -1, -1, 1]), [target(mask)])
    left, back, down = choose_planes(view)
    assert (left, back, down) == (14, 14, 12)


def test_planes_see_as_many_targets_as_they_can() -> None:
    shape = (30, 30, 30)
    masks = [
        block(shape, (0, 9), (4, 5), (4, 5)),
        block(shape, (2, 5), (9, 12), (9, 12)),
        block(shape, (20, 29), (15, 25), (15, 25)),
    ]
    view = turn(np.zeros(shape), np.diag([-1.0, -1, -1, 1]), [target(mask) for mask in masks])
    assert choose_planes(view)[0] == 3


def test_where_nothing_was_found_planes_go_through_the_prompt_or_the_middle() -> None:
    empty, flat = np.zeros((9, 9, 9)), np.diag([-1.0, -1, -1, 1])
    clicked = Prompt("a", points=[[1, 2, 3], [4, 5, 6]], point_labels=[0, 1])
    boxed = Prompt("b", box=[[2, 2, 2], [4, 6, 8]])
    assert choose_planes(turn(empty, flat, [target(empty), target(empty, clicked)])) == [4, 5, 6]
    assert choose_planes(turn(empty, flat, [target(empty, boxed)])) == [3, 4, 5]
    assert choose_planes(turn(empty, flat, [target(empty)])) == [4, 4, 4]
    assert choose_planes(turn(empty, flat, [])) == [4, 4, 4]


def test_the_window_shows_soft_tissue_in_hu_and_most_of_the_body_elsewhere() -> None:
    body = np.random.default_rng(0).uniform(0.5, 1, size=(20, 20, 20))
    body[:10] = 0
    assert window_of(body * 2000 - 1000) == (-160, 240)
    low, high = window_of(body)
    assert 0.5 < low < high < 1
    low, high = window_of(np.zeros((3, 3, 3)))
    assert low < high


@pytest.mark.parametrize(
    ("label", "color"), [(1, (61, 255, 92)), (0, (255, 80, 80))], ids=["positive is green", "negative is red"]
)
def test_points_are_marked_on_near_planes_and_faint_on_far_ones(
    label: int, color: tuple[int, int, int], tmp_path: Path
) -> None:
    image = np.zeros((30, 30, 30))

    def strong(k: int) -> int:
        prompt = Prompt("x", points=[[15, 15, k]], point_labels=[label])
        mask = block((30, 30, 30), (0, 1), (0, 1), (25, 26))
        picture = pixels(draw_preview(tmp_path / "x.png", image, RAS, [target(mask, prompt)]))
        axial = picture[60:500, : WIDTH // 3]
        return int((np.abs(axial - color).max(axis=-1) < 8).sum())

    assert strong(24) > 20
    assert strong(5) == 0


def test_masks_are_filled_translucently_and_outlined(tmp_path: Path) -> None:
    mask = block((30, 30, 30), (10, 20), (10, 20), (10, 20))
    picture = pixels(draw_preview(tmp_path / "x.png", np.zeros((30, 30, 30)), RAS, [target(mask)]))[60:540]
    red = picture[(picture[..., 1] < 5) & (picture[..., 2] < 5), 0]
    assert (red == 255).sum() > 100
    assert ((red > 60) & (red < 110)).sum() > 1000


def test_names_and_titles_are_drawn_as_they_are(tmp_path: Path) -> None:
    for name in ("$\\frac{", "$x$", "100 % #1 & co_2^3 \\", "肝脏", "caf\udce9", "many\nlines", "x" * 500):
        mask = np.ones((3, 3, 3), np.uint8)
        path = draw_preview(tmp_path / "x.png", np.ones((3, 3, 3)), RAS, [target(mask, name=name)], name, name)
        assert pixels(path).shape[1] == WIDTH
    sheet = _Sheet(100)
    assert sheet.write("$x$", 0, 0, 10, "white", 1000) > sheet.write("x", 0, 0, 10, "white", 1000) + 5


def test_a_long_name_is_cut_to_its_column_but_its_size_is_shown() -> None:
    sheet = _Sheet(100)
    assert sheet.write("x" * 400, 0, 0, 10, "white", 250, "   12 ml") <= 250
    assert sheet.write("short", 0, 0, 10, "white", 250, "   12 ml") < 150


@pytest.mark.parametrize("shape", [(20, 16, 1), (1, 16, 20), (3, 5, 7), (1, 1, 1), (2, 1, 1), (4, 4, 400)])
def test_volumes_of_any_shape_can_be_drawn(shape: tuple[int, int, int], tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=shape)
    prompt = Prompt("x", points=[[0, 0, 0]], point_labels=[1], box=[[0, 0, 0], np.array(shape) - 1])
    picture = pixels(draw_preview(tmp_path / "x.png", image, RAS, [target(image > 0, prompt), target(image > 99)]))
    assert picture.shape[1] == WIDTH
    assert 300 < picture.shape[0] < 700


def test_planes_are_true_to_scale(tmp_path: Path) -> None:
    mask = block((40, 40, 40), (10, 30), (10, 20), (10, 15))
    picture = pixels(draw_preview(tmp_path / "x.png", np.zeros((40, 40, 40)), np.diag([1.0, 2, 4, 1]), [target(mask)]))
    red = (picture[60:520, :, 0] > 60) & (picture[60:520, :, 1:].max(axis=-1) < 5)
    columns = np.flatnonzero(red.any(axis=0))
    squares = [part for part in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1) if len(part) > 5]
    assert len(squares) == 3
    for square in squares:
        rows = np.flatnonzero(red[:, square[0] : square[-1] + 1].any(axis=1))
        assert len(square) == pytest.approx(rows[-1] - rows[0] + 1, abs=4), "20 x 20 x 20 mm is square in each plane"


def test_the_legend_wraps_grows_and_ends(tmp_path: Path) -> None:
    image = np.zeros((6, 6, 6))
    targets = [target(block((6, 6, 6), (n % 5, 6), (0, 3), (0, 3)), name=f"target {n}") for n in range(100)]
    few = pixels(draw_preview(tmp_path / "x.png", image, RAS, targets[:3])).shape
    many = pixels(draw_preview(tmp_path / "x.png", image, RAS, targets[:30])).shape
    assert many[0] - few[0] == 5 * 26
    entries = _legend(turn(image, RAS, targets), 0.006)
    assert len(entries) == 60
    assert entries[0][:2] == ("target 0", "0.32 ml")
    assert entries[-1][0] == "and 41 more"


def test_what_was_not_found_is_said_so() -> None:
    (entry,) = _legend(turn(np.zeros((2, 2, 2)), RAS, [target(np.zeros((2, 2, 2)))]), 0.006)
    assert entry == ("liver", "not found", None)
