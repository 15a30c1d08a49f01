"""The parser at the border: what it takes, and that it refuses all else in one line."""

import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from scripts.prompts import Prompt, PromptDocument, command_line_document, parse_document

DEEP: list = []
DEEP.append(DEEP)
NASTY: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    10**400,
    10**5000,
    1j,
    Decimal("1"),
    "",
    " ",
    "nan",
    "1,2,3",
    "line\nbreak",
    "bell\x07",
    "\x1b[31mred",
    "\u2028",
    "\ud800",
    "x" * 100_000,
    "word " * 33,
    "$import os",
    "@x",
    "%x",
    b"bytes",
    object(),
    int,
    np.ndarray,
    [],
    [[]],
    [None],
    [[None] * 3],
    ["a", "b", "c"],
    [["1", "2", "3"]],
    [[1, 2, 3], 4],
    [1, 2, [3]],
    [[1, 2], [3, 4]],
    [[True, False, True]],
    [math.nan] * 3,
    [math.inf] * 6,
    [10**400] * 6,
    [10**5000] * 3,
    [[1, 2, 3]] * 1001,
    [[[[[1]]]]],
    DEEP,
    {},
    {"x": 1},
    {1, 2},
    (1, 2, 3),
    np.zeros((0, 3)),
    np.zeros((2, 3)),
    np.full((2, 3), np.nan),
    np.array("text"),
    np.array(3.0),
    np.zeros((2, 2, 2)),
    np.array([object()]),
    np.bool_(True),
]


def _refusal(document: Any) -> str:
    with pytest.raises(ValueError) as caught:
        parse_document(document)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and len(message) < 600
    return message


def _target(**target: Any) -> Prompt:
    return parse_document({"targets": [target]}).targets[0]


def _names(*targets: dict[str, Any]) -> list[str]:
    return [target.name for target in parse_document({"targets": list(targets)}).targets]


# Command line


def test_a_single_text_is_one_target_whatever_it_holds() -> None:
    document = command_line_document(text="liver, left lobe")
    assert document == {"coordinates": "voxel", "targets": [{"text": "liver, left lobe"}]}


def test_several_texts_are_several_targets() -> None:
    for texts in (("liver", "spleen"), ["liver", "spleen"]):
        targets = parse_document(command_line_document(text=texts)).targets
        assert [(target.name, target.text) for target in targets] == [("liver", "liver"), ("spleen", "spleen")]


def test_numbers_among_the_texts_become_text() -> None:
    assert command_line_document(text=("liver", 7))["targets"] == [{"text": "liver"}, {"text": "7"}]
    assert command_line_document(text=20240101)["targets"] == [{"text": "20240101"}]


def test_points_box_and_one_text_are_one_target() -> None:
    document = command_line_document(("liver",), ((1, 2, 3), (4, 5, 6)), (1, 0), (0, 0, 0, 9, 9, 9), "lps")
    parsed = parse_document(json.loads(json.dumps(document)))
    (target,) = parsed.targets
    assert parsed.coordinates == "lps" and target.text == target.name == "liver"
    assert target.points.tolist() == [[1, 2, 3], [4, 5, 6]] and target.point_labels.tolist() == [1, 0]
    np.testing.assert_array_equal(target.box, [[0] * 3, [9] * 3])


def test_points_without_labels_are_positive() -> None:
    (target,) = parse_document(command_line_document(points=[[1, 2, 3], [4, 5, 6]])).targets
    assert target.point_labels.tolist() == [1, 1]
    assert target.name == "target_1"


def test_one_click_may_come_bare() -> None:
    (target,) = parse_document(command_line_document(points=(1, 2, 3), point_labels=1)).targets
    assert target.points.tolist() == [[1, 2, 3]] and target.point_labels.tolist() == [1]


@pytest.mark.parametrize("place", [{"points": [1, 2, 3]}, {"box": [0, 0, 0, 1, 1, 1]}, {"point_labels": [1]}])
def test_several_texts_with_a_place_point_to_prompts_json(place) -> None:
    with pytest.raises(ValueError, match=r"^text: 2 texts .*prompts\.json$"):
        command_line_document(text=("liver", "spleen"), **place)


@pytest.mark.parametrize("keys", [{}, {"points": [], "box": []}, {"point_labels": [1]}, {"points": np.zeros((0, 3))}])
def test_no_prompt_at_all_is_an_error(keys) -> None:
    with pytest.raises(ValueError, match="^no prompt: give at least one of text, points, box$"):
        command_line_document(**keys)


