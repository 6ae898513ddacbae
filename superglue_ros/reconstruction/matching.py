"""Features of every image once, and matches of pairs in batches, into the store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from superglue_ros.config import Config
from superglue_ros.data.image import resize
from superglue_ros.evaluation.progress import track
from superglue_ros.geometry.refinement import make_refiner
from superglue_ros.mapping.keyframes import Candidate, Keyframe
from superglue_ros.mapping.refinement import refined
from superglue_ros.mapping.verification import sigma_of_matches
from superglue_ros.reconstruction.pictures import Pictures
from superglue_ros.reconstruction.store import PairMatches, Store
from superglue_ros.rig import Pairing, Rig
from superglue_ros.types import Correspondences, FrameId, MatchKind

BATCH = 8
"""Images, and pairs, that go through a network together."""
_KEPT = 512  # encoded images in memory


def settings_of(config: Config) -> dict[str, object]:
    """What features and matches depend on, by name."""
    front, matcher = config.front_end, config.matcher
    return {
        "front_end.name": front.name,
        "front_end.weights": front.weights,
        "front_end.max_keypoints": front.max_keypoints,
        "front_end.max_size": front.max_size,
        "front_end.threshold": front.threshold,
        "front_end.nms_radius": front.nms_radius,
        "matcher.name": matcher.name,
        "matcher.weights": matcher.weights,
        "matcher.threshold": matcher.threshold,
        "matcher.verification": matcher.verification,
        "matcher.ratio": matcher.ratio,
        "refinement": config.refinement,
    }


def extract(pictures: Pictures, store: Store, rig: Rig) -> None:
    """Store the features of the pictures that have none, a batch at a time."""
    images, done = store.images, store.described()
    missing = [i for i, name in enumerate(pictures.names) if images[name] not in done]
    starts = range(0, len(missing), BATCH)
    for start in track(starts, len(starts), "features"):
        places = missing[start : start + BATCH]
        found = rig.front_end.extract_all([pictures.grey(place) for place in places])
        store.write_features(
            {images[pictures.names[i]]: one for i, one in zip(places, found, strict=True)}
        )


class EncodedImages:
    """Images of a store ready to be matched; the last few hundred stay in memory."""

    def __init__(self, pictures: Pictures | None, store: Store, rig: Rig) -> None:
        self._pictures, self._store, self._rig = pictures, store, rig
        self._numbers = store.images
        self._kept: OrderedDict[str, Keyframe] = OrderedDict()
        self._places = {name: i for i, name in enumerate(pictures.names)} if pictures else {}

    def __getitem__(self, name: str) -> Keyframe:
        """The image of that name."""
        if name not in self._kept:
            self._kept[name] = self._encoded(name)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return self._kept[name]

    def _encoded(self, name: str) -> Keyframe:
        number = self._numbers[name]
        features = self._store.features(number)
        image = None
        config = self._rig.config
        if config.refinement != "none" and not self._rig.front_end.exact and name in self._places:
            assert self._pictures is not None
            grey = self._pictures.grey(self._places[name])
            image = resize(grey, config.front_end.max_size)
        raw = Keyframe(id=FrameId(id=number), features=features, prepared=None, resized=image)
        return self._rig.prepare(raw)


def match(
    pictures: Pictures, pairs: Sequence[tuple[int, int]], store: Store, rig: Rig
) -> EncodedImages:
    """Store the matches of the ``pairs`` of places that have none, a batch at a time."""
    images, done = store.images, store.matched()
    encoded = EncodedImages(pictures, store, rig)
    numbers = [sorted((images[pictures.names[i]], images[pictures.names[j]])) for i, j in pairs]
    missing = sorted({(a, b) for a, b in numbers} - done)
    names = {number: name for name, number in images.items()}
    starts = range(0, len(missing), BATCH)
    for start in track(starts, len(starts), f"matching {len(missing)} pairs"):
        part = missing[start : start + BATCH]
        pairings = [
            Pairing(Candidate(encoded[names[a]], MatchKind.KEYFRAME), encoded[names[b]])
            for a, b in part
        ]
        found = rig.match_pairings(pairings)
        store.write_matches(
            _stored(pairing, one, rig.config) for pairing, one in zip(pairings, found, strict=True)
        )
    return encoded


def _stored(pairing: Pairing, found: Correspondences, config: Config) -> PairMatches:
    reference, query = pairing.candidate.keyframe, pairing.query
    points = query.features.keypoints[found.index_query]
    better = refined(
        make_refiner(config.refinement),
        reference.resized,
        query.resized,
        reference.features.keypoints[found.index_ref],
        points,
        found.turns,
    )
    return PairMatches(
        image0=reference.id.id,
        image1=query.id.id,
        index=np.stack([found.index_ref, found.index_query], axis=1),
        scores=found.scores,
        offset=better.points - points,
        sigma_px=better.sigma_or(sigma_of_matches(reference.features, query.features, found)),
    )
