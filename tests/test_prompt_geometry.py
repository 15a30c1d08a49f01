"""Prompts keep their place when frames, grids and windows change."""

import json
from itertools import permutations, product

import numpy as np
import pytest
from scripts.prompts import (
    PROMPT_KINDS,
    Prompt,
    box_of,
    in_window,
    parse_document,
    prompt_from_mask,
    rescale,
    to_model_frame,
    voxel_to_world,
)

SPACING, ORIGIN = np.array([0.8, 1.5, 3.0]), np.array([-90.0, -120.0, 40.0])
SHAPE = np.array([30, 24, 18])  # of the RAS volume
CROP = np.array([2, 3, 4])  # first voxel of the crop, in (D, H, W)
CROPPED = (12, 15, 20)
STORED = [(order, flips) for order in permutations(range(3)) for flips in product([False, True], repeat=3)]


def _ras_affine() -> np.ndarray:
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = ORIGIN
    return affine


def _stored_to_ras(order: tuple[int, ...], flips: tuple[bool, ...]) -> np.ndarray:
    """Voxels of a volume stored with permuted and flipped axes to voxels of the RAS volume."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for axis, source in enumerate(order):
        matrix[source, axis] = -1 if flips[axis] else 1
        matrix[source, 3] = SHAPE[source] - 1 if flips[axis] else 0
    return matrix


def _ras_to_model() -> np.ndarray:
    """RAS voxels to (D, H, W) = (z, y, x) voxels of the crop."""
    matrix = np.eye(4)[[2, 1, 0, 3]]
    matrix[:3, 3] = -CROP
    return matrix


def _point_prompt(*points: list[float], labels: list[int] | None = None) -> Prompt:
    return Prompt("a", points=np.array(points), point_labels=np.ones(len(points)) if labels is None else labels)


def _same(prompt: Prompt, other: Prompt) -> None:
    np.testing.assert_array_equal(prompt.points, other.points)
    np.testing.assert_array_equal(prompt.point_labels, other.point_labels)
    np.testing.assert_array_equal(prompt.box, other.box)
    assert (prompt.name, prompt.text) == (other.name, other.text)


def test_a_prompt_takes_lists_and_sorts_its_box() -> None:
    prompt = Prompt("a", points=[1, 2, 3], point_labels=[1], box=[9, 0, 5, 1, 8, 5])
    assert prompt.points.shape == (1, 3) and prompt.points.dtype == np.float64
    assert prompt.point_labels.dtype == np.int64
    np.testing.assert_array_equal(prompt.box, [[1, 0, 5], [9, 8, 5]])


def test_a_prompt_needs_a_label_for_every_point() -> None:
    with pytest.raises(ValueError, match="1 points but 0 point_labels"):
        Prompt("a", points=[[1, 2, 3]])


def test_a_prompt_as_json_is_a_target_of_prompts_json() -> None:
    prompt = Prompt("a", "liver", np.array([[1, 2, 3.5]]), np.array([0]), np.array([[0, 0, 0], [4, 5, 6]]))
    document = json.loads(json.dumps({"targets": [prompt.to_dict(), Prompt("b", text="b").to_dict()]}))
    targets = parse_document(document).targets
    _same(targets[0], prompt)
    assert targets[1].box is None and len(targets[1].points) == 0


@pytest.mark.parametrize(("order", "flips"), STORED)
@pytest.mark.parametrize("coordinates", ["ras", "lps"])
def test_a_world_prompt_lands_on_the_same_model_voxels_however_the_image_is_stored(order, flips, coordinates) -> None:
    # The second point lies halfway between voxels on every axis.
    world = voxel_to_world([[10, 11, 12], [7.5, 8.5, 9.5], [5, 6, 7], [14.5, 12, 13]], _ras_affine(), coordinates)
    document = parse_document(
        {
            "coordinates": coordinates,
            "targets": [{"points": world[:2].tolist(), "box": world[[3, 2]].reshape(-1).tolist()}],
        }
    )
    stored = _stored_to_ras(order, flips)
    prompts = document.to_voxel(_ras_affine() @ stored, SHAPE[list(order)])
    (prompt,), messages = to_model_frame(prompts, _ras_to_model() @ stored, CROPPED)
    np.testing.assert_array_equal(prompt.points, [[10, 8, 6], [8, 6, 4]])
    np.testing.assert_array_equal(prompt.box, [[5, 3, 1], [11, 9, 11]])
    assert messages == []


@pytest.mark.parametrize(("order", "flips"), STORED)
def test_a_voxel_prompt_lands_on_the_same_model_voxels_however_the_image_is_stored(order, flips) -> None:
    stored = _stored_to_ras(order, flips)
    from_ras = np.linalg.inv(stored)
    ras = np.array([[10, 11.25, 12], [5, 6, 7], [14, 12, 13]])
    voxels = ras @ from_ras[:3, :3].T + from_ras[:3, 3]
    document = parse_document({"targets": [{"points": voxels[:1], "box": voxels[1:].reshape(-1)}]})
    prompts = document.to_voxel(_ras_affine() @ stored, SHAPE[list(order)])
    (prompt,), _ = to_model_frame(prompts, _ras_to_model() @ stored, CROPPED)
    np.testing.assert_array_equal(prompt.points, [[10, 8.25, 6]])
    np.testing.assert_array_equal(prompt.box, [[5, 3, 1], [11, 9, 10]])


def test_voxels_to_world_and_back_on_an_oblique_grid() -> None:
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * SPACING
    affine[:3, 3] = ORIGIN
    voxels = rng.integers(0, 18, size=(20, 3))
    for coordinates in ("ras", "lps"):
        world = voxel_to_world(voxels, affine, coordinates)
        document = parse_document({"coordinates": coordinates, "targets": [{"points": world.tolist()}]})
        np.testing.assert_array_equal(document.to_voxel(affine, (18, 18, 18))[0].points, voxels)


def test_lps_is_ras_with_the_first_two_axes_reversed() -> None:
    ras = voxel_to_world([[1, 2, 3]], _ras_affine())
    np.testing.assert_allclose(voxel_to_world([[1, 2, 3]], _ras_affine(), "lps"), ras * [-1, -1, 1])


def test_points_in_air_are_dropped_with_a_message_and_boxes_are_clipped() -> None:
    prompt = Prompt("liver", points=[[1, 1, 1], [8, 8, 8]], point_labels=[0, 1], box=[0, 0, 0, 9, 9, 50])
    matrix = np.eye(4)
    matrix[:3, 3] = -4
    (result,), messages = to_model_frame([prompt], matrix, (10, 10, 10))
    np.testing.assert_array_equal(result.points, [[4, 4, 4]])
    np.testing.assert_array_equal(result.point_labels, [1])
    np.testing.assert_array_equal(result.box, [[0, 0, 0], [5, 5, 9]])
    assert messages == ["target 'liver': points[0] (1, 1, 1) lies in air outside the body, ignored"]


def test_a_box_in_air_is_dropped_where_a_text_is_left() -> None:
    prompt = Prompt("liver", text="liver", box=[12, 12, 12, 14, 14, 14])
    (result,), messages = to_model_frame([prompt], np.eye(4), (10, 10, 10))
    assert result.box is None and result.text == "liver"
    assert messages == ["target 'liver': its box lies in air outside the body, ignored"]


@pytest.mark.parametrize(
    "prompt",
    [
        _point_prompt([12, 1, 1]),
        _point_prompt([12, 1, 1], [2, 2, 2], labels=[1, 0]),
        Prompt("a", box=[12, 1, 1, 14, 2, 2]),
        Prompt("a", points=[[2, 2, 2]], point_labels=[0], box=[12, 1, 1, 14, 2, 2]),
    ],
)
def test_a_target_that_lies_in_air_is_an_error(prompt) -> None:
    with pytest.raises(ValueError, match=r"^target 'a': its prompt lies in air outside the body[^\n]*$"):
        to_model_frame([prompt], np.eye(4), (10, 10, 10))


def test_a_small_box_does_not_vanish_in_the_zoom_out_grid() -> None:
    shape, roi = (200, 512, 512), (32, 256, 256)
    for d, h, w in product((0, 3, 57, 100, 199), (0, 7, 255, 509), (0, 8, 333, 510)):
        box = rescale(Prompt("a", box=[d, h, w, d, h + 2, w + 1]), shape, roi).box
        assert (box[0] <= box[1]).all() and (box[0] >= 0).all() and (box[1] < roi).all()
        middle = np.array([d + 0.5, h + 1.5, w + 1]) * roi / shape  # a continuous place: voxel x spans x to x + 1
        assert (box[0] <= middle).all() and (middle <= box[1] + 1).all()


def test_a_shrinking_box_is_what_a_nearest_exact_resize_of_the_filled_box_shows() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        old = int(rng.integers(33, 600))
        new = int(rng.integers(2, old))
        low, high = np.sort(rng.integers(0, old, 2))
        source = ((2 * np.arange(new) + 1) * old) // (2 * new)
        seen = np.flatnonzero((source >= low) & (source <= high))
        box = rescale(Prompt("a", box=[low, 0, 0, high, 0, 0]), (old, 1, 1), (new, 1, 1)).box
        if seen.size:
            assert box[:, 0].tolist() == [seen[0], seen[-1]]
        else:
            assert box[0, 0] == box[1, 0] == ((low + high + 1) * new) // (2 * old)


def test_a_growing_box_covers_every_voxel_it_touches() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        old = int(rng.integers(1, 64))
        new = int(rng.integers(old, 600))
        low, high = np.sort(rng.integers(0, old, 2))
        touched = [x for x in range(new) if (x + 1) * old > low * new and x * old < (high + 1) * new]
        box = rescale(Prompt("a", box=[0, low, 0, 0, high, 0]), (1, old, 1), (1, new, 1)).box
        assert box[:, 1].tolist() == [touched[0], touched[-1]]


def test_rescaled_points_go_to_the_voxel_that_holds_them() -> None:
    prompt = _point_prompt([0, 0, 0], [199, 511, 511], [100, 256, 255], [-0.5, 511.5, 3])
    points = rescale(prompt, (200, 512, 512), (32, 256, 512)).points
    np.testing.assert_array_equal(points, [[0, 0, 0], [31, 255, 511], [16, 128, 255], [0, 255, 3]])
    np.testing.assert_array_equal(rescale(_point_prompt([0, 31, 4]), (8, 32, 8), (32, 32, 4)).points, [[2, 31, 2]])


def test_rescale_to_the_same_grid_changes_nothing() -> None:
    prompt = Prompt("a", "liver", np.array([[3, 4, 5]]), np.array([1]), np.array([[0, 1, 2], [9, 9, 9]]))
    _same(rescale(prompt, (10, 10, 10), (10, 10, 10)), prompt)


def test_the_part_of_a_prompt_inside_a_window() -> None:
    prompt = Prompt("a", "liver", np.array([[5, 5, 5], [1, 9, 9], [9, 9, 9]]), [1, 1, 0], np.array([[0] * 3, [6] * 3]))
    part = in_window(prompt, (4, 4, 4), (4, 4, 6))
    np.testing.assert_array_equal(part.points, [[1, 1, 1]])
    np.testing.assert_array_equal(part.point_labels, [1])
    np.testing.assert_array_equal(part.box, [[0, 0, 0], [2, 2, 2]])
    assert part.text == "liver"


def test_a_window_beyond_the_prompt_keeps_its_text_alone() -> None:
    part = in_window(Prompt("a", "liver", [[5, 5, 5]], [1], [0, 0, 0, 6, 6, 6]), (10, 0, 0), (4, 8, 8))
    assert part.box is None and len(part.points) == len(part.point_labels) == 0
    assert part.text == "liver"


def test_a_window_may_start_before_the_volume() -> None:
    part = in_window(Prompt("a", points=[[0, 5, 5]], point_labels=[0], box=[0, 0, 0, 6, 6, 6]), (-3, 0, 0), (8, 8, 8))
    np.testing.assert_array_equal(part.points, [[3, 5, 5]])
    np.testing.assert_array_equal(part.box, [[3, 0, 0], [7, 6, 6]])


def test_box_of_a_mask() -> None:
    mask = np.zeros((6, 7, 8), dtype=np.uint8)
    assert box_of(mask) is None
    mask[2, 3, 4] = mask[5, 3, 0] = 1
    np.testing.assert_array_equal(box_of(mask), [[2, 3, 0], [5, 3, 4]])


def _ball() -> np.ndarray:
    grid = np.indices((24, 24, 24)) - 10
    return (grid**2).sum(axis=0) <= 64


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_a_prompt_from_a_mask_gives_what_its_kind_says(kind) -> None:
    prompt = prompt_from_mask(_ball(), "spleen", kind, np.random.default_rng(0))
    assert prompt.name == "spleen"
    assert (prompt.text == "spleen") == ("text" in kind)
    assert len(prompt.points) == ("point" in kind)
    assert (prompt.box is not None) == ("box" in kind)
    if prompt.box is not None:
        np.testing.assert_array_equal(prompt.box, [[2] * 3, [18] * 3])


def test_a_click_is_positive_deep_and_the_same_for_the_same_generator() -> None:
    clicks = [prompt_from_mask(_ball(), "a", "point", np.random.default_rng(seed)) for seed in range(20)]
    again = prompt_from_mask(_ball(), "a", "point", np.random.default_rng(3))
    _same(clicks[3], again)
    places = np.concatenate([click.points for click in clicks])
    assert (np.linalg.norm(places - 10, axis=1) <= 4.5).all()
    assert len(np.unique(places, axis=0)) > 5
    assert all(click.point_labels.tolist() == [1] for click in clicks)


def test_the_edge_of_the_volume_counts_as_an_edge_of_the_mask() -> None:
    for seed in range(5):
        click = prompt_from_mask(np.ones((9, 9, 9)), "a", "point", np.random.default_rng(seed)).points
        assert (abs(click - 4) <= 2).all()


def test_depth_is_measured_in_mm_where_the_spacing_is_given() -> None:
    mask = np.ones((3, 21, 21))
    click = prompt_from_mask(mask, "a", "point", np.random.default_rng(0), spacing=(100, 1, 1)).points[0]
    assert (abs(click[1:] - 10) <= 4).all()


def test_a_mask_of_one_voxel_gives_a_click_and_a_box() -> None:
    mask = np.zeros((4, 4, 4))
    mask[1, 2, 3] = 1
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(prompt_from_mask(mask, "a", "point", rng).points, [[1, 2, 3]])
    np.testing.assert_array_equal(prompt_from_mask(mask, "a", "box", rng, jitter=0.05).box, [[1, 2, 3]] * 2)


def test_jitter_moves_each_side_by_at_most_its_part_of_the_length() -> None:
    mask = np.zeros((80, 80, 80))
    mask[0:40, 20:60, 20:60] = 1
    boxes = [prompt_from_mask(mask, "a", "box", np.random.default_rng(s), jitter=0.05).box for s in range(20)]
    moved = np.array(boxes) - [[0, 20, 20], [39, 59, 59]]
    assert abs(moved).max() == 2
    assert moved.min() < 0 < moved.max()
    assert np.min(boxes) >= 0


@pytest.mark.parametrize("kind", ["point", "box", "box+text"])
def test_an_empty_mask_gives_no_place(kind) -> None:
    with pytest.raises(ValueError, match="empty mask"):
        prompt_from_mask(np.zeros((3, 3, 3)), "a", kind, np.random.default_rng(0))


def test_an_empty_mask_still_has_a_name() -> None:
    assert prompt_from_mask(np.zeros((3, 3, 3)), "a", "text", np.random.default_rng(0)).text == "a"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind: expected one of text, point, box"):
        prompt_from_mask(_ball(), "a", "scribble", np.random.default_rng(0))
