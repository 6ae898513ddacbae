from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from superglue_ros.synthetic.photometric import PhotometricRecipe, distort, motion_kernel, shadow

NONE = PhotometricRecipe(
    1.0, brightness=0, contrast=(1, 1), gamma=(1, 1), noise=0, blur=0, motion_blur=0, shading=0,
    jpeg=(100, 100),
)  # fmt: skip
RAMP = np.tile(np.arange(40, 200, dtype=np.uint8), (60, 1))


def test_without_changes_the_image_stays():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(distort(RAMP, rng, NONE), RAMP)
    np.testing.assert_array_equal(distort(RAMP, rng, PhotometricRecipe(probability=0)), RAMP)


@pytest.mark.parametrize(
    "change",
    [
        {"brightness": 40}, {"contrast": (0.5, 0.6)}, {"gamma": (1.5, 1.6)}, {"noise": 9},
        {"blur": 3}, {"motion_blur": 9}, {"shading": 0.6}, {"jpeg": (5, 10)},
    ],
)  # fmt: skip
def test_every_change_changes_and_the_seed_decides(change):
    recipe = replace(NONE, **change)
    image = np.where(np.indices((60, 80)).sum(0) % 7 < 3, 60, 180).astype(np.uint8)
    one, other, third = (distort(image, np.random.default_rng(s), recipe) for s in (1, 1, 2))
    assert one.dtype == np.uint8
    assert one.shape == image.shape
    assert (one != image).any()
    np.testing.assert_array_equal(one, other)
    assert (one != third).any()


def test_contrast_keeps_the_mean_and_scales_the_spread():
    out = distort(RAMP, np.random.default_rng(0), replace(NONE, contrast=(0.5, 0.5 + 1e-9)))
    assert out.mean() == pytest.approx(RAMP.mean(), abs=0.6)
    assert out.std() == pytest.approx(RAMP.std() / 2, rel=0.02)


@pytest.mark.parametrize(("length", "angle"), [(1.0, 0.0), (5.0, 0.3), (9.0, 2.0)])
def test_motion_kernels_keep_the_brightness_and_are_centred(length, angle):
    kernel = motion_kernel(length, angle)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-6)


def test_shadows_only_darken():
    factors = shadow((50, 70), np.random.default_rng(3), 0.5)
    assert factors.min() >= 0.5
    assert factors.max() <= 1.0
    assert factors.std() > 0
