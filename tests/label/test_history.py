"""Undo and redo over the results of a client, bounded in steps and bytes."""

import numpy as np
import pytest
from lib.history import History, State, fresh_points, pack

SHAPE = (4, 6, 10)
KEY = ("user", "image", "segvol")


def state(number: int, *masks: np.ndarray) -> State:
    """A result known by its number."""
    masks = masks or (np.zeros(SHAPE, bool),)
    return State(
        asked="",
        values=tuple(range(1, len(masks) + 1)),
        names=tuple(f"result {number} target {t}" for t in range(len(masks))),
        packed=pack(masks),
        shape=SHAPE,
        points=[np.zeros((0, 3))] * len(masks),
        starts=[[]] * len(masks),
    )


def filled(history: History, count: int, key: tuple[str, str, str] = KEY) -> list[State]:
    states = [state(number) for number in range(count)]
    for each in states:
        history.add(key, each)
    return states


def test_undo_and_redo_walk_over_several_results():
    history = History()
    states = filled(history, 4)
    assert [history.move(KEY, 1), history.move(KEY, 2), history.move(KEY, -3)] == [states[2], states[0], states[3]]
    assert history.last(KEY) is states[3]


def test_undo_moves_the_result_that_counts():
    history = History()
    states = filled(history, 3)
    history.move(KEY, 2)
    assert history.last(KEY) is states[0]


def test_a_new_result_after_undo_drops_those_that_were_undone():
    history = History()
    states = filled(history, 3)
    history.move(KEY, 2)
    new = state(9)
    history.add(KEY, new)
    assert history.last(KEY) is new
    with pytest.raises(ValueError, match="0 to redo"):
        history.move(KEY, -1)
    assert history.move(KEY, 1) is states[0]


@pytest.mark.parametrize(
    ("back", "says"),
    [
        (3, r"^undo is 3; this image has 1 results to go back to and 1 to redo$"),
        (-2, r"^undo is -2; this image has 1 results to go back to and 1 to redo$"),
    ],
)
def test_too_far_is_one_sentence_and_moves_nothing(back, says):
    history = History()
    states = filled(history, 3)
    history.move(KEY, 1)
    with pytest.raises(ValueError, match=says):
        history.move(KEY, back)
    assert history.last(KEY) is states[1]


@pytest.mark.parametrize("back", [1, -1])
def test_nothing_is_undone_where_there_is_nothing(back):
    history = History()
    with pytest.raises(ValueError, match=f"undo is {back}; this image has 0 results to go back to and 0 to redo"):
        history.move(KEY, back)
    assert history.last(KEY) is None


@pytest.mark.parametrize("other", [("else", *KEY[1:]), (KEY[0], "else", KEY[2]), (*KEY[:2], "else")])
def test_clients_images_and_models_have_results_of_their_own(other):
    history = History()
    filled(history, 2)
    assert history.last(other) is None
    mine = filled(history, 1, other)
    assert history.last(other) is mine[0]
    assert history.last(KEY) is not mine[0]


def test_the_oldest_steps_go_first():
    history = History(steps=3)
    states = filled(history, 5)
    assert history.move(KEY, 2) is states[2]
    with pytest.raises(ValueError, match="0 results to go back to and 2 to redo"):
        history.move(KEY, 1)


def test_the_line_that_was_longest_untouched_goes_first_when_the_bytes_are_many():
    size = state(0).packed.nbytes
    history = History(limit=4 * size)
    other, third = ("other", "image", "segvol"), ("third", "image", "segvol")
    filled(history, 2)
    kept = filled(history, 2, other)
    filled(history, 1, third)
    assert history.used == 3 * size
    assert history.last(KEY) is None and history.last(other) is kept[-1]


def test_one_line_alone_loses_its_oldest_results_when_the_bytes_are_many():
    size = state(0).packed.nbytes
    history = History(limit=2 * size)
    states = filled(history, 5)
    assert history.used == 2 * size
    assert history.last(KEY) is states[4] and history.move(KEY, 1) is states[3]


def test_the_last_result_stays_even_where_it_is_too_large():
    history = History(limit=1)
    assert history.last(KEY) is None
    states = filled(history, 3)
    assert history.last(KEY) is states[2]


def test_masks_come_back_from_their_bits():
    rng = np.random.default_rng(0)
    masks = [rng.random(SHAPE) > 0.5 for _ in range(3)]
    kept = state(0, *masks)
    assert kept.packed.nbytes == 3 * int(np.prod(SHAPE)) // 8
    for target, mask in enumerate(masks):
        assert np.array_equal(kept.mask(target), mask)


def test_a_number_of_voxels_that_fills_no_byte_comes_back_too():
    mask = np.random.default_rng(1).random((3, 5, 7)) > 0.5
    kept = State("", (1,), ("odd",), pack([mask]), mask.shape, [], [])
    assert np.array_equal(kept.mask(0), mask)


def test_the_label_map_numbers_the_targets():
    label = np.random.default_rng(2).integers(0, 4, SHAPE)
    kept = state(0, *(label == target for target in (1, 2, 3)))
    assert kept.label().dtype == np.uint8
    assert np.array_equal(kept.label(), label)


@pytest.mark.parametrize(
    ("before", "now", "fresh"),
    [
        ([], [[1, 2, 3]], [True]),
        ([[1, 2, 3]], [[1, 2, 3]], [False]),
        ([[1, 2, 3]], [[1, 2, 3], [1, 2, 3]], [False, True]),
        ([[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [4, 5, 6], [1, 2, 3]], [False, True, False]),
        ([[1, 2, 3], [4, 5, 6]], [[4, 5, 6], [7, 8, 9]], [False, True]),
        ([[1, 2, 3]], [], []),
    ],
)
def test_each_old_point_accounts_for_one_of_the_new(before, now, fresh):
    points = [np.array(rows, dtype=float).reshape(-1, 3) for rows in (before, now)]
    found = fresh_points(*points)
    assert found.dtype == bool and found.tolist() == fresh
