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
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)
