"""The random shapes: repeatable, different from seed to seed, whole, nameless, and readable as any CT."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scripts.phantom import Phantom, make_random_shapes
from scripts.phantom.__main__ import main
from scripts.phantom.random_forms import (
    blob,
    crescent,
    draw_form,
    lobes,
    plate,
    render,
    spiked,
    superquadric,
    tree,
    tube,
)
from scripts.phantom.random_looks import draw_look
from scripts.phantom.random_scene import TOUCHING, Scene, largest
from scripts.phantom.random_shapes import STRUCTURES, finish
from scripts.phantom.scan import SMALLEST_STRUCTURE
from scripts.phantom.shapes import Canvas
from scripts.prompts import parse_document

SHAPE = (80, 64, 72)
SEEDS = range(6)


@pytest.fixture(scope="module")
def volumes() -> list[Phantom]:
    return [make_random_shapes(seed, SHAPE) for seed in SEEDS]


def canvas_of(side: int = 48) -> Canvas:
    axes = [np.arange(side) - (side - 1) / 2] * 3
    warp = [np.zeros((side,) * 3, np.float32)] * 3
    canvas = Canvas(axes, warp, np.random.default_rng(0))
    canvas.wall = np.full_like(canvas.hu, -1)
    return canvas


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts.phantom", *words])
    main()


def test_same_seed_gives_same_bytes() -> None:
    one, two = (make_random_shapes(3, (40, 32, 48)) for _ in range(2))
    assert one.image.tobytes() == two.image.tobytes()
    assert one.label.tobytes() == two.label.tobytes()
    assert np.array_equal(one.affine, two.affine)


def test_seeds_differ_in_shapes_intensities_and_grid(volumes: list[Phantom]) -> None:
    assert len({volume.label.tobytes() for volume in volumes}) == len(volumes)
    assert len({volume.image.tobytes() for volume in volumes}) == len(volumes)
    assert len({nib.affines.voxel_sizes(volume.affine).tobytes() for volume in volumes}) == len(volumes)


def test_types_and_shape_of_a_drawn_volume() -> None:
    volume = make_random_shapes(1)
    assert volume.image.dtype == np.int16
    assert volume.label.dtype == np.uint8
    assert volume.image.shape == volume.label.shape
    assert STRUCTURES[0] <= len(volume.names) <= STRUCTURES[1]
    slices, *in_plane = sorted(volume.image.shape)
    assert 48 <= slices <= 96 and all(96 <= n <= 160 for n in in_plane)


def test_values_run_from_one_without_gaps_and_have_no_names(volumes: list[Phantom]) -> None:
    for volume in volumes:
        values = np.unique(volume.label).tolist()
        assert values == list(range(len(values)))
        assert volume.names == dict.fromkeys(values[1:])


def test_every_volume_has_several_shapes_of_a_minimum_size(volumes: list[Phantom]) -> None:
    for volume in volumes:
        counts = np.bincount(volume.label.ravel())[1:]
        assert len(counts) >= 5  # small volumes; drawn ones have STRUCTURES
        assert counts.min() >= SMALLEST_STRUCTURE
        assert counts.max() < 0.35 * volume.label.size


def test_sizes_span_two_orders_of_magnitude(volumes: list[Phantom]) -> None:
    shares = np.concatenate([np.bincount(volume.label.ravel())[1:] / volume.label.size for volume in volumes])
    assert shares.min() < 0.002 and shares.max() > 0.04


def test_every_shape_is_one_piece(volumes: list[Phantom]) -> None:
    for volume in volumes:
        for value in volume.names:
            assert ndimage.label(volume.label == value, TOUCHING)[1] == 1


def test_intensities_lie_in_the_range_of_a_ct(volumes: list[Phantom]) -> None:
    for volume in volumes:
        assert volume.image.min() >= -1024 and volume.image.max() <= 3071
        assert volume.image.std() > 20


def test_most_shapes_stand_out_from_what_surrounds_them(volumes: list[Phantom]) -> None:
    contrast = []
    for volume in volumes:
        for value in volume.names:
            mask = volume.label == value
            shell = ndimage.binary_dilation(mask, TOUCHING, 2) & ~mask
            contrast.append(abs(np.median(volume.image[mask]) - np.median(volume.image[shell])))
    assert np.mean(np.array(contrast) > 12) > 0.75
    assert np.min(contrast) < 15  # and some hardly do


def test_some_volumes_show_air_around_a_body_and_some_none() -> None:
    air = [np.mean(make_random_shapes(seed, (48, 48, 24)).image < -800) for seed in range(20)]
    assert np.sum(np.array(air) > 0.15) >= 6
    assert np.sum(np.array(air) < 0.05) >= 3


def test_affine_is_a_grid_of_right_angles_with_allowed_spacing(volumes: list[Phantom]) -> None:
    for volume in volumes:
        sizes = nib.affines.voxel_sizes(volume.affine)
        directions = volume.affine[:3, :3] / sizes
        assert np.allclose(directions @ directions.T, np.eye(3))
        assert sizes.min() >= 0.6 and sizes.max() <= 5.0
        assert np.array_equal(volume.affine[3], [0, 0, 0, 1])


def test_orders_and_directions_of_the_axes_vary() -> None:
    codes = {nib.aff2axcodes(make_random_shapes(seed, (12, 12, 12)).affine) for seed in range(12)}
    assert len(codes) >= 6


def test_turning_to_canonical_axes_moves_image_and_label_alike(volumes: list[Phantom]) -> None:
    """A label that had been turned apart from its image would no longer be where its contrast is."""
    volume = next(v for v in volumes if nib.aff2axcodes(v.affine) != ("R", "A", "S"))
    turned = [
        np.asarray(nib.as_closest_canonical(nib.Nifti1Image(a, volume.affine)).dataobj)
        for a in (volume.image, volume.label)
    ]
    for value in volume.names:
        before, after = volume.image[volume.label == value], turned[0][turned[1] == value]
        assert np.array_equal(np.sort(before), np.sort(after))


@pytest.mark.parametrize("shape", [(48, 20, 48), (64, 64, 1), (8, 8, 8), (1, 1, 1)])
def test_small_volumes_are_allowed(shape: tuple[int, int, int]) -> None:
    volume = make_random_shapes(1, shape)
    assert volume.image.shape == volume.label.shape == shape


@pytest.mark.parametrize(("arguments", "word"), [({"seed": -1}, "seed"), ({"seed": 1, "shape": (0, 4, 4)}, "shape"),
                                                 ({"seed": 1, "shape": (4, 4)}, "shape")])  # fmt: skip
def test_impossible_requests_say_why(arguments: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make_random_shapes(**arguments)


@pytest.mark.parametrize("drawer", [superquadric, blob, lobes, tube, tree, plate, crescent, spiked])
@pytest.mark.parametrize("seed", range(3))
def test_forms_have_about_the_volume_asked_for(drawer, seed: int) -> None:
    rng, canvas = np.random.default_rng(seed), canvas_of(96)
    radius = 9.0
    block, distance = render(canvas, drawer(rng, radius, 1.1), np.zeros(3), np.eye(3), rng, 3.0)
    share = np.count_nonzero(largest(distance < 0)) / (4 / 3 * np.pi * radius**3)
    assert 0.12 < share < 4
    assert distance.shape == canvas.hu[block.where].shape


@pytest.mark.parametrize("seed", range(20))
def test_no_form_reaches_out_of_the_block_it_is_drawn_in(seed: int) -> None:
    rng, canvas = np.random.default_rng(seed), canvas_of(120)
    form = draw_form(rng, 2000.0, 1.1)
    block, distance = render(canvas, form, np.zeros(3), np.eye(3), rng, 3.0)
    edges = np.ones(distance.shape, bool)
    edges[tuple(slice(0 if s.start == 0 else 1, None if s.stop == 120 else -1) for s in block.where)] = False
    assert not (edges & (distance < 0)).any()


def test_a_form_beyond_the_volume_is_not_drawn() -> None:
    rng = np.random.default_rng(0)
    assert render(canvas_of(), superquadric(rng, 5.0, 1.1), np.full(3, 500.0), np.eye(3), rng, 3.0) is None


@pytest.mark.parametrize("around", [-1000.0, -100.0, 45.0, 400.0])
def test_a_look_keeps_the_least_contrast(around: float) -> None:
    rng = np.random.default_rng(0)
    assert min(abs(draw_look(rng, around, 20, 10, 1.1).hu - around) for _ in range(300)) >= 20 - 1e-6


def test_a_later_shape_leaves_earlier_ones_in_one_piece_and_half_of_their_size() -> None:
    scene = Scene(canvas_of(), np.random.default_rng(1), 5.0, 30)
    rng = np.random.default_rng(2)
    for _ in range(12):
        scene.one(superquadric(rng, 9.0, 1.1), rng.uniform(-12, 12, 3), np.eye(3), None)
    assert len(scene.painted) >= 3
    for value, voxels in scene.painted.items():
        mask = scene.canvas.label == value
        assert np.count_nonzero(mask) >= 0.5 * voxels
        assert np.count_nonzero(largest(mask)) > 0.97 * np.count_nonzero(mask)


def test_shapes_without_a_label_leave_labelled_ones_alone() -> None:
    scene = Scene(canvas_of(), np.random.default_rng(1), 5.0, 30)
    rng = np.random.default_rng(2)
    scene.one(superquadric(rng, 12.0, 1.1), np.zeros(3), np.eye(3), None)
    before = scene.canvas.label.copy()
    scene.one(superquadric(rng, 9.0, 1.1), np.full(3, 4.0), np.eye(3), None, labelled=False)
    assert before.any() and np.array_equal(scene.canvas.label, before)


def test_finish_keeps_the_largest_piece_and_closes_gaps() -> None:
    label = np.zeros((30, 30, 10), np.uint8)
    label[:5, :5] = 4  # 250 voxels
    label[10:13, :5] = 4  # 150 voxels, elsewhere
    label[20:, 20:] = 9
    label[0, 29, :3] = 11  # too small
    finished = finish(label)
    assert np.array_equal(np.unique(finished), [0, 1, 2])
    assert np.count_nonzero(finished == 1) == 250
    assert (finished[20:, 20:] == 2).all()


def test_command_writes_nameless_cases_beside_phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phantom = Phantom(np.zeros((4, 4, 4), np.int16), np.ones((4, 4, 4), np.uint8), {1: "liver"}, np.eye(4))
    monkeypatch.setattr(
        "scripts.phantom.__main__.KINDS",
        {
            "anatomy": ("phantom", lambda seed: phantom),
            "shapes": ("shapes", lambda seed: make_random_shapes(seed, (48, 40, 44))),
        },
    )
    command(monkeypatch, str(tmp_path), "--seed", "7")
    command(monkeypatch, str(tmp_path), "--kind", "shapes", "--seed", "5", "--count", "2", "--split", "validation")
    cases = {case["image"]: case for case in json.loads((tmp_path / "datalist.json").read_text())["cases"]}
    assert list(cases) == ["phantom_0007/ct.nii.gz", "shapes_0005/ct.nii.gz", "shapes_0006/ct.nii.gz"]
    assert cases["phantom_0007/ct.nii.gz"]["complete"] is True
    for seed in (5, 6):
        case = cases[f"shapes_{seed:04d}/ct.nii.gz"]
        label = np.asarray(nib.load(tmp_path / case["label"]).dataobj)
        assert case["labels"] == {str(v): None for v in range(1, label.max() + 1)}
        assert case["labels"] == json.loads((tmp_path / f"shapes_{seed:04d}" / "labels.json").read_text())
        assert case["complete"] is False and case["split"] == "validation"


def test_prompts_of_a_nameless_case_are_boxes_and_clicks_on_their_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "scripts.phantom.__main__.KINDS",
        {"anatomy": ("phantom", None), "shapes": ("shapes", lambda seed: make_random_shapes(seed, (48, 40, 44)))},
    )
    command(monkeypatch, str(tmp_path), "--kind", "shapes", "--seed", "5")
    folder = tmp_path / "shapes_0005"
    document = json.loads((folder / "prompts.json").read_text())
    label = np.asarray(nib.load(folder / "label.nii.gz").dataobj)
    assert len(document["targets"]) >= 2
    assert len(parse_document(document).targets) == len(document["targets"])
    for target in document["targets"]:
        mask = label == int(target["name"].removeprefix("shape "))
        assert target["text"] is None
        if target["box"]:
            assert np.array_equal(np.argwhere(mask).min(axis=0), target["box"][:3])
            assert np.array_equal(np.argwhere(mask).max(axis=0), target["box"][3:])
        else:
            assert mask[tuple(int(c) for c in target["points"][0])]


@pytest.mark.parametrize("words", [("--kind", "organs"), ("--kind", "shapes", "--seed", "-1"),
                                   ("--kind", "shapes", "--count", "0")])  # fmt: skip
def test_bad_arguments_of_the_command_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit):
        command(monkeypatch, str(tmp_path), *words)
    assert words[-2] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
