"""The bundle as the app knows it: its configs' items by id, and one line for a wrong setting."""

import re
import shutil
from pathlib import Path

import pytest
from lib.bundle import MODES, Bundle, first_line

ROOT = Path(__file__).resolve().parents[2]


def test_the_app_knows_the_bundle_by_its_configs_alone():
    files = [path for path in (ROOT / "monailabel_app").rglob("*.py") if path.name != "conftest.py"]
    assert len(files) > 20
    assert not [path.name for path in files if re.search(r"^\s*(from|import) scripts", path.read_text(), re.M)]


def test_a_part_is_built_once(small_bundle):
    assert small_bundle.part("network") is small_bundle.part("network")
    assert small_bundle.part("image_preprocessing") is small_bundle.part("image_preprocessing")


@pytest.mark.parametrize("mode", MODES)
def test_the_inferer_comes_in_every_mode_with_the_networks_window(small_bundle, mode):
    inferer = small_bundle.inferer(mode)
    assert (inferer.mode, inferer.roi_size) == (mode, small_bundle.part("network").window_size)


def test_asking_for_a_mode_first_leaves_the_default_as_it_is():
    bundle = Bundle(ROOT / "bundle")
    assert [bundle.inferer("resize").mode, bundle.part("inferer").mode, bundle.inferer("published").mode] == [
        *("resize", "zoom", "published")
    ]


def test_the_small_network_takes_the_names_it_was_trained_on(small_bundle):
    assert small_bundle.names == tuple(small_bundle.vocabulary.trained("small"))
    assert "liver" in small_bundle.names and len(small_bundle.names) < len(small_bundle.vocabulary)


def test_the_base_network_takes_the_whole_vocabulary_and_needs_no_weights_to_say_so():
    base = Bundle(ROOT / "bundle", "base")
    assert base.names == tuple(structure.name for structure in base.vocabulary)
    assert base.weights_file == ROOT / "bundle" / "models" / "model.pt"


def test_the_small_weights_lie_in_the_bundle(small_bundle):
    assert small_bundle.weights_file.is_file()
    assert Path(small_bundle.part("weights").path) == small_bundle.weights_file


def test_the_version_is_that_of_the_metadata(small_bundle):
    assert re.fullmatch(r"\d+\.\d+\.\d+", small_bundle.version)


def test_weights_that_are_not_there_are_told_in_one_line_every_time(tmp_path):
    bundle = Bundle(ROOT / "bundle", checkpoint=str(tmp_path / "gone.pt"))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"gone\.pt") as caught:
            bundle.part("weights")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["medium", "", "Small"])
def test_another_size_is_refused(size):
    with pytest.raises(ValueError, match=f"^size is '{size}'; allowed are base, small$"):
        Bundle(ROOT / "bundle", size)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no configs/inference\.json; it must be the folder of the SegVol bundle"):
        Bundle(tmp_path)


def test_a_bundle_without_the_small_overlay_is_refused_only_where_it_is_needed(tmp_path):
    shutil.copytree(ROOT / "bundle" / "configs", tmp_path / "configs")
    (tmp_path / "configs" / "small.json").unlink()
    Bundle(tmp_path, "base")
    with pytest.raises(ValueError, match=r"has no configs/small\.json"):
        Bundle(tmp_path, "small")


@pytest.mark.parametrize("key", ["device", "checkpoint", "tokenizer"])
@pytest.mark.parametrize("sign", ["$", "@", "%"])
def test_a_setting_that_a_config_would_evaluate_is_refused(key, sign):
    with pytest.raises(ValueError, match=rf"^{key} is .*; it must not start with \$, @ or %$"):
        Bundle(ROOT / "bundle", **{key: f"{sign}import os"})


def raised(error: Exception, *causes: Exception) -> Exception:
    """An error with a chain of causes under it."""
    for upper, lower in zip((error, *causes), causes, strict=False):
        upper.__cause__ = lower
    return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("points: wrong"), "points: wrong"),
        (raised(RuntimeError("applying transform"), ValueError("points: wrong")), "points: wrong"),
        (raised(RuntimeError("a"), ValueError("points: wrong"), OSError("disk")), "points: wrong"),
        (raised(RuntimeError("a"), OSError("disk\n full")), "disk full"),
        (ValueError("two\n lines "), "two lines"),
    ],
)
def test_the_users_sentence_is_that_of_the_first_value_error(error, sentence):
    assert first_line(error) == sentence
