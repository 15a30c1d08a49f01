"""A workflow in a process of its own: its words are passed on, its failure is a line, its end is certain."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from lib.bundle_run import RunFailed, command_for, run

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def test_the_lines_are_passed_on_without_bars(tmp_path):
    heard: list[str] = []
    run(
        python("print('first'); print('load:  50%|##  | 1/2', flush=True); print(); print('last')"),
        tmp_path,
        heard.append,
    )
    assert heard == ["first", "last"]


def test_a_failure_is_the_last_line_that_was_said(tmp_path):
    with pytest.raises(RunFailed, match="^datalist: none of its 2 cases can be used$"):
        run(python("print('begin'); raise SystemExit('datalist: none of its 2 cases can be used')"), tmp_path, print)


def test_a_silent_failure_tells_its_status(tmp_path):
    with pytest.raises(RunFailed, match="^it ended with status 3$"):
        run(python("raise SystemExit(3)"), tmp_path, print)


def test_the_process_is_gone_when_its_parent_gives_up(tmp_path):
    def give_up(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt) as caught:
        run(python("import os, time; print(os.getpid(), flush=True); time.sleep(600)"), tmp_path, give_up)
    assert not psutil.pid_exists(int(str(caught.value)))


def test_the_process_is_gone_when_its_parent_is_killed(tmp_path):
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    code = f"""
        import sys
        sys.path.insert(0, {str(ROOT / "monailabel_app")!r})
        from pathlib import Path
        from lib.bundle_run import run
        run([sys.executable, "-c", {child!r}], Path("."), lambda line: print(line, flush=True))
    """
    with subprocess.Popen(python(code), cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        number = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert gone(number)


@pytest.mark.parametrize("by_server", [True, False], ids=["by_a_server", "by_hand"])
def test_a_task_ends_with_the_server_that_started_it_and_with_nobody_else(tmp_path, by_server):
    task = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT / "monailabel_app")!r})
from lib.parent import end_with_server
end_with_server()
print(os.getpid(), flush=True)
time.sleep(600)
"""
    code = f"""
        import os, subprocess, sys
        if {by_server}:
            os.environ["SEGVOL_SERVER_PID"] = str(os.getpid())
        subprocess.run([sys.executable, "-c", {task!r}])
    """
    environment = {key: value for key, value in os.environ.items() if key != "SEGVOL_SERVER_PID"}
    with subprocess.Popen(python(code), cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        number = int(server.stdout.readline())
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        if by_server:
            assert gone(number)
        else:
            time.sleep(0.5)
            assert psutil.Process(number).status() != psutil.STATUS_ZOMBIE
            os.kill(number, signal.SIGKILL)


def gone(number: int) -> bool:
    """Whether a process ends within a minute; one that nobody has buried yet counts as ended."""
    for _ in range(600):
        if not psutil.pid_exists(number) or psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def test_the_command_line_holds_the_settings_as_they_are():
    command = command_for(ROOT / "bundle", "train.json", {"epochs": 3, "kinds": ["text", "box"]})
    assert command[:4] == [sys.executable, "-m", "monai.bundle", "run"]
    assert command[-6:] == ["--bundle_root", str(ROOT / "bundle"), "--epochs", "3", "--kinds", "['text', 'box']"]
