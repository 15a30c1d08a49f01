"""The server's bounds and switches: one place, read from the environment when the server starts."""

from collections.abc import Mapping
from dataclasses import dataclass

MIB = 2**20
SWITCHES = ("logs", "reload", "stow", "weights")


@dataclass(frozen=True)
class Limits:
    """What one request may cost, how many run at once, and which refused routes are switched on.

    Args:
        upload: largest body of a request that carries files, in bytes.
        unpacked: largest size of such a file once it is unpacked, in bytes.
        infer_threads: requests that infer, train or score at the same time.
        proxy_threads: requests to the image archive at the same time.
        server_threads: all other requests at the same time.
        waiting: requests of one kind that may wait for a thread; one more is told to come back.
        allowed: words of `SWITCHES`; each opens routes that are closed by default.
    """

    upload: int = 2048 * MIB
    unpacked: int = 8192 * MIB
    infer_threads: int = 4
    proxy_threads: int = 16
    server_threads: int = 16
    waiting: int = 256
    allowed: frozenset[str] = frozenset()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Limits":
        """Read the `SEGVOL_*` variables.

        Raises:
            ValueError: a variable that is no positive integer, or a switch that does not exist.
        """
        standard = cls()
        return cls(
            upload=_positive(environment, "SEGVOL_MAX_UPLOAD_MIB", standard.upload // MIB) * MIB,
            unpacked=_positive(environment, "SEGVOL_MAX_UNPACKED_MIB", standard.unpacked // MIB) * MIB,
            infer_threads=_positive(environment, "SEGVOL_INFER_THREADS", standard.infer_threads),
            proxy_threads=_positive(environment, "SEGVOL_PROXY_THREADS", standard.proxy_threads),
            server_threads=_positive(environment, "SEGVOL_SERVER_THREADS", standard.server_threads),
            waiting=_positive(environment, "SEGVOL_MAX_WAITING", standard.waiting),
            allowed=_switches(environment.get("SEGVOL_ALLOW", "")),
        )


def _positive(environment: Mapping[str, str], name: str, standard: int) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return standard
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name} must be a positive integer; got '{text}'")
    return int(text)


def _switches(text: str) -> frozenset[str]:
    words = frozenset(text.replace(",", " ").split())
    if unknown := sorted(words - set(SWITCHES)):
        raise ValueError(f"SEGVOL_ALLOW takes words of {', '.join(SWITCHES)}; got '{unknown[0]}'")
    return words
