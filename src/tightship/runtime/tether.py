"""A process that ends when whoever started it is gone, however that happened: its standard input is the tether.

The parent holds the other end of a pipe and never writes. The kernel closes it with the parent, kill -9 included, on
every system; a signal at the parent's death (Linux' PR_SET_PDEATHSIG) is tied to the thread that started the child.
"""

from __future__ import annotations

import os
import signal
import threading
import time


def end_with_parent(grace: float = 30.0) -> None:
    """End this process in good order (SIGTERM to itself) once its standard input is closed.

    For processes that were given a pipe on purpose: a service's standard input is often closed from the start.

    Args:
        grace: seconds after which it ends at once, whatever it does.
    """
    threading.Thread(target=_watch, args=(grace,), name="tether", daemon=True).start()


def _watch(grace: float) -> None:
    try:
        while os.read(0, 1024):
            continue
    except OSError:  # there is no standard input: nobody holds a tether
        return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(1)
