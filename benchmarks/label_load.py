"""Does the MONAI Label server hold? Many clients at once, every mask compared, then a kill while labels are saved.

    python benchmarks/label_load.py [--size small] [--clients 20] [--seconds 300] [--images 4] [--cache-mib 256]

A real server is started over a folder of generated phantoms. Every task (point, box, text, classes, several targets,
and a click that is mended, undone and redone) is first asked by one user alone; then clients with names of their own
ask at random, and every reply must have the bytes of the first answer. Meanwhile /info/ is asked and the server's
memory read five times a second. At the end labels are saved in a loop, the server gets SIGKILL and starts again, three
times: what `label_kill` finds wrong then, a wrong mask and a failed request make the exit code 1. Clients and server
share the machine, so that times are upper bounds.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from label_kill import kill_while_saving
from label_server import Phantom, Server
from scipy import ndimage

REQUEST_S, PROBE_S = 600, 0.2
HISTORY_MIB = 256  # of the app's undo steps, beside the memory that --cache-mib bounds

Step = tuple[str, dict[str, Any]]  # model, params
Task = tuple[str, list[Step]]  # image, steps of one client
Answers = Mapping[str, Sequence[requests.Response]]  # to the steps of each task


@dataclass
class Measured:
    """What was seen.

    Args:
        memory: the server's MiB when it had started, and after one user.
        alone: the answers of one user.
        outcomes: of every reply under load, what it was and its seconds.
        probes: seconds of /info/ under load, infinite where it failed, and the server's MiB then.
    """

    memory: tuple[float, float]
    alone: Answers
    outcomes: list[tuple[str, float]]
    probes: list[tuple[float, float]]


def main() -> None:
    """Run every part, print the table, and fail where something was wrong."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name:
        server = Server(
            Path(name), [["size", arguments.size], ["cache_mib", str(arguments.cache_mib)], *arguments.conf]
        )
        phantoms = server.fill(arguments.images)
        try:
            measured = _measure(server, phantoms, arguments)
            shapes = {image: phantom.image.shape for image, phantom in phantoms.items()}
            killed, faults = kill_while_saving(server, shapes, arguments.kills)
        finally:
            server.kill()
    rows = _rows(measured, arguments) | killed
    sys.stdout.write("| what | figure |\n|---|---|\n")
    sys.stdout.writelines(f"| {key} | {value} |\n" for key, value in rows.items())
    faults = [*_faults(measured), *faults]
    sys.stdout.writelines(f"\nFAULT: {fault}\n" for fault in faults)
    sys.exit(bool(faults))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("small", "base"), default="small")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--cache-mib", type=int, default=16, help="bound of the app's memory; 16 is soon full")
    parser.add_argument("--kills", type=int, default=3, help="of the server, each with a restart")
    parser.add_argument("--conf", nargs=2, action="append", default=[], help="one more setting of the app")
    return parser.parse_args()


def _measure(server: Server, phantoms: Mapping[str, Phantom], arguments: argparse.Namespace) -> Measured:
    """One user alone, then all clients together."""
    server.start()
    started = server.mebibytes()
    labels = requests.get(f"{server.url}/info/", timeout=60).json()["models"]["segvol_classes"]["labels"]
    tasks = {f"{kind} on {image}": task for image, p in phantoms.items() for kind, task in _tasks(image, p, labels)}
    session = requests.Session()
    alone = {name: [_ask(session, server, task[0], step, "alone") for step in task[1]] for name, task in tasks.items()}
    memory = started, server.mebibytes()
    end = time.monotonic() + arguments.seconds
    stopped, probes = threading.Event(), list[tuple[float, float]]()
    with ThreadPoolExecutor(arguments.clients + 1) as pool:
        pool.submit(_probe, server, stopped, probes)
        jobs = [pool.submit(_client, server, tasks, alone, f"client-{n}", end) for n in range(arguments.clients)]
        wait(jobs)
        stopped.set()
    return Measured(memory, alone, [outcome for job in jobs for outcome in job.result()], probes)


def _rows(measured: Measured, arguments: argparse.Namespace) -> dict[str, str]:
    replies = [reply for replies in measured.alone.values() for reply in replies]
    masks = [reply.content.split(b"\n\n", 1)[-1] for reply in replies if reply.ok]
    counts = Counter(said for said, _ in measured.outcomes)
    infos, held = ([row[column] for row in measured.probes] for column in (0, 1))
    held = [*(float(np.median(part)) for part in np.array_split(held, 4)), max(held)]
    return {
        "clients, seconds, images": f"{arguments.clients}, {arguments.seconds:g}, {arguments.images}",
        "answers of one user alone": f"{len(masks)}, {sum(map(any, masks))} not empty, {len(set(masks))} different",
        "replies under load": ", ".join(f"{count} {said}" for said, count in counts.items()),
        "seconds a reply: median, 95 %, longest": _spread([seconds for _, seconds in measured.outcomes]),
        "seconds of /info/: median, 95 %, longest": f"{_spread(infos)} ({len(infos)} times)",
        "MiB resident: started, after one user": ", ".join(f"{value:.0f}" for value in measured.memory),
        "MiB in each quarter of the load, largest": ", ".join(f"{value:.0f}" for value in held),
        "MiB that may be kept: memory + undo": f"{arguments.cache_mib} + {HISTORY_MIB}",
    }


