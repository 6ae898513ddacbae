"""Images from Debian packages: download without root, unpack, and read the stated licence."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from superglue_ros.errors import DataError


def unpack_package(name: str, folder: Path) -> None:
    """Download the Debian package ``name`` and unpack it into ``folder`` (made if missing).

    Raises :class:`DataError` where the tools or the package are missing. An
    existing folder is not changed.
    """
    if folder.is_dir():
        return
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise DataError(
                f"{tool} is not on this machine: collect on Debian or Ubuntu, or give --folder "
                f"with your own images"
            )
    # Absolute, since the tools run in the scratch folder.
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _run(["apt-get", "download", "--quiet", name], scratch, name)
        archives = list(Path(scratch).glob("*.deb"))
        if len(archives) != 1:
            raise DataError(f"package {name} gave {len(archives)} archives: run apt-get update")
        unpacked = Path(scratch) / "unpacked"
        _run(["dpkg", "-x", str(archives[0]), str(unpacked)], scratch, name)
        unpacked.rename(folder)


def licence_names(folder: Path, name: str, part: str = "") -> str:
    """The ``License:`` fields of the package's machine-readable copyright file, joined.

    With ``part`` only those of paragraphs that name it, '' where there are none.
    """
    file = folder / "usr/share/doc" / name / "copyright"
    if not file.is_file():
        return "" if part else "see the package"
    names: dict[str, None] = {}
    for paragraph in file.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        for line in paragraph.splitlines() if part in paragraph else ():
            if line.startswith("License:") and line[8:].strip():
                names[line[8:].strip()] = None
    return ", ".join(names) or ("" if part else f"see /usr/share/doc/{name}/copyright")


def _run(command: list[str], folder: str, name: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise DataError(
            f"package {name} cannot be had ({reason[-1] if reason else 'no message'}): run apt-get "
            f"update, or leave it out of the list"
        )