@pytest.mark.parametrize("text", [[], [None], {"a": 1}, [["liver"]]])
def test_texts_of_another_kind_are_refused(text) -> None:
    with pytest.raises(ValueError, match="^text"):
        command_line_document(text=text)


def test_an_empty_text_on_the_command_line_is_refused() -> None:
    assert "text is empty" in _refusal(command_line_document(text=" ", points=[1, 2, 3]))


# Documents


def test_coordinates_are_voxels_unless_said_otherwise() -> None:
    assert parse_document({"targets": [{"text": "liver"}]}).coordinates == "voxel"
    assert parse_document({"coordinates": "RAS", "targets": [{"text": "liver"}]}).coordinates == "ras"


def test_box_corners_come_in_any_order() -> None:
    np.testing.assert_array_equal(_target(box=[9, 0, 5, 1, 8, 5]).box, [[1, 0, 5], [9, 8, 5]])


def test_empty_lists_and_nulls_count_as_absent() -> None:
    target = _target(name=None, text="liver", points=[], point_labels=[], box=[])
    assert target.box is None and target.points.shape == (0, 3) and target.name == "liver"
    assert _target(text=" liver ", points=None, point_labels=None, box=None).text == "liver"


@pytest.mark.parametrize("text", ["$import os", "@network", "%include", "leber", "肝脏"])
def test_a_text_is_plain_text_whatever_it_starts_with(text) -> None:
    assert _target(text=text).text == text


def test_negative_points_refine_a_text_or_a_box() -> None:
    assert _target(text="liver", points=[[1, 2, 3]], point_labels=[0]).point_labels.tolist() == [0]
    assert _target(box=[0] * 6, points=[[1, 2, 3]], point_labels=[0]).box is not None


def test_nameless_targets_are_called_after_their_text_or_their_position() -> None:
    point = {"points": [[1, 2, 3]]}
    assert _names({"text": "liver"}, point, {"text": "liver"}, {"name": "x", "text": "liver"}) == [
        "liver",
        "target_2",
        "target_3",
        "x",
    ]


def test_doubled_names_get_a_number() -> None:
    x, long = {"name": "x", "text": "liver"}, {"name": "y" * 100, "text": "liver"}
    assert _names(x, x, x) == ["x", "x (2)", "x (3)"]
    assert [len(name) for name in _names(long, long)] == [100, 100]
    assert _names({"name": "target_2", "text": "liver"}, {"points": [1, 2, 3]}) == ["target_2", "target_2 (2)"]


def test_a_long_text_is_shortened_to_a_name() -> None:
    assert len(_target(text="x" * 150).name) == 100


@pytest.mark.parametrize(
    ("target", "start", "part"),
    [
        ({}, "targets[0]", "no prompt"),
        ({"name": "x"}, "targets[0]", "no prompt"),
        ({"points": [[1, 2, 3]], "point_labels": [0]}, "targets[0]", "negative"),
        ({"points": [[1, 2, 3]], "point_labels": [2]}, "targets[0].point_labels[0]", "got 2"),
        ({"points": [[1, 2, 3]], "point_labels": [-1]}, "targets[0].point_labels[0]", "got -1"),
        ({"points": [[1, 2, 3]], "point_labels": [True]}, "targets[0].point_labels[0]", "got True"),
        ({"points": [[1, 2, 3]], "point_labels": [1, 1]}, "targets[0].point_labels", "1, got 2"),
        ({"points": [[1, 2, 3]], "point_labels": []}, "targets[0].point_labels", "1, got 0"),
        ({"text": "liver", "point_labels": [1]}, "targets[0].point_labels", "no points"),
        ({"points": [[1, 2, 3], [1, 2]]}, "targets[0].points[1]", "three numbers [x, y, z], got [1, 2]"),
        ({"points": [[1, 2, 3]] * 1001}, "targets[0].points", "at most 1000 points, got 1001"),
        ({"points": [1, 2, True]}, "targets[0].points", "got True"),
        ({"points": [1, 2, math.nan]}, "targets[0].points", "got nan"),
        ({"points": "1,2,3"}, "targets[0].points", "got '1,2,3'"),
        ({"box": [1, 2, 3, 4, 5]}, "targets[0].box", "six numbers [x0, y0, z0, x1, y1, z1], got [1, 2, 3, 4, 5]"),
        ({"box": [1, 2, 3, 4, 5, math.inf]}, "targets[0].box", "got inf"),
        ({"box": [1, 2, 3, 4, 5, "6"]}, "targets[0].box", "got '6'"),
        ({"text": ""}, "targets[0].text", "text is empty"),
        ({"text": "x" * 201}, "targets[0].text", "at most 200 characters, got 201"),
        ({"text": "a " * 33}, "targets[0].text", "at most 32 words, got 33"),
        ({"text": "a\nb"}, "targets[0].text", "without control characters, got 'a\\nb'"),
        ({"text": 7}, "targets[0].text", "got 7"),
        ({"text": "liver", "name": "x" * 101}, "targets[0].name", "at most 100 characters, got 101"),
        ({"text": "liver", "name": ""}, "targets[0].name", "name is empty"),
        ({"text": "liver", "name": 5}, "targets[0].name", "got 5"),
        ({"texts": "liver"}, "targets[0]", "unknown key 'texts'; the nearest is 'text'"),
        ({"point": [1, 2, 3]}, "targets[0]", "the nearest is 'points'"),
        ("liver", "targets[0]", "got 'liver'"),
    ],
)
def test_a_wrong_target_is_refused_by_the_name_of_its_argument(target, start, part) -> None:
    message = _refusal({"targets": [target]})
    assert message.startswith(f"{start}: ") and part in message