def _faults(measured: Measured) -> list[str]:
    answers = [(name, reply) for name, replies in measured.alone.items() for reply in replies]
    faults = [f"one user alone, {name}: {reply.status_code} {reply.text}" for name, reply in answers if not reply.ok]
    counts = Counter(said for said, _ in measured.outcomes if said != "right")
    faults += [f"{count} replies: {said}" for said, count in counts.items()]
    failed = sum(seconds == float("inf") for seconds, _ in measured.probes)
    return [*faults, *([f"/info/ failed {failed} times"] if failed else [])]


def _tasks(image: str, phantom: Phantom, labels: Mapping[str, int]) -> list[tuple[str, Task]]:
    """One of every kind, on the largest structures that the weights know by name."""
    sizes = np.bincount(phantom.label.ravel(), minlength=256)
    known = sorted((-sizes[value], value, name) for value, name in phantom.names.items() if name in labels)[:3]
    names, masks = [name for *_, name in known], [phantom.label == value for _, value, _ in known]
    points = [np.unravel_index(depth.argmax(), depth.shape) for depth in map(ndimage.distance_transform_edt, masks)]
    first, second, third = ([int(n) for n in point] for point in points)
    box = [(int(axis.start), int(axis.stop) - 1) for axis in ndimage.find_objects(masks[0].astype(int))[0]]
    click = ("segvol", {"foreground": [first]})
    mend = ("segvol", {"foreground": [first, second], "refine": True})
    steps: dict[str, list[Step]] = {
        "point": [("segvol", {"foreground": [second], "background": [third]})],
        "box": [("segvol", {"roi": [end for pair in box for end in pair[::-1]]})],
        "text": [("segvol", {"text_prompt": names[0]})],
        "classes": [("segvol_classes", {"label_prompt": [labels[name] for name in names]})],
        "names": [("segvol_text", {"text_prompt": ", ".join(names[1:])})],
        "targets": [("segvol", {"targets": [{"text": names[2]}, {"points": [second], "point_labels": [1]}]})],
        "mend": [click, mend, ("segvol", {"undo": 1}), ("segvol", {"undo": -1})],
    }
    return [(kind, (image, asked)) for kind, asked in steps.items()]


def _ask(session: requests.Session, server: Server, image: str, step: Step, client: str) -> requests.Response:
    model, params = step
    form = {"params": json.dumps({**params, "client_id": client, "result_extension": ".nrrd"})}
    query = {"image": image, "output": "image"}
    return session.post(f"{server.url}/infer/{model}", params=query, data=form, timeout=REQUEST_S)


def _client(
    server: Server, tasks: Mapping[str, Task], alone: Answers, name: str, end: float
) -> list[tuple[str, float]]:
    """Ask at random until the end, or until there is no answer; what each reply was, and its seconds."""
    chance, session, outcomes = random.Random(name), requests.Session(), []
    while time.monotonic() < end:
        task = chance.choice(list(tasks))
        image, steps = tasks[task]
        for step, expected in zip(steps, alone[task], strict=True):
            begin = time.perf_counter()
            try:
                reply = _ask(session, server, image, step, name)
            except requests.RequestException as error:
                return [*outcomes, (type(error).__name__, time.perf_counter() - begin)]
            said = "right" if reply.content == expected.content else f"wrong mask, {task}"
            outcomes.append((said if reply.ok else f"HTTP {reply.status_code}", time.perf_counter() - begin))
    return outcomes


def _probe(server: Server, stopped: threading.Event, probes: list[tuple[float, float]]) -> None:
    """Seconds of /info/, infinite where it failed, and the server's MiB."""
    session = requests.Session()
    while not stopped.wait(PROBE_S):
        begin = time.perf_counter()
        try:
            session.get(f"{server.url}/info/", timeout=60).raise_for_status()
            seconds = time.perf_counter() - begin
        except requests.RequestException:
            seconds = float("inf")
        probes.append((seconds, server.mebibytes()))


def _spread(seconds: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in (*np.percentile(seconds, (50, 95), method="nearest"), max(seconds)))


if __name__ == "__main__":
    main()
