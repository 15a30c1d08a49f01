"""Evaluation: every prompt kind in every mode, measured against the labels of a datalist.

Where a case is labelled completely, the names that it does not hold are asked for too: a network that always draws
something answers those wrongly, and no Dice would tell.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..arguments import exit_on_error, one_of
from ..prompts import Prompt, PromptKind
from ..text_encoder import TextEncoder
from .cases import Entry, LabelledCase, absent_from, dice, load_case, names_of, one_line, prompt_rng
from .region_growing import MODE as BASELINE
from .report import Call, Outcome, Result, summarise, write_report
from .settings import Settings

logger = logging.getLogger(__name__)


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
        inferers: mode -> inferer, and the baseline where the settings ask for it.
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
        for mode in self._modes("box"):
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
        names = {name for entry in self.cases for name in names_of(entry)}
        return Texts(self.text_encoder, sorted(names | set(self.settings.absent_names or ())))

    def _evaluate(self, entry: Entry) -> Outcome:
        case = load_case(entry, self.preprocessing, self.device, self.settings.labels_complete)
        outcome = Outcome(cases=1)
        targets = self._targets(case, outcome)
        for kind in self.settings.kinds:
            named = [target for target in targets if "text" not in kind or target.text is not None]
            self._ask(case, [self._draw(case, target, kind) for target in named], kind, outcome)
        if "text" in self.settings.kinds and case.complete:
            absent = [Question(name, 0, 0, name, Prompt(name, name)) for name in self._absent(case)]
            self._ask(case, absent, "text", outcome)
        return outcome

    def _targets(self, case: LabelledCase, outcome: Outcome) -> list[Question]:
        """The labelled structures that are large enough, still without a prompt."""
        asks_by_text = any("text" in kind for kind in self.settings.kinds)
        targets = []
        for value, name in case.labels.items():
            voxels = int(np.count_nonzero(case.mask(value)))
            if voxels >= self.settings.minimum_voxels:
                text = self.texts.name_of(name)
                if asks_by_text and text is None:
                    outcome.skipped["without a name, not asked for by text" if name is None else "text unknown"] += 1
                targets.append(Question(text or name or f"label {value}", value, voxels, text))
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
        present = (self.texts.name_of(name) for value, name in case.labels.items() if case.mask(value).any())
        return absent_from(map(self.texts.name_of, wanted), present)

    def _modes(self, kind: PromptKind) -> tuple[str, ...]:
        """Where a prompt of this kind goes: region growing is given boxes alone."""
        with_baseline = self.settings.baseline and kind == "box"
        return (*self.settings.modes, BASELINE) if with_baseline else self.settings.modes

    def _ask(self, case: LabelledCase, questions: Sequence[Question], kind: PromptKind, outcome: Outcome) -> None:
        """Answer in every mode; a prompt that lies outside the crop gets an empty mask, as it is refused in use."""
        inside = [question for question in questions if question.prompt is not None]
        outside = [question for question in questions if question.prompt is None]
        size = self.settings.targets_per_call
        for mode in self._modes(kind):
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

    def name_of(self, name: str | None) -> str | None:
        """The name that the text encoder takes for the name of a label, None where it takes none."""
        return None if name is None else self.resolved.get(name)

    def vector(self, name: str | None) -> torch.Tensor | None:
        """(text_dim,) of a resolved name."""
        return None if name is None else self._encoder([name])[0]


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
