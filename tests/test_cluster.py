"""Workers of this machine and of a scheduler elsewhere: all items come back, whatever happens to one of them."""

import os
import pydoc
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scripts.data.cluster import open_cluster
from scripts.data.tasks import AHEAD, CHECK_SECONDS, Failure, one_line, run_all

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
SHELL = partial(subprocess.check_output, shell=True, text=True)  # a function that workers know without this file


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two processes of this machine."""
    with open_cluster(None, 2, BUNDLE) as client:
        yield client


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler that has nothing to do with the bundle."""
    port = free_port()
    with elsewhere(tmp_path_factory.mktemp("scheduler"), "scheduler", "--host", "127.0.0.1", "--port", str(port)):
        wait_for_port(port)
        yield f"tcp://127.0.0.1:{port}"


class elsewhere:  # noqa: N801  a block: with elsewhere(...)
    """A Dask process in another folder, with another path."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.words = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
        self.folder = folder

    def __enter__(self) -> subprocess.Popen:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(self.words, cwd=self.folder, stdout=log, stderr=log, env=environment)
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)


def wait_for_port(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(port)


def worker(folder: Path, address: str) -> elsewhere:
    return elsewhere(folder, "worker", address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")


def test_every_item_comes_back_with_its_result(client):
    assert dict(run_all(client, os.path.basename, [f"/a/{i}" for i in range(50)])) == {
        f"/a/{i}": str(i) for i in range(50)
    }
    assert list(run_all(client, os.path.basename, [])) == []


def test_workers_can_import_the_bundle(client):
    assert list(run_all(client, pydoc.locate, ["scripts.data.tasks.CHECK_SECONDS"]))[0][1] == CHECK_SECONDS


def test_a_bad_item_is_told_in_one_line_and_the_rest_goes_on(client):
    found = dict(run_all(client, int, ["1", "one", "2"]))
    assert (found["1"], found["2"]) == (1, 2)
    assert found["one"] == Failure("invalid literal for int() with base 10: 'one'")
    ((_, unexpected),) = run_all(client, os.listdir, ["/nowhere"])
    assert unexpected.sentence.startswith("FileNotFoundError: ") and "Traceback" in unexpected.traceback


def test_only_a_few_items_are_in_flight(client):
    drawn, done, most = 0, 0, 0

    def items() -> Iterator[str]:
        nonlocal drawn, most
        for number in range(60):
            drawn += 1
            most = max(most, drawn - done)
            yield str(number)

    for _ in run_all(client, int, items()):
        done += 1
    assert done == 60 and most <= 2 * AHEAD


def test_the_item_of_a_killed_worker_is_done_by_another(client, tmp_path):
    once = f"test -e {tmp_path}/killed || {{ touch {tmp_path}/killed; kill -9 $PPID; }}; echo done"
    found = dict(run_all(client, SHELL, [once, "echo 1", "echo 2", "echo 3"]))
    assert (tmp_path / "killed").exists()
    assert found == {once: "done\n", "echo 1": "1\n", "echo 2": "2\n", "echo 3": "3\n"}


@pytest.mark.slow
def test_an_item_that_kills_every_worker_is_given_up(client):
    found = dict(run_all(client, SHELL, ["kill -9 $PPID", "echo 1"]))
    assert "killed again and again" in found["kill -9 $PPID"].sentence


def test_sigterm_ends_the_block_like_ctrl_c_and_leaves_no_process(tmp_path):
    script = (
        "import os, sys, time; sys.path.insert(0, sys.argv[1])\n"
        "if __name__ == '__main__':\n"
        "    from scripts.data.cluster import open_cluster\n"
        "    from scripts.data.tasks import run_all\n"
        "    try:\n"
        "        with open_cluster(None, None, sys.argv[1]) as client:\n"
        "            print(*client.run(os.getpid).values(), flush=True)\n"
        "            list(run_all(client, time.sleep, [60]))\n"
        "    except KeyboardInterrupt:\n"
        "        raise SystemExit(7)\n"
    )
    (tmp_path / "driver.py").write_text(script)
    words = [sys.executable, "driver.py", str(BUNDLE)]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(60) == 7
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_elsewhere_also_late_ones_can_import_the_bundle(scheduler, tmp_path):
    with worker(tmp_path, scheduler):
        wait_for_workers(scheduler, 1)
        with open_cluster(scheduler, None, BUNDLE) as client, worker(tmp_path, scheduler):
            client.wait_for_workers(2, timeout=60)
            items = ["scripts.data.tasks.CHECK_SECONDS"] * 20
            assert {result for _, result in run_all(client, pydoc.locate, items)} == {CHECK_SECONDS}
            assert set(client.run(pydoc.locate, items[0]).values()) == {CHECK_SECONDS}


def wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address) as client:
        client.wait_for_workers(count, timeout=60)


def test_a_scheduler_without_workers_or_none_at_all_is_told_in_one_line(scheduler):
    begin = time.monotonic()
    for address, told in (
        (scheduler, "has no worker; start one with: dask worker"),
        (f"tcp://127.0.0.1:{free_port()}", "is not reached"),
        ("nonsense", "is not reached"),
        (8786, "it takes an address such as tcp://host:8786"),
    ):
        with pytest.raises(ValueError, match="^scheduler") as caught, open_cluster(address, None, BUNDLE):
            pass
        assert told in str(caught.value) and "\n" not in str(caught.value)
    assert time.monotonic() - begin < 20


def test_a_bundle_that_workers_do_not_see_is_told(scheduler, tmp_path):
    with worker(tmp_path, scheduler):
        wait_for_workers(scheduler, 1)
        with (
            pytest.raises(ValueError, match="^scheduler: the worker at .* sees no bundle at"),
            open_cluster(scheduler, None, tmp_path),
        ):
            pass


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, "two"])
def test_a_number_of_workers_that_is_none_is_refused(workers):
    with pytest.raises(ValueError, match="^workers is"), open_cluster(None, workers, BUNDLE):
        pass


def test_scheduler_and_workers_together_are_refused():
    with pytest.raises(ValueError, match="not both"), open_cluster("tcp://127.0.0.1:1", 2, BUNDLE):
        pass


def test_a_missing_dask_is_told_with_the_extra_that_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"^workers: needs Dask, .*\.\[data\]"), open_cluster(None, 1, BUNDLE):
        pass


def test_one_line_prefers_the_mistake_of_the_user():
    try:
        try:
            raise ValueError("image: two\nlines")
        except ValueError as error:
            raise RuntimeError("applying transform") from error
    except RuntimeError as error:
        assert one_line(error) == "image: two lines"
    assert one_line(MemoryError()) == "MemoryError"
