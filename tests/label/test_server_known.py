"""Whether a store has an image: a folder says so, an archive is given the benefit of the doubt for a proper UID."""

import pytest
from lib.serving.known import has_image
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore


def test_a_folder_has_the_images_that_lie_in_it(tmp_path):
    (tmp_path / "case 1.nii.gz").write_bytes(b"x")
    store = LocalDatastore(str(tmp_path), auto_reload=False)
    assert has_image(store, "case 1")
    assert not has_image(store, "case 2")


@pytest.mark.parametrize(
    ("image", "possible"), [("1.2.840.1", True), ("case 1", False), ("1" * 65, False), ("", False)]
)
def test_an_archive_may_have_any_uid_and_nothing_else(image, possible):
    assert has_image(object.__new__(DICOMWebDatastore), image) is possible
