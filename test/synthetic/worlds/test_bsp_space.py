import numpy as np
import pytest

from superglue_ros.errors import DataError

from .small_map import BOX, FENCE, PILLAR, SIZE


def within(box, position):
    return bool((position > box[0]).all() and (position < box[1]).all())


def test_points_are_free_where_the_map_says_so(world):
    rng = np.random.default_rng(0)
    counts = {True: 0, False: 0}
    for position in rng.uniform(-1.0, SIZE + 1.0, (3000, 3)):
        expected = (
            within([np.zeros(3), SIZE], position)
            and not within(BOX, position)
            and not within(PILLAR, position)
        )
        assert world.space.is_free(position) is expected, position
        counts[expected] += 1
    assert min(counts.values()) > 500


def test_brushes_that_are_not_solid_do_not_stop_a_camera(world):
    assert world.space.is_free(FENCE.mean(axis=0) - [0, 0.5, 0])


def test_clearance_keeps_away_from_walls(world):
    assert world.space.is_free(np.array([0.1, 3.0, 2.0]))
    assert not world.space.is_free(np.array([0.1, 3.0, 2.0]), clearance=0.2)
    assert not world.space.is_free(np.array([2.9, 2.5, 0.5]), clearance=0.2)
    assert world.space.is_free(np.array([2.0, 3.0, 2.0]), clearance=0.2)


def test_drawn_places_are_free_and_everywhere(world):
    rng = np.random.default_rng(1)
    places = np.array([world.space.draw(rng, 0.2) for _ in range(300)])
    assert all(world.space.is_free(place, 0.2) for place in places)
    assert (places.min(axis=0) < 0.15 * SIZE).all()
    assert (places.max(axis=0) > 0.85 * SIZE).all()


def test_a_map_without_room_is_refused(world):
    with pytest.raises(DataError, match="no free space for a camera"):
        world.space.draw(np.random.default_rng(0), clearance=5.0)
