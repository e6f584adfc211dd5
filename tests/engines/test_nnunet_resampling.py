"""Resampling by matrices is nnunetv2's own, to rounding."""

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from bids_app.engines.nnunet.resampling import resample

ISOTROPIC = (1, 1, 1)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(
    ("shape", "new_shape"),
    [
        ((20, 31, 24), (13, 40, 24)),
        ((5, 9, 8), (12, 3, 20)),
        ((1, 8, 8), (3, 8, 9)),
        ((8, 8, 8), (8, 8, 8)),
    ],
)
def test_it_is_that_of_nnunet(shape, new_shape, order):
    data = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    before = data.copy()
    options = {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None}
    found = resample(data, new_shape, ISOTROPIC, ISOTROPIC, **options)
    expected = resample_data_or_seg_to_shape(data, new_shape, ISOTROPIC, ISOTROPIC, **options)
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(data, before)


@pytest.mark.parametrize("is_seg", [False, True])
def test_thick_slices_and_label_maps_are_left_to_nnunet(is_seg):
    data = np.random.default_rng(0).integers(0, 3, (1, 4, 16, 16)).astype(np.float32)
    arguments = (data, (14, 16, 18), (3.5, 1, 1.1), ISOTROPIC)
    options = {"is_seg": is_seg, "order": 1, "order_z": 0, "force_separate_z": None}
    expected = resample_data_or_seg_to_shape(*arguments, **options)
    np.testing.assert_array_equal(resample(*arguments, **options), expected)
