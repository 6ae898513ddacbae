"""Changes of valid input that keep most of its structure: messages, bytes, text, JSON, containers.

Every function takes its randomness from ``rng`` alone, so that a case is its seed.
"""

from __future__ import annotations

import array
import io
import json
import random
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Mutator = Callable[[bytes, random.Random], bytes]

FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-300, 1e-30, 1e30, -1e30, 1e160, 1e308, np.nan, np.inf, -np.inf]
WHOLE = [
    0,
    1,
    2,
    3,
    7,
    127,
    128,
    255,
    256,
    32767,
    65535,
    2**31 - 1,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
]
TEXTS = [
    "", " ", "x" * 10_000, "mono8\x00", "\U0001f600", "é" * 300, "../../etc/passwd", "%s%n", "NaN",
    "mono8", "mono16", "bgr8", "rgba16", "16UC1", "32FC1", "8UC3", "8UC5", "64FC1", "yuv422",
    "uyvy", "nv21", "bayer_rggb8", "bayer_gbrg16", "plumb_bob", "rational_polynomial",
    "equidistant", "sift-root", "superpoint-open", "jpeg", "bgr8; png compressed bgr8",
]  # fmt: skip
WORDS = [
    "", "0", "-1", "1", "nan", "inf", "-inf", "1e308", "1e309", "1e-320", "1e999999", "9" * 400,
    "0x10", "1_000", "1.5", "true", "null", "~", "[]", "{}", "'", '"', "#", "&a", "*a", "<<", "!!x",
    "!!python/object:os.system", "- - -", "\t", "\x00", "\x85", "\ufeff", "٣", "../x", "/dev/zero",
    "a" * 5000,
]  # fmt: skip
_LIMITS = {"f": FLOATS, "d": FLOATS}
_LONGEST_ARRAY = 4096


# -- messages ------------------------------------------------------------------------------------


def mutate_message(message: Any, rng: random.Random) -> None:
    """Change one field of a ROS message, however deep, to another value of its type."""
    name, kind = rng.choice(list(message.get_fields_and_field_types().items()))
    value = getattr(message, name)
    if hasattr(value, "get_fields_and_field_types"):
        mutate_message(value, rng)
    else:
        setattr(message, name, _other(value, kind, rng))


