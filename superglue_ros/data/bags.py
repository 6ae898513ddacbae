"""rosbag2 directories without ROS: topics in, messages and serialised bytes out.

Bags are read and written with the ``rosbags`` package, in both storage formats (mcap, sqlite3).
Written bags have metadata version 9, that of Jazzy and later. Types found in a bag are used as they
are stored there; for writing, and for bags without definitions, the types of Jazzy and this
package's own ``msg/*.msg`` are known.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from superglue_ros.errors import DataError

STORAGES = ("mcap", "sqlite3")
_PACKAGE = "superglue_ros"
_METADATA_VERSION = 9  # Jazzy and later
_FOREVER = QosTime(9223372036, 854775807)


@dataclass(frozen=True)
class Topic:
    """A topic of a bag: its name, its type (``package/msg/Name``) and how many messages it has."""

    name: str
    type: str
    count: int


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """All message types of Jazzy and of this package."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for path in sorted(message_folder().glob("*.msg")):
        types.update(get_types_from_msg(path.read_text(), f"{_PACKAGE}/msg/{path.stem}"))
    store.register(types)
    return store


def message_folder() -> Path:
    """Folder of the ``*.msg`` files: in the source tree, or the share folder of an installation."""
    here = Path(__file__).resolve()
    for parent in here.parents:
        for folder in (parent / "msg", parent / "share" / _PACKAGE / "msg"):
            if (folder / "Matches.msg").is_file():
                return folder
    raise DataError(
        f"the message definitions (Matches.msg, ...) are not installed with {here.parent}: "
        f"build the package with colcon, or install it with pip from a complete source tree"
    )


class BagReader:
    """An open bag: a rosbag2 directory, or a single ``.mcap`` or ``.db3`` file.

    Raises :class:`DataError` where it cannot be read. Use it as a context manager.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise DataError(f"bag {self.path} does not exist")
        if self.path.is_dir() and not (self.path / "metadata.yaml").is_file():
            raise DataError(
                f"{self.path} is no rosbag2 directory: it has no metadata.yaml. After a crash, "
                f"`ros2 bag reindex` writes one, or name the .mcap or .db3 file itself"
            )
        try:
            self._reader = AnyReader([self.path], default_typestore=typestore())
            self._reader.open()
            self.topics = {
                name: Topic(name, info.msgtype or "", info.msgcount)
                for name, info in self._reader.topics.items()
            }
        except Exception as error:  # of the parsers of two formats and YAML, on any bytes
            raise DataError(f"bag {self.path} cannot be read: {_words(error)}") from error

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def require(self, name: str, types: Sequence[str] = ()) -> Topic:
        """The topic of this name; raises :class:`DataError` that lists the topics there are.

        ``types`` are those it may have; none: any.
        """
        topic = self.topics.get(name)
        if topic is None:
            raise DataError(f"bag {self.path} has no topic {name!r}. It has:\n{self.describe()}")
        if types and topic.type not in types:
            raise DataError(
                f"topic {name!r} of bag {self.path} is a {topic.type}, not a {' or a '.join(types)}"
            )
        return topic

    def describe(self) -> str:
        """One line per topic: name, type, number of messages."""
        lines = [f"  {t.name} ({t.type}, {t.count} messages)" for t in self.topics.values()]
        return "\n".join(lines) or "  (no topics)"

    def messages(self, names: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
        """Topic, time of recording [ns] and message, in the order of recording."""
        for name, stamp_ns, data in self.serialised(names):
            kind = self.topics[name].type
            try:
                message = self._reader.deserialize(data, kind)
            except Exception as error:  # of generated code, on any bytes
                raise DataError(
                    f"a {kind} on {name!r} of {self.path} is damaged: {_words(error)}"
                ) from error
            yield name, stamp_ns, message

    def serialised(self, names: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time of recording [ns] and serialised message, in the order of recording.

        Raises :class:`DataError` where the bag is damaged or ends before the number of messages
        that it declares.
        """
        for name in names:
            self.require(name)
        wanted = [c for c in self._reader.connections if c.topic in names]
        if not wanted:  # an empty filter would mean all
            return
        read = 0
        messages = iter(self._reader.messages(wanted))
        while True:
            try:  # around the reader alone: errors of whoever takes the messages pass
                connection, stamp_ns, data = next(messages)
            except StopIteration:
                break
            except Exception as error:
                raise DataError(
                    f"bag {self.path} cannot be read to its end: {_words(error)}"
                ) from error
            read += 1
            yield connection.topic, stamp_ns, data
        declared = sum(connection.msgcount for connection in wanted)
        if read < declared:
            raise DataError(
                f"bag {self.path} has {read} of the {declared} messages that it declares: it is "
                f"damaged, or its metadata contradict its files. `ros2 bag reindex` writes the "
                f"metadata anew, or name the .mcap or .db3 file itself"
            )


class BagWriter:
    """A new rosbag2 directory. Use it as a context manager: it is complete after exit.

    ``overwrite`` replaces an older bag, never another kind of folder. Raises :class:`DataError`.
    """

    def __init__(self, path: str | Path, storage: str = "mcap", overwrite: bool = False) -> None:
        self.path = Path(path)
        if storage not in STORAGES:
            raise DataError(f"bag storage {storage!r} is unknown: known are {', '.join(STORAGES)}")
        if self.path.exists():
            # One whose writer was killed has storage files, but no metadata.
            is_bag = (self.path / "metadata.yaml").is_file() or all(
                file.name.endswith((".mcap", ".db3")) for file in self.path.glob("*")
            )
            if not (overwrite and self.path.is_dir() and is_bag):
                raise DataError(f"{self.path} exists already: remove it, or name another bag")
            shutil.rmtree(self.path)
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self._writer = Writer(self.path, version=_METADATA_VERSION, storage_plugin=plugin)
        self._writer.open()
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add_topic(self, name: str, kind: str) -> None:
        """Announce a topic of type ``kind`` (``package/msg/Name``), offered reliably."""
        if kind not in typestore().fielddefs:
            raise DataError(f"message type {kind!r} of topic {name!r} is unknown")
        self._connections[name] = self._writer.add_connection(
            name, kind, typestore=typestore(), offered_qos_profiles=[_reliable()]
        )

    def write(self, name: str, stamp_ns: int, message: Any) -> None:
        """Serialise and write a message made from :func:`typestore`'s types."""
        connection = self._connections[name]
        data = typestore().serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, stamp_ns, data)

    def write_serialised(self, name: str, stamp_ns: int, data: bytes) -> None:
        """Write a message that is already serialised (CDR)."""
        self._writer.write(self._connections[name], stamp_ns, data)


def _words(error: Exception) -> str:
    """What an error says, shortened, with its kind where it says but a word."""
    text = str(error)
    return (text if " " in text else repr(error))[:300]


def _reliable() -> Qos:
    return Qos(
        QosHistory.KEEP_LAST,
        10,
        QosReliability.RELIABLE,
        QosDurability.VOLATILE,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )
