"""Contrasts are distinguished by the cerebellum and by fluid; what is not seen is not guessed."""

import numpy as np
import pytest

from bids_app.measures.contrast import measure_contrast

PONS = np.zeros((96, 96, 96), bool)
PONS[34:62, 42:60, 38:60] = True
BRAINSTEM = PONS.copy()
BRAINSTEM[40:56, 40:56, 20:75] = True


def head(brainstem: float, cerebellum: float, fluid: float) -> np.ndarray:
    image = np.full(PONS.shape, fluid, np.float32)
    image[5:90, :27, 25:70] = cerebellum
    image[BRAINSTEM] = brainstem
    return image


@pytest.mark.parametrize(
    ("intensities", "name"),
    [((100, 80, 30), "T1w"), ((100, 130, 20), "FLAIR"), ((100, 140, 280), "T2w")],
)
def test_contrasts_are_told_apart_at_any_scale(intensities, name):
    for scale in (0.01, 1, 50):
        found = measure_contrast(head(*intensities) * np.float32(scale), PONS, BRAINSTEM)
        assert found.looks_like == name
        assert found.cerebellum == pytest.approx(intensities[1] / intensities[0], rel=1e-3)


def test_without_a_cerebellum_in_view_nothing_is_said():
    image = head(100, 130, 20)
    image[:, :27] = 0
    found = measure_contrast(image, PONS, BRAINSTEM)
    assert np.isnan(found.cerebellum)
    assert found.looks_like is None


def test_without_a_brainstem_nothing_is_said():
    nothing = np.zeros_like(PONS)
    assert measure_contrast(head(100, 80, 30), nothing, nothing).looks_like is None
