"""Free space of a map: outside of walls, by its BSP tree and its solid brushes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.bsp import SOLID, BspMap

Array = NDArray[np.float64]

METRES = 1 / 32
"""Metres of one map unit."""

_LARGEST_M = 16.0  # leaves count as no larger: the sky above a map is not where its views are
_TRIES = 100


@dataclass(frozen=True, eq=False)
class BspSpace:
    """The tree of a map, in metres: a :class:`FreeSpace`.

    ``planes`` (P, 4): normal and distance, a point x is in front where n x >= d. ``nodes`` (N, 3):
    plane, child in front, child behind; a child < 0 is leaf -1 - child. ``boxes`` (L, 6): low and
    high corner of a leaf, ``inside`` (L,): whether it is part of the map's interior. Solid brushes
    in leaf l are ``leaf_brushes[leaf_starts[l]:leaf_starts[l + 1]]``, planes that bound brush b
    ``brush_planes[brush_starts[b]:brush_starts[b + 1]]``.
    """

    planes: NDArray[np.float32]
    nodes: NDArray[np.int32]
    boxes: NDArray[np.float32]
    inside: NDArray[np.bool_]
    leaf_starts: NDArray[np.int32]
    leaf_brushes: NDArray[np.int32]
    brush_starts: NDArray[np.int32]
    brush_planes: NDArray[np.int32]

    @classmethod
    def of(cls, bsp: BspMap) -> BspSpace:
        """The free space of a map."""
        solid = (bsp.textures["contents"][bsp.brushes["texture"]] & SOLID) != 0
        lists = [
            [
                int(brush)
                for brush in bsp.leaf_brushes[first : first + count]
                if solid[brush] and bsp.brushes["sides"][brush] > 0
            ]
            for first, count in zip(bsp.leaves["first_brush"], bsp.leaves["brushes"], strict=True)
        ]
        used = sorted({brush for brushes in lists for brush in brushes})
        number = {brush: index for index, brush in enumerate(used)}
        sides = [
            bsp.brush_sides["plane"][first : first + count]
            for first, count in bsp.brushes[["first_side", "sides"]][used].tolist()
        ]
        bounds = np.concatenate([np.zeros(0, np.int32), *sides]).astype(np.int32)
        # Many planes belong to brushes that are not solid.
        planes, index = np.unique(np.r_[bsp.nodes["plane"], bounds], return_inverse=True)
        kept, split = bsp.planes[planes], len(bsp.nodes)
        return cls(
            planes=np.c_[kept["normal"], kept["distance"] * METRES].astype(np.float32),
            nodes=np.c_[index[:split], bsp.nodes["children"]].astype(np.int32),
            boxes=np.c_[bsp.leaves["low"], bsp.leaves["high"]].astype(np.float32) * METRES,
            inside=bsp.leaves["cluster"] >= 0,
            leaf_starts=_starts(lists),
            leaf_brushes=np.array([number[b] for one in lists for b in one], np.int32),
            brush_starts=_starts(sides),
            brush_planes=index[split:].astype(np.int32),
        )

    def leaf(self, position: Array) -> int:
        """The leaf that ``position`` (3,) metres is in."""
        planes, nodes = self._lists
        x, y, z = (float(value) for value in position)
        node = 0 if nodes else -1
        while node >= 0:
            plane, front, behind = nodes[node]
            a, b, c, distance = planes[plane]
            node = front if a * x + b * y + c * z >= distance else behind
        return -1 - node

    def is_free(self, position: Array, clearance: float = 0.0) -> bool:
        """Whether ``position`` (3,) metres is in the interior and in no solid brush.

        With ``clearance`` [m] the six points at that distance along the axes must be free too.
        """
        if not self._is_free(np.asarray(position, np.float64)):
            return False
        if clearance == 0:
            return True
        steps = clearance * np.vstack([np.eye(3), -np.eye(3)])
        return all(self._is_free(position + step) for step in steps)

    def draw(self, rng: np.random.Generator, clearance: float = 0.0) -> Array:
        """A random free position (3,), more often where there is more room.

        Raises :class:`DataError` where none is found.
        """
        leaves, chances = self._rooms
        for _ in range(_TRIES if len(leaves) else 0):
            box = self.boxes[rng.choice(leaves, p=chances)].astype(np.float64)
            position = rng.uniform(box[:3], box[3:])
            if self.is_free(position, clearance):
                return position
        raise DataError("the map has no free space for a camera: leave it out")

    def heading(self, rng: np.random.Generator, position: Array) -> float:
        """Any direction, whatever the place."""
        return float(rng.uniform(-np.pi, np.pi))

    def floor_below(self, position: Array, most_m: float = 4.0) -> Array | None:
        """The point of the floor (3,) under a free ``position``; None if none is within ``most_m``.

        To a millimetre; what is thinner than 10 cm may be passed over.
        """
        free, step = np.array(position, np.float64), 0.1
        for _ in range(int(most_m / step)):
            below = free - [0, 0, step]
            if not self._is_free(below):
                break
            free = below
        else:
            return None
        while step > 0.001:
            step /= 2
            below = free - [0, 0, step]
            free = below if self._is_free(below) else free
        return free

    @cached_property
    def _lists(self) -> tuple[list[list[float]], list[list[int]]]:
        """Planes and nodes as lists, which a walk down the tree reads far faster than arrays."""
        return self.planes.tolist(), self.nodes.tolist()

    @cached_property
    def _rooms(self) -> tuple[NDArray[np.int64], Array]:
        """Leaves of the interior, and how often each is drawn: by the root of its volume."""
        leaves = np.flatnonzero(self.inside)
        extent = (self.boxes[leaves, 3:] - self.boxes[leaves, :3]).astype(np.float64)
        weights = np.sqrt(np.clip(extent, METRES, _LARGEST_M).prod(axis=1))
        return leaves, weights / max(weights.sum(), 1e-12)

    def _is_free(self, position: Array) -> bool:
        leaf = self.leaf(position)
        if leaf >= len(self.inside) or not self.inside[leaf]:
            return False
        brushes = self.leaf_brushes[self.leaf_starts[leaf] : self.leaf_starts[leaf + 1]]
        for brush in brushes:
            start, end = self.brush_starts[brush], self.brush_starts[brush + 1]
            bounds = self.planes[self.brush_planes[start:end]]
            if (bounds[:, :3] @ position <= bounds[:, 3]).all():
                return False
        return True


def _starts(lists: list) -> NDArray[np.int32]:
    return np.cumsum([0, *map(len, lists)]).astype(np.int32)
