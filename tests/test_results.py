"""Results: overlaps, the way back to the stored grid, and what is written for a case."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, CropForegroundd, Invertd, Lambdad, Orientationd, SqueezeDimd
from PIL import Image
from scripts.prompts import Prompt, parse_document
from scripts.results import ResolveTargetsd, SaveResultd, save
from scripts.results.files import case_stem, safe_names, staged, write_json, write_nifti
from scripts.results.resolve import resolve_targets
from scripts.results.save import distinct_colors
from scripts.transforms import LoadVolumed, NormalizeForegroundd, PromptsToModelFramed, normalise_foreground
from scripts.vocabulary import Vocabulary

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
WEIGHTS = SimpleNamespace(path="/some/where/small.pt", sha256="1a2b3c4d" * 8)
SPACING = (1.5, 2.0, 3.25)


def stored_affine(codes: str, spacing: tuple[float, ...] = SPACING) -> np.ndarray:
    """Affine of a volume stored in these directions."""
    affine = np.eye(4)
    for axis, (direction, flip) in enumerate(nib.orientations.axcodes2ornt(tuple(codes))):
        affine[:3, axis] = 0
        affine[int(direction), axis] = flip * spacing[axis]
    affine[:3, 3] = [-10.25, 20.5, 33.125]
    return affine


def oblique_affine() -> np.ndarray:
    turn = nib.eulerangles.euler2mat(z=0.6, y=-0.25, x=0.3)
    return nib.affines.from_matvec(turn @ np.diag([-1.1, 1.2, 2.5]), [1, 2, 3])


STORED = {
    "RAS": (stored_affine("RAS"), (12, 14, 9)),
    "LPS": (stored_affine("LPS"), (12, 14, 9)),
    "PIR": (stored_affine("PIR"), (12, 14, 9)),
    "oblique": (oblique_affine(), (12, 14, 9)),
    "one slice": (stored_affine("LPS"), (20, 16, 1)),
    "one slice in front": (stored_affine("PIR"), (1, 16, 20)),
    "3x5x7": (stored_affine("LAS"), (3, 5, 7)),
    "eight voxels": (stored_affine("RAS"), (2, 2, 2)),
}


def scan(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Write a volume of noise with air around it; return its voxels."""
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for axis, size in enumerate(shape):
        if size > 4:
            values[(slice(None),) * axis + (slice(0, 1),)] = -9
            values[(slice(None),) * axis + (slice(-2, None),)] = -9
    nib.save(nib.Nifti1Image(values, affine), path)
    return values


def preprocessing() -> Compose:
    """That of inference.json."""
    encoder = SimpleNamespace(resolve=lambda text: text)
    return Compose(
        [
            Lambdad("document", parse_document, track_meta=False),
            LoadVolumed("image"),
            Orientationd("image", axcodes="SAR", labels=None),
            NormalizeForegroundd("image"),
            CropForegroundd("image", source_key="image", allow_smaller=True),
            PromptsToModelFramed(encoder),
        ]
    )


def prepared(path: Path, targets: list[dict[str, Any]], thresholds: list[float]) -> tuple[dict, Compose]:
    """A case as the engine hands it to the postprocessing; target t is the voxels brighter than thresholds[t]."""
    before = preprocessing()
    d = before({"image": path, "image_path": str(path), "case": "ct", "document": {"targets": targets}})
    d["image"] = d["image"][None]
    d["pred"] = torch.cat([d["image"].as_tensor() - threshold for threshold in thresholds], dim=1)
    told = [{"windows": n, "message": None} for n in range(len(thresholds))]
    seconds = {"load": 0.5, "encode": 1.5, "decode": 0.25}
    d["report"] = {"seconds": seconds, "encoder_runs": 3, "decoder_runs": 7, "targets": told}
    return d | {"label": None}, before


def postprocessing(before: Compose, output_dir: Path) -> Compose:
    """That of inference.json."""
    vocabulary = Vocabulary.load(BUNDLE / "configs" / "vocabulary.json")
    back = Invertd(["masks", "label", "image"], before, orig_keys="image", nearest_interp=True, to_tensor=True)
    model = {"size": "small", "weights": WEIGHTS}
    end = SaveResultd(output_dir, vocabulary, model, "zoom")
    return Compose([SqueezeDimd("image", dim=0), ResolveTargetsd(), back, end])


