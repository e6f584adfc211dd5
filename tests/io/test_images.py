"""Reading heads, refusing what is none, and coming back to the grid of the file."""

from __future__ import annotations

import gzip
import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from nibabel.nifti1 import Nifti1Extension
from nibabel.orientations import axcodes2ornt, ornt_transform
from scipy.spatial.transform import Rotation

from bids_app.errors import ImageError
from bids_app.io.images import (
    file_sha256,
    label_image,
    nifti_bytes,
    probability_image,
    read_label_map,
    read_volume,
    volume_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

ORDERS = [
    "".join(axes)
    for pairs in itertools.permutations(("LR", "PA", "IS"))
    for axes in itertools.product(*pairs)
]
GRID_FIELDS = (
    "dim", "dim_info", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b",
    "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip


@dataclass(frozen=True)
class Head:
    """A real head at 4 mm, and files made from it."""

    data: NDArray[np.int16]
    affine: NDArray[np.float64]
    folder: Path

    def image(
        self, data: NDArray[Any] | None = None, affine: NDArray[np.float64] | None = None
    ) -> Any:
        """Both forms coded as scanner coordinates."""
        affine = self.affine if affine is None else affine
        image = nib.Nifti1Image(self.data if data is None else data, affine)
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        image.header.set_xyzt_units("mm")
        return image

    def write(self, content: bytes | bytearray, name: str = "T1w.nii") -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def labels(self) -> NDArray[np.uint8]:
        """Three boxes that no flip or turn maps onto themselves."""
        labels = np.zeros(self.data.shape, np.uint8)
        labels[5:20, 7:11, 20:40] = 1
        labels[5:12, 20:50, 3:9] = 2
        labels[30, 40, 30] = 3
        return labels


@pytest.fixture(scope="module")
def small_head(whole_head: Path) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    image = nib.as_closest_canonical(nib.load(whole_head))
    data = np.asarray(image.dataobj)[::2, ::2, ::2].astype(np.int16)
    return data, image.affine @ np.diag([2, 2, 2, 1])


@pytest.fixture
def head(small_head: tuple[NDArray[np.int16], NDArray[np.float64]], tmp_path: Path) -> Head:
    return Head(*small_head, tmp_path)


def stored(image: Any, **fields: Any) -> bytes:
    """Bytes of an image with header fields that nibabel would not write."""
    content = image.to_bytes()
    for field, value in fields.items():
        image.header[field] = value
    return bytes(image.header.binaryblock + content[image.header.sizeof_hdr :])


def raw_header(content: bytes, kind: Any = nib.Nifti1Header) -> Any:
    return kind(content[: kind.sizeof_hdr], check=False)


def assert_same_grid(image: Any, content: bytes) -> None:
    """Whatever places the voxels is as in the file that was read, bit for bit."""
    kind = type(image.header)
    before, after = (raw_header(c, kind) for c in (content, nifti_bytes(image, compress=False)))
    for field in GRID_FIELDS:
        native = before[field].astype(after[field].dtype)
        assert native.tobytes() == after[field].tobytes(), field


def read_back(image: Any) -> Any:
    return type(image).from_bytes(nifti_bytes(image, compress=False))


# Voxels and their order


def test_voxels_are_those_of_nibabel_in_ras_order(whole_head: Path) -> None:
    volume = read_volume(whole_head)
    expected = nib.as_closest_canonical(nib.load(whole_head))
    np.testing.assert_array_equal(volume.data, expected.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(volume.affine, expected.affine)
    assert volume.data.flags.c_contiguous
    assert volume.warnings == ()


@pytest.mark.parametrize("axes", ORDERS)
def test_every_order_of_axes_is_undone_on_the_way_out(head: Head, axes: str) -> None:
    turned = head.image().as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes)))
    content = stored(head.image(np.asarray(turned.dataobj), turned.affine))
    volume = read_volume(head.write(content))
    np.testing.assert_array_equal(volume.data, head.data)
    np.testing.assert_allclose(volume.affine, head.affine, atol=1e-4)

    image = label_image(head.labels(), volume.grid)
    assert_same_grid(image, content)
    assert nib.aff2axcodes(read_back(image).affine) == tuple(axes)
    again = nib.as_closest_canonical(read_back(image))
    np.testing.assert_array_equal(np.asarray(again.dataobj), head.labels())


