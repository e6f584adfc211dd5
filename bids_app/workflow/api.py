"""The Python API: segment images without BIDS and without temporary files.

Import these names from `bids_app`:

>>> import bids_app
>>> result = bids_app.segment("T1.nii.gz")
>>> result.labels.shape
(96, 114, 96)
>>> list(result.volumes.index)
['midbrain', 'pons', 'medulla', 'brainstem']
>>> result.save("T1_brainstem.nii.gz")

For many images, make a `Segmenter`, which loads the model once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bids_app.bids.columns import VOLUMES
from bids_app.bids.results import model_entry
from bids_app.cpus import available_cpus
from bids_app.errors import ImageError
from bids_app.io.files import write_atomic
from bids_app.io.images import label_image, nifti_bytes, probability_image, read_volume, volume_of
from bids_app.io.tables import data_dictionary, dump_json, dump_rows
from bids_app.measures.flags import FLAGS
from bids_app.measures.image import measure
from bids_app.models import store
from bids_app.models.manifest import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from nibabel.spatialimages import SpatialImage

    from bids_app.bids.results import RegionVolume
    from bids_app.io.images import Volume
    from bids_app.models.manifest import Model
    from bids_app.segmentation.types import Segmentation

    Image: TypeAlias = str | os.PathLike[str] | SpatialImage

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True, eq=False)
class Result:
    """Segmentation of one image, and what was measured on it.

    Attributes
    ----------
    labels : nibabel.Nifti1Image or nibabel.Nifti2Image
        Label map (uint8) on the input's grid: its shape, affine, codes and units.
    volumes : pandas.DataFrame
        A row per region, named by the index, then the whole brainstem. The columns are those of
        ``*_volumes.tsv``: ``index`` (label value), ``voxels``, ``volume_mm3`` and so on. What
        could not be measured is NaN.
    quality : dict of str to float
        Quality measures, such as ``self_consistency`` (docs/quality.md).
    flags : tuple of str
        What to check before using the volumes (docs/quality.md); empty if nothing stands out.
    warnings : tuple of str
        What was unusual about the input; it was segmented all the same.
    model : Model
        The model in use, with its ``name``, ``version``, ``licence`` and ``reference``.
    device : str
        Where the network ran.
    """

    labels: Any
    volumes: pd.DataFrame
    quality: dict[str, float]
    flags: tuple[str, ...]
    warnings: tuple[str, ...]
    model: Model
    device: str
    _volume: Volume = field(repr=False)
    _segmentation: Segmentation = field(repr=False)
    _rows: tuple[RegionVolume, ...] = field(repr=False)

    def probabilities(self) -> Any:
        """Give the probability maps as a nibabel image.

        Returns
        -------
        nibabel.Nifti1Image or nibabel.Nifti2Image
            float32, shape (I, J, K, R): the grid of the input, then the R regions in the order of
            `volumes`.
        """
        maps = self._segmentation.whole_probabilities()
        return probability_image(maps, self._volume.grid)

    def save(self, path: str | os.PathLike[str], *, probabilities: bool = False) -> None:
        """Write the label map, or the probability maps, to a NIfTI file.

        The file appears complete or not at all, and always with the same bytes.

        Parameters
        ----------
        path : str or os.PathLike
            Ends with ``.nii.gz`` or ``.nii``. Missing folders are made; a file that is there is
            replaced.
        probabilities : bool
            Write the probability maps instead of the labels.

        Raises
        ------
        ValueError
            The name ends otherwise.
        OutputError
            The file cannot be written.
        """
        path = Path(path)
        if not path.name.endswith(ENDINGS):
            raise ValueError(f"{path}: the name must end with .nii.gz or .nii")
        image = self.probabilities() if probabilities else self.labels
        write_atomic(path, nifti_bytes(image, compress=path.suffix == ".gz"))

    def save_tables(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write what was measured beside a label map.

        Parameters
        ----------
        path : str or os.PathLike
            Path of the label map: of ``T1_brainstem.nii.gz`` the tables are
            ``T1_brainstem_volumes.tsv``, a row per region, and ``T1_brainstem.json``, with volumes,
            quality, flags and their meaning, warnings and the model.

        Returns
        -------
        tuple of Path
            Both files.

        Raises
        ------
        OutputError
            A file cannot be written.
        """
        path = Path(path)
        stem = next(
            (path.name.removesuffix(e) for e in ENDINGS if path.name.endswith(e)), path.name
        )
        table, described = path.with_name(f"{stem}_volumes.tsv"), path.with_name(f"{stem}.json")
        rows = [row.row() for row in self._rows]
        write_atomic(table, dump_rows(rows, VOLUMES))
        content = {
            "Volumes": {
                str(row["name"]): {key: cell for key, cell in row.items() if key != "name"}
                for row in rows
            },
            "Quality": self.quality,
            "Flags": {flag: FLAGS.get(flag, "") for flag in self.flags},
            "Warnings": list(self.warnings),
            "Model": model_entry(self.model),
            "Device": self.device,
            "Columns": data_dictionary(VOLUMES),
        }
        write_atomic(described, dump_json(content))
        return table, described


