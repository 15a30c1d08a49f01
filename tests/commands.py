"""Run the bundle's command line inside the test process, and as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import fire
from monai.bundle.scripts import run

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"


def configs(*names: str) -> str:
    """The value of --config_file for these configs."""
    return str([str(BUNDLE / "configs" / f"{name}.json") for name in names])


def arguments(names: tuple[str, ...], options: dict[str, object]) -> list[str]:
    """The command line after ``python -m monai.bundle``."""
    words = ["run", "--config_file", configs(*names), "--bundle_root", str(BUNDLE)]
    for key, value in options.items():
        words += [f"--{key}", str(value)]
    return words


def run_here(monkeypatch, *names: str, **options: object) -> None:
    """The command in this process; SystemExit as the process would have it."""
    words = arguments(names, options)
    monkeypatch.setattr(sys, "argv", ["monai.bundle", *words])
    fire.Fire({"run": run}, command=words)


def run_process(folder: Path, *names: str, **options: object) -> subprocess.CompletedProcess:
    """The command as a user gives it, in ``folder``."""
    words = [sys.executable, "-m", "monai.bundle", *arguments(names, options)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600, env=_environment("2"))


def start_process(
    folder: Path, *names: str, processes: int = 1, threads: int = 1, **options: object
) -> subprocess.Popen:
    """The command in ``folder``, as several processes by torchrun where asked for, and not waited for."""
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    words = [sys.executable, "-m", *(torchrun if processes > 1 else []), "monai.bundle", *arguments(names, options)]
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, env=_environment(str(threads)))


def _environment(threads: str) -> dict[str, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    environment.pop("PYTHONPATH", None)
    return environment
