"""`tightship` in a shell, forked from the loaded process that listens at TIGHTSHIP_WARM (cli_warm.py)."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys


def main() -> int:
    """Have the command run with this process's files, pass signals on to it, and return its exit code."""
    ours, theirs = socket.socketpair()
    request = {"args": sys.argv[1:], "folder": os.getcwd(), "env": dict(os.environ), "code": ""}
    data = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as server, theirs:
        server.connect(os.environ["TIGHTSHIP_WARM"])
        socket.send_fds(server, [len(data).to_bytes(8, "big")], [0, 1, 2, theirs.fileno()])
        server.sendall(data)
    with ours, ours.makefile("r") as told:
        pid = int(told.readline())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: os.kill(pid, number))
        code = int(told.readline())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
