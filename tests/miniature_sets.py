"""One miniature tree for every data set of the paper's Table 4, M3D-Seg and the generic layout: see ``miniature``.

A builder writes below a folder and returns what is to be found: case -> what is in it. Beside the cases lies what the
real downloads also hold, and what must not be taken for one.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from miniature import (
    Grid,
    Scene,
    grid,
    intensities,
    label_map,
    masks,
    scene,
    write,
    write_dicom,
    write_pictures,
)
from scipy import sparse


class Case(NamedTuple):
    """What a case must be read to; the patient is told where one has several cases."""

    scene: Scene
    split: str | None = None
    patient: str | None = None


Tree = dict[str, Case]
Values = Mapping[str, int]


def values(*names: str, first: int = 1) -> dict[str, int]:
    return {name: first + n for n, name in enumerate(names)}


def pair(image: Path, label: Path, given: Values, where: Grid, inside: Mapping[str, str] | None = None) -> Scene:
    """Write an image with its label map, which shows every structure of ``given``."""
    objects = scene(*given, inside=inside)
    write(image, intensities(where.world()), where.affine)
    write(label, label_map(objects, given, where), where.affine)
    return objects


def structures(folder: Path, objects: Scene, files: Mapping[str, str], where: Grid, form: str) -> None:
    """Write a mask file for each structure: what the set calls it -> its name in the scene."""
    found = masks(objects, where.world())
    for file, name in files.items():
        write(folder / form.format(file), found[name].astype(np.uint8), where.affine)


# ---------------------------------------------------------------- one label map for each image


AMOS = values(
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
    *("inferior vena cava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "urinary bladder"),
    "prostate or uterus",
)
BTCV = values(
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
    *("inferior vena cava", "portal vein and splenic vein", "pancreas", "right adrenal gland", "left adrenal gland"),
)
FLARE = values(
    *("liver", "right kidney", "spleen", "pancreas", "aorta", "inferior vena cava", "right adrenal gland"),
    *("left adrenal gland", "gallbladder", "esophagus", "stomach", "duodenum", "left kidney"),
)
WORD = values(
    *("liver", "spleen", "left kidney", "right kidney", "stomach", "gallbladder", "esophagus", "pancreas", "duodenum"),
    *("colon", "intestine", "adrenal gland", "rectum", "urinary bladder", "left femoral head", "right femoral head"),
)


def abdomen_ct_1k(root: Path) -> Tree:
    given = values("liver", "kidney", "spleen", "pancreas")
    tree = {}
    for part, case, axcodes in (("1", "Case_00001", "LAS"), ("3", "Case_01062", "RAS")):
        image = root / f"AbdomenCT-1K-ImagePart{part}" / f"{case}_0000.nii.gz"
        tree[case] = Case(pair(image, root / "Mask" / f"{case}.nii.gz", given, grid(axcodes)))
    return tree


def amos22(root: Path) -> Tree:
    tree = {}
    for part, case, split in (("Tr", "amos_0001", None), ("Va", "amos_0013", "test"), ("Tr", "amos_0507", "MRI")):
        files = [root / "amos22" / f"{kind}{part}" / f"{case}.nii.gz" for kind in ("images", "labels")]
        objects = pair(*files, AMOS, grid("LAS"))
        tree |= {case: Case(objects, split)} if split != "MRI" else {}
    write(root / "amos22" / "imagesTs" / "amos_0002.nii.gz", intensities(grid().world()), grid().affine)
    return tree


def btcv(root: Path) -> Tree:
    home = root / "RawData" / "Training"
    objects = pair(home / "img" / "img0001.nii.gz", home / "label" / "label0001.nii.gz", BTCV, grid("LAS"))
    return {"0001": Case(objects)}


def ct_org(root: Path) -> Tree:
    given = values("liver", "urinary bladder", "lung", "kidney", "bone", "brain")
    oblique = grid("LPS", tilt=17)
    first = pair(root / "volume-0.nii.gz", root / "labels-0.nii.gz", given, oblique)
    other = pair(root / "volume-139.nii.gz", root / "labels-139.nii.gz", given, grid("LAS"))
    (root / "README.txt").write_text("CT-ORG")
    return {"0": Case(first, "test"), "139": Case(other)}


def flare22(root: Path) -> Tree:
    home = root / "Training" / "FLARE22_LabeledCase50"
    image, label = home / "images" / "FLARE22_Tr_0001_0000.nii.gz", home / "labels" / "FLARE22_Tr_0001.nii.gz"
    return {"FLARE22_Tr_0001": Case(pair(image, label, FLARE, grid("LPS")))}


def kipa22(root: Path) -> Tree:
    given = values("renal vein", "kidney", "renal artery", "kidney tumor")
    home = root / "train"
    objects = pair(home / "image" / "12.nii.gz", home / "label" / "12.nii.gz", given, grid("LPS"))
    return {"12": Case(objects)}


def kits19(root: Path) -> Tree:
    """Slices are the first axis: the voxels run to the feet, to the back and to the left."""
    inside = {"kidney tumor": "kidney"}
    home = root / "data" / "case_00012"
    given = values("kidney", "kidney tumor")
    objects = pair(home / "imaging.nii.gz", home / "segmentation.nii.gz", given, grid("IPL"), inside)
    write(root / "data" / "case_00233" / "imaging.nii.gz", intensities(grid().world()), grid().affine)
    (root / "data" / "kits.json").write_text("[]")
    return {"case_00012": Case(objects)}


def kits23(root: Path) -> Tree:
    given = values("kidney", "kidney tumor", "kidney cyst")
    home = root / "dataset" / "case_00588"
    inside = {"kidney tumor": "kidney"}
    objects = pair(home / "imaging.nii.gz", home / "segmentation.nii.gz", given, grid("IPL"), inside)
    tumor = masks(objects, grid("IPL").world())["kidney tumor"].astype(np.uint8)
    write(home / "instances" / "tumor_instance-1_annotation-1.nii.gz", tumor, grid("IPL").affine)
    return {"case_00588": Case(objects)}


def luna16(root: Path) -> Tree:
    uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.105756658031515062000744821260"
    given = values("left lung", "right lung", "trachea", first=3)
    objects = pair(root / "subset0" / f"{uid}.mhd", root / "seg-lungs-LUNA16" / f"{uid}.mhd", given, grid("LPS"))
    (root / "annotations.csv").write_text("seriesuid\n")
    return {uid: Case(objects)}


def decathlon(task: str, case: str, given: Values, inside: Mapping[str, str] | None = None) -> Callable[[Path], Tree]:
    def build(root: Path) -> Tree:
        home = root / task
        images = [home / kind / f"{case}.nii.gz" for kind in ("imagesTr", "labelsTr")]
        objects = pair(*images, given, grid("RAS"), inside)
        (home / "imagesTr" / f"._{case}.nii.gz").write_bytes(b"what macOS leaves in an archive")
        write(home / "imagesTs" / f"{case[:-1]}9.nii.gz", intensities(grid().world()), grid().affine)
        (home / "dataset.json").write_text("{}")
        return {case: Case(objects)}

    return build


def segthor(root: Path) -> Tree:
    given = values("esophagus", "heart", "trachea", "aorta")
    home = root / "train" / "Patient_01"
    objects = pair(home / "Patient_01.nii.gz", home / "GT.nii.gz", given, grid("LAS"))
    return {"Patient_01": Case(objects, "test")}


def sliver07(root: Path) -> Tree:
    home = root / "training"
    objects = pair(home / "liver-orig001.mhd", home / "liver-seg001.mhd", values("liver"), grid("LPS"))
    return {"001": Case(objects)}


def verse(archive: str) -> Callable[[Path], Tree]:
    """Two scans of one patient, as some have."""
    given = values("vertebrae T12", "vertebrae L1", "vertebrae L2", first=19) | {"vertebrae T13": 28}

    def build(root: Path) -> Tree:
        tree = {}
        for scan in ("", "_split-verse253"):
            stem = f"sub-verse401{scan}"
            image = root / archive / "rawdata" / "sub-verse401" / f"{stem}_ct.nii.gz"
            label = root / archive / "derivatives" / "sub-verse401" / f"{stem}_seg-vert_msk.nii.gz"
            tree[stem] = Case(pair(image, label, given, grid("PIR")), patient="sub-verse401")
            (label.parent / f"{stem}_seg-subreg_ctd.json").write_text("[]")
        return tree

    return build


def word(root: Path) -> Tree:
    home = root / "WORD-V0.1.0"
    tree = {}
    for part, case, split in (
        ("Tr", "word_0002", None),
        ("Val", "word_0001", "validation"),
        ("Ts", "word_0014", "test"),
    ):
        files = [home / f"{kind}{part}" / f"{case}.nii.gz" for kind in ("images", "labels")]
        tree[case] = Case(pair(*files, WORD, grid("RAS")), split)
    return tree


# ---------------------------------------------------------------- a file or folder for each structure, raters


def ircadb(root: Path) -> Tree:
    """DICOM without endings; masks may be 0 and 255 or, where the CT's rescaling was kept, -1024 and -769."""
    files = {
        "liver": "liver",
        "livertumor01": "liver tumor",
        "livertumor02": "liver tumor#2",
        "leftkidney": "left kidney",
        "rightkidney": "right kidney",
        "venacava": "vena cava",
        "bone": "bone",
    }
    within = {"liver tumor": "liver", "liver tumor#2": "bone"}
    objects = scene("liver", "bone", "liver tumor", "liver tumor#2", *list(files.values())[3:6], inside=within)
    where = grid("LPI")
    home = root / "3Dircadb1.1"
    write_dicom(home / "PATIENT_DICOM", intensities(where.world()), where.affine, "image_{}".format)
    for file, name in files.items():
        mask = masks(objects, where.world())[name].astype(np.int16) * 255
        shifted = mask - 1024 if file == "venacava" else mask
        write_dicom(home / "MASKS_DICOM" / file, shifted, where.affine, "image_{}".format)
    (home / "MESHES_VTK").mkdir()
    (home / "MESHES_VTK" / "liver.vtk").write_text("# vtk")
    return {"1": Case(objects)}


