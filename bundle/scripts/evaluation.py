"""Evaluation: every prompt kind in every mode, measured against the labels of a datalist.

Where a case is labelled completely, the names that it does not hold are asked for too: a network that always draws
something answers those wrongly, and no Dice would tell.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from tqdm import tqdm

from .arguments import as_flag, as_path, exit_on_error, one_of
from .evaluation_cases import Entry, LabelledCase, absent_from, dice, load_case, name_cases, one_line, prompt_rng
from .evaluation_report import Call, Outcome, Result, summarise, write_report
from .prompts import PROMPT_KINDS, Prompt, PromptKind
from .text_encoder import TextEncoder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What the user chose, checked; see ``read_settings``."""

    datalist: tuple[str, ...]
    split: str | None
    output_dir: Path
    kinds: tuple[PromptKind, ...]
    modes: tuple[str, ...]
    seed: int
    jitter: float
    minimum_voxels: int
    targets_per_call: int
    labels_complete: bool
    absent_names: tuple[str, ...] | None


@exit_on_error()
def read_settings(
    datalist: Any,
    output_dir: Any,
    split: Any = None,
    kinds: Any = PROMPT_KINDS,
    modes: Any = "zoom",
    seed: Any = 0,
    jitter: Any = 0.0,
    minimum_voxels: Any = 50,
    targets_per_call: Any = 16,
    labels_complete: Any = False,
    absent_names: Any = None,
) -> Settings:
    """Check what came from the command line.

    Args:
        datalist: one file or a list of them, in the form that training takes.
        output_dir: where the report goes.
        split: only cases of this split; None takes all.
        kinds: one or several of ``PROMPT_KINDS``.
        modes: one or several modes of the inferer.
        seed: of the prompts.
        jitter: each side of a box moves in or out by up to this part of its length, in [0, 1).
        minimum_voxels: smaller targets are skipped; in voxels of the stored grid.
        targets_per_call: most targets that share one call of the inferer, which bounds the memory.
        labels_complete: what the label of a case lacks is truly absent from its image; where only some cases are
            like that, each says so with ``"complete": true`` in the datalist.
        absent_names: names to ask for where they are absent; by default all names of the datalist.

    Raises:
        SystemExit: one line that names the argument and what is allowed.
    """
    paths = [as_path(path, "datalist") for path in (datalist if isinstance(datalist, list | tuple) else [datalist])]
    output = as_path(output_dir, "output_dir")
    if not paths or None in paths:
        raise ValueError('datalist is missing; it takes a JSON file {"cases": [{"image", "label", "labels"}, ...]}')
    if output is None:
        raise ValueError("output_dir is missing; it takes a folder for the report")
    return Settings(
        datalist=tuple(map(str, paths)),
        split=None if split is None else str(split),
        output_dir=output,
        kinds=tuple(cast(PromptKind, one_of(kind, PROMPT_KINDS, "kinds")) for kind in _words(kinds, "kinds")),
        modes=_words(modes, "modes"),
        seed=int(_number(seed, "seed", 0)),
        jitter=_number(jitter, "jitter", 0, below=1),
        minimum_voxels=int(_number(minimum_voxels, "minimum_voxels", 1)),
        targets_per_call=int(_number(targets_per_call, "targets_per_call", 1)),
        labels_complete=as_flag(labels_complete, "labels_complete"),
        absent_names=None if absent_names is None else _words(absent_names, "absent_names"),
    )


@exit_on_error()
def read_cases(read_datalist: Callable[..., list[Entry]], settings: Settings) -> list[Entry]:
    """The entries of the datalist, named.

    Raises:
        SystemExit: one line, for a datalist that cannot be used.
    """
    try:
        return name_cases(read_datalist(list(settings.datalist), settings.split))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"datalist: a case is not of the form image, label, labels ({one_line(error)})") from error


@dataclass(frozen=True)
class Question:
    """A target of a case and its prompt.

    Attributes:
        name: the target's name in the report.
        value: its label value, 0 for a name that the case does not hold.
        voxels: its size in the stored grid, 0 likewise.
        text: the name that the text encoder takes, None where it takes none.
        prompt: in voxels of the crop; None where nothing of it lies there.
        message: what the user should know.
    """

    name: str
    value: int
    voxels: int
    text: str | None
    prompt: Prompt | None = None
    message: str | None = None


