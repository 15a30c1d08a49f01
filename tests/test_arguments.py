"""Mistakes on the command line are told before anything is built, and nothing that is right is refused."""

import json
import sys
from pathlib import Path

import pytest
from scripts.arguments import (
    as_flag,
    as_path,
    check_arguments,
    check_device,
    check_keys,
    exit_on_error,
    one_of,
)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "inference.json"
    content = {"image": None, "output_dir": "out", "mode": "zoom", "dataset": {"cases": []}, "run": []}
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def overlay(tmp_path: Path) -> str:
    path = tmp_path / "overlay.json"
    path.write_text(json.dumps({"checkpoint": "small.pt", "dataset#progress": True}))
    return str(path)


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "words",
    [
        ["--imgae", "ct.nii"],
        ["--imgae=ct.nii"],
        ["-imgae", "ct.nii"],
        ["-imgae=ct.nii"],
        ["--imgae"],
        ["--image", "ct.nii", "--imgae", "ct.nii"],
        ["--imgae=a=b\nc"],
        ["--imgae#cases", "x"],
        ["--imgae::cases=x"],
    ],
)
def test_a_mistyped_key_is_named_with_the_nearest_real_one(words: list[str], config: str):
    key = next(word for word in words if "imgae" in word).lstrip("-").split("=")[0]
    with pytest.raises(ValueError) as caught:
        check_keys(["run", "--config_file", config, *words])
    assert str(caught.value) == f"unknown key --{key}; the nearest that exists is --image"


def test_a_mistyped_key_before_the_config_file_is_found_too(config: str):
    with pytest.raises(ValueError, match="unknown key --outputdir; the nearest that exists is --output_dir"):
        check_keys(["run", "--outputdir", "x", "--config_file", config])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--image", "ct.nii", "--mode=zoom", "-output_dir", "out"],
        ["--output-dir", "out"],
        ["--dataset#cases", "[]"],
        ["--dataset#progress", "true"],
        ["--dataset::cases", "[]"],
        ["--run_id", "run", "--meta_file", "m.json", "--logging_file=l.conf", "--workflow_type", "infer"],
        ["--image", "-5"],
        ["--image", "a b -imgae c"],
        ["--image", "[[-1,2,3]]"],
        ["training", "--image", "x"],
    ],
)
def test_keys_that_exist_pass(words: list[str], config: str):
    check_keys(["run", "--config_file", config, *words])
    check_keys(["run", *words, f"--config_file={config}"])
    check_keys(["run", *words, f"--config-file={config}"])


def test_several_config_files_are_merged(config: str, overlay: str):
    for files in (f"['{config}','{overlay}']", f'["{config}", "{overlay}"]', f"('{config}','{overlay}')"):
        check_keys(["run", "--config_file", files, "--checkpoint", "x", "--image", "y"])
        check_keys(["run", f"--config_file={files}", "--dataset#progress", "false"])
        with pytest.raises(ValueError, match="unknown key --checkpiont; the nearest that exists is --checkpoint"):
            check_keys(["run", "--config_file", files, "--checkpiont", "x"])


def test_a_config_file_may_have_a_comma_in_its_name(config: str):
    path = str(Path(config).rename(Path(config).with_name("my, own.json")))
    check_keys(["run", "--config_file", path, "--image", "x"])


def test_the_real_configs_know_their_own_keys(bundle: Path):
    configs = bundle / "configs"
    files = [str(configs / name) for name in ("inference.json", "batch_inference.json", "small.json")]
    check_keys(["run", "--config_file", str(files), "--cases", "c.csv", "--text", "liver", "--checkpoint", "x"])
    with pytest.raises(ValueError, match="unknown key --cases"):
        check_keys(["run", "--config_file", files[0], "--cases", "c.csv"])


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["-q", "tests", "--imgae"],
        ["run"],
        ["run", "--args_file", "args.json", "--imgae", "x"],
        ["verify_metadata", "--config_file", "none.json", "--imgae", "x"],
        ["ckpt_export", "network_def", "--config_file", "none.json", "--imgae"],
    ],
)
def test_what_is_no_run_of_config_files_is_left_alone(argv: list[str]):
    check_keys(argv)


