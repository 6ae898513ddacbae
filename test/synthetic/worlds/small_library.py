"""A furniture library of a crate, a lamp that hangs, and a door, written file by file."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

LICENCE = "CC0 of the tests"
SIZE_CM = (60.0, 40.0, 80.0)  # width, depth, height of the crate
CATALOGUE = f"""# a comment
license={LICENCE}
name#1=Crate
model#1=/lib/crate/crate.obj
width#1=60
depth#1=40
height#1=80
movable#1=true
name#2=Lamp
model#2=/lib/crate/crate.obj
width#2=30
depth#2=30
height#2=30
elevation#2=180
name#3=Door
model#3=/lib/crate/crate.obj
width#3=90
depth#3=10
height#3=200
doorOrWindow#3=true
name#4=Torn
model#4=/lib/torn/torn.obj
width#4=50
depth#4=50
height#4=50
name#5=Unfinished
"""
# A box of 2 x 3 x 1 units, y up, of which the front (+z) shows the picture upright.
CRATE = """mtllib crate.mtl
v 0 0 0\nv 2 0 0\nv 2 3 0\nv 0 3 0\nv 0 0 1\nv 2 0 1\nv 2 3 1\nv 0 3 1
vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1
usemtl pictured
f 5/1 6/2 7/3\nf 5/1 7/3 8/4
usemtl plain
f 2 1 4\nf 2 4 3\nf 1 5 8\nf 1 8 4\nf 6 2 3\nf 6 3 7\nf 8 7 3\nf 8 3 4\nf 1 2 6\nf 1 6 5
"""
MATERIALS = "newmtl pictured\nKd 1 1 1\nmap_Kd crate.png\nnewmtl plain\nKd 0.4 0.4 0.4\n"


def write_library(folder: Path, name: str = "small.sh3f") -> Path:
    """The path of the library in ``folder``."""
    picture = np.full((64, 64), 40, np.uint8)
    picture[:32] = 220  # the upper half is bright
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "png")
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", CATALOGUE)
        archive.writestr("lib/crate/crate.obj", CRATE)
        archive.writestr("lib/crate/crate.mtl", MATERIALS)
        archive.writestr("lib/crate/crate.png", content.getvalue())
        archive.writestr("lib/torn/torn.obj", "v 0 0 0\nv 1 0 0\nf 1 2 9\n")
    return folder / name
