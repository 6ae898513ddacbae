"""Shader scripts of id Tech 3: which picture a surface shows, and whether it is drawn at all."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TOKEN = re.compile(r'[{}\n]|"[^"\n]*"|[^\s{}"]+')
_HIDDEN = {"nodraw", "fog", "sky", "hint", "skip", "areaportal"}


@dataclass(frozen=True)
class Stage:
    """A layer of a shader: its picture ('' for none), and how it goes over the layers below."""

    picture: str = ""
    alpha_tested: bool = False
    blended: bool = False
    environment: bool = False


@dataclass(frozen=True)
class Shader:
    """What a script says about a surface that is of use in a still picture.

    ``pictures``: names, the best first; ``hidden``: sky, fog and surfaces that only the compiler
    needs; ``translucent``: glass, flames, glows, of which the depth is not defined.
    """

    pictures: tuple[str, ...]
    hidden: bool = False
    translucent: bool = False
    alpha_tested: bool = False


def parse_shaders(script: str) -> dict[str, Shader]:
    """Shaders of one script by name in lower case; what is not understood is passed over."""
    shaders: dict[str, Shader] = {}
    name, depth = "", 0
    words: set[str] = set()
    editor = ""
    stages: list[Stage] = []
    stage = Stage()
    for line, mark in _lines(script):
        if line and depth == 0:
            name = line[0]
        elif line and depth == 1 and len(line) > 1:
            if line[0] == "surfaceparm":
                words.add(line[1])
            elif line[0] == "qer_editorimage":
                editor = line[1]
        elif line and depth == 2:
            stage = _with_line(stage, line)
        if mark == "{":
            depth += 1
            if depth == 1:
                words, editor, stages = set(), "", []
            elif depth == 2:
                stage = Stage()
        elif mark == "}":
            if depth == 2:
                stages.append(stage)
            elif depth == 1 and name:
                shaders[name] = _shader(stages, words, editor)
                name = ""
            depth = max(depth - 1, 0)
    return shaders


def _lines(script: str) -> Iterable[tuple[list[str], str]]:
    """Words of a line in lower case, and the mark that ends it: a brace or the line's end."""
    line: list[str] = []
    for token in _TOKEN.findall(_COMMENT.sub(" ", script)):
        if token in "{}\n":
            yield line, token
            line = []
        else:
            line.append(token.strip('"').lower())


def _with_line(stage: Stage, line: list[str]) -> Stage:
    key, values = line[0], line[1:]
    picture, alpha_tested = stage.picture, stage.alpha_tested
    blended, environment = stage.blended, stage.environment
    if key in ("map", "clampmap") and values and not values[0].startswith(("$", "*")):
        picture = values[0]
    elif key == "animmap" and len(values) > 1:
        picture = values[1]  # the first picture; before it stands the rate
    elif key == "alphafunc":
        alpha_tested = True
    elif key == "blendfunc" and values != ["gl_one", "gl_zero"]:
        blended = True
    elif key == "tcgen" and values[:1] == ["environment"]:
        environment = True
    return Stage(picture, alpha_tested, blended, environment)


def _shader(stages: list[Stage], words: set[str], editor: str) -> Shader:
    shown = [stage for stage in stages if stage.picture]
    # A reflection moves with the viewer: it is no texture of the surface.
    shown.sort(key=lambda stage: stage.environment)
    pictures = [stage.picture for stage in shown] + ([editor] if editor else [])
    alpha_tested = any(stage.alpha_tested for stage in stages)
    return Shader(
        pictures=tuple(pictures),
        hidden=bool(words & _HIDDEN),
        translucent=bool(stages) and stages[0].blended and not alpha_tested,
        alpha_tested=alpha_tested,
    )
