"""Which code runs here: resuming is for the build that started a run."""

from __future__ import annotations

import hashlib
import sys

from tightship._version import __version__


def build_id(code_hash: str) -> str:
    """A short name of the workspace's code, this package's version and the interpreter's."""
    text = f"{code_hash}\n{__version__}\n{sys.version_info[0]}.{sys.version_info[1]}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