def _other(value: Any, kind: str, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return other_integer(value, kind, rng)
    if isinstance(value, float):
        return rng.choice([*FLOATS, value * 1.01, -value, rng.uniform(-1e3, 1e3)])
    if isinstance(value, str):
        return rng.choice([*TEXTS, value[:-1], value + " ", value.upper(), value[::-1]])
    if isinstance(value, np.ndarray):  # of fixed length
        changed = value.copy()
        changed[rng.randrange(len(changed))] = rng.choice(FLOATS)
        return changed
    if isinstance(value, array.array):
        return _other_array(value, rng)
    return value


def other_integer(value: int, kind: str, rng: random.Random) -> int:
    """Another value of a ROS integer type, such as uint16; those near a limit are frequent."""
    bits = int("".join(c for c in kind if c.isdigit()) or 8)
    low, high = (0, 2**bits - 1) if kind[0] in "uo" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    near = value + rng.choice([-2, -1, 1, 2])
    return min(max(rng.choice([0, 1, low, high, near, rng.randint(low, high)]), low), high)


def _other_array(value: array.array, rng: random.Random) -> array.array:
    changed = array.array(value.typecode, value)
    values: Sequence[Any] = _LIMITS.get(value.typecode, [0, 1, 127])
    if value.typecode in "iq":
        bits = 8 * value.itemsize - 1
        values = [0, 1, -1, -(2**bits), 2**bits - 1]
    what = rng.random()
    if what < 0.15 or not changed:  # longer
        changed.extend([rng.choice(values)] * rng.choice([1, 2, 5, len(changed) or 1]))
        return changed[:_LONGEST_ARRAY] if not value else changed
    if what < 0.3:  # shorter
        return changed[: rng.randrange(len(changed))]
    if what < 0.4:  # all equal
        return array.array(value.typecode, [rng.choice(values)] * len(changed))
    if value.typecode == "B":
        return array.array("B", damage(changed.tobytes(), rng))
    for _ in range(rng.choice([1, 1, 3])):
        changed[rng.randrange(len(changed))] = rng.choice(values)
    return changed


# -- bytes and text ------------------------------------------------------------------------------


def damage(data: bytes, rng: random.Random) -> bytes:
    """Bits flipped, numbers overwritten, parts lost, repeated, moved or filled."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if not changed:
            return rng.randbytes(rng.choice([1, 8, 64]))
        place, length = rng.randrange(len(changed)), rng.choice([1, 2, 4, 8, 16, 64])
        what = rng.randrange(9)
        if what <= 1:
            changed[place] ^= 1 << rng.randrange(8)
        elif what == 2:
            changed[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif what == 3:
            size = rng.choice([2, 4, 8])
            number = rng.choice(WHOLE) % 256**size
            changed[place : place + size] = number.to_bytes(size, rng.choice(["little", "big"]))
        elif what == 4:
            del changed[place : place + length]
        elif what == 5:
            changed[place:place] = changed[place : place + length] or b"\x00"
        elif what == 6:
            changed[place:place] = rng.randbytes(length)
        elif what == 7:
            changed[place : place + length] = bytes(length)
        else:
            del changed[place:]
    return bytes(changed)


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """One to eight bits flipped; the size stays."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Words replaced by hostile ones, lines lost, repeated or moved, marks inserted."""
    text = data.decode("utf-8", errors="replace")
    for _ in range(rng.choice([1, 1, 2, 4])):
        lines = text.splitlines(keepends=True) or [""]
        place = rng.randrange(len(lines))
        what = rng.randrange(7)
        if what <= 2:
            words = list(re.finditer(r"[^\s:,\[\]{}]+", text))
            if words:
                word = rng.choice(words)
                text = text[: word.start()] + rng.choice(WORDS) + text[word.end() :]
        elif what == 3:
            del lines[place]
            text = "".join(lines)
        elif what == 4:
            lines.insert(rng.randrange(len(lines) + 1), lines[place])
            text = "".join(lines)
        elif what == 5:
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice([*"-:[]{}&*!|>'\"%@`#,?\n\t ", "\n  "]) + text[at:]
        else:
            at = rng.randrange(len(text) + 1)
            text = text[:at] + text[at + rng.choice([1, 1, 5]) :]
    return text.encode("utf-8", errors="replace")


# -- JSON and containers -------------------------------------------------------------------------


def mutate_tree(value: Any, rng: random.Random) -> Any:
    """A copy of nested plain values with one of them replaced, removed, added or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        changed = dict(value)
        what = rng.random()
        if what < 0.1:
            del changed[key]
        elif what < 0.2:
            changed[rng.choice(["", "x", key.upper(), key + "_"])] = changed.pop(key)
        else:
            changed[key] = mutate_tree(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value[:place] + value[place + 1 :]
        if rng.random() < 0.2:
            return [*value, value[place]]
        return [*value[:place], mutate_tree(value[place], rng), *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice([value + 1, value - 1, -value, value * 2, value * 2**32, float(value)])
    return rng.choice(
        [None, True, False, "", "x", "1", [], {}, [value], {"x": value}, *WHOLE, *FLOATS]
    )


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON document (or one of its lines) with one value changed."""
    lines = data.decode().splitlines()
    whole = rng.random() < 0.5 or len(lines) < 2
    place = rng.randrange(len(lines) or 1)
    try:
        if whole:
            return json.dumps(mutate_tree(json.loads(data), rng)).encode()
        lines[place] = json.dumps(mutate_tree(json.loads(lines[place]), rng))
        return "\n".join(lines).encode()
    except ValueError:  # of a document over several lines, one line
        return mutate_text(data, rng)


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """The header of a safetensors file changed, whose length is set right; the tensors stay."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if rng.random() < 0.4 and "__metadata__" in header:  # texts, some of which are JSON
        name = rng.choice(list(header["__metadata__"]))
        text = header["__metadata__"][name].encode()
        changed = rng.choice([mutate_json, mutate_text])(text, rng)
        header["__metadata__"][name] = changed.decode(errors="replace")
    else:
        header = mutate_tree(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def mutate_zip(data: bytes, rng: random.Random) -> bytes:
    """A ZIP archive (npz, pth) with one member changed, lost, or renamed; checksums are right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        names = source.namelist()
        chosen, what = rng.choice(names), rng.random()
        for name in names:
            content = source.read(name)
            if name == chosen:
                if what < 0.1:
                    continue
                if what < 0.2:
                    name += "_"
                elif what < 0.6 and content.startswith(b"\x93NUMPY"):
                    content = _mutate_npy_header(content, rng)
                else:
                    content = damage(content, rng)
            target.writestr(name, content)
    return out.getvalue()


def _mutate_npy_header(content: bytes, rng: random.Random) -> bytes:
    """Another type or shape in the header of an ``.npy`` member, of the same length."""
    length = int.from_bytes(content[8:10], "little")
    header = content[10 : 10 + length].decode("latin1").rstrip()
    numbers = list(re.finditer(r"\d+", header))
    if rng.random() < 0.6 and numbers:
        number = rng.choice(numbers)
        other = rng.choice(["0", "1", "-1", "99999999", "9" * 30, "1.5"])
        header = header[: number.start()] + other + header[number.end() :]
    else:
        kind = rng.choice(["|O", "<f8", ">f4", "<i2", "|S5", "<U3", "<c16", "<M8[s]", "|V7", "?"])
        header = re.sub(r"'descr': '[^']*'", f"'descr': '{kind}'", header)
    text = header.encode("latin1")[: length - 1].ljust(length - 1) + b"\n"
    return content[:10] + text + content[10 + length :]