@pytest.mark.parametrize("degrees", [(20, -10, 5), (44, 0, 0), (-30, 25, 60)])
def test_labels_on_an_oblique_grid_stay_in_their_places(
    head: Head, degrees: tuple[float, float, float]
) -> None:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    content = stored(head.image(affine=turn @ head.affine))
    volume = read_volume(head.write(content))
    labels = np.zeros(volume.data.shape, np.uint8)
    labels[10, 20, 30] = 1
    image = label_image(labels, volume.grid)
    assert_same_grid(image, content)
    (voxel,) = np.argwhere(np.asarray(read_back(image).dataobj))
    place = apply_affine(read_back(image).affine, voxel)
    np.testing.assert_allclose(place, apply_affine(volume.affine, [10, 20, 30]), atol=1e-3)


def test_voxel_sizes_follow_the_order_of_the_axes(head: Head) -> None:
    affine = np.array([[0, 0, 3, 0], [-4, 0, 0, 0], [0, 5, 0, 0], [0, 0, 0, 1.0]])
    volume = read_volume(head.write(stored(head.image(affine=affine))))
    assert volume.voxel_size == pytest.approx((3, 4, 5))
    assert volume.voxel_volume == pytest.approx(60)


def test_voxel_volume_of_a_sheared_grid_is_the_determinant(head: Head) -> None:
    affine = np.array([[4, 1, 0, 0], [0, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1.0]])
    volume = read_volume(head.write(stored(head.image(affine=affine), qform_code=0)))
    assert volume.voxel_size[1] > 3
    assert volume.voxel_volume == pytest.approx(48)


# Number types and files


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8", ">i2", ">f4", ">f8"]
)
def test_number_types_of_both_byte_orders(head: Head, dtype: str) -> None:
    data = (head.data // 10).clip(0, 127).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    header.set_sform(head.affine, 1)
    content = nib.Nifti1Image(data, head.affine, header).to_bytes()
    volume = read_volume(head.write(content))
    np.testing.assert_array_equal(volume.data, data.astype(np.float32))
    assert_same_grid(label_image(head.labels(), volume.grid), content)


def test_slope_and_intercept_are_applied(head: Head) -> None:
    path = head.write(stored(head.image(), scl_slope=0.25, scl_inter=-40))
    np.testing.assert_allclose(read_volume(path).data, head.data * 0.25 - 40, rtol=1e-6)


@pytest.mark.parametrize("slope", [0, np.nan])
def test_a_slope_of_zero_or_nan_stands_for_no_scaling(head: Head, slope: float) -> None:
    path = head.write(stored(head.image(), scl_slope=slope, scl_inter=7))
    np.testing.assert_array_equal(read_volume(path).data, head.data)


def test_nan_and_infinite_voxels_count_as_zero_with_a_warning(head: Head) -> None:
    data = head.data.astype(np.float32)
    data[0, 0, :3] = np.nan, np.inf, -np.inf
    volume = read_volume(head.write(stored(head.image(data))))
    assert (volume.data[0, 0, :3] == 0).all()
    np.testing.assert_array_equal(volume.data[1:], data[1:])
    assert volume.warnings == ("3 of its voxels are NaN or infinite and count as 0",)


@pytest.mark.parametrize("name", ["T1w.nii", "T1w.nii.gz", "Frau Müller, Zürich 頭.nii.gz"])
def test_files_compressed_or_not_in_any_path(head: Head, name: str) -> None:
    content = stored(head.image())
    path = head.write(gzip.compress(content) if name.endswith(".gz") else content, name)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, head.data)
    assert volume.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == file_sha256(path)


