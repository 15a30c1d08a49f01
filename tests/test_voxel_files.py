"""Headers that name other files as their voxels."""

from pathlib import Path

import numpy as np
import pytest
from miniature import grid, write
from scripts.provenance import made_from
from scripts.transforms import load_volume
from scripts.voxel_files import check_voxels_beside, files_of

META = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = {}\n"
NRRD = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n{}\n\n"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("x.mhd", META.format("/etc/passwd")),
        ("x.mha", META.format("../secret.raw")),
        ("x.mhd", META.format("LIST\na.raw\n/etc/passwd")),
        ("x.mhd", META.format("/etc/%d 1 3 1")),
        ("x.mhd", "Comment = " + "a" * (1 << 20) + "\n" + META.format("/etc/passwd")),
        ("x.nrrd", NRRD.format("data file: /etc/passwd")),
        ("x.nrrd", NRRD.format("datafile: LIST\n../a.raw")),
    ],
)
def test_voxels_that_are_named_by_a_path_are_not_read(name, header, tmp_path):
    path = tmp_path / name
    path.write_text(header)
    with pytest.raises(ValueError, match=f"image: .*{name} names its voxels by a path; allowed is a file beside it"):
        load_volume(path)


@pytest.mark.parametrize("name", ["x.raw", "./x.raw", "LOCAL", "LIST\na.raw\nb.raw", "x%03d.raw 1 3 1"])
def test_voxels_beside_their_header_are_allowed(name, tmp_path):
    (tmp_path / "x.mhd").write_text(META.format(name))
    check_voxels_beside(tmp_path / "x.mhd")


@pytest.mark.parametrize("name", ["x.mhd", "x.mha", "x.nrrd"])
def test_what_itk_writes_is_read(name, tmp_path):
    voxels = np.frombuffer(b"\n\ndata file: /a\r\n\r\n" * 9, np.uint8)[:150].reshape(5, 6, 5)
    write(tmp_path / name, voxels, grid().affine)
    np.testing.assert_array_equal(load_volume(tmp_path / name)[0].numpy(), voxels)


def test_the_voxels_of_a_header_count_as_its_state(tmp_path: Path):
    for name in ("x.mhd", "x.raw", "y.raw"):
        (tmp_path / name).write_text(name)
    assert files_of(tmp_path / "x.mhd") == [tmp_path / "x.mhd", tmp_path / "x.raw"]
    first = made_from({"image": tmp_path / "x.mhd"})
    (tmp_path / "x.raw").write_text("others")
    assert made_from({"image": tmp_path / "x.mhd"}) != first