class Evaluation:
    """Asks for every target of every case, in every kind and mode, and writes the report.

    Args:
        settings: from ``read_settings``.
        cases: from ``read_cases``.
        preprocessing: see ``load_case``.
        network: a SegVol, on the device.
        text_encoder: resolves names and encodes them.
        inferers: mode -> inferer.
        device: where the network lies.
        about: what the report says beside the settings: version, size, weights.
    """

    def __init__(
        self,
        settings: Settings,
        cases: Sequence[Entry],
        preprocessing: Callable[[Entry], Mapping[str, Any]],
        network: Any,
        text_encoder: TextEncoder,
        inferers: Mapping[str, Callable[..., torch.Tensor]],
        device: torch.device | str = "cpu",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = settings
        self.cases = cases
        self.preprocessing = preprocessing
        self.network = network
        self.text_encoder = text_encoder
        self.inferers = inferers
        self.device = torch.device(device)
        self.about = dict(about or {})

    @exit_on_error()
    def run(self) -> dict[str, Any]:
        """Evaluate, and write the report into ``settings.output_dir``.

        Returns:
            What summary.json holds.

        Raises:
            SystemExit: one line, where nothing could be evaluated; an older report stays as it is then.
        """
        for mode in self.settings.modes:
            one_of(mode, self.inferers, "modes")
        outcome = Outcome(unknown_texts=self.texts.unknown)
        for entry in tqdm(self.cases, desc="evaluate", unit="case"):
            try:
                outcome.add(self._evaluate(entry))
            except (ValueError, torch.cuda.OutOfMemoryError) as error:
                outcome.failed[entry["case"]] = one_line(error)
                logger.warning("case %s left out: %s", entry["case"], one_line(error))
        outcome.check()
        summary = {"settings": self._describe(), **summarise(outcome)}
        write_report(self.settings.output_dir, outcome.results, summary)
        logger.info("report written to %s", self.settings.output_dir)
        return summary

    @cached_property
    def texts(self) -> "Texts":
        """All names of the datalist, and those that the user adds."""
        names = {str(name) for entry in self.cases for name in dict(entry.get("labels") or {}).values()}
        return Texts(self.text_encoder, sorted(names | set(self.settings.absent_names or ())))

    def _evaluate(self, entry: Entry) -> Outcome:
        case = load_case(entry, self.preprocessing, self.device, self.settings.labels_complete)
        outcome = Outcome(cases=1)
        targets = self._targets(case, outcome)
        for kind in self.settings.kinds:
            named = [target for target in targets if "text" not in kind or target.text is not None]
            outcome.skipped["text unknown"] += len(targets) - len(named)
            self._ask(case, [self._draw(case, target, kind) for target in named], kind, outcome)
        if "text" in self.settings.kinds and case.complete:
            absent = [Question(name, 0, 0, name, Prompt(name, name)) for name in self._absent(case)]
            self._ask(case, absent, "text", outcome)
        return outcome

    def _targets(self, case: LabelledCase, outcome: Outcome) -> list[Question]:
        """The labelled structures that are large enough, still without a prompt."""
        targets = []
        for value, name in case.labels.items():
            voxels = int(np.count_nonzero(case.mask(value)))
            if voxels >= self.settings.minimum_voxels:
                text = self.texts.resolved.get(name)
                targets.append(Question(text or name, value, voxels, text))
            elif voxels:
                outcome.skipped["too small"] += 1
        outcome.targets = len(targets)
        return targets

    def _draw(self, case: LabelledCase, target: Question, kind: PromptKind) -> Question:
        rng = prompt_rng(self.settings.seed, case.name, target.value, kind)
        prompt, message = case.draw(target.value, target.name, kind, rng, self.settings.jitter)
        return Question(target.name, target.value, target.voxels, target.text, prompt, message)

    def _absent(self, case: LabelledCase) -> list[str]:
        """Names to ask for that have no voxel in this case."""
        wanted = self.settings.absent_names or tuple(self.texts.resolved)
        resolved = self.texts.resolved
        present = (resolved.get(name) for value, name in case.labels.items() if case.mask(value).any())
        return absent_from((resolved.get(name) for name in wanted), present)

    def _ask(self, case: LabelledCase, questions: Sequence[Question], kind: PromptKind, outcome: Outcome) -> None:
        """Answer in every mode; a prompt that lies outside the crop gets an empty mask, as it is refused in use."""
        inside = [question for question in questions if question.prompt is not None]
        outside = [question for question in questions if question.prompt is None]
        size = self.settings.targets_per_call
        for mode in self.settings.modes:
            nothing = np.zeros(case.image.shape[2:], dtype=bool)
            call = Call(case.name, case.modality, kind, mode)
            outcome.results += [_result(case, call, question, nothing, 0, question.message) for question in outside]
            for at in range(0, len(inside), size):
                self._call(case, call, inside[at : at + size], outcome)

    def _call(self, case: LabelledCase, call: Call, questions: Sequence[Question], outcome: Outcome) -> None:
        """One call of the inferer: every view is encoded once for all its targets."""
        vectors = [self.texts.vector(question.text) if "text" in call.kind else None for question in questions]
        prompts = [question.prompt for question in questions]
        report: dict[str, Any] = {}
        begin = perf_counter()
        logits = self.inferers[call.mode](case.image, self.network, prompts, vectors, report=report)
        masks = (logits[0] > 0).cpu().numpy()
        call = call.measured(questions[0].value > 0, len(questions), perf_counter() - begin, report)
        outcome.calls.append(call)
        for question, mask, told in zip(questions, masks, report["targets"], strict=True):
            message = "; ".join(part for part in (question.message, told["message"]) if part) or None
            outcome.results.append(_result(case, call, question, mask, told["windows"], message))

    def _describe(self) -> dict[str, Any]:
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        hardware = gpu or f"{self.device.type}, {torch.get_num_threads()} threads"
        chosen = {**asdict(self.settings), "output_dir": str(self.settings.output_dir)}
        return {**self.about, **chosen, "device": hardware, "torch": str(torch.__version__)}


class Texts:
    """Names, resolved once; the encoder keeps their vectors.

    Attributes:
        resolved: name -> the name that the text encoder takes.
        unknown: name -> why it takes none.
    """

    def __init__(self, text_encoder: TextEncoder, names: Iterable[str]) -> None:
        self.resolved: dict[str, str] = {}
        self.unknown: dict[str, str] = {}
        self._encoder = text_encoder
        for name in names:
            try:
                self.resolved[name] = text_encoder.resolve(name)
            except ValueError as error:
                self.unknown[name] = one_line(error)
        if self.unknown:
            first = next(iter(self.unknown.values()))
            logger.warning("%d of the names cannot be asked for by text; the first: %s", len(self.unknown), first)

    def vector(self, name: str | None) -> torch.Tensor | None:
        """(text_dim,) of a resolved name."""
        return None if name is None else self._encoder([name])[0]


def bundle_version(metadata: str | Path) -> str | None:
    """The version that a bundle's metadata.json names; None without the file."""
    path = Path(metadata)
    return str(json.loads(path.read_text(encoding="utf-8"))["version"]) if path.is_file() else None


def _result(
    case: LabelledCase, call: Call, question: Question, mask: np.ndarray, windows: int, message: str | None
) -> Result:
    drawn = int(np.count_nonzero(mask))
    present = question.value > 0
    return Result(
        case=case.name,
        modality=case.modality,
        target=question.name,
        value=question.value if present else None,
        kind=call.kind,
        mode=call.mode,
        present=present,
        dice=dice(mask, case.mask(question.value), case.start) if present else None,
        truth_voxels=question.voxels,
        predicted_voxels=drawn,
        predicted_ml=case.millilitres(drawn),
        empty=drawn == 0,
        windows=windows,
        call_targets=call.targets,
        call_seconds=call.seconds,
        call_encoder_runs=call.encoder_runs,
        message=message,
    )


def _words(value: Any, name: str) -> tuple[str, ...]:
    """One word, several with commas, or a list, as the command line may hand them over; each once."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError(f"{name} is {value!r}; it takes one word or a list of at least one")
    return tuple(dict.fromkeys(str(word).strip() for word in listed))


def _number(value: Any, name: str, least: int, below: int | None = None) -> float:
    """A whole number of at least ``least``, or any number from there to ``below``."""
    kinds = (int,) if below is None else (int, float)
    if (
        isinstance(value, bool)
        or not isinstance(value, kinds)
        or value < least
        or (below is not None and value >= below)
    ):
        allowed = (
            f"a whole number of at least {least}" if below is None else f"a number of at least {least}, below {below}"
        )
        raise ValueError(f"{name} is {value!r}; allowed is {allowed}")
    return value