def test_gzip_streams_of_several_members_and_with_zeros_at_the_end(head: Head) -> None:
    content = stored(head.image())
    half = len(content) // 2
    zipped = gzip.compress(content[:half]) + gzip.compress(content[half:]) + bytes(512)
    volume = read_volume(head.write(zipped, "T1w.nii.gz"))
    np.testing.assert_array_equal(volume.data, head.data)
    assert volume.sha256 == hashlib.sha256(zipped).hexdigest()


def test_a_compressed_file_without_gz_in_its_name_is_read_with_a_warning(head: Head) -> None:
    volume = read_volume(head.write(gzip.compress(stored(head.image()))))
    assert volume.warnings == ("it is gzip-compressed though its name does not end with .gz",)


def test_nifti_2_comes_back_as_nifti_2(head: Head) -> None:
    image = nib.Nifti2Image(head.data, head.affine)
    content = stored(image)
    volume = read_volume(head.write(content))
    labels = label_image(head.labels(), volume.grid)
    assert isinstance(labels, nib.Nifti2Image)
    assert_same_grid(labels, content)
    np.testing.assert_array_equal(np.asarray(read_back(labels).dataobj), head.labels())


def mgz(head: Head, name: str = "orig.mgz") -> Path:
    content = nib.MGHImage(head.data.astype(np.uint8), head.affine).to_bytes()
    path = head.folder / name
    path.write_bytes(gzip.compress(content) if name.endswith("z") else content)
    return path


@pytest.mark.parametrize("name", ["orig.mgz", "T1.mgh", "NORM.MGZ"])
def test_images_of_freesurfer_are_read_and_their_maps_are_nifti(head: Head, name: str) -> None:
    path = mgz(head, name.lower()).rename(head.folder / name)
    volume = read_volume(path)
    assert volume.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    plain = nib.Nifti1Image(head.data.astype(np.uint8), head.affine)
    assert np.array_equal(volume.data, nib.as_closest_canonical(plain).get_fdata())
    labels = label_image((volume.data > 50).astype(np.uint8), volume.grid)
    assert labels.shape == head.data.shape
    assert np.allclose(labels.affine, head.affine, atol=1e-3)
    assert labels.header.get_xyzt_units()[0] == "mm"


def test_images_of_freesurfer_without_orientation_are_refused(
    whole_head: Path, tmp_path: Path
) -> None:
    image = nib.load(whole_head)
    content = bytearray(nib.MGHImage(np.asarray(image.dataobj), image.affine).to_bytes())
    content[28:30] = bytes(2)
    path = tmp_path / "orig.mgh"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="left and right are unknown"):
        read_volume(path)
    assert read_volume(path, assume_ras=True).warnings


@pytest.mark.parametrize("kept", [0, 20, 300, 4000, -9])
def test_damaged_images_of_freesurfer_are_refused_in_one_line(head: Head, kept: int) -> None:
    path = mgz(head)
    plain = gzip.decompress(path.read_bytes())
    for name, content in (("a.mgz", path.read_bytes()), ("a.mgh", plain)):
        damaged = head.folder / name
        damaged.write_bytes(content[:kept] if kept > 0 else b"x" * 400)
        with pytest.raises(ImageError) as refused:
            read_volume(damaged)
        assert "\n" not in str(refused.value)


def test_trailing_axes_of_length_one_are_kept(head: Head) -> None:
    content = stored(head.image(head.data[..., None, None]))
    volume = read_volume(head.write(content))
    image = label_image(head.labels(), volume.grid)
    assert image.shape == (*head.data.shape, 1, 1)
    assert_same_grid(image, content)
    np.testing.assert_array_equal(np.asarray(read_back(image).dataobj)[..., 0, 0], head.labels())