def chaos(root: Path) -> Tree:
    """The first file of each kind is the slice nearest to the head."""
    objects, where = scene("liver"), grid("LPI")
    home = root / "Train_Sets" / "CT" / "1"
    mask = masks(objects, where.world())["liver"]
    write_dicom(home / "DICOM_anon", intensities(where.world()), where.affine, "i{:04d},0000b.dcm".format)
    write_pictures(home / "Ground", mask, "liver_GT_{:03d}.png".format)
    other = root / "Train_Sets" / "MR" / "1" / "T2SPIR"
    write_dicom(other / "DICOM_anon", intensities(where.world()), where.affine, "IMG-0002-{:05d}.dcm".format)
    write_pictures(other / "Ground", mask, "IMG-0002-{:05d}.png".format)
    return {"1": Case(objects)}


def han_seg(root: Path) -> Tree:
    """Segmentations of 3D Slicer, one of them cut to what is not empty."""
    files = {
        "A_Carotid_L": "left carotid artery",
        "A_Carotid_R": "right carotid artery",
        "Bone_Mandible": "mandible",
        "Brainstem": "brainstem",
        "Cavity_Oral": "oral cavity",
        "Eye_AL": "left anterior eyeball",
        "Eye_PR": "right posterior eyeball",
        "Glnd_Submand_L": "left submandibular gland",
        "OpticNrv_R": "right optic nerve",
        "Parotid_L": "left parotid gland",
        "SpinalCord": "spinal cord",
    }
    objects, where = scene(*files.values()), grid("LPS")
    home = root / "HaN-Seg" / "set_1" / "case_01"
    write(home / "case_01_IMG_CT.nrrd", intensities(where.world()), where.affine)
    write(home / "case_01_IMG_MR_T1.nrrd", intensities(where.world())[::2], where.affine)
    structures(home, objects, files, where, "case_01_OAR_{}.seg.nrrd")
    mask = masks(objects, where.world())["brainstem"]
    start = np.argwhere(mask).min(axis=0)
    cut = where.affine.copy()
    cut[:3, 3] += cut[:3, :3] @ start
    box = tuple(slice(a, b + 1) for a, b in zip(start, np.argwhere(mask).max(axis=0), strict=True))
    write(home / "case_01_OAR_Brainstem.seg.nrrd", mask[box].astype(np.uint8), cut)
    return {"case_01": Case(objects)}


