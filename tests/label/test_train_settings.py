"""What a request may choose about a training: plain values in closed ranges, and nothing else."""

import pytest
from lib.train_settings import TrainSettings, options, read_settings, refuse_unknown

DEVICES = ["cuda:0", "cpu"]


def test_viewers_see_every_setting_with_its_default():
    shown = options(DEVICES)
    assert shown["device"] == DEVICES and list(shown) == list(vars(TrainSettings("")))
    assert read_settings(shown, DEVICES) == read_settings({}, DEVICES) == TrainSettings("cuda:0")


def test_numbers_may_come_as_texts():
    given = {"max_epochs": "3", "val_split": "0.5", "learning_rate": "1e-4", "views_per_epoch": 8.0, "device": "cpu"}
    assert read_settings(given, DEVICES) == TrainSettings("cpu", 3, 8, 0.5, 1e-4)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_epochs", [0, -1, 1001, 1.5, "ten", "", None, True, [1], {}, "nan", "inf", "1e999", "$1", 10**400]),
        ("views_per_epoch", [0, 3, 100_001, "@x"]),
        ("val_split", [0, 1, -0.1, 1.5, "half", None, False, "nan"]),
        ("learning_rate", [0, -1e-4, 0.01, 1, "fast", None]),
        ("device", ["cuda:1", "meta", 0, None, [], ["meta"], "cpu;touch x", {}]),
    ],
)
def test_a_value_out_of_its_range_is_one_sentence(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} must be ") as caught:
            read_settings({name: value}, DEVICES)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("key", ["train#trainer#max_epochs", "output_dir", "checkpoint", "imports", "x" * 999])
def test_what_is_no_setting_is_refused(key):
    with pytest.raises(ValueError, match="is no setting of a training; it takes device, max_epochs") as caught:
        refuse_unknown({"client_id": "user", key: 1})
    assert len(str(caught.value)) < 250


def test_what_viewers_send_passes():
    refuse_unknown({**options(DEVICES), "client_id": "user"})