TARGETS = [
    {"text": "liver"},
    {"name": "$\\frac{ / Läsion", "points": [[5, 6, 4], [6, 6, 4]], "point_labels": [1, 0], "box": [2, 3, 2, 8, 9, 6]},
    {"name": "nothing", "text": "spleen"},
]


@pytest.fixture
def case(tmp_path: Path) -> tuple[dict, Compose]:
    scan(tmp_path / "ct.nii.gz", stored_affine("LPS"), (12, 14, 9))
    return prepared(tmp_path / "ct.nii.gz", TARGETS, [0.4, 0.5, 2.0])


def written(case: tuple[dict, Compose], output_dir: Path) -> tuple[dict, dict]:
    """Run the postprocessing; return its data and the JSON, read strictly."""
    data, before = case
    done = postprocessing(before, output_dir)(dict(data))
    return done, strict((output_dir / data["case"] / f"{data['case']}_seg.json").read_text(encoding="utf-8"))


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_an_overlap_goes_to_the_highest_logit_and_a_tie_to_the_earlier_target() -> None:
    logits = torch.tensor([[-1.0, 2, 1, 3, 0], [-2.0, 1, 2, 3, -1], [-9.0, -1, -1, -1, 0]]).reshape(3, 1, 1, 5)
    masks, label = resolve_targets(logits)
    assert label.dtype == masks.dtype == torch.uint8
    assert label.flatten().tolist() == [0, 1, 2, 1, 0]
    assert masks.reshape(3, 5).tolist() == [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]


def test_more_than_255_targets_need_16_bits() -> None:
    logits = -torch.ones(300, 1, 1, 2)
    logits[299] = 1
    masks, label = resolve_targets(logits)
    assert label.dtype == torch.uint16
    assert label.numpy().tolist() == [[[[300, 300]]]]
    assert masks.sum() == 2


@pytest.mark.parametrize("stored", STORED)
def test_masks_come_back_on_the_voxels_of_the_stored_image(stored: str, tmp_path: Path) -> None:
    affine, shape = STORED[stored]
    values = scan(tmp_path / "ct.nii.gz", affine, shape)
    _, summary = written(prepared(tmp_path / "ct.nii.gz", [{"text": "liver"}], [0.5]), tmp_path / "out")
    expected = normalise_foreground(torch.from_numpy(values)[None])[0].numpy() > 0.5
    image = nib.load(tmp_path / "ct.nii.gz")
    for name in ("ct_seg", "ct_liver"):
        result = nib.load(tmp_path / "out" / "ct" / f"{name}.nii.gz")
        assert result.shape == shape
        np.testing.assert_array_equal(result.affine, image.affine)
        np.testing.assert_array_equal(np.asarray(result.dataobj), expected)
    assert summary["shape"] == list(shape)
    assert summary["affine"] == image.affine.tolist()