class Segmenter:
    """A model, loaded once for many images.

    Parameters
    ----------
    model : str or os.PathLike
        Name of an installed model (``brainstem-models list``) or a model folder.
    device : str
        ``auto`` (a GPU if there is one), ``cpu``, ``openvino``, ``cuda``, ``cuda:N`` or ``mps``.
    models_dir : str or os.PathLike, optional
        Folder of installed models; by default the environment variable BRAINSTEM_MODELS_DIR.
    folds : sequence of str
        Networks of the model to use, such as ``["0", "1"]``; all if empty.
    tta : bool
        Average over mirrored inputs (test-time augmentation).
    float32 : bool
        Multiply in float32 on a CUDA GPU too, instead of float16.
    region : bool
        Run a whole-head model only on a box around the brainstem, which the open model finds.
    threads : int, optional
        CPU threads; by default all CPUs that this process may use.
    flag_thresholds : mapping of str to float, optional
        Thresholds of flags that replace the defaults (docs/quality.md).

    Attributes
    ----------
    model : Model
        The manifest: ``name``, ``version``, ``licence``, ``reference``, ``regions``.
    device : str
        Where the network runs.
    warnings : tuple of str
        Options that have no effect with this model.

    Raises
    ------
    ModelError
        The model is unknown, damaged, or cannot be loaded.
    UsageError
        The device is not available, or the model has no such fold.

    Examples
    --------
    >>> import bids_app, nibabel
    >>> segmenter = bids_app.Segmenter("open", device="cpu")
    >>> result = segmenter(nibabel.load("T1.nii.gz"))
    >>> bool(10_000 < result.volumes.loc["pons", "volume_mm3"] < 20_000)
    True
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = store.DEFAULT,
        *,
        device: str = "auto",
        models_dir: str | os.PathLike[str] | None = None,
        folds: Sequence[str] = (),
        tta: bool = True,
        float32: bool = False,
        region: bool = False,
        threads: int | None = None,
        flag_thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.model = store.find(os.fspath(model), None if models_dir is None else Path(models_dir))
        verify(self.model)
        # Not at the top: torch takes seconds to import, which an unknown model need not cost.
        from bids_app.segmentation.segmenter import load_segmenter
        from bids_app.segmentation.types import InferenceOptions

        given = {"folds": folds, "no_tta": not tta, "float32": float32, "region": region}
        no_effect = self.model.ineffective_options(given)
        self.warnings: tuple[str, ...] = (no_effect,) if no_effect else ()
        self._thresholds = dict(flag_thresholds or {})
        self._network = load_segmenter(
            self.model,
            InferenceOptions(
                device=device,
                folds=tuple(sorted(set(folds))),
                mirror=tta,
                half=not float32,
                region=region,
                threads=available_cpus() if threads is None else threads,
            ),
        )
        self.device = self._network.device

    def __call__(
        self,
        image: Image,
        *,
        assume_ras: bool = False,
        progress: Callable[[str], object] | None = None,
    ) -> Result:
        """Segment one T1-weighted image.

        Parameters
        ----------
        image : str, os.PathLike or nibabel image
            A NIfTI file, or an image of any format that nibabel holds.
        assume_ras : bool
            Accept an image whose header states no orientation, and take its axes as right,
            front, up.
        progress : callable, optional
            Gets a line of text each minute from models that take long.

        Returns
        -------
        Result

        Raises
        ------
        ImageError
            The image cannot be used; the message says why.
        """
        volume = _read(image, assume_ras=assume_ras)
        segmentation = self._network(volume, progress)
        found = measure(volume, segmentation, self.model.regions, self._thresholds)
        return Result(
            labels=label_image(segmentation.labels, volume.grid),
            volumes=_table(found.volumes),
            quality=found.quality,
            flags=found.flags,
            warnings=volume.warnings,
            model=self.model,
            device=segmentation.device,
            _volume=volume,
            _segmentation=segmentation,
            _rows=found.volumes,
        )


def segment(image: Image, model: str | os.PathLike[str] = store.DEFAULT, **options: Any) -> Result:
    """Segment midbrain, pons and medulla oblongata on one T1-weighted image.

    For several images, make a `Segmenter` and call it: it loads the model once.

    Parameters
    ----------
    image : str, os.PathLike or nibabel image
        A NIfTI file, or an image of any format that nibabel holds.
    model : str or os.PathLike
        Name of an installed model or a model folder.
    **options
        ``assume_ras`` as for calling a `Segmenter`; all others, such as ``device``, as for making
        one.

    Returns
    -------
    Result

    Raises
    ------
    ImageError
        The image cannot be used; the message says why.
    ModelError
        The model is unknown, damaged, or cannot be loaded.
    UsageError
        The device is not available, or the model has no such fold.

    Examples
    --------
    >>> import bids_app
    >>> result = bids_app.segment("T1.nii.gz", device="cpu")
    >>> result.volumes.columns[:3].tolist()
    ['index', 'abbreviation', 'voxels']
    >>> 0.8 < result.quality["localizer_confidence"] <= 1
    True
    """
    assume_ras = options.pop("assume_ras", False)
    return Segmenter(model, **options)(image, assume_ras=assume_ras)


def _read(image: Image, *, assume_ras: bool) -> Volume:
    if not isinstance(image, str | os.PathLike):
        return volume_of(image, assume_ras=assume_ras)
    try:
        return read_volume(Path(image), assume_ras=assume_ras)
    except ImageError as error:
        raise ImageError(f"{os.fspath(image)}: {error}") from None


def _table(rows: Sequence[RegionVolume]) -> pd.DataFrame:
    import pandas as pd  # takes half a second

    table = pd.DataFrame([row.row() for row in rows]).set_index("name")
    types = {"int": "Int64", "float": "float64", "str": "object"}
    return table.astype({name: types[VOLUMES[name].dtype] for name in table.columns})
