"""Metadata that setup.cfg cannot hold: what package.xml already says, and the shared files."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import setup

HERE = Path(__file__).resolve().parent
PACKAGE = ElementTree.parse(HERE / "package.xml").getroot()
SHARE = "share/superglue_ros"


def shared_files(folder: str) -> tuple[str, list[str]]:
    """Return where the files of a top-level folder go, and the files."""
    files = sorted(path for path in (HERE / folder).glob("*") if path.is_file())
    return f"{SHARE}/{folder}", [path.relative_to(HERE).as_posix() for path in files]


setup(
    version=PACKAGE.findtext("version"),
    description=PACKAGE.findtext("description"),
    maintainer=PACKAGE.findtext("maintainer"),
    data_files=[
        (SHARE, ["package.xml"]),
        *(shared_files(folder) for folder in ("config", "launch", "rviz", "msg", "srv")),
    ],
)