# ---------------------------------------------------------------- the whole check


def test_a_mistake_ends_the_run_with_its_sentence(config: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "--config_file", config, "--imgae", "x"])
    with pytest.raises(SystemExit, match="^unknown key --imgae"):
        check_arguments()
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "--config_file", config])
    check_arguments({"mode": "zoom", "modes": ["zoom", "published"], "size": "base", "device": "cpu"})
    for name, value, says in (
        ("mode", "zom", "mode is 'zom'; allowed are zoom, fit, published, resize, sliding_window"),
        ("mode", None, "mode is None; allowed are zoom"),
        ("modes", ["zoom", "slide"], "modes is 'slide'; allowed are zoom"),
        ("size", "large", "size is 'large'; allowed are base, small"),
        ("device", "gpu0", "device is 'gpu0', which cannot be used here; 'cpu' always works"),
    ):
        with pytest.raises(SystemExit) as caught:
            check_arguments({name: value})
        assert str(caught.value.code).startswith(says) and "\n" not in str(caught.value.code)


def test_exit_on_error_folds_a_sentence_into_one_line_and_hides_the_cause():
    with pytest.raises(SystemExit) as caught, exit_on_error():
        raise ValueError("two\n   lines")
    assert caught.value.code == "two lines" and caught.value.__suppress_context__
    with pytest.raises(KeyError), exit_on_error():
        raise KeyError("not a user's mistake")


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_device_that_is_there_passes(device: str):
    check_device(device)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", None, 3.5, "cpu:x"])
def test_a_device_that_is_not_there_is_refused(device: object):
    with pytest.raises(ValueError, match="^device is .*'cpu' always works$"):
        check_device(device)


@pytest.mark.parametrize("value", [True, "true", "True", " TRUE "])
def test_a_flag_is_true_as_a_word_too(value: object):
    assert as_flag(value, "published") is True


@pytest.mark.parametrize("value", [False, "false", "False", "FALSE"])
def test_a_flag_is_false_as_a_word_too(value: object):
    assert as_flag(value, "published") is False


@pytest.mark.parametrize("value", [None, 0, 1, "yes", "", []])
def test_a_flag_of_another_word_is_refused(value: object):
    with pytest.raises(ValueError, match="^published is .*; allowed are true and false$"):
        as_flag(value, "published")


def test_a_path_may_be_a_word_a_number_or_absent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert as_path(None, "image") is None
    assert as_path("ct.nii", "image") == Path("ct.nii")
    assert as_path(20240101, "image") == Path("20240101")
    assert as_path("~/ct.nii", "image") == Path("/home/someone/ct.nii")
    assert as_path(Path("a") / "b", "image") == Path("a/b")
    assert as_path("$1 @x", "image") == Path("$1 @x")


@pytest.mark.parametrize("value", [True, False, [], ["a", "b"], ("a", "b"), {"a": 1}, "", "  "])
def test_what_cannot_be_one_path_is_refused(value: object):
    with pytest.raises(ValueError, match="^image is .*; it takes one path$"):
        as_path(value, "image")


def test_the_home_of_nobody_is_refused():
    with pytest.raises(ValueError, match="^image is '~nobody.like.this/ct.nii', and there is no such user$"):
        as_path("~nobody.like.this/ct.nii", "image")


def test_one_of_gives_the_value_back():
    assert one_of("zoom", ("zoom", "resize"), "mode") == "zoom"
    with pytest.raises(ValueError, match="^mode is 3; allowed are zoom, resize$"):
        one_of(3, ("zoom", "resize"), "mode")
    with pytest.raises(ValueError, match=r"^mode is \['zoom'\]; allowed"):
        one_of(["zoom"], ("zoom", "resize"), "mode")
