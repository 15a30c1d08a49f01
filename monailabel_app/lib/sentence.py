"""What an error says, in one line: MONAI Label, FastAPI and the system each keep it in another place."""


def sentence(error: Exception) -> str:
    """The sentence of an error, without a path where the system names one; its type where it says nothing."""
    kept = (getattr(error, name, None) for name in ("msg", "detail", "strerror"))
    return " ".join(str(next(filter(None, kept), error)).split()) or type(error).__name__