def pancreas_ct(root: Path) -> Tree:
    """DICOM with slices from the head down, and a label whose rows run to the front."""
    objects, where, stored = scene("pancreas"), grid("LPI"), grid("LAS")
    series = root / "Pancreas-CT" / "PANCREAS_0001" / "11-24-2015-PANCREAS0001-Pancreas-18957" / "Pancreas-99667"
    write_dicom(series, intensities(where.world()), where.affine, lambda k: f"1-{k + 1:03d}.dcm")
    label = label_map(objects, {"pancreas": 1}, stored)
    write(root / "TCIA_pancreas_labels-02-05-2017" / "label0001.nii.gz", label, stored.affine)
    return {"0001": Case(objects)}


def qubiq(root: Path) -> Tree:
    """Raters that agree on a half or more; the kidneys are single slices without a third axis."""
    home = root / "training_data_v3_QC"
    tree = {}
    for task, case, name, raters in (
        ("pancreas", "case1-1", "pancreas", 2),
        ("pancreatic-lesion", "case1-1", "pancreas lesion", 2),
    ):
        where, objects = grid("RAS"), scene(name)
        folder = home / task / "Training" / case
        write(folder / "image.nii.gz", intensities(where.world()), where.affine)
        _raters(folder, masks(objects, where.world())[name], where.affine, raters)
        tree[f"{task}_Training_{case}"] = Case(objects)
    for case in ("case01", "case02"):
        objects, folder = scene("kidney"), home / "kidney" / "Training" / case
        flat = grid("RAS")
        middle = int(np.rint((objects["kidney"][0][2] - flat.affine[2, 3]) / flat.affine[2, 2]))
        affine = flat.affine.copy()
        affine[2, 3] += affine[2, 2] * middle
        write(folder / "image.nii.gz", intensities(flat.world())[:, :, middle], affine)
        _raters(folder, masks(objects, flat.world())["kidney"][:, :, middle], affine, 3)
        tree[f"kidney_Training_{case}"] = Case(objects)
    brain = home / "brain-growth" / "Training" / "case01"
    write(brain / "image.nii.gz", intensities(grid().world()), grid().affine)
    _raters(brain, intensities(grid().world()) > 100, grid().affine, 2)
    return tree