def test_voxels_behind_an_extension_are_found(head: Head) -> None:
    image = head.image()
    image.header.extensions.append(Nifti1Extension("comment", b"Jane Doe" * 1000))
    np.testing.assert_array_equal(read_volume(head.write(image.to_bytes())).data, head.data)


# Which form counts


def shifted(affine: NDArray[np.float64], millimetres: float) -> NDArray[np.float64]:
    moved = affine.copy()
    moved[0, 3] += millimetres
    return moved


@pytest.mark.parametrize("coded", ["sform", "qform"])
def test_only_one_form_coded_is_used(head: Head, coded: str) -> None:
    image = head.image()
    other = "qform" if coded == "sform" else "sform"
    getattr(image, f"set_{other}")(shifted(head.affine, 50), 0)
    content = stored(image)
    volume = read_volume(head.write(content))
    np.testing.assert_allclose(volume.affine, head.affine, atol=1e-4)
    assert volume.warnings == ()
    assert_same_grid(label_image(head.labels(), volume.grid), content)


def test_forms_less_than_a_tenth_of_a_millimetre_apart_agree(head: Head) -> None:
    image = head.image()
    image.set_qform(shifted(head.affine, 0.09), 1)
    assert read_volume(head.write(stored(image))).warnings == ()


def test_forms_that_differ_give_the_sform_and_a_warning(head: Head) -> None:
    image = head.image()
    image.set_qform(shifted(head.affine, 0.2), 1)
    content = stored(image)
    volume = read_volume(head.write(content))
    np.testing.assert_allclose(volume.affine, head.affine, atol=1e-4)
    assert volume.warnings == ("its sform and qform differ; the sform is used",)
    assert_same_grid(label_image(head.labels(), volume.grid), content)


def test_an_impossible_quaternion_beside_a_sform_only_warns(head: Head) -> None:
    path = head.write(stored(head.image(), quatern_b=0.9, quatern_c=0.9))
    assert read_volume(path).warnings == ("its sform and qform differ; the sform is used",)


def test_neither_form_coded_is_refused_with_the_way_out(head: Head) -> None:
    path = head.write(stored(head.image(), qform_code=0, sform_code=0))
    with pytest.raises(ImageError, match=r"neither sform nor qform is coded.*--assume-ras"):
        read_volume(path)


def test_neither_form_coded_is_taken_as_ras_when_asked(head: Head) -> None:
    content = stored(head.image(), qform_code=0, sform_code=0)
    volume = read_volume(head.write(content), assume_ras=True)
    np.testing.assert_array_equal(volume.data, head.data)
    np.testing.assert_allclose(volume.affine[:3, :3], np.diag([4, 4, 4]), atol=1e-4)
    middle = apply_affine(volume.affine, (np.array(head.data.shape) - 1) / 2)
    np.testing.assert_allclose(middle, 0, atol=1e-4)
    assert volume.warnings
    assert_same_grid(label_image(head.labels(), volume.grid), content)


def test_a_qfac_of_zero_counts_as_one_and_all_zeros_stay(head: Head) -> None:
    image = head.image()
    content = stored(image, pixdim=[0, 4, 4, 4, 0, 0, 0, 0], dim=[3, *image.shape, 0, 0, 0, 0],
                     sform_code=0)  # fmt: skip
    volume = read_volume(head.write(content))
    np.testing.assert_allclose(volume.affine, head.affine, atol=1e-4)
    assert_same_grid(label_image(head.labels(), volume.grid), content)


def test_edges_and_extents_just_at_the_limits_are_accepted(head: Head) -> None:
    turn = Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix()
    affine = nib.affines.from_matvec(turn @ np.diag([6.5, 6.5, 4]))
    volume = read_volume(head.write(stored(head.image(head.data[:, :, :20], affine))))
    np.testing.assert_allclose(volume.voxel_size, (6.5, 6.5, 4), rtol=1e-6)


# Images refused


def zipped(head: Head) -> bytes:
    return gzip.compress(stored(head.image()), compresslevel=1, mtime=0)


def with_affine(head: Head, row: list[float]) -> bytes:
    return stored(head.image(), srow_z=row, qform_code=0)


def with_type(head: Head, dtype: Any) -> bytes:
    return nib.Nifti1Image(np.zeros(head.data.shape, dtype), head.affine).to_bytes()


REFUSED: dict[str, tuple[str, Callable[[Head], bytes], str]] = {
    "4-D": (
        "T1w.nii",
        lambda head: stored(head.image(np.stack([head.data] * 2, -1))),
        r"shape is \d+ x \d+ x \d+ x 2; one three-dimensional image is needed",
    ),
    "2-D": ("T1w.nii", lambda head: stored(head.image(head.data[:, :, 30])), "shape is"),
    "no axes": ("T1w.nii", lambda head: stored(head.image(), dim=[0] * 8), "shape is none"),
    "NaN affine": ("T1w.nii", lambda head: with_affine(head, [np.nan] * 4), "NaN or infinite"),
    "infinite affine": (
        "T1w.nii", lambda head: with_affine(head, [0, 0, 4, np.inf]), "NaN or infinite",
    ),
    "impossible quaternion": (
        "T1w.nii",
        lambda head: stored(head.image(), quatern_b=0.9, quatern_c=0.9, sform_code=0),
        "NaN or infinite",
    ),
    "singular affine": ("T1w.nii", lambda head: with_affine(head, [4, 0, 0, 0]), "singular"),
    "affine of zeros": ("T1w.nii", lambda head: with_affine(head, [0, 0, 0, 0]), "singular"),
    "tiny": (
        "T1w.nii",
        lambda head: stored(head.image(head.data[:19])),
        r"covers 76 x .* mm; a head needs at least 80 mm along each axis",
    ),
    "huge voxels": (
        "T1w.nii",
        lambda head: stored(head.image(affine=head.affine @ np.diag([1, 1, 2, 1]))),
        r"voxel edges are 4 x 4 x 8 mm; each must be 0\.3 to 6\.5 mm",
    ),
    "minute voxels": (
        "T1w.nii",
        lambda head: stored(head.image(affine=head.affine @ np.diag([0.05, 1, 1, 1]))),
        "voxel edges are",
    ),
    "constant": ("T1w.nii", lambda head: stored(head.image(head.data * 0 + 7)), "constant"),
    "nothing but NaN": (
        "T1w.nii",
        lambda head: stored(head.image(np.full(head.data.shape, np.nan, np.float32))),
        "constant",
    ),
    "colour": (
        "T1w.nii", lambda head: with_type(head, [(c, "u1") for c in "RGB"]), "colours or complex",
    ),
    "complex": ("T1w.nii", lambda head: with_type(head, np.complex64), "colours or complex"),
    "unknown type": ("T1w.nii", lambda head: stored(head.image(), datatype=77), "type"),
    "infinite intercept": (
        "T1w.nii", lambda head: stored(head.image(), scl_slope=2, scl_inter=np.inf), "intercept",
    ),
    "header of a pair": ("T1w.nii", lambda head: stored(head.image(), magic=b"ni1"), "one .nii"),
    "empty": ("T1w.nii.gz", lambda head: b"", "empty"),
    "text": ("T1w.nii", lambda head: b"no image\n", "no NIfTI image"),
    "text named .nii.gz": ("T1w.nii.gz", lambda head: b"no image\n", "not gzip-compressed"),
    "uncompressed named .nii.gz": (
        "T1w.nii.gz", lambda head: stored(head.image()), "not gzip-compressed",
    ),
    "compressed text": ("T1w.nii.gz", lambda head: gzip.compress(b"no image\n"), "no NIfTI"),
    "truncated": ("T1w.nii", lambda head: stored(head.image())[:9999], "truncated"),
    "truncated header": ("T1w.nii", lambda head: stored(head.image())[:300], "no NIfTI image"),
    "header without its last byte": (
        "T1w.nii", lambda head: stored(head.image())[:347], "no NIfTI image",
    ),
    "truncated gzip": ("T1w.nii.gz", lambda head: zipped(head)[:-9], "truncated"),
    "gzip without its length": ("T1w.nii.gz", lambda head: zipped(head)[:-2], "truncated"),
    "wrong CRC": (
        "T1w.nii.gz", lambda head: zipped(head)[:-8] + bytes(4) + zipped(head)[-4:], "CRC",
    ),
    "wrong length": ("T1w.nii.gz", lambda head: zipped(head)[:-4] + bytes(4), "corrupt"),
    "rubbish after gzip": ("T1w.nii.gz", lambda head: zipped(head) + b"rubbish", "corrupt"),
    "larger than any memory": (
        "T1w.nii",
        lambda head: stored(head.image(), dim=[3] + [32767] * 7),
        "shape is 32767 x 32767 x 32767; no more than 1073741824 voxels are taken",
    ),
    "more voxels than the file holds": (
        "T1w.nii", lambda head: stored(head.image(), dim=[3] + [999] * 7), "truncated: the file",
    ),
    "more voxels than the gzip stream can hold": (
        "T1w.nii.gz",
        lambda head: gzip.compress(stored(head.image(), dim=[3] + [999] * 7)[:9999]),
        "truncated: the file cannot hold 1994005998 bytes",
    ),
    "an impossible grid, and truncated": (
        "T1w.nii", lambda head: with_affine(head, [0, 0, 0, 0])[:9999], "singular",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_refused_in_one_line_without_the_path(head: Head, fault: str) -> None:
    name, make, reason = REFUSED[fault]
    path = head.write(make(head), name)
    with pytest.raises(ImageError, match=reason) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)
    assert str(head.folder) not in str(caught.value)


def test_every_bad_image_of_the_test_data_is_refused(bad_images: dict[str, Path]) -> None:
    for path in bad_images.values():
        with pytest.raises(ImageError):
            read_volume(path)


@pytest.mark.parametrize("read", [read_volume, read_label_map, file_sha256])
def test_a_dangling_link_names_the_command_that_mends_it(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    path = tmp_path / "T1w.nii.gz"
    path.symlink_to("../.git/annex/objects/Qx/7k/MD5E-s1--0/MD5E-s1--0.nii.gz")
    with pytest.raises(ImageError, match=f"datalad get {path}"):
        read(path)


def test_an_unlocked_file_of_git_annex_without_content_is_told_like_a_dangling_link(
    head: Head,
) -> None:
    path = head.write(b"/annex/objects/MD5E-s1--0.nii.gz\n", "T1w.nii.gz")
    with pytest.raises(ImageError, match=f"datalad get {path}"):
        read_volume(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_volume(tmp_path / "T1w.nii.gz")
    with pytest.raises(ImageError, match="cannot be read"):
        read_volume(tmp_path)


def test_a_damaged_byte_is_noticed_or_harmless(head: Head) -> None:
    sound = zipped(head)
    random = np.random.default_rng(0)
    # Each byte of the gzip header and of the check at the end, and some between
    ends = [*range(10), *range(len(sound) - 8, len(sound))]
    for place in [*ends, *random.integers(10, len(sound) - 8, 20)]:
        content = bytearray(sound)
        content[place] ^= random.integers(1, 256)
        try:
            volume = read_volume(head.write(content, "T1w.nii.gz"))
        except ImageError:
            continue
        np.testing.assert_array_equal(volume.data, head.data)


@pytest.mark.filterwarnings("error")
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.integers(0, 347), st.integers(0, 255), min_size=1, max_size=4))
def test_no_header_however_odd_ends_in_anything_but_a_volume_or_a_reason(
    head: Head, changes: dict[int, int]
) -> None:
    content = bytearray(stored(head.image()))
    for place, byte in changes.items():
        content[place] = byte
    try:
        volume = read_volume(head.write(content))
    except ImageError:
        return
    label_image(np.zeros(volume.data.shape, np.uint8), volume.grid)


# Images that nibabel holds


def placed(image: Any, **fields: Any) -> bytes:
    """As `stored`, with the place of the voxels, which nibabel goes by."""
    return stored(image, vox_offset=image.header.single_vox_offset, **fields)


HELD: dict[str, Callable[[Head], bytes]] = {
    "plain": lambda head: placed(head.image()),
    "other order": lambda head: placed(
        head.image().as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt("LIP")))
    ),
    "scaled": lambda head: placed(head.image(), scl_slope=0.25, scl_inter=-40),
    "NaN slope": lambda head: placed(head.image(), scl_slope=np.nan, scl_inter=7),
    "big-endian": lambda head: nib.Nifti1Image(
        head.data, head.affine, nib.Nifti1Header(endianness=">")
    ).to_bytes(),
    "NIfTI-2": lambda head: placed(nib.Nifti2Image(head.data, head.affine)),
    "trailing axes": lambda head: placed(head.image(head.data[..., None, None])),
    "qform alone": lambda head: placed(head.image(), sform_code=0),
    "forms differ": lambda head: placed(head.image(), qoffset_x=50),
    "free text": lambda head: placed(head.image(), descrip=b"Jane Doe", aux_file=b"Jane Doe"),
    "NaN voxels": lambda head: placed(
        head.image(np.where(head.data > 300, np.nan, head.data).astype(np.float32))
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_an_image_that_nibabel_loaded_gives_what_its_file_gives(head: Head, name: str) -> None:
    path = head.write(HELD[name](head))
    of_file, of_image = read_volume(path), volume_of(nib.load(path))
    np.testing.assert_array_equal(of_file.data, of_image.data)
    np.testing.assert_array_equal(of_file.affine, of_image.affine)
    assert of_file.warnings == of_image.warnings
    assert of_image.sha256 is None
    first, second = (
        nifti_bytes(label_image(head.labels().reshape(v.data.shape), v.grid), compress=False)
        for v in (of_file, of_image)
    )
    assert first == second
    assert b"Jane Doe" not in second


def test_an_image_in_memory_is_taken_by_its_affine(head: Head) -> None:
    image = nib.Nifti1Image(head.data, head.affine)
    image.header["scl_slope"] = 3  # says how a file was scaled, not these voxels
    for held in (
        image,
        nib.Nifti1Pair(head.data, head.affine),
        nib.MGHImage(head.data, head.affine),
    ):
        volume = volume_of(held)
        np.testing.assert_array_equal(volume.data, head.data)
        np.testing.assert_allclose(volume.affine, head.affine)
        labels = label_image(head.labels(), volume.grid)
        np.testing.assert_allclose(read_back(labels).affine, head.affine)


@pytest.mark.parametrize("fault", ["4-D", "2-D", "tiny", "complex"])
def test_an_image_that_nibabel_loaded_is_refused_like_its_file(head: Head, fault: str) -> None:
    name, make, reason = REFUSED[fault]
    path = head.write(make(head), name)
    with pytest.raises(ImageError, match=reason):
        volume_of(nib.load(path))


def test_an_image_of_nibabel_whose_file_is_cut_short_is_refused(head: Head) -> None:
    image = nib.load(head.write(placed(head.image())))
    head.write(placed(head.image())[:9999])
    with pytest.raises(ImageError, match="cannot be read"):
        volume_of(image)


def test_an_image_in_memory_is_checked_like_a_file(head: Head) -> None:
    with pytest.raises(ImageError, match="constant"):
        volume_of(head.image(head.data * 0 + 7))
    image = nib.Nifti1Image(head.data, None)
    with pytest.raises(ImageError, match="neither sform nor qform"):
        volume_of(image)
    assert volume_of(nib.load(head.write(placed(head.image(), qform_code=0, sform_code=0))),
                     assume_ras=True).warnings  # fmt: skip


def test_what_is_no_image_is_a_type_error(head: Head) -> None:
    with pytest.raises(TypeError, match="nibabel image is needed, not ndarray"):
        volume_of(head.data)  # type: ignore[arg-type]


# Images written


def test_label_maps_say_that_they_are_and_nothing_about_a_person(head: Head) -> None:
    image = head.image()
    image.header.extensions.append(Nifti1Extension("comment", b"Jane Doe"))
    text = dict.fromkeys(("descrip", "aux_file", "db_name", "intent_name"), b"Jane Doe")
    content = stored(image, **text, scl_slope=2, scl_inter=0, cal_max=900, toffset=3, dim_info=57)
    assert content.count(b"Jane Doe") == 5
    written = nifti_bytes(
        label_image(head.labels(), read_volume(head.write(content)).grid), compress=False
    )
    assert b"Jane Doe" not in written
    header = raw_header(written)
    assert header.get_data_dtype() == np.uint8
    assert header.get_intent()[0] == "label"
    assert header.get_slope_inter() == (1, 0)
    assert (header["cal_min"], header["cal_max"], header["vox_offset"]) == (0, 0, 352)
    assert (header["toffset"], header["dim_info"]) == (3, 57)
    assert len(written) == 352 + head.data.size


@pytest.mark.parametrize("axes", ["RAS", "LIP"])
@pytest.mark.parametrize("trailing", [(), (1,)])
def test_probability_maps_lie_where_the_labels_lie(
    head: Head, axes: str, trailing: tuple[int, ...]
) -> None:
    turned = head.image().as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes)))
    data = np.asarray(turned.dataobj)
    content = stored(head.image(data.reshape(data.shape + trailing), turned.affine))
    volume = read_volume(head.write(content))
    maps = np.stack([(head.labels() == label) * np.float32(0.75) for label in (1, 2, 3)])
    image = read_back(probability_image(maps, volume.grid))
    assert image.shape == (*turned.shape, 3)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, nib.load(head.folder / "T1w.nii").affine)
    again = np.asarray(nib.as_closest_canonical(image).dataobj)
    np.testing.assert_array_equal(np.moveaxis(again, -1, 0), maps)