def test_files_are_label_map_masks_preview_and_json(case: tuple[dict, Compose], tmp_path: Path) -> None:
    done, summary = written(case, tmp_path / "out")
    names = ["ct___frac____L_sion.nii.gz", "ct_liver.nii.gz", "ct_nothing.nii.gz", "ct_preview.png"]
    assert summary["files"] == [*names, "ct_seg.nii.gz", "ct_seg.json"]
    assert done["files"] == [str(tmp_path / "out" / "ct" / name) for name in summary["files"]]
    assert {path.name for path in (tmp_path / "out" / "ct").iterdir()} == set(summary["files"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ct"]
    with Image.open(tmp_path / "out" / "ct" / "ct_preview.png") as picture:
        assert picture.size[0] == 1500


def test_volumes_are_small_integers_in_mm_that_every_viewer_places(case: tuple[dict, Compose], tmp_path: Path) -> None:
    written(case, tmp_path)
    for name in ("ct_seg", "ct_liver"):
        volume = nib.load(tmp_path / "ct" / f"{name}.nii.gz")
        assert volume.get_data_dtype() == np.uint8
        assert volume.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(volume.get_sform(coded=True)[0], volume.get_qform(coded=True)[0], atol=1e-4)
    label = np.asarray(nib.load(tmp_path / "ct" / "ct_seg.nii.gz").dataobj)
    assert set(np.unique(label)) == {0, 1}, "the first target's logit is the higher one wherever both are on"


def test_the_json_describes_every_target_by_its_own_mask(case: tuple[dict, Compose], tmp_path: Path) -> None:
    _, summary = written(case, tmp_path)
    affine = np.array(summary["affine"])
    for target in summary["targets"]:
        mask = np.asarray(nib.load(tmp_path / "ct" / target["file"]).dataobj)
        assert target["voxels"] == np.count_nonzero(mask)
        assert target["ml"] == pytest.approx(target["voxels"] * np.prod(SPACING) / 1000)
        assert target["empty"] == (target["voxels"] == 0)
    liver, lesion, nothing = summary["targets"]
    assert (liver["value"], liver["text"], liver["encoded_text"], lesion["text"]) == (1, "liver", "liver", None)
    where = np.argwhere(np.asarray(nib.load(tmp_path / "ct" / lesion["file"]).dataobj))
    assert lesion["bounding_box"] == [*where.min(axis=0), *where.max(axis=0)]
    assert (nothing["voxels"], nothing["bounding_box"], nothing["windows"]) == (0, None, 2)
    voxel, ras = lesion["prompts"]["voxel"], lesion["prompts"]["ras"]
    assert (voxel["points"], voxel["point_labels"], voxel["box"]) == (
        [[5, 6, 4], [6, 6, 4]],
        [1, 0],
        [2, 3, 2, 8, 9, 6],
    )
    np.testing.assert_allclose(ras["points"], nib.affines.apply_affine(affine, voxel["points"]), atol=1e-3)
    corners = nib.affines.apply_affine(affine, [voxel["box"][:3], voxel["box"][3:]])
    np.testing.assert_allclose(ras["box"], [*corners.min(axis=0), *corners.max(axis=0)], atol=1e-3)


def test_the_json_says_what_made_the_result(case: tuple[dict, Compose], tmp_path: Path) -> None:
    _, summary = written(case, tmp_path / "out")
    assert summary["image"] == str(tmp_path / "ct.nii.gz")
    assert summary["model"] == {"name": "SegVol", "size": "small", "weights": "small.pt", "sha256": "1a2b3c4d" * 8}
    assert (summary["mode"], summary["encoder_runs"], summary["decoder_runs"]) == ("zoom", 3, 7)
    assert list(summary["seconds"]) == ["load", "encode", "decode", "write"]
    assert summary["version"] == json.loads((BUNDLE / "configs" / "metadata.json").read_text())["version"]
    np.testing.assert_allclose(summary["spacing_mm"], SPACING, atol=1e-5)


def test_the_logits_are_let_go_but_masks_stay(case: tuple[dict, Compose], tmp_path: Path) -> None:
    done, _ = written(case, tmp_path)
    assert done["pred"] is None
    assert done["masks"].shape == (3, 12, 14, 9)
    assert done["label"].shape == (1, 12, 14, 9)


def test_one_line_names_the_files_and_one_what_was_not_found(
    case: tuple[dict, Compose], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="scripts.results.save"):
        written(case, tmp_path)
    warning, info = caplog.records
    assert (warning.levelname, info.levelname) == ("WARNING", "INFO")
    assert "'nothing'" in warning.message
    assert str(tmp_path / "ct" / "ct_seg.json") in info.message


def test_a_former_result_is_replaced_and_what_a_user_put_beside_it_stays(
    case: tuple[dict, Compose], tmp_path: Path
) -> None:
    data, before = case
    written((data | {"prompts": [Prompt("old"), *data["prompts"][1:]]}, before), tmp_path)
    (tmp_path / "ct" / "notes.txt").write_text("mine")
    assert (tmp_path / "ct" / "ct_old.nii.gz").exists()
    _, summary = written(case, tmp_path)
    assert {path.name for path in (tmp_path / "ct").iterdir()} == {*summary["files"], "notes.txt"}


@pytest.mark.parametrize(
    "listing", ["no json", "[]", '{"files": 3}', '{"files": ["../keep", "/etc/hosts", "keep", 7]}']
)
def test_a_former_listing_can_remove_nothing_but_files_of_its_case(listing: str, tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("x")
    folder = tmp_path / "ct"
    folder.mkdir()
    (folder / "keep").write_text("x")
    (folder / "ct_seg.json").write_text(listing)
    with staged(folder, "ct_seg.json") as part:
        (part / "ct_seg.json").write_text("{}")
    assert (tmp_path / "keep").exists()
    assert (folder / "keep").exists()
    assert (folder / "ct_seg.json").read_text() == "{}"


def test_a_failure_leaves_the_former_result_whole_and_nothing_else(
    case: tuple[dict, Compose], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(case, tmp_path / "out")
    former = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save, "draw_preview", fail)
    data, before = case
    end = postprocessing(before, tmp_path / "out").transforms[-1]
    restored = Compose(postprocessing(before, tmp_path / "out").transforms[:-1])(dict(data))
    with pytest.raises(ValueError, match="^output_dir: .*No space left on device") as raised:
        end(restored)
    assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == former
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ct"]


def test_an_output_dir_that_is_a_file_is_told_in_one_line(case: tuple[dict, Compose], tmp_path: Path) -> None:
    data, before = case
    (tmp_path / "out").write_text("a file")
    steps = postprocessing(before, tmp_path / "out").transforms
    restored = Compose(steps[:-1])(dict(data))
    with pytest.raises(ValueError, match="^output_dir: .* cannot be written"):
        steps[-1](restored)


def test_safe_names_are_plain_short_and_unlike_in_any_case_of_letters() -> None:
    given = [
        "left kidney",
        "Left_Kidney",
        "seg",
        "../../etc",
        ".hidden",
        "肝脏",
        "脾",
        "_",
        "x" * 300,
        "x" * 301,
        "a.b-C",
    ]
    safe = safe_names(given)
    assert safe[:4] == ["left_kidney", "Left_Kidney_2", "seg_2", "_.._etc"]
    assert safe[4:8] == ["hidden", "target_6", "target_7", "target_8"]
    assert safe[8:] == ["x" * 80, "x" * 78 + "_2", "a.b-C"]
    assert len({name.lower() for name in safe}) == len(safe)


def test_a_thousand_equal_names_stay_apart() -> None:
    safe = safe_names(["X" * 200] * 1000)
    assert len(set(safe)) == 1000
    assert max(map(len, safe)) <= 80


@pytest.mark.parametrize("name", ["ct", "x" * 250, "肝" * 80, "caf\udce9", "\udce9"])
def test_files_of_a_case_with_any_name_fit_into_the_file_system(name: str, tmp_path: Path) -> None:
    stem = case_stem(name)
    assert stem and len(stem.encode()) <= 120
    (tmp_path / f"{stem}_{'x' * 80}.nii.gz").touch()


def test_json_is_strict_readable_and_takes_file_names_that_are_no_text(tmp_path: Path) -> None:
    content = {"a": float("nan"), "b": [1.0, [2, float("inf")]], "image": "caf\udce9 [\n1 ] 肝", "none": []}
    write_json(tmp_path / "x.json", content)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert strict(text) == {"a": None, "b": [1.0, [2, None]], "image": "caf\udce9 [\n1 ] 肝", "none": []}
    assert "[2, null]" in text
    assert "肝" in text


def test_a_sheared_grid_is_described_by_the_sform_alone(tmp_path: Path) -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[0, 1] = 0.5
    write_nifti(tmp_path / "x.nii.gz", np.ones((2, 3, 4), np.uint8), affine)
    volume = nib.load(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(volume.affine, affine)
    assert (int(volume.header["sform_code"]), int(volume.header["qform_code"])) == (1, 0)


def test_targets_of_one_structure_get_different_colors() -> None:
    vocabulary = Vocabulary.load(BUNDLE / "configs" / "vocabulary.json")
    prompts = [Prompt("liver", text="liver"), Prompt("again", text="Hepar"), Prompt("x"), Prompt("x")]
    colors = distinct_colors(prompts, ["liver", "liver", None, None], vocabulary)
    assert colors[0] == vocabulary.color("liver")
    assert len(set(colors)) == 4


def test_an_image_that_was_not_brought_back_is_refused(case: tuple[dict, Compose], tmp_path: Path) -> None:
    data, before = case
    steps = postprocessing(before, tmp_path).transforms
    restored = Compose(steps[:-1])(dict(data))
    with pytest.raises(ValueError, match="Invertd"):
        steps[-1](restored | {"image": data["image"][0]})
    assert not list(tmp_path.glob(".*"))