def _raters(folder: Path, mask: np.ndarray, affine: np.ndarray, count: int) -> None:
    """The first half and one more draw the truth; the others draw too much of it, each elsewhere."""
    for rater in range(count):
        drawn = mask.astype(np.uint8)
        if rater > 0 and count > 2 and rater == count - 1:
            drawn[:3] = 1
        write(folder / f"task01_seg{rater + 1:02d}.nii.gz", drawn, affine)


def totalsegmentator(root: Path) -> Tree:
    files = {
        "kidney_left": "left kidney",
        "kidney_right": "right kidney",
        "iliac_vena_left": "left iliac vein",
        "lung_lower_lobe_right": "right lung lower lobe",
        "autochthon_left": "left autochthon",
        "clavicula_right": "right clavicle",
        "vertebrae_L4": "vertebrae L4",
        "urinary_bladder": "urinary bladder",
        "portal_vein_and_splenic_vein": "portal vein and splenic vein",
    }
    tree = {}
    for case, axcodes in (("s0000", "RAS"), ("s0864", "LAS")):
        objects, where = scene(*files.values()), grid(axcodes)
        home = root / "Totalsegmentator_dataset" / case
        write(home / "ct.nii.gz", intensities(where.world()), where.affine)
        structures(home / "segmentations", objects, files, where, "{}.nii.gz")
        tree[case] = Case(objects)
    (root / "Totalsegmentator_dataset" / "meta.csv").write_text("image_id\n")
    return tree


def uls23(root: Path) -> Tree:
    """Cut-outs around one lesion, stored with a fourth axis."""
    tree = {}
    for part, case, name, patient in (
        ("DeepLesion3D", "000001_01_01_103-115_lesion_0", "lesion", "000001"),
        ("Radboudumc_Bone", "bone_1_lesion_01", "bone lesion", "bone_1"),
        ("Radboudumc_Pancreas", "diag_pancreas_003_lesion_01", "pancreas lesion", "diag_pancreas_003"),
    ):
        objects, where = scene(name), grid("LPS")
        home = root / "novel_data" / f"ULS23_{part}"
        write(home / "images" / f"{case}.nii.gz", intensities(where.world())[..., None], where.affine)
        write(home / "labels" / f"{case}.nii.gz", label_map(objects, {name: 1}, where)[..., None], where.affine)
        tree[case] = Case(objects, "test", patient)
    return tree


