"""Skips all of it without the extra ``many``."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="the extra `many` is not installed")
pytest.importorskip("pyarrow", reason="the extra `many` is not installed")
