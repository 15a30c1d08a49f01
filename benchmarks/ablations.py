"""The paper's ablations at small scale, and this project's own: short trainings, evaluations, and tables over seeds.

    python benchmarks/ablations.py --output_dir out/ablations --seeds 3 --epochs 20 --views 400 \
        --train_datalist sarcoma=real.json::STS_ totalsegmentator=real.json::totalsegmentator/ phantoms=phantoms.json \
        --test_datalist real=real.json phantoms=unseen.json --checkpoint pretrained.pt

Every seed trains one network on all sources, with pseudo masks and views of many sizes, and one for each thing that is
taken away: pseudo masks, views other than crops, sources from the last to the second. Nothing else differs: seed,
start and number of views are the same. Then every network answers the test cases in mode zoom, and the first one in
the other modes of the inferer too. No weights are chosen by their score: a training is judged by its last epoch, the
only one that is validated.

Trainings and evaluations run one after another, each a bundle command in a process of its own with its log beside its
results. What is done is not done again, so that a run which was cut off goes on where it was; what was merely begun is
begun anew, and so is what was done with other settings, weights or datalists. After each step ablations.json (figures
of every seed, commands, machine) and ablations.md (tables) are written anew from what there is.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from ablation_plan import Job, Settings, Source, datalist_file, datalists, plan
from ablation_tables import Answers, figures, markdown
from scripts.prompts import PROMPT_KINDS

DONE = "done.json"  # in the folder of a job: its command, the checksums of its inputs, when and how long it ran


def main() -> None:
    """Run what is left of the plan, and write the tables."""
    settings = read_settings(sys.argv[1:])
    jobs, finished = list(plan(settings)), list[str]()
    try:
        lists = datalists(settings)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    for name, cases in lists.items():
        _write_json(datalist_file(settings, name), {"cases": cases})
    for number, job in enumerate(jobs, start=1):
        _say(f"[{number}/{len(jobs)}] {job.name}: ")
        _say(run(job, settings.output_dir / job.name) + "\n")
        finished.append(job.name)
        write_tables(settings, finished)
    _say(f"tables: {settings.output_dir / 'ablations.md'}\n")


def run(job: Job, folder: Path) -> str:
    """Run a job unless it is done, and say what came of it.

    Raises:
        SystemExit: one line of its log, where it failed.
    """
    inputs = {str(path): _sha256(path) for path in job.inputs}
    record: dict[str, Any] = {"command": job.command(folder), "inputs": inputs}
    if is_done(folder, record):
        return "done before"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started, begin = datetime.datetime.now().astimezone().isoformat(timespec="seconds"), time.perf_counter()
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        status = subprocess.run(record["command"], stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        raise SystemExit(f"failed: {_complaint(folder / 'log.txt')} (the whole log: {folder / 'log.txt'})")
    seconds = round(time.perf_counter() - begin, 1)
    _write_json(folder / DONE, {**record, "started": started, "seconds": seconds})
    return f"{seconds:.0f} s"


def is_done(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether ``folder`` holds the results of this very command on these very inputs."""
    done = folder / DONE
    return done.is_file() and record.items() <= json.loads(done.read_text(encoding="utf-8")).items()


def write_tables(settings: Settings, finished: Iterable[str]) -> None:
    """ablations.json and ablations.md, from the jobs that are done."""
    finished = list(finished)
    found = figures(Answers(settings, finished))
    about = _about(settings)
    jobs = {name: json.loads((settings.output_dir / name / DONE).read_text(encoding="utf-8")) for name in finished}
    _write_json(settings.output_dir / "ablations.json", {"about": about, "figures": found, "jobs": jobs})
    _write(settings.output_dir / "ablations.md", markdown(about, found))


def read_settings(words: list[str]) -> Settings:
    """The command line, checked; argparse ends the run with a line for a mistake."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--output_dir", type=Path, required=True)
    add("--train_datalist", type=_source, nargs="+", required=True, metavar="NAME=PATH[::TEXT]")
    add("--test_datalist", type=_source, nargs="+", required=True, metavar="NAME=PATH[::TEXT]")
    add("--seeds", type=_positive, default=3, help="how many, from 0")
    add("--epochs", type=_positive, default=20)
    add("--views", type=_positive, default=400, help="per epoch")
    add("--at_most", type=_positive, help="cases to train on of each source, the first ones; all of them by default")
    add("--pseudo_masks", type=_positive, default=2, help="per view, where there are any")
    add("--checkpoint", type=Path, help="where every training starts, as train.json takes it")
    add("--size", choices=("small", "base"), default="small")
    add("--device", help="as the configs take it")
    add("--kinds", nargs="+", choices=PROMPT_KINDS, default=list(PROMPT_KINDS), help="of prompts, in mode zoom")
    add("--mode_kinds", nargs="+", choices=PROMPT_KINDS, default=["text", "box"], help="in the other modes")
    add("--train_options", type=_option, nargs="+", default=[], metavar="KEY=VALUE", help="further keys of train.json")
    chosen = parser.parse_args(words)
    for name in ("train_datalist", "test_datalist"):
        names = [source.name for source in getattr(chosen, name)]
        if len(set(names)) < len(names):
            parser.error(f"argument --{name}: every NAME may occur once, got {', '.join(names)}")
    if not set(chosen.mode_kinds) <= set(chosen.kinds):
        parser.error("argument --mode_kinds: each must be one of --kinds, as zoom is compared with the other modes")
    if chosen.checkpoint is not None and not chosen.checkpoint.is_file():
        parser.error(f"argument --checkpoint: {chosen.checkpoint} does not exist")
    listed = {key: tuple(value) for key, value in vars(chosen).items() if isinstance(value, list)}
    paths = {"output_dir": chosen.output_dir.resolve(), "checkpoint": chosen.checkpoint and chosen.checkpoint.resolve()}
    return Settings(**{**vars(chosen), **listed, **paths, "train_options": dict(chosen.train_options)})


def _about(settings: Settings) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    lists = {name: [case["split"] for case in cases] for name, cases in datalists(settings).items()}
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, {gpu}, torch {torch.__version__}",
        "size": settings.size,
        "seeds": list(range(settings.seeds)),
        "epochs": settings.epochs,
        "views_per_epoch": settings.views,
        "train_options": settings.train_options,
        "start": "random weights" if settings.checkpoint is None else settings.checkpoint.name,
        "cases": {name: len(splits) - splits.count("validation") for name, splits in lists.items()},
    }


def _source(value: str) -> Source:
    try:
        return Source.parse(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(value: str) -> int:
    if not value.isdecimal() or int(value) == 0:
        raise argparse.ArgumentTypeError(f"{value!r} is no whole number of at least 1")
    return int(value)


def _option(value: str) -> tuple[str, str]:
    key, equals, rest = value.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w#:]*", key):
        raise argparse.ArgumentTypeError(f"{value!r} is not of the form KEY=VALUE")
    return key, rest


def _complaint(log: Path) -> str:
    """The first error of a traceback, which the others follow from; else the last line, for a mistake of the user."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[A-Za-z_.]*(Error|Exception)\b", line)]
    return (errors[:1] or lines[-1:] or ["it said nothing"])[0]


def _write_json(path: Path, content: Any) -> None:
    _write(path, json.dumps(content, indent=1) + "\n")


def _write(path: Path, content: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(content, encoding="utf-8")
    os.replace(part, path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
