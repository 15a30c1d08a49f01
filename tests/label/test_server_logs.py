"""Logs carry no patient: fields and names are blotted out, stock chatter is dropped."""

import io
import logging

import pytest
from lib.serving.logs import PatientFilter, install_filter, redact


@pytest.mark.parametrize(
    "text",
    [
        "Label Info: {'SeriesInstanceUID': '1.2', 'PatientID': 'Smith-77', 'ts': 3}",
        '{"PatientName": "Smith", "Modality": "CT"}',
        "PatientName=Smith",
        "Patient ID: Smith-77",
        "(0010,0010) Patient's Name                      PN: 'Smith'",
        "(0010,0020) Patient ID                          LO: 'Smith'",
        "no file for Smith^Jane^^Dr in the study",
        '{"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Smith"}]}, "00080060": {"vr": "CS"}}',
        '{"00100020": {"vr": "LO", "Value": ["Smith"]}}',
        "{'PatientBirthDate': 'Smith', 'AccessionNumber': 'Smith'}",
        "OtherPatientIDs: ['Smith', 'Smith']",
    ],
)
def test_patients_are_blotted_out(text):
    assert "Smith" not in redact(text)
    assert "[removed]" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "    return a / b\n           ~~^~~\n    ^^^^^",
        "epoch 3/10, loss 0.25",
        "POST /infer/segvol 200",
        "{'Modality': 'CT', 'StudyInstanceUID': '1.2.3'}",
    ],
)
def test_the_rest_stays(text):
    assert redact(text) == text


def _written(name: str, level: int, *message: object, error: Exception | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(PatientFilter())
    logger = logging.Logger(name)
    logger.addHandler(handler)
    logger.log(level, *message, exc_info=error)
    return stream.getvalue()


def test_stock_chatter_is_dropped_whatever_level_its_logger_has():
    assert _written("monailabel.endpoints.infer", logging.INFO, "Infer Request: %s", {"image": "Smith"}) == ""
    assert _written("monailabel.app", logging.WARNING, "disk is full") == "disk is full\n"
    assert _written("lib.engine", logging.INFO, "encoded in %.1f s", 2.5) == "encoded in 2.5 s\n"


def test_arguments_and_tracebacks_are_redacted():
    try:
        raise ValueError("no slices of Smith^Jane")
    except ValueError as error:
        written = _written("lib.engine", logging.ERROR, "failed for %s", {"PatientID": "Smith"}, error=error)
    assert "Smith" not in written
    assert "Traceback" in written
    assert "ValueError: no slices of [removed]" in written


def test_every_handler_gets_the_filter_once():
    handler = logging.NullHandler()
    logging.getLogger("task_train").addHandler(handler)
    install_filter()
    install_filter()
    assert [type(each) for each in handler.filters] == [PatientFilter]
    logging.getLogger("task_train").removeHandler(handler)