@pytest.mark.parametrize(
    ("document", "start", "part"),
    [
        ([], "prompts", "an object with the keys coordinates, targets"),
        ({}, "targets", "got None"),
        ({"targets": []}, "targets", "at least one target"),
        ({"targets": {"text": "liver"}}, "targets", "got {'text': 'liver'}"),
        ({"targets": [{"text": "a"}] * 1001}, "targets", "at most 1000 targets, got 1001"),
        ({"targets": [{"text": "a"}], "coordinates": "mni"}, "coordinates", "one of voxel, ras, lps, got 'mni'"),
        ({"target": [{"text": "a"}]}, "prompts", "unknown key 'target'; the nearest is 'targets'"),
        ({"targets": [{"text": "a"}, {"text": ""}]}, "targets[1].text", "empty"),
    ],
)
def test_a_wrong_document_is_refused_by_the_name_of_its_argument(document, start, part) -> None:
    message = _refusal(document)
    assert message.startswith(f"{start}: ") and part in message


@pytest.mark.parametrize("value", NASTY, ids=range(len(NASTY)))
def test_anything_at_all_is_read_or_refused_in_one_line(value) -> None:
    good = {"name": "a", "text": "liver", "points": [[1, 2, 3]], "point_labels": [1], "box": [0, 0, 0, 1, 1, 1]}
    documents = [value, {"targets": value}, {"targets": [value]}, {"targets": [good], "coordinates": value}]
    documents += [{"targets": [{**good, key: value}]} for key in good]
    documents += [{"targets": [{key: value}]} for key in good]
    if value.__hash__:
        documents += [{value: 1}, {"targets": [{value: 1}]}]
    for document in documents:
        try:
            parse_document(document).to_voxel(np.eye(4), (2000, 2000, 2000))
        except ValueError as error:
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 600


@pytest.mark.parametrize("value", NASTY, ids=range(len(NASTY)))
def test_anything_at_all_on_the_command_line_is_read_or_refused_in_one_line(value) -> None:
    for key in ("text", "points", "point_labels", "box", "coordinates"):
        for others in ({}, {"text": "liver"}, {"points": [1, 2, 3]}):
            try:
                parse_document(command_line_document(**{**others, key: value}))
            except ValueError as error:
                assert len(str(error).splitlines()) == 1 and len(str(error)) < 600


# Documents meet an image


def _document(coordinates: str = "voxel", **target: Any) -> PromptDocument:
    return parse_document({"coordinates": coordinates, "targets": [{"text": "liver"}, {"name": "x", **target}]})


AFFINE = np.array([[-2.0, 0, 0, 100], [0, 0, 3, -50], [0, 1, 0, 7], [0, 0, 0, 1]])


