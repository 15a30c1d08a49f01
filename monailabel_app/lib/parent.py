"""The end of a process with the one that started it, however that one ends: no training outlives a killed server.

Linux only; elsewhere whoever kills a server ends its trainings by hand.
"""

import ctypes
import os
import signal
import sys

SERVER = "SEGVOL_SERVER_PID"  # its own number, which a server hands on to the processes of its tasks
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Be killed where the parent is; calls nothing but the kernel."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_server() -> None:
    """The same, where the parent is a server; one that was started by hand may outlive its shell."""
    if os.environ.get(SERVER) == str(os.getppid()):
        end_with_parent()
