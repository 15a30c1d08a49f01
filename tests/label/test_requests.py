"""Requests: the real payloads of both viewers, every rule of theirs, the full schema, and nothing but two outcomes."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lib.requests import BOX_LABEL, TEXT_LABEL, BadRequest, Job, ModelSpec, read_request
from scripts.prompts import parse_document

LABELS = {"bright": 1, "dark": 2, "mid": 7, BOX_LABEL: 8, TEXT_LABEL: 9}
BOX_CLASS, TEXT_CLASS = LABELS[BOX_LABEL], LABELS[TEXT_LABEL]
MODES = ("zoom-out-zoom-in", "zoom-out")
SEGVOL = ModelSpec("deepgrow", {}, (), MODES)
CLASSES = ModelSpec("vista3d", LABELS, (), MODES)
TEXT = ModelSpec("segmentation", {"bright": 1, "dark": 2, "mid": 7}, ("bright", "mid"), MODES)
MODELS = (SEGVOL, CLASSES, TEXT)

POINT, OTHER = [20, 18, 11], [38, 32, 11]
ROI_BOX = [30, 25, 8, 60, 50, 22]

# payload: the model it was sent to, then (targets, values, names, used, ignored) or a part of the refusal
OHIF: dict[str, tuple[ModelSpec, Any]] = {
    "deepgrow_points": (
        SEGVOL,
        ([{"points": [POINT, OTHER], "point_labels": [1, 0]}], (1,), ("target",), ("2 points",), ()),
    ),
    "deepgrow_no_points": (SEGVOL, "nothing to go by: set a point, draw a box or fill in text_prompt"),
    "vista_points": (
        CLASSES,
        (
            [{"text": "bright", "points": [POINT, OTHER], "point_labels": [1, 0]}],
            (1,),
            ("bright",),
            ("2 points", "text 'bright'"),
            (),
        ),
    ),
    "vista_background_row": (CLASSES, "points: all of them are background"),
    "deepedit_points": (SEGVOL, "points: all of them are background"),
    "class_prompt": (
        CLASSES,
        ([{"text": "bright"}, {"text": "mid"}], (1, 7), ("bright", "mid"), ("text 'bright'", "text 'mid'"), ()),
    ),
    "class_prompt_option_text_no_class": (
        CLASSES,
        ([{"text": "left kidney"}], (9,), ("left kidney",), ("text 'left kidney'",), ()),
    ),
    "class_prompt_stale_points": (
        CLASSES,
        (
            [{"text": "dark", "points": [POINT], "point_labels": [1]}],
            (2,),
            ("dark",),
            ("1 point", "text 'dark'"),
            ("text_prompt: it counts only for the class 'custom text' or where no class is chosen",),
        ),
    ),
    "auto_vista": (
        CLASSES,
        (
            [{"text": "bright"}, {"text": "dark"}, {"text": "mid"}],
            (1, 2, 7),
            ("bright", "dark", "mid"),
            ("text 'bright'", "text 'dark'", "text 'mid'"),
            ("text_prompt: it counts only for the class 'custom text' or where no class is chosen",),
        ),
    ),
    "auto_segmentation": (
        TEXT,
        ([{"text": "bright"}, {"text": "mid"}], (1, 7), ("bright", "mid"), ("text 'bright'", "text 'mid'"), ()),
    ),
}
SLICER: dict[str, tuple[ModelSpec, Any]] = {
    "deepgrow_point": (
        SEGVOL,
        ([{"points": [[20, 18, 8]], "point_labels": [1]}], (1,), ("bright",), ("1 point",), ()),
    ),
    "deepgrow_roi": (SEGVOL, ([{"box": ROI_BOX}], (1,), ("bright",), ("box",), ())),
    "deepgrow_point_and_roi": (
        SEGVOL,
        (
            [{"points": [[20, 18, 8]], "point_labels": [1], "box": ROI_BOX}],
            (1,),
            ("bright",),
            ("1 point", "box"),
            (),
        ),
    ),
    "deepgrow_label_only": (SEGVOL, "or switch on use_segment_name to ask by the segment's name"),
    "deepedit": (SEGVOL, "nothing to go by"),
    "auto_segmentation": (
        TEXT,
        ([{"text": "bright"}, {"text": "mid"}], (1, 7), ("bright", "mid"), ("text 'bright'", "text 'mid'"), ()),
    ),
}
PAYLOADS = [("ohif", name) for name in OHIF] + [("slicer", name) for name in SLICER]


@pytest.fixture(scope="module")
def captured(shared: Path) -> dict[str, Any]:
    """The params that the unmodified clients sent."""
    return json.loads((shared / "clients" / "requests.json").read_text())


@pytest.mark.parametrize(("client", "name"), PAYLOADS, ids=[f"{client}-{name}" for client, name in PAYLOADS])
def test_a_captured_payload_becomes_exactly_this_job(captured: dict[str, Any], client: str, name: str) -> None:
    model, expected = (OHIF if client == "ohif" else SLICER)[name]
    params = {**captured[client][name], **(captured["ohif_suffix"] if client == "ohif" else {})}
    if isinstance(expected, str):
        with pytest.raises(BadRequest) as caught:
            read_request(params, model)
        assert expected in str(caught.value)
        return
    targets, values, names, used, ignored = expected
    job = read_request(params, model)
    assert job == Job(
        document={"coordinates": "voxel", "targets": targets},
        values=values,
        names=names,
        mode=None,
        refine=False,
        undo=0,
        client="user-xyz" if client == "slicer" else "",
        save_to_study=False,
        used=used,
        ignored=ignored,
    )
    assert len(parse_document(job.document).targets) == len(targets)


def test_every_captured_payload_has_its_expectation(captured: dict[str, Any]) -> None:
    assert set(captured["ohif"]) == set(OHIF)
    assert set(captured["slicer"]) == set(SLICER)


@pytest.mark.parametrize("client", ["ohif", "slicer"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_a_captured_payload_at_the_wrong_model_gets_a_job_or_one_sentence(
    captured: dict[str, Any], client: str, model: ModelSpec
) -> None:
    outcomes = [outcome(params, model) for params in captured[client].values()]
    assert all(isinstance(each, Job) or "\n" not in each for each in outcomes)


def outcome(params: Any, model: ModelSpec) -> Job | str:
    try:
        return read_request(params, model)
    except BadRequest as error:
        return str(error)


def refusal(params: Any, model: ModelSpec) -> str:
    with pytest.raises(BadRequest) as caught:
        read_request(params, model)
    return str(caught.value)


def target(params: dict[str, Any], model: ModelSpec) -> dict[str, Any]:
    job = read_request(params, model)
    assert job.document["coordinates"] == "voxel"
    assert len(parse_document(job.document).targets) == 1
    return job.document["targets"][0]


# deepgrow


@pytest.mark.parametrize("empty", [None, [], ""])
def test_empty_fields_are_absent(empty: Any) -> None:
    keys = ["background", "roi", "box", "text_prompt", "label", "points", "text", "coordinates", "mode", "refine"]
    params = {"foreground": [POINT], **dict.fromkeys([*keys, "undo", "client_id", "point_labels"], empty)}
    assert target(params, SEGVOL) == {"points": [POINT], "point_labels": [1]}


@pytest.mark.parametrize("roi", [[60, 30, 50, 25, 8, 22], [30, 60, 25, 50, 22, 8], [60, 30, 25, 50, 8, 22]])
def test_a_roi_is_the_same_box_in_any_order_of_its_pairs(roi: list[int]) -> None:
    assert target({"roi": roi}, SEGVOL) == {"box": ROI_BOX}


@pytest.mark.parametrize(
    "box",
    ["30,25,8,60,50,22", "30 25 8 60 50 22", " [30, 25, 8, 60, 50, 22] ", "(30; 25; 8) (60; 50; 22)", ROI_BOX],
)
def test_the_box_option_is_six_numbers_however_they_are_written(box: Any) -> None:
    assert target({"box": box}, SEGVOL) == {"box": ROI_BOX}


@pytest.mark.parametrize("box", ["1,2,3", "x", "1 2 3 4 5 six", [1, 2], 7, {"a": 1}, [[1, 2, 3], [4, 5, 6]], True])
def test_a_box_of_anything_else_is_refused(box: Any) -> None:
    assert refusal({"box": box}, SEGVOL).startswith("box: expected six numbers i0, j0, k0, i1, j1, k1, got ")


def test_the_drawn_roi_beats_the_box_option_and_the_reply_says_so() -> None:
    job = read_request({"roi": [60, 30, 50, 25, 8, 22], "box": "1 2 3 4 5 6"}, SEGVOL)
    assert job.document["targets"] == [{"box": ROI_BOX}]
    assert job.ignored == ("box: the drawn ROI comes first",)


@pytest.mark.parametrize("flag", [True, 1, "true", "True", " TRUE ", "1"])
def test_the_segment_name_is_the_text_when_asked_for(flag: Any) -> None:
    job = read_request({"label": "left kidney", "use_segment_name": flag}, SEGVOL)
    assert (job.document["targets"], job.names, job.values) == ([{"text": "left kidney"}], ("left kidney",), (1,))


@pytest.mark.parametrize("flag", [False, 0, "false", "FALSE", "0", "", None])
def test_the_segment_name_is_only_shown_when_it_is_not_asked_for(flag: Any) -> None:
    job = read_request({"label": "left kidney", "use_segment_name": flag, "foreground": [POINT]}, SEGVOL)
    assert (job.document["targets"], job.names) == ([{"points": [POINT], "point_labels": [1]}], ("left kidney",))


def test_the_text_prompt_comes_before_the_segment_name() -> None:
    job = read_request({"label": "Segment_1", "use_segment_name": True, "text_prompt": " liver "}, SEGVOL)
    assert (job.document["targets"], job.names) == ([{"text": "liver"}], ("liver",))
    assert job.ignored == ("label: text_prompt comes before the segment's name",)


def test_an_empty_segment_name_is_no_text() -> None:
    assert "nothing to go by" in refusal({"label": " ", "use_segment_name": True}, SEGVOL)


def test_points_box_and_text_make_one_target() -> None:
    job = read_request({"foreground": [POINT], "background": [OTHER], "box": ROI_BOX, "text_prompt": "liver"}, SEGVOL)
    assert job.document["targets"] == [
        {"text": "liver", "points": [POINT, OTHER], "point_labels": [1, 0], "box": ROI_BOX}
    ]
    assert job.used == ("2 points", "box", "text 'liver'")


@pytest.mark.parametrize("located", [{"box": ROI_BOX}, {"text_prompt": "liver"}, {"foreground": [POINT]}])
def test_background_points_need_something_positive_beside_them(located: dict[str, Any]) -> None:
    message = refusal({"background": [OTHER]}, SEGVOL)
    assert message == "points: all of them are background; add a point on the target, a box or a text"
    assert 0 in target({"background": [OTHER], **located}, SEGVOL)["point_labels"]


def test_a_point_listed_on_and_off_the_target_is_off_it() -> None:
    job = read_request({"foreground": [POINT, OTHER], "background": [OTHER]}, SEGVOL)
    assert job.document["targets"] == [{"points": [POINT, OTHER], "point_labels": [1, 0]}]
    assert job.ignored == ("1 of the points: listed on and off the target, they count as off it",)


def test_a_dollar_string_is_just_text() -> None:
    assert target({"text_prompt": "$import os"}, SEGVOL) == {"text": "$import os"}


# vista3d


def test_several_classes_ignore_points_box_and_text_by_name() -> None:
    params = {"label_prompt": [7, 1], "points": [POINT], "point_labels": [1], "box": "1 2 3 4 5 6", "text_prompt": "x"}
    job = read_request(params, CLASSES)
    assert (job.document["targets"], job.values) == ([{"text": "mid"}, {"text": "bright"}], (7, 1))
    assert job.ignored == (
        "points: several classes were asked for",
        "box: several classes were asked for",
        "text_prompt: it counts only for the class 'custom text' or where no class is chosen",
    )


def test_stale_points_of_any_shape_do_not_spoil_several_classes() -> None:
    assert read_request({"label_prompt": [7, 1], "points": "rubbish", "point_labels": 5}, CLASSES).values == (7, 1)


def test_auto_segmentation_of_every_class_skips_the_helper_labels_by_name() -> None:
    job = read_request({"label_prompt": list(LABELS.values()), "text_prompt": "liver"}, CLASSES)
    assert job.values == (1, 2, 7)
    assert job.ignored[1:] == (
        "'box (2 corner clicks)': it counts only when it is the one chosen class",
        "'custom text': it counts only when it is the one chosen class",
    )


def test_helper_labels_together_are_refused() -> None:
    assert "only helper labels were chosen" in refusal({"label_prompt": [BOX_CLASS, TEXT_CLASS]}, CLASSES)


def test_a_class_beside_a_helper_still_counts_as_several() -> None:
    job = read_request({"label_prompt": [2, TEXT_CLASS], "points": [POINT]}, CLASSES)
    assert job.document["targets"] == [{"text": "dark"}]
    assert job.ignored[0] == "points: several classes were asked for"


def test_a_class_listed_twice_is_one_class() -> None:
    assert target({"label_prompt": [2, 2, None], "points": [POINT]}, CLASSES)["points"] == [POINT]


def test_one_class_takes_the_box_option_too() -> None:
    job = read_request({"label_prompt": [2], "box": "30,25,8,60,50,22"}, CLASSES)
    assert job.document["targets"] == [{"text": "dark", "box": ROI_BOX}]
    assert job.used == ("box", "text 'dark'")


def test_one_class_with_background_points_alone_is_usable() -> None:
    params = {"label_prompt": [2], "points": [OTHER], "point_labels": [0]}
    assert target(params, CLASSES) == {"text": "dark", "points": [OTHER], "point_labels": [0]}


@pytest.mark.parametrize("row", [[None], [], None])
def test_points_without_a_class_make_a_nameless_target_of_value_1(row: Any) -> None:
    job = read_request({"label_prompt": row, "points": [POINT], "point_labels": [1]}, CLASSES)
    assert job.document["targets"] == [{"points": [POINT], "point_labels": [1]}]
    assert (job.values, job.names) == ((1,), ("target",))


@pytest.mark.parametrize("row", [[None], [], None])
def test_nothing_at_all_without_a_class_is_refused(row: Any) -> None:
    assert refusal({"label_prompt": row}, CLASSES).startswith("nothing to go by: choose a class, set a point")


def test_free_text_without_a_class_counts_and_joins_the_points() -> None:
    job = read_request({"text_prompt": "left kidney", "points": [POINT]}, CLASSES)
    assert job.document["targets"] == [{"text": "left kidney", "points": [POINT], "point_labels": [1]}]
    assert (job.values, job.names) == ((TEXT_CLASS,), ("left kidney",))


def test_free_text_that_is_a_label_gets_its_value_and_spelling() -> None:
    job = read_request({"text_prompt": "MID"}, CLASSES)
    assert (job.document["targets"], job.values, job.names) == ([{"text": "mid"}], (7,), ("mid",))


def test_the_name_of_a_helper_label_is_no_known_label() -> None:
    assert read_request({"text": "Box (2 corner clicks)"}, CLASSES).values == (10,)


def test_free_text_gets_the_value_after_the_highest_where_no_helper_label_exists() -> None:
    bare = replace(CLASSES, labels={"bright": 1, "mid": 7})
    assert read_request({"text_prompt": "spleen"}, bare).values == (8,)


@pytest.mark.parametrize("text", ["liver", "BRIGHT"])
def test_the_custom_text_class_takes_text_and_points_at_its_own_value(text: str) -> None:
    job = read_request({"label_prompt": [TEXT_CLASS], "text_prompt": text, "points": [POINT]}, CLASSES)
    name = "liver" if text == "liver" else "bright"
    assert job.document["targets"] == [{"text": name, "points": [POINT], "point_labels": [1]}]
    assert (job.values, job.names, job.ignored) == ((TEXT_CLASS,), (name,), ())


def test_the_custom_text_class_without_text_is_refused() -> None:
    message = refusal({"label_prompt": [TEXT_CLASS], "text_prompt": "", "points": [POINT]}, CLASSES)
    assert message == "text_prompt: the class 'custom text' needs a text; fill it in under Options"


@pytest.mark.parametrize("corners", [[[30, 50, 22], [60, 25, 8]], [[60, 25, 22], [30, 50, 8]]])
def test_two_clicks_of_the_box_class_are_opposite_corners_in_any_order(corners: list[list[int]]) -> None:
    params = {"label_prompt": [BOX_CLASS], "points": corners, "point_labels": [1, 1], "text_prompt": "liver"}
    job = read_request(params, CLASSES)
    assert job.document["targets"] == [{"box": ROI_BOX}]
    assert (job.values, job.names, job.used) == ((BOX_CLASS,), (BOX_LABEL,), ("box",))
    assert job.ignored == ("text_prompt: it counts only for the class 'custom text' or where no class is chosen",)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_corners_is_refused_with_the_way_to_do_it(count: int) -> None:
    message = refusal({"label_prompt": [BOX_CLASS], "points": [[n, n, n] for n in range(count)]}, CLASSES)
    assert "needs exactly two points, opposite corners of the box" in message
    assert message.endswith(f"got {count}")


def test_background_points_beside_two_corners_stay_points() -> None:
    params = {"label_prompt": [BOX_CLASS], "points": [[1, 2, 3], [4, 5, 6], OTHER], "point_labels": [1, 1, 0]}
    assert target(params, CLASSES) == {"points": [OTHER], "point_labels": [0], "box": [1, 2, 3, 4, 5, 6]}


def test_the_box_class_takes_the_box_option_where_no_corner_was_clicked() -> None:
    assert target({"label_prompt": [BOX_CLASS], "box": "30 25 8 60 50 22"}, CLASSES) == {"box": ROI_BOX}
    clicked = {"label_prompt": [BOX_CLASS], "box": "30 25 8 60 50 22", "points": [[1, 2, 3], [4, 5, 6]]}
    job = read_request(clicked, CLASSES)
    assert job.document["targets"] == [{"box": [1, 2, 3, 4, 5, 6]}]
    assert job.ignored == ("box: the two corners come first",)


@pytest.mark.parametrize("value", [99, 0, -1, 3, True, 1.5, "bright", [1], {}, pytest.param(10**5000, id="digits")])
def test_an_unknown_class_value_is_refused_with_the_allowed_range(value: Any) -> None:
    assert refusal({"label_prompt": [value]}, CLASSES).startswith(
        "label_prompt: expected a class value from 1 to 9, got "
    )


@pytest.mark.parametrize("labels", [[1, 2], ["1", 0], [True, 0], [1], [1, 0, 0], [None, 1], "10"])
def test_point_labels_that_fit_no_point_are_refused(labels: Any) -> None:
    message = refusal({"label_prompt": [1], "points": [POINT, OTHER], "point_labels": labels}, CLASSES)
    assert message.startswith("point_labels")


# segmentation


def test_several_names_in_the_text_prompt_are_several_targets() -> None:
    job = read_request({"text_prompt": "Mid, left kidney; spleen ,,mid", "label_prompt": [2]}, TEXT)
    assert job.document["targets"] == [{"text": "mid"}, {"text": "left kidney"}, {"text": "spleen"}]
    assert (job.values, job.names) == ((7, 8, 9), ("mid", "left kidney", "spleen"))
    assert job.ignored == ("label_prompt: text_prompt comes first",)


def test_chosen_classes_come_before_the_default_list() -> None:
    assert read_request({"label_prompt": [2]}, TEXT).names == ("dark",)


@pytest.mark.parametrize("params", [{"label_prompt": []}, {"label_prompt": [None]}, {"text_prompt": " , ;"}])
def test_nothing_named_draws_the_default_list(params: dict[str, Any]) -> None:
    assert read_request(params, TEXT).names == ("bright", "mid")


def test_a_model_without_defaults_asks_for_names() -> None:
    assert "fill in text_prompt" in refusal({}, replace(TEXT, defaults=()))


def test_points_and_boxes_are_named_as_ignored_by_automatic_segmentation() -> None:
    job = read_request({"points": [POINT], "point_labels": [1], "box": "1 2 3 4 5 6"}, TEXT)
    assert job.ignored == ("points: this model takes names only", "box: this model takes names only")


def test_more_names_than_a_mask_has_values_are_refused() -> None:
    names = [f"thing {n}" for n in range(249)]
    assert max(read_request({"text_prompt": ",".join(names[:248])}, TEXT).values) == 255
    assert refusal({"text_prompt": ",".join(names)}, TEXT).startswith("too many targets")


# the full schema


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_one_target_of_the_full_schema_is_read_by_every_model(model: ModelSpec) -> None:
    params = {"text": "liver", "points": [[1.5, -2, 3]], "point_labels": [1], "box": ROI_BOX, "coordinates": "ras"}
    job = read_request(params, model)
    wanted = {"text": "liver", "points": [[1.5, -2, 3]], "point_labels": [1], "box": ROI_BOX}
    assert job.document == {"coordinates": "ras", "targets": [wanted]}
    assert (job.names, job.values) == (("liver",), (model.free_value,))
    assert job.used == ("1 point", "box", "text 'liver'")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_targets_pass_as_they_came_and_everything_beside_them_is_named(model: ModelSpec) -> None:
    targets = [{"name": "a", "points": [POINT]}, {"text": "spleen"}, {"name": "a", "box": ROI_BOX}, {"points": [OTHER]}]
    job = read_request({"targets": targets, "text": "x", "foreground": [POINT], "label_prompt": [1]}, model)
    assert job.document == {"coordinates": "voxel", "targets": targets}
    assert job.names == ("a", "spleen", "a (2)", "target 4")
    assert job.values == tuple(range(model.free_value, model.free_value + 4))
    assert job.used == ("4 targets",)
    assert [sentence.split(":")[0] for sentence in job.ignored] == ["text", "foreground", "label_prompt"]


def test_a_target_whose_name_or_text_is_a_label_gets_its_value_once() -> None:
    targets = [{"name": "Mid", "points": [POINT]}, {"name": "my own", "text": "dark"}, {"text": "mid"}]
    assert read_request({"targets": targets}, CLASSES).values == (7, 2, 10)


def test_points_are_the_full_schema_for_deepgrow_alone() -> None:
    params = {"points": [POINT, OTHER], "point_labels": [1, 0], "foreground": [[1, 1, 1]], "text_prompt": "liver"}
    job = read_request(params, SEGVOL)
    assert job.document["targets"] == [{"points": [POINT, OTHER], "point_labels": [1, 0]}]
    assert [sentence.split(":")[0] for sentence in job.ignored] == ["foreground", "text_prompt"]


def test_several_texts_are_several_targets_and_share_no_points() -> None:
    job = read_request({"text": ["bright", "spleen", "bright"]}, CLASSES)
    assert (job.values, job.names) == ((1, 10, 11), ("bright", "spleen", "bright (2)"))
    for located in ({"points": [POINT]}, {"box": ROI_BOX}):
        message = refusal({"text": ["bright", "spleen"], **located}, CLASSES)
        assert message.startswith("text: several texts share no points and no box")


def test_coordinates_alone_are_no_prompt() -> None:
    assert refusal({"coordinates": "lps", "label_prompt": [1]}, CLASSES).startswith("no prompt: give at least one of")


def test_background_points_alone_are_refused_in_the_full_schema_too() -> None:
    assert "all of them are background" in refusal({"points": [POINT], "point_labels": [0]}, SEGVOL)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"targets": []}, "targets"),
        ({"targets": {"text": "liver"}}, "targets"),
        ({"targets": "liver"}, "targets"),
        ({"targets": ["liver"]}, "targets[0]"),
        ({"targets": [{}] * 256}, "targets"),
        ({"text": 5}, "text"),
        ({"text": ["liver", ""]}, "text"),
        ({"text": {"a": 1}}, "text"),
        ({"text": "liver", "coordinates": 5}, "coordinates"),
        ({"text": "liver", "points": "1,2,3"}, "points"),
        ({"text": "liver", "points": [[1, 2]]}, "points[0]"),
        ({"text": "liver", "points": [POINT, None]}, "points[1]"),
        ({"text": "liver", "points": [[True, 1, 2]]}, "points[0]"),
        ({"text": "liver", "points": [[[1, 2, 3], 4, 5]]}, "points[0]"),
        ({"text": "liver", "point_labels": [1]}, "point_labels"),
        ({"text": "liver", "box": [1, 2, 3, 4, 5, "6"]}, "box"),
    ],
)
def test_a_wrong_type_in_the_full_schema_is_refused_by_its_field(params: dict[str, Any], field: str) -> None:
    for model in MODELS:
        assert refusal(params, model).startswith(f"{field}: expected ")


# options


@pytest.mark.parametrize("params", [None, [], "text", 5, [["foreground", []]]])
def test_params_that_are_no_object_are_refused(params: Any) -> None:
    assert refusal(params, SEGVOL).startswith("params: expected an object with named fields, got ")


def test_options_are_read_beside_the_prompt() -> None:
    options = {"mode": "zoom-out", "refine": "TRUE", "save_to_study": 1, "client_id": " anna "}
    job = read_request({"foreground": [POINT], **options}, SEGVOL)
    assert (job.mode, job.refine, job.save_to_study, job.client, job.undo) == ("zoom-out", True, True, "anna", 0)


def test_the_whole_list_of_modes_is_an_untouched_drop_down() -> None:
    assert read_request({"foreground": [POINT], "mode": list(MODES)}, SEGVOL).mode is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mode", "fast", "mode: expected one of zoom-out-zoom-in, zoom-out, got 'fast'"),
        ("mode", ["zoom-out"], "mode: expected one of zoom-out-zoom-in, zoom-out, got ['zoom-out']"),
        ("refine", "yes please", "refine: expected true or false, got 'yes please'"),
        ("refine", 2, "refine: expected true or false, got 2"),
        ("save_to_study", [True], "save_to_study: expected true or false, got [True]"),
        ("use_segment_name", 0.5, "use_segment_name: expected true or false, got 0.5"),
        ("undo", True, "undo: expected a whole number from -1000 to 1000, got True"),
        ("undo", 1.5, "undo: expected a whole number from -1000 to 1000, got 1.5"),
        ("undo", 1001, "undo: expected a whole number from -1000 to 1000, got 1001"),
        ("client_id", 7, "client_id: expected a text, got 7"),
        ("client_id", "x" * 201, "client_id: expected at most 200 characters, got "),
        ("text_prompt", ["liver"], "text_prompt: expected a text, got ['liver']"),
        ("roi", [1, 2, 3], "roi: expected six numbers [i1, i2, j1, j2, k1, k2], got [1, 2, 3]"),
        ("foreground", [[1, 2, None]], "foreground[0]: expected three numbers [i, j, k], got [1, 2, None]"),
        ("background", {"x": 1}, "background: expected a list of [i, j, k], got {'x': 1}"),
    ],
)
def test_a_wrong_option_is_refused_in_one_sentence(key: str, value: Any, message: str) -> None:
    assert refusal({"foreground": [POINT], key: value}, SEGVOL).startswith(message)


def test_the_longest_client_id_is_taken() -> None:
    assert read_request({"foreground": [POINT], "client_id": "x" * 200}, SEGVOL).client == "x" * 200


def test_a_single_point_needs_no_second_pair_of_brackets() -> None:
    assert target({"foreground": POINT}, SEGVOL) == {"points": [POINT], "point_labels": [1]}


@pytest.mark.parametrize("steps", [1, -2])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_undo_and_redo_need_no_prompt_and_name_those_that_came(model: ModelSpec, steps: int) -> None:
    job = read_request({"undo": steps, "foreground": [POINT], "client_id": "anna"}, model)
    assert job.document == {"coordinates": "voxel", "targets": []}
    assert (job.undo, job.client, job.values, job.names, job.used) == (steps, "anna", (), (), ())
    assert job.ignored == ("foreground: undo and redo take no prompt",)


def test_unknown_keys_are_passed_over_in_silence() -> None:
    extra = {"bbox": "x", "largest_cc": False, "device": "cpu", "result_dtype": "uint8", "nested": {"a": [1]}}
    job = read_request({"foreground": [POINT], **extra}, SEGVOL)
    assert (job.document["targets"], job.ignored) == ([{"points": [POINT], "point_labels": [1]}], ())


# hostile values

NUMBERS = [float("nan"), float("inf"), -float("inf"), 1e400, 10**400, 10**5000, True, "1", None, [], {}]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number!s:.5}" if number != 10**5000 else "digits")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_a_hostile_number_is_refused_here_or_by_the_bundle_and_breaks_nothing(model: ModelSpec, number: Any) -> None:
    for params in (
        {"text": "liver", "points": [[1, 2, number]]},
        {"text": "liver", "box": [1, 2, 3, 4, 5, number]},
        {"targets": [{"points": [[1, 2, number]]}]},
    ):
        with pytest.raises(ValueError):
            parse_document(read_request(params, model).document)


def test_a_hundred_thousand_points_are_left_to_the_bundles_own_limit() -> None:
    points = [[n, n, n] for n in range(100_000)]
    with pytest.raises(ValueError, match="at most 1000 points"):
        parse_document(read_request({"foreground": points, "background": [POINT]}, SEGVOL).document)


KEYS = [
    "foreground",
    "background",
    "roi",
    "box",
    "text_prompt",
    "use_segment_name",
    "label",
    "label_prompt",
    "points",
    "point_labels",
    "targets",
    "text",
    "coordinates",
    "mode",
    "refine",
    "undo",
    "client_id",
    "save_to_study",
    "bbox",
]
FITTING = {
    "targets": [{"text": "liver", "points": [POINT], "box": ROI_BOX}, {"name": "x", "points": [OTHER]}],
    "label_prompt": [None, 1, 2, 7, 8, 9],
    "point_labels": [1, 0],
    "points": [POINT, OTHER],
    "foreground": [POINT, OTHER],
    "background": [OTHER],
    "roi": ROI_BOX,
    "coordinates": "lps",
    "mode": "zoom-out",
}
ATOMS = [*NUMBERS, 0, 1, -1, 0.5, 7, 8, 9, "", " ", "liver", "$x", "\ud800", "\0", "a,b;c", "1 2 3 4 5 6", "x" * 9999]


def rubbish(rng: random.Random, depth: int = 3) -> Any:
    kind = rng.random()
    if depth == 0 or kind < 0.5:
        return rng.choice(ATOMS)
    if kind < 0.9:
        return [rubbish(rng, depth - 1) for _ in range(rng.choice([0, 1, 2, 3, 6]))]
    return {rng.choice(["name", "text", "points", "point_labels", "box", "x"]): rubbish(rng, depth - 1)}


def random_value(rng: random.Random, key: str) -> Any:
    fitting = FITTING.get(key)
    if fitting is None or rng.random() < 0.4:
        return rubbish(rng)
    if isinstance(fitting, list) and rng.random() < 0.5:
        return rng.sample(fitting, rng.randint(0, len(fitting)))
    return fitting


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_random_requests_end_in_a_consistent_job_or_one_sentence(model: ModelSpec) -> None:
    rng = random.Random(0)
    outcomes = []
    for _ in range(4000):
        keys = rng.sample(KEYS, rng.randint(0, 5))
        outcomes.append(outcome({key: random_value(rng, key) for key in keys}, model))
    jobs = [each for each in outcomes if isinstance(each, Job)]
    assert len(jobs) > 200
    assert all("\n" not in each for each in outcomes if isinstance(each, str))
    for job in jobs:
        check_consistent(job)


def check_consistent(job: Job) -> None:
    targets = job.document["targets"]
    assert len(job.values) == len(set(job.values)) == len(job.names) == len(set(job.names)) == len(targets)
    assert all(0 < value <= 255 for value in job.values)
    assert bool(targets) == bool(job.used) == (job.undo == 0)
    try:
        parsed = len(parse_document(job.document).targets)
    except ValueError:
        return
    assert parsed == len(targets)


def test_reading_requests_needs_none_of_the_heavy_libraries() -> None:
    code = "import sys, lib.requests; sys.exit(bool({'monai', 'torch', 'monailabel', 'numpy'} & set(sys.modules)))"
    app = Path(__file__).resolve().parents[2] / "monailabel_app"
    assert subprocess.run([sys.executable, "-c", code], cwd=app, check=False).returncode == 0
