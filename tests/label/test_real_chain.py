"""The whole chain as a clinic has it: Orthanc, the server, the OHIF that ships with it, a browser, and a mouse.

Screenshots and answers stay in out/ohif. The weights of the demo are small, so a mask is not asked to be good: that of
a click must be the bundle's own for that voxel, and the others must lie on the organ far more than a mask anywhere in
the body would.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk
from dicom_files import copy_series
from numpy.typing import NDArray
from orthanc import Orthanc, free_port, missing, running_orthanc, wait_for
from scipy import ndimage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "out" / "ohif"
CASE = "totalsegmentator/example_ct_dicom"
LABEL = "totalsegmentator/example_seg_dicom.nii.gz"
LIVER, SPLEEN = 5, 1  # values in LABEL
BOX, TEXT = "box (2 corner clicks)", "custom text"
START_S = 1800
ONE_PIXEL = 3  # voxels under one pixel of a viewport that shows 512 of them on some 300 pixels, rounded up
ROUNDED = 0.01  # of a mask may differ, as the archive's way to the image may round
BETTER_THAN_CHANCE = 2.5  # how much denser the organ must be in the mask than in the body

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Chain:
    """What ran, and what came of it: the answers lie in SHOTS under the names of the steps."""

    archive: Orthanc
    truth: NDArray[np.uint8]
    body: Mask
    clicked: tuple[int, int, int]
    labels: dict[str, int]

    def mask(self, step: str) -> NDArray[np.uint8]:
        """The label map of an answer, (slice, row, column)."""
        answer = sitk.ReadImage(str(SHOTS / f"{step}.nrrd"))
        assert answer.GetSize()[::-1] == self.truth.shape
        return sitk.GetArrayFromImage(answer)

    def sent(self, step: str) -> dict[str, Any]:
        """The parameters that the viewer sent."""
        return dict(json.loads((SHOTS / f"{step}.params.json").read_text()))

    def gain(self, mask: Mask, value: int) -> float:
        """How much more of the organ is in the mask than in as many voxels anywhere in the body."""
        organ = self.truth == value
        chance = (organ & self.body).sum() / self.body.sum()
        return float(organ[mask].mean() / chance)


@pytest.fixture(scope="module")
def chain(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Everything runs once; the tests look at what it left."""
    playwright = _needed()
    folder = tmp_path_factory.mktemp("chain")
    shutil.rmtree(SHOTS, ignore_errors=True)
    uids = copy_series(shared / "data" / CASE, folder / "series")
    truth = nib.load(shared / "data" / LABEL)
    with running_orthanc(folder / "orthanc") as archive:
        archive.upload(folder / "series")
        with _running_server(folder, archive) as server:
            labels = _labels(server)
            _drive(folder, playwright, server, uids["StudyInstanceUID"], _steps(truth))
        image = _read_series(folder / "series")
        on_series = sitk.Resample(_as_itk(truth), image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        clicked = image.TransformPhysicalPointToIndex(_inside(truth, LIVER))
        yield Chain(
            archive,
            sitk.GetArrayFromImage(on_series),
            sitk.GetArrayFromImage(image) > -300,
            (clicked[2], clicked[1], clicked[0]),
            labels,
        )


def test_the_click_arrives_on_the_voxel_under_the_mouse(chain):
    ((column, row, slice_),) = chain.sent("click")["foreground"]
    assert slice_ == chain.clicked[0]
    assert np.abs(np.subtract((row, column), chain.clicked[1:])).max() <= ONE_PIXEL


def test_a_click_draws_what_the_bundle_draws_for_that_voxel(chain, shared, engine):
    drawn = chain.mask("click")
    (voxel,) = chain.sent("click")["foreground"]
    target = {"name": "click", "points": [voxel], "point_labels": [1]}
    expected = engine.segment(shared / "data" / CASE, {"coordinates": "voxel", "targets": [target]})
    own = expected.label.transpose(2, 1, 0)
    assert set(np.unique(drawn)) <= {0, 1}
    assert (drawn != own).sum() <= ROUNDED * own.sum()
    assert drawn[tuple(voxel[::-1])] == 1 or expected.messages


def test_a_class_prompt_draws_each_class_with_its_value(chain):
    mask = chain.mask("classes")
    values = {chain.labels["liver"]: LIVER, chain.labels["spleen"]: SPLEEN}
    drawn = set(np.unique(mask)) - {0}
    assert drawn and drawn <= set(values)
    assert all(chain.gain(mask == value, values[value]) > BETTER_THAN_CHANCE for value in drawn)


def test_two_clicks_are_a_box(chain):
    corners = np.asarray(chain.sent("box")["points"])[:, ::-1]
    mask = chain.mask("box") == chain.labels[BOX]
    inside = tuple(slice(*sorted(pair)) for pair in zip(corners.min(axis=0), corners.max(axis=0) + 1, strict=True))
    assert len(corners) == 2 and mask.any()
    assert mask[inside].sum() / mask.sum() > 0.9
    assert chain.gain(mask, LIVER) > BETTER_THAN_CHANCE


def test_free_text_draws_what_it_says(chain):
    assert chain.sent("text")["text_prompt"] == "liver"
    mask = chain.mask("text") == chain.labels[TEXT]
    assert mask.any() and chain.gain(mask, LIVER) > BETTER_THAN_CHANCE


def test_the_mask_saved_by_an_option_is_in_the_archive(chain, tmp_path):
    (content,) = chain.archive.segmentations()
    (tmp_path / "seg.dcm").write_bytes(content)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    described = seg.get_segment_description(1)
    assert described.segmented_property_type.value == "10200004"
    assert described.segment_label == "liver"
    uids = [row[2] for row in seg.get_source_image_uids()]
    planes = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    assert planes.any(axis=(1, 2)).sum() > 1
    assert planes.sum() == (chain.mask("saved") > 0).sum()


def _needed() -> str:
    """The folder of playwright-core; where anything is missing the test skips, and in CI it fails."""
    playwright = os.environ.get("PLAYWRIGHT_CORE", str(ROOT / "out" / "node" / "node_modules" / "playwright-core"))
    lacking = missing()
    for program in ("node", "chromium"):
        lacking = lacking or ("" if shutil.which(program) else f"{program} is not installed")
    if not lacking and not Path(playwright).is_dir():
        lacking = "playwright-core is not installed (npm install --prefix out/node playwright-core)"
    if lacking and os.environ.get("CI"):
        pytest.fail(f"{lacking}, and CI skips nothing")
    if lacking:
        pytest.skip(lacking)
    return playwright


@contextmanager
def _running_server(folder: Path, archive: Orthanc) -> Iterator[str]:
    """The URL of a server, started as `make label` does, with a copy of the app: the server writes into its folder."""
    app, port = folder / "app", free_port()
    shutil.copytree(ROOT / "monailabel_app", app, ignore=shutil.ignore_patterns("logs", "bin", "model", "__pycache__"))
    command = f"-m monailabel.main start_server --app {app} --studies {archive.dicom_web} --uvicorn_app server:app"
    command += f" --host 127.0.0.1 --port {port} --conf size small --conf bundle {ROOT / 'bundle'}"
    places = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache"), "PYTHONPATH": str(app)}
    SHOTS.mkdir(parents=True, exist_ok=True)
    with (SHOTS / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command.split()], env={**os.environ, **places}, cwd=folder, stdout=log, stderr=log
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/info/", process, START_S)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def _labels(server: str) -> dict[str, int]:
    models = requests.get(f"{server}/info/", timeout=120).json()["models"]
    return dict(models["segvol_classes"]["labels"])


def _steps(truth: nib.Nifti1Image) -> list[dict[str, Any]]:
    """What the user does, one after the other."""
    liver = _inside(truth, LIVER)
    points: dict[str, Any] = {"tab": "Point Prompts", "run": "PointPrompts"}
    classes: dict[str, Any] = {"tab": "Class Prompts", "run": "Segmentation VISTA", "model": "segvol_classes"}
    free_text = {"classes": [TEXT], "options": {"text_prompt": "liver"}}
    saved = {"classes": ["liver"], "options": {"text_prompt": "", "save_to_study": True}}
    return [
        {**points, "name": "click", "model": "segvol", "label": "liver", "points": [liver]},
        {**classes, "name": "classes", "classes": ["liver", "spleen"]},
        {**points, "name": "box", "model": "segvol_classes", "label": BOX, "points": _corners(truth, LIVER)},
        {**classes, "name": "text", **free_text},
        {**classes, "name": "saved", **saved},
    ]


def _inside(truth: nib.Nifti1Image, value: int) -> list[float]:
    """The place deepest inside a structure, in LPS mm."""
    depth = ndimage.distance_transform_edt(np.asarray(truth.dataobj) == value, truth.header.get_zooms())
    return _to_lps(truth, np.unravel_index(depth.argmax(), depth.shape))


def _corners(truth: nib.Nifti1Image, value: int) -> list[list[float]]:
    """Two opposite corners of a structure's box, in LPS mm."""
    voxels = np.argwhere(np.asarray(truth.dataobj) == value)
    return [_to_lps(truth, voxels.min(axis=0)), _to_lps(truth, voxels.max(axis=0))]


def _to_lps(image: nib.Nifti1Image, voxel: Any) -> list[float]:
    place = nib.affines.apply_affine(image.affine, np.asarray(voxel)) * [-1, -1, 1]
    return [float(part) for part in place]


def _as_itk(image: nib.Nifti1Image) -> sitk.Image:
    return sitk.ReadImage(image.get_filename())


def _read_series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def _drive(folder: Path, playwright: str, server: str, study: str, steps: list[dict[str, Any]]) -> None:
    job = folder / "job.json"
    viewer = {"url": f"{server}/ohif/monai-label?StudyInstanceUIDs={study}", "server": f"{server}/"}
    tools = {"playwright": playwright, "chromium": shutil.which("chromium"), "out": str(SHOTS)}
    job.write_text(json.dumps({**viewer, **tools, "steps": steps}))
    script = Path(__file__).with_name("ohif.cjs")
    ran = subprocess.run(["node", str(script), str(job)], capture_output=True, text=True, timeout=1800, check=False)
    assert ran.returncode == 0, ran.stderr
