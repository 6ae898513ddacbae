"""Metadata that setup.cfg cannot hold: what package.xml already says, and the shared files."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import setup

HERE = Path(__file__).resolve().parent
PACKAGE = ElementTree.parse(HERE / "package.xml").getroot()
SHARE = "share/superglue_ros"


def shared_files(folder: str) -> list[tuple[str, list[str]]]:
    """Return where the files of a top-level folder go, and the files, by sub-folder."""
    files: dict[str, list[str]] = {}
    for path in sorted((HERE / folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(HERE)
            files.setdefault(f"{SHARE}/{name.parent.as_posix()}", []).append(name.as_posix())
    return list(files.items())


setup(
    version=PACKAGE.findtext("version"),
    description=PACKAGE.findtext("description"),
    maintainer=PACKAGE.findtext("maintainer"),
    url=PACKAGE.findtext("url"),
    data_files=[
        (SHARE, ["package.xml"]),
        *(
            entry
            for folder in ("config", "launch", "rviz", "msg", "srv")
            for entry in shared_files(folder)
        ),
    ],
)
