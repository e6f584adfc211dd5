"""Volumes, clusters and centroids of made shapes, exact on any grid."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.spatial.transform import Rotation

from bids_app.measures.volumes import measure_regions
from bids_app.regions import region

REGIONS = (region(1, "midbrain"), region(2, "pons"), region(3, "medulla"))


def affine_of(matrix: np.ndarray, origin: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    return nib.affines.from_matvec(matrix, origin)


TURN = Rotation.from_euler("xyz", (20, -35, 70), degrees=True).as_matrix()
AFFINES = {
    "plain": affine_of(np.diag([1.0, 1.0, 1.0])),
    "left-handed": affine_of(np.diag([-0.5, 2.0, 3.0]), (90, -120, -70)),
    "oblique": affine_of(TURN @ np.diag([1.0, 1.5, 2.0]), (-40, 30, 10)),
    "sheared": affine_of(np.array([[1, 0.4, 0], [0, 2, -0.3], [0.2, 0, 1.5]]), (5, 6, 7)),
}


def three_boxes() -> np.ndarray:
    """Medulla below pons below midbrain, touching; and one label that no region has."""
    labels = np.zeros((20, 22, 30), np.uint8)
    labels[8:12, 8:12, 18:24] = 1
    labels[6:14, 6:14, 10:18] = 2
    labels[8:12, 8:12, 2:10] = 3
    labels[0, 0, 0] = 9
    return labels


@pytest.mark.parametrize("grid", AFFINES)
def test_volume_is_voxels_times_the_determinant(grid: str) -> None:
    affine = AFFINES[grid]
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    measures = measure_regions(three_boxes(), affine, REGIONS)
    assert [m.voxels for m in measures] == [96, 512, 128, 736]
    for measure in measures:
        assert measure.volume_mm3 == pytest.approx(measure.voxels * voxel_mm3, rel=1e-12)


def test_what_is_no_part_of_the_whole_does_not_count_in_it() -> None:
    labels = three_boxes()
    regions = (*REGIONS, region(9, "cord"))
    *_, cord, whole = measure_regions(labels, AFFINES["plain"], regions, whole=REGIONS)
    assert (cord.voxels, whole.voxels) == (1, 736)


def test_the_edges_of_a_sheared_voxel_would_overstate_its_volume() -> None:
    affine = affine_of(np.array([[2.0, 1, 0], [0, 2, 0], [0, 0, 2]]))
    *_, whole = measure_regions(three_boxes(), affine, REGIONS)
    assert whole.volume_mm3 == pytest.approx(736 * 8)
    assert np.prod(nib.affines.voxel_sizes(affine)) > 8.9


@pytest.mark.parametrize("grid", AFFINES)
def test_centroids_are_ras_millimetres(grid: str) -> None:
    affine = AFFINES[grid]
    midbrain, pons, medulla, _ = measure_regions(three_boxes(), affine, REGIONS)
    middles = {midbrain: (9.5, 9.5, 20.5), pons: (9.5, 9.5, 13.5), medulla: (9.5, 9.5, 5.5)}
    for measure, voxel in middles.items():
        assert measure.centroid == pytest.approx(tuple(apply_affine(affine, voxel)))


def test_rows_carry_the_names_of_the_regions_and_end_with_the_whole() -> None:
    measures = measure_regions(three_boxes(), np.eye(4), REGIONS)
    found = [(m.index, m.name, m.abbreviation) for m in measures]
    assert found == [(1, "midbrain", "MB"), (2, "pons", "PO"), (3, "medulla", "MO"),
                    (None, "brainstem", "BS")]  # fmt: skip


def test_regions_that_touch_are_one_cluster_of_the_whole() -> None:
    measures = measure_regions(three_boxes(), np.eye(4), REGIONS)
    assert [m.clusters for m in measures] == [1, 1, 1, 1]
    labels = three_boxes()
    labels[:, :, 10:12] = 0
    labels[8:12, 8:12, 21] = 0
    measures = measure_regions(labels, np.eye(4), REGIONS)
    assert [m.clusters for m in measures] == [2, 1, 1, 3]
    assert measures[0].largest_component_fraction == pytest.approx(48 / 80)
    assert measures[1].largest_component_fraction == 1


@pytest.mark.parametrize(("connectivity", "clusters"), [(1, 4), (2, 3), (3, 2)])
def test_clusters_join_by_face_edge_or_corner(connectivity: int, clusters: int) -> None:
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[1:3, 1, 1] = 1  # two voxels that share a face
    labels[3, 2, 1] = 1  # an edge with the second of them
    labels[4, 3, 2] = 1  # a corner with the one before
    labels[9, 9, 9] = 1  # alone
    measures = measure_regions(labels, np.eye(4), REGIONS, connectivity=connectivity)
    assert measures[0].clusters == measures[-1].clusters == clusters


def test_absent_regions_have_no_voxels_and_no_centroid() -> None:
    labels = three_boxes()
    labels[labels == 3] = 0
    _, _, medulla, whole = measure_regions(labels, np.eye(4), REGIONS)
    assert (medulla.voxels, medulla.volume_mm3, medulla.clusters) == (0, 0, 0)
    assert (medulla.largest_component_fraction, medulla.centroid) == (0, None)
    assert whole.voxels == 608


def test_an_empty_map_has_rows_of_nothing() -> None:
    measures = measure_regions(np.zeros((5, 6, 7), np.uint8), np.eye(4), REGIONS)
    assert len(measures) == 4
    assert all((m.voxels, m.clusters, m.centroid) == (0, 0, None) for m in measures)


@settings(max_examples=50, deadline=None)
@given(
    labels=arrays(np.int16, array_shapes(min_dims=3, max_dims=3, max_side=7),
                  elements=st.integers(-1, 4)),
    axes=st.permutations(["LR", "PA", "IS"]).flatmap(
        lambda pairs: st.tuples(*map(st.sampled_from, pairs))
    ),
)  # fmt: skip
def test_measures_do_not_depend_on_the_order_of_the_axes(
    labels: np.ndarray, axes: tuple[str, ...]
) -> None:
    affine = AFFINES["plain"]
    order = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    turned = apply_orientation(labels, order)
    expected = measure_regions(labels, affine, REGIONS)
    for first, second in zip(
        expected,
        measure_regions(turned, affine @ inv_ornt_aff(order, labels.shape), REGIONS),
        strict=True,
    ):
        assert (first.voxels, first.volume_mm3) == (second.voxels, second.volume_mm3)
        assert (first.clusters, first.largest_component_fraction) == (
            second.clusters,
            second.largest_component_fraction,
        )
        if first.voxels:
            np.testing.assert_allclose(first.centroid, second.centroid, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    labels=arrays(np.int32, array_shapes(min_dims=3, max_dims=3, max_side=7),
                  elements=st.sampled_from([0, 1, 2, 3, 2**31 - 1])),
    grid=st.sampled_from(sorted(AFFINES)),
)  # fmt: skip
def test_the_whole_is_the_sum_of_its_regions(labels: np.ndarray, grid: str) -> None:
    *parts, whole = measure_regions(labels, AFFINES[grid], REGIONS)
    assert whole.voxels == sum(part.voxels for part in parts)
    assert whole.volume_mm3 == pytest.approx(sum(part.volume_mm3 for part in parts))
    assert whole.clusters <= sum(part.clusters for part in parts)
    if whole.voxels:
        weighted = sum(p.voxels * np.array(p.centroid) for p in parts if p.centroid is not None)
        np.testing.assert_allclose(whole.centroid, weighted / whole.voxels, atol=1e-9)
