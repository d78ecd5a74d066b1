"""The peers' own virtual environment, benchmarks/.env: made once with pip, reused until its requirements change."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".env"
REQUIREMENTS = Path(__file__).resolve().with_name("requirements.txt")
_MARK = FOLDER / "made-from"


class PeersUnavailable(RuntimeError):
    """The peers' environment could not be made; the message carries what pip said."""


def python() -> Path:
    """The interpreter of the peers' environment; makes the environment if it is missing or out of date.

    It is built from the interpreter that runs this, so that both sides have one Python and one SQLite.
    Raises PeersUnavailable when pip cannot install the requirements.
    """
    interpreter = FOLDER / "bin" / "python"
    made_from = _fingerprint()
    if interpreter.exists() and _MARK.exists() and _MARK.read_text() == made_from:
        return interpreter
    shutil.rmtree(FOLDER, ignore_errors=True)
    print(f"making the peers' environment in {FOLDER} (once) …", file=sys.stderr, flush=True)
    _quietly([sys.executable, "-m", "venv", str(FOLDER)])
    _quietly([str(interpreter), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS)])
    _MARK.write_text(made_from)
    return interpreter


def _fingerprint() -> str:
    requirements = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    return f"{platform.python_version()} {sys.base_prefix} {requirements}\n"


def _quietly(command: list[str]) -> None:
    """Run a command and show what it printed only if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise PeersUnavailable(f"{' '.join(command[1:4])} failed with exit code {done.returncode}:\n{said}")


if __name__ == "__main__":
    print(python())
