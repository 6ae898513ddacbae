"""Docstrings as Markdown: the roles of Sphinx, which editors show, become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc|doc|ref):`~?\.?([^`]+)`")


class PlainRoles(griffe.Extension):
    """``:class:`a.b.Name``` becomes ```Name```, and paragraphs that begin with * stay text."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute once it is read."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_name, obj.docstring.value)


def _name(match: re.Match[str]) -> str:
    return f"`{match[1].rpartition('.')[2]}`"
