"""The shared memory: bounded in bytes, oldest use goes first, one computation a key."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from lib.memory import Memory


def put(memory: Memory, key: str, size: int = 10) -> bool:
    """Ask for a value of so many bytes; whether it was there."""
    value, found = memory.get(key, lambda: key * size, len)
    assert value == key * size
    return found


def test_a_value_is_made_once_and_found_afterwards():
    memory = Memory(100)
    assert [put(memory, "a"), put(memory, "a")] == [False, True]
    assert (memory.used, len(memory)) == (10, 1)


def test_the_bytes_never_exceed_the_limit():
    memory = Memory(100)
    for number in range(200):
        put(memory, chr(100 + number), 1 + 7 * number % 60)
        assert memory.used <= 100
    assert memory.used > 40 and len(memory) > 1


def test_exactly_the_limit_is_kept():
    memory = Memory(100)
    put(memory, "a", 100)
    assert put(memory, "a", 100)


def test_the_longest_unused_goes_first():
    memory = Memory(30)
    for key in "abc":
        put(memory, key)
    put(memory, "a")
    put(memory, "d")
    assert put(memory, "a") and put(memory, "c") and put(memory, "d")
    assert not put(memory, "b")


def test_a_value_above_the_limit_is_handed_out_and_drives_nothing_away():
    memory = Memory(30)
    put(memory, "a")
    assert not put(memory, "x", 31) and not put(memory, "x", 31)
    assert put(memory, "a") and memory.used == 10


def test_a_memory_of_0_bytes_keeps_nothing():
    memory = Memory(0)
    assert not put(memory, "a") and not put(memory, "a") and memory.used == 0


def test_a_negative_limit_is_refused_in_one_line():
    with pytest.raises(ValueError, match="limit is -1 bytes; it must be 0 or more"):
        Memory(-1)


def test_clear_forgets_everything():
    memory = Memory(100)
    put(memory, "a")
    memory.clear()
    assert (memory.used, len(memory)) == (0, 0)
    assert not put(memory, "a") and memory.used == 10


def test_eight_threads_that_ask_at_once_get_one_computation():
    memory, made, together, slow = Memory(100), [], threading.Barrier(8), threading.Event()

    def make() -> object:
        made.append(object())
        slow.wait(0.2)
        return made[-1]

    def ask(_: int) -> tuple[object, bool]:
        together.wait()
        return memory.get("key", make, lambda value: 1)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert len(made) == 1
    assert [value is made[0] for value, _ in answers] == [True] * 8
    assert sorted(found for _, found in answers) == [False] + [True] * 7


def test_different_keys_are_made_at_the_same_time():
    memory, together = Memory(100), threading.Barrier(2)

    def make() -> str:
        together.wait(10)  # breaks where the other is not being made too
        return "x"

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda key: memory.get(key, make, len), "ab"))
    assert answers == [("x", False), ("x", False)]


def test_an_error_goes_to_the_one_who_made_it_and_the_next_makes_it_again():
    memory, tries, waiting = Memory(100), [], threading.Event()

    def make() -> str:
        tries.append(len(tries))
        if len(tries) == 1:
            waiting.wait(0.2)
            raise ValueError("broken")
        return "good"

    def ask(_: int) -> tuple[object, bool] | str:
        try:
            return memory.get("key", make, len)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert answers.count("broken") == 1 and answers.count(("good", False)) == 1
    assert answers.count(("good", True)) == 6
    assert tries == [0, 1]


def test_an_error_in_the_size_leaves_the_key_free():
    memory = Memory(100)
    with pytest.raises(ZeroDivisionError):
        memory.get("key", lambda: "x", lambda value: 1 // 0)
    assert memory.get("key", lambda: "y", len) == ("y", False)


def test_what_is_being_made_while_all_is_forgotten_reaches_its_asker():
    memory = Memory(100)

    def make() -> str:
        memory.clear()
        return "x"

    assert memory.get("key", make, len) == ("x", False)
    assert memory.used == 1
