"""Logs without patients: stock loggers print whole requests, image names and DICOM headers.

A filter on the handlers, since stock loggers set their own levels: what the stock server says below a warning is
dropped, and in everything else the values of patient fields and names in DICOM's own writing are blotted out.
"""

import logging
import re

BLOT = "[removed]"
STOCK = "monailabel"
FIELDS = (
    r"Patient'?s?[ _]?(?:Name|ID|Birth[ _]?Date|Address|Comments|Sex|Age)|OtherPatientIDs?|AccessionNumber"
    r"|ReferringPhysician'?s?[ _]?Name|InstitutionName"
)
QUOTED = re.compile(
    rf"((?:{FIELDS})['\"]?\s*(?:[:=]|\b[A-Z]{{2}}:)\s*)(\"[^\"]*\"|'[^']*'|\[[^\]]*\]|[^,;}}\)\n]+)", re.I
)
TAGGED = re.compile(r"(['\"]0010[0-9A-Fa-f]{4}['\"]\s*:\s*)\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")
CARET = re.compile(r"[^\s'\"(\[{=:,^~]+(?:\^+[^\s'\",;)\]}]*)+")
formatter = logging.Formatter()


def redact(text: str) -> str:
    """A text without the values of patient fields and without names such as DOE^JOHN."""
    return CARET.sub(BLOT, QUOTED.sub(rf"\1{BLOT}", TAGGED.sub(rf"\1{BLOT}", text)))


class PatientFilter(logging.Filter):
    """Drops the stock server's chatter and redacts the rest, tracebacks included."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written, after it was redacted."""
        stock = record.name == STOCK or record.name.startswith(f"{STOCK}.")
        if stock and record.levelno < logging.WARNING:
            return False
        record.msg, record.args = redact(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = redact(formatter.formatException(record.exc_info))
        return True


def install_filter() -> None:
    """Put the filter on every handler that exists; calling it again does no harm."""
    loggers = [logging.getLogger(), *(each for each in logging.root.manager.loggerDict.values())]
    for each in loggers:
        for handler in getattr(each, "handlers", ()):
            if not any(isinstance(present, PatientFilter) for present in handler.filters):
                handler.addFilter(PatientFilter())