def test_bytes_are_always_the_same_and_hold_no_time_or_name(head: Head) -> None:
    grid = read_volume(head.write(stored(head.image()))).grid
    plain = nifti_bytes(label_image(head.labels(), grid), compress=False)
    compressed = nifti_bytes(label_image(head.labels(), grid), compress=True)
    assert compressed == nifti_bytes(label_image(head.labels(), grid), compress=True)
    assert gzip.decompress(compressed) == plain
    flags, time = compressed[3], compressed[4:8]
    assert (flags, time) == (0, bytes(4))


# Label maps of other tools


def test_a_label_map_may_have_any_extent_scaling_and_no_form(head: Head) -> None:
    labels = head.labels()[:8, :12, :10].astype(np.float64)
    content = stored(head.image(labels), qform_code=0, sform_code=0, scl_slope=2, scl_inter=1)
    read, affine = read_label_map(head.write(content))
    np.testing.assert_array_equal(read, labels * 2 + 1)
    assert abs(np.linalg.det(affine)) == pytest.approx(64)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e12])
def test_a_label_map_holds_whole_numbers(head: Head, value: float) -> None:
    labels = head.labels().astype(np.float64)
    labels[0, 0, 0] = value
    with pytest.raises(ImageError, match="no label map"):
        read_label_map(head.write(stored(head.image(labels))))