def test_voxel_coordinates_are_kept_as_they_are() -> None:
    prompt = _document(points=[[1.25, 2, 0.123456]], box=[0.5, 1, 2, 3, 4.5, 5]).to_voxel(AFFINE, (10, 10, 10))[1]
    assert prompt.points.tolist() == [[1.25, 2, 0.123456]]
    np.testing.assert_array_equal(prompt.box, [[0.5, 1, 2], [3, 4.5, 5]])


def test_world_coordinates_land_on_the_nearest_voxel() -> None:
    # i = (100 - x) / 2, j = z - 7, k = (y + 50) / 3
    world = {"points": [[90.4, -40.2, 11.4]], "box": [90, -44, 8, 98.2, -38, 10]}
    prompt = _document("ras", **world).to_voxel(AFFINE, (10, 10, 10))[1]
    assert prompt.points.tolist() == [[5, 4, 3]]
    np.testing.assert_array_equal(prompt.box, [[1, 1, 2], [5, 3, 4]])
    flipped = {"points": [[-90.4, 40.2, 11.4]], "box": [-90, 44, 8, -98.2, 38, 10]}
    other = _document("lps", **flipped).to_voxel(AFFINE, (10, 10, 10))[1]
    np.testing.assert_array_equal(other.points, prompt.points)
    np.testing.assert_array_equal(other.box, prompt.box)


@pytest.mark.parametrize("noise", [-1e-7, 0.0, 1e-7])
def test_rounding_noise_does_not_move_a_point_halfway_between_voxels(noise) -> None:
    prompt = _document("ras", points=[[2.5 + noise, 3, 4]]).to_voxel(np.eye(4), (10, 10, 10))[1]
    assert prompt.points.tolist() == [[3, 3, 4]]


def test_a_world_box_on_a_rotated_grid_is_the_bounding_box_of_its_eight_corners() -> None:
    turn = math.sqrt(0.5)
    affine = np.array([[turn, -turn, 0, 0], [turn, turn, 0, -20], [0, 0, 1, 0], [0, 0, 0, 1]])
    prompt = _document("ras", box=[10, 0, 2, 20, 10, 4]).to_voxel(affine, (60, 60, 10))[1]
    # i = (x + y + 20) * turn, j = (y + 20 - x) * turn
    np.testing.assert_array_equal(prompt.box, [[21, 0, 2], [35, 14, 4]])


def test_a_box_partly_outside_is_clipped_to_the_image() -> None:
    for coordinates in ("voxel", "ras"):
        prompt = _document(coordinates, box=[-5, 3, 20, 4, 4, 2]).to_voxel(np.eye(4), (10, 10, 10))[1]
        np.testing.assert_array_equal(prompt.box, [[0, 3, 2], [4, 4, 9]])


def test_the_outer_voxels_count_in_full() -> None:
    for coordinates in ("voxel", "ras"):
        prompt = _document(coordinates, points=[[-0.5, 9.5, 0]]).to_voxel(np.eye(4), (10, 10, 10))[1]
        assert prompt.points.tolist() == [[-0.5, 9.5, 0] if coordinates == "voxel" else [0, 9, 0]]


def test_a_point_outside_names_target_point_and_range() -> None:
    with pytest.raises(ValueError) as caught:
        _document(points=[[1, 1, 1], [1, 9.6, 1]]).to_voxel(np.eye(4), (5, 10, 20))
    assert str(caught.value) == (
        "targets[1].points[1] of 'x': voxel (1, 9.6, 1) lies outside the image; "
        "allowed are i 0 to 4, j 0 to 9, k 0 to 19"
    )


def test_a_world_point_outside_is_named_in_both_coordinates() -> None:
    with pytest.raises(
        ValueError, match=r"^targets\[1\]\.points\[0\] of 'x': \(-1, -1, 1\) mm LPS, voxel \(1, 1, 1\), "
    ):
        _document("lps", points=[[-1, -1, 1]]).to_voxel(np.eye(4), (10, 10, 1))


def test_a_box_wholly_outside_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^targets\[1\]\.box of 'x': voxel \(0, 0, 10, 5, 5, 12\) lies outside"):
        _document(box=[0, 0, 10, 5, 5, 12]).to_voxel(np.eye(4), (10, 10, 10))


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.eye(3), np.full((4, 4), np.nan)])
def test_a_useless_affine_is_an_error_of_one_line(affine) -> None:
    with pytest.raises(ValueError, match=r"^affine: [^\n]*$"):
        _document("ras", points=[[1, 2, 3]]).to_voxel(affine, (10, 10, 10))