# ---------------------------------------------------------------- the processed release, and the generic layout


def m3d_seg(root: Path) -> Tree:
    """Masks that overlap, as CSR rows; each entry of the list names the folder of its set."""
    names = {"1": "liver", "2": "liver tumor", "3": "left kidney"}
    tree = {}
    listed: dict[str, list] = {"train": [], "test": []}
    for case, split in (("1", "train"), ("14", "test")):
        objects = scene("liver", "liver tumor", "left kidney", inside={"liver tumor": "liver"})
        where = grid("SAR")  # the axes of (D, H, W)
        shape = (3, *where.shape)
        mask = np.stack([masks(objects, where.world())[name] for name in names.values()])
        home = root / "0003" / case
        home.mkdir(parents=True)
        np.save(home / "image.npy", normalised(where)[None])
        sparse.save_npz(home / f"mask_{shape}.npz", sparse.csr_matrix(mask.reshape(3, -1)))
        listed[split].append({"image": f"0003/{case}/image.npy", "label": f"0003/{case}/mask_{shape}.npz"})
        tree[f"0003_{case}"] = Case(objects, None if split == "train" else split)
    content = {"name": "tiny", "labels": {"0": "background", **names}, "numTrain": 1, "numTest": 1, **listed}
    (root / "0003" / "0003.json").write_text(json.dumps(content))
    return tree


def normalised(where: Grid) -> np.ndarray:
    ramp = intensities(where.world()).astype(np.float32)
    return (ramp - ramp.min()) / np.ptp(ramp)


def generic(root: Path) -> Tree:
    """NIfTI with _0000 behind the name, NRRD with a .seg.nrrd, MHD, and a DICOM series."""
    given = values("liver", "left kidney", "my own structure") | {"shape 7": 7}
    tree = {}
    for image, label, axcodes in (
        ("p1_0000.nii.gz", "p1.nii.gz", "LAS"),
        ("p2.nrrd", "p2.seg.nrrd", "LPS"),
        ("p3.mhd", "p3.nii.gz", "PIR"),
    ):
        objects = pair(root / "images" / image, root / "labels" / label, given, grid(axcodes))
        tree[label.split(".")[0]] = Case(objects)
    objects, where = scene(*given), grid("LPI")
    write_dicom(root / "images" / "p4", intensities(where.world()), where.affine, "slice{}.dcm".format)
    write(root / "labels" / "p4.nii.gz", label_map(objects, given, grid("RAS")), grid("RAS").affine)
    names = {"1": "Liver", "2": "kidney_left", "3": "my own structure", "7": None}
    (root / "labels.json").write_text(json.dumps(names))
    return tree | {"p4": Case(objects)}


SETS: dict[str, Callable[[Path], Tree]] = {
    "3D-IRCADb": ircadb,
    "AbdomenCT-1k": abdomen_ct_1k,
    "AMOS22": amos22,
    "BTCV": btcv,
    "CHAOS": chaos,
    "CT-ORG": ct_org,
    "FLARE22": flare22,
    "HaN-Seg": han_seg,
    "KiPA22": kipa22,
    "KiTS19": kits19,
    "KiTS23": kits23,
    "LUNA16": luna16,
    "MSD-Colon": decathlon("Task10_Colon", "colon_001", {"colon tumor": 1}),
    "MSD-HepaticVessel": decathlon(
        "Task08_HepaticVessel", "hepaticvessel_001", values("hepatic vessel", "liver tumor")
    ),
    "MSD-Liver": decathlon("Task03_Liver", "liver_0", values("liver", "liver tumor"), {"liver tumor": "liver"}),
    "MSD-lung": decathlon("Task06_Lung", "lung_001", {"lung tumor": 1}),
    "MSD-pancreas": decathlon("Task07_Pancreas", "pancreas_001", values("pancreas", "pancreas tumor")),
    "MSD-spleen": decathlon("Task09_Spleen", "spleen_2", {"spleen": 1}),
    "Pancreas-CT": pancreas_ct,
    "QUBIQ": qubiq,
    "SegTHOR": segthor,
    "SLIVER07": sliver07,
    "TotalSegmentator": totalsegmentator,
    "ULS23": uls23,
    "VerSe19": verse("dataset-verse19training"),
    "VerSe20": verse("dataset-01training"),
    "WORD": word,
}
