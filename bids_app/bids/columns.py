"""The data dictionary: every column of every table, with its type, digits and units.

`docs/measures.md` and `docs/quality.md` give full definitions, limits and sources.
"""

from __future__ import annotations

from bids_app.bids.outputs import ENTITIES
from bids_app.io.tables import Column, Columns, by_name
from bids_app.regions import PARTS, REGIONS

ENTITY_COLUMNS = tuple(
    Column(key, description=f"BIDS entity {key} of the source image") for key in ENTITIES
)
_PARTICIPANT = Column("participant_id", description="Participant")
_SESSION = Column("session_id", description="Session")
_SUFFIX = Column("suffix", description="Kind of the source image: BIDS suffix of its name")
_SOURCE = Column("source", description="Path of the source image in its dataset")
_MODEL = Column("model", description="Name of the model")
_MODEL_VERSION = Column("model_version", description="Version of the model")


def _number(
    name: str, description: str, units: str | None = None, digits: int | None = 3
) -> Column:
    return Column(name, "float", description, units, digits)


def _per_region(
    regions: tuple[str, ...], name: str, text: str, units: str | None = None, digits: int = 3
) -> list[Column]:
    """Describe a measure of several regions; ``{}`` in name and text stands for the region."""
    return [_number(name.format(r), text.format(r), units, digits) for r in regions]


# --- table of one image: one row per region ------------------------------------------------

VOLUMES: Columns = by_name(
    [
        Column("index", "int", "Value in the label map; n/a for the whole brainstem"),
        Column("name", description="Name of the region"),
        Column("abbreviation", description="Short name of the region"),
        Column("voxels", "int", "Number of voxels with this label"),
        _number(
            "volume_mm3",
            "Sum of the region's probabilities within 3 mm of its largest component, times the "
            "volume of a voxel; measured in the canonical frame by the open model, on the image's "
            "grid for others",
            "mm^3",
        ),
        _number(
            "label_volume_mm3",
            "Number of voxels times the volume of a voxel (determinant of the affine)",
            "mm^3",
        ),
        Column(
            "clusters", "int", "Number of connected components; voxels that share a face connect"
        ),
        _number("centroid_x_mm", "Centre of mass, x (RAS: towards the right)", "mm"),
        _number("centroid_y_mm", "Centre of mass, y (RAS: towards the front)", "mm"),
        _number("centroid_z_mm", "Centre of mass, z (RAS: upwards)", "mm"),
        _number(
            "surface_mm2",
            "Area of the closed surface, including borders with other regions",
            "mm^2",
        ),
        _number(
            "midsagittal_mm2",
            "Area on the midsagittal plane of the canonical frame; the midbrain's area "
            "includes tectum and aqueduct if the model's labels do",
            "mm^2",
        ),
        _number(
            "ap_diameter_mm",
            "Largest anterior-posterior diameter on the midsagittal plane, perpendicular to the "
            "axis of the pons (midbrain, pons) or of the medulla; n/a for other regions",
            "mm",
        ),
        _number(
            "volume_20mm_mm3",
            "Volume of the medulla down to a plane across its axis 20 mm below the pons; n/a if "
            "the map ends above that plane, and for other regions",
            "mm^3",
        ),
        _number(
            "volume_sd_mm3",
            "Standard deviation of the volume over the single passes (one per network and "
            "mirroring) whose mean is the result; n/a for a single pass",
            "mm^3",
        ),
    ]
)

PART_VOLUMES: Columns = {
    name: VOLUMES[name]
    for name in ("index", "name", "abbreviation", "voxels", "volume_mm3", "label_volume_mm3")
}

# --- table of a dataset: one row per image and model ---------------------------------------

WHERE: Columns = by_name(
    [_PARTICIPANT, _SESSION, *ENTITY_COLUMNS, _SUFFIX, _MODEL, _MODEL_VERSION, _SOURCE]
)
# Ends of names of columns of the group table, and the column of an image's table that each copies.
FROM_VOLUMES = {
    "mm3": "volume_mm3",
    "label_mm3": "label_volume_mm3",
    "clusters": "clusters",
    "surface_mm2": "surface_mm2",
    "midsagittal_mm2": "midsagittal_mm2",
    "ap_diameter_mm": "ap_diameter_mm",
    "20mm_mm3": "volume_20mm_mm3",
    "sd_mm3": "volume_sd_mm3",
}
MEASURES: Columns = by_name(
    [
        *_per_region(
            REGIONS, "{}_mm3", "Volume of the {}, as the sum of its probabilities", "mm^3"
        ),
        *_per_region(
            REGIONS, "{}_label_mm3", "Volume of the voxels of the {} in the label map", "mm^3"
        ),
        *(
            Column(
                f"{region}_clusters",
                "int",
                f"Number of connected components of the {region}; voxels that share a face connect",
            )
            for region in REGIONS
        ),
        Column(
            "voxel_size_mm",
            description="Voxel edges of the source image along x, y and z (RAS), joined by x",
            units="mm",
        ),
        *_per_region(
            REGIONS,
            "{}_surface_mm2",
            "Area of the closed surface of the {}, including borders with other regions",
            "mm^2",
        ),
        *_per_region(
            REGIONS,
            "{}_midsagittal_mm2",
            "Area of the {} on the midsagittal plane of the canonical frame",
            "mm^2",
        ),
        *_per_region(
            PARTS,
            "{}_ap_diameter_mm",
            "Largest anterior-posterior diameter of the {} on the midsagittal plane",
            "mm",
        ),
        _number(
            "medulla_20mm_mm3",
            "Volume of the medulla down to a plane across its axis 20 mm below the pons; n/a if "
            "the map ends above that plane",
            "mm^3",
        ),
        *_per_region(
            REGIONS,
            "{}_sd_mm3",
            "Standard deviation of the volume of the {} over the single passes (one per network "
            "and mirroring); n/a for a single pass",
            "mm^3",
        ),
        _number("midbrain_pons_ratio", "Volume of the midbrain / volume of the pons", digits=4),
        _number(
            "midbrain_pons_midsagittal_ratio",
            "Midsagittal area of the midbrain / midsagittal area of the pons. The midbrain's area "
            "includes tectum and aqueduct if the model's labels do; published cut-offs for other "
            "definitions do not apply",
            digits=4,
        ),
        *_per_region(
            REGIONS, "{}_etiv_fraction", "Volume of the {} / etiv_mm3", digits=7
        ),
        *_per_region(
            REGIONS,
            "{}_adjusted_mm3",
            "Volume of the {} adjusted for etiv_mm3 by the residual method: volume - slope x "
            "(eTIV - mean eTIV), with one regression per model and suffix; n/a with fewer "
            "than 10 participants",
            "mm^3",
        ),
    ]
)  # fmt: skip
QUALITY: Columns = by_name(
    [
        _number(
            "etiv_mm3",
            "Estimated total intracranial volume; n/a if it cannot be estimated, for example "
            "where no brainstem was found",
            "mm^3",
            1,
        ),
        _number(
            "self_consistency",
            "Main measure of quality, 0 to 1: mean agreement over the regions, or mean mirror_dice "
            "for a model of one network, averaged with the mean pass_dice and multiplied by "
            "view_fraction where there are such. A missing region counts as 0, an empty map is 0; "
            "n/a for a single pass",
            digits=4,
        ),
        _number(
            "localizer_confidence",
            "Mean probability of the located brainstem, 0 to 1",
            digits=4,
        ),
        *_per_region(
            PARTS,
            "{}_agreement",
            "Dice overlap, 0 to 1, of the {} between the model's networks, mean over pairs; n/a "
            "for a model of one network",
            digits=4,
        ),
        *_per_region(
            PARTS,
            "{}_mirror_dice",
            "Mean Dice overlap, 0 to 1, of the {} between single passes on the image and on its "
            "mirror images; n/a without mirroring",
            digits=4,
        ),
        *_per_region(
            PARTS,
            "{}_pass_dice",
            "Dice overlap, 0 to 1, of the {} between the segmentation on the image's axes and the "
            "one in the canonical frame; n/a for a model that segments once",
            digits=4,
        ),
        *_per_region(
            REGIONS,
            "{}_soft_dice",
            "Dice overlap, 0 to 1, between the probabilities of the {} and its label: confidence "
            "of the model",
            digits=4,
        ),
        *_per_region(
            REGIONS,
            "{}_largest_component_fraction",
            "Fraction of the {}, 0 to 1, in its largest connected component",
            digits=4,
        ),
        *_per_region(
            REGIONS,
            "{}_symmetry",
            "Dice overlap, 0 to 1, between the {} and its mirror image about the midsagittal plane",
            digits=4,
        ),
        _number(
            "midbrain_pons_height_mm",
            "Height of the midbrain's centroid above the pons's centroid",
            "mm",
            4,
        ),
        _number(
            "pons_medulla_height_mm",
            "Height of the pons's centroid above the medulla's centroid",
            "mm",
            4,
        ),
        _number(
            "midbrain_pons_contact_mm2",
            "Area of voxel faces shared by midbrain and pons in the canonical frame",
            "mm^2",
            4,
        ),
        _number(
            "pons_medulla_contact_mm2",
            "Area of voxel faces shared by pons and medulla in the canonical frame",
            "mm^2",
            4,
        ),
        _number(
            "view_fraction",
            "Share, 0 to 1, of a shell of 3 mm around the brainstem that lies within the field of "
            "view; n/a for a model that does not segment in the canonical frame",
            digits=4,
        ),
        _number("max_voxel_edge_mm", "Longest edge of a voxel", "mm", 4),
    ]
)  # fmt: skip
ACQUISITION: Columns = by_name(
    [
        Column(
            "site",
            description="Where the image was acquired: column site of participants.tsv if joined "
            "by --covariates, else InstitutionName in the image's sidecar",
        ),
        Column("manufacturer", description="Scanner manufacturer, from the image's sidecar"),
        Column("scanner_model", description="Scanner model, from the image's sidecar"),
        _number(
            "field_strength_t", "Nominal field strength, from the image's sidecar", "T", None
        ),
        Column(
            "batch",
            description="Site, manufacturer, scanner model and field strength in one text, for "
            "harmonization (ComBat)",
        ),
        _number(
            "years_since_first", "Time since the participant's first image that has a date", "year"
        ),
    ]
)  # fmt: skip
_ROBUST = "0.6745 x (volume - median) / median absolute deviation; n/a with fewer than 10 results"
OUTLIERS: Columns = by_name(
    [
        *_per_region(
            REGIONS,
            "{}_robust_z",
            f"Robust z score of the volume of the {{}} among this table's results of the same "
            f"model and suffix: {_ROBUST}",
            digits=2,
        ),
        *_per_region(
            REGIONS,
            "{}_batch_z",
            f"Robust z score of the volume of the {{}} among the results of the same model, "
            f"suffix and batch: {_ROBUST}",
            digits=2,
        ),
    ]
)
FLAGS: Columns = by_name(
    [
        Column(
            "rating",
            description="Manual rating, from group_ratings.tsv",
            levels={"pass": "use the result", "fail": "do not use the result"},
        ),
        Column(
            "failure", description="Why the image could not be processed; n/a if it was processed"
        ),
        Column(
            "flags",
            description="Reasons to inspect the result before using it, separated by commas; n/a "
            "if there are none",
        ),
    ]
)
GROUP: Columns = {**WHERE, **MEASURES, **QUALITY, **ACQUISITION, **OUTLIERS, **FLAGS}

# --- table of changes: one row per later image of a participant ----------------------------

LONGITUDINAL: Columns = by_name(
    [
        _PARTICIPANT,
        Column("first_session_id", description="First session, the reference"),
        Column("session_id", description="Later session"),
        *(
            Column(key, description=f"BIDS entity {key} of both source images")
            for key in ENTITIES
        ),
        Column("suffix", description="Kind of both source images: BIDS suffix of their names"),
        _MODEL,
        _MODEL_VERSION,
        Column("first_source", description="Path of the first image in its dataset"),
        Column("source", description="Path of the later image in its dataset"),
        _number("years", "Time between the images; n/a without dates", "year"),
        *_per_region(
            REGIONS,
            "{}_change_mm3",
            "Volume of the {} in the later image - volume in the first image",
            "mm^3",
        ),
        *_per_region(
            REGIONS,
            "{}_change_percent",
            "Change of the {} relative to the first volume",
            "percent",
        ),
        *_per_region(
            REGIONS,
            "{}_change_percent_per_year",
            "Change of the {} relative to the first volume, per year; n/a below 30 days",
            "percent/year",
        ),
        *_per_region(
            REGIONS,
            "{}_change_sd_percent",
            "Standard deviation of the change of the {} over the single passes of the network, "
            "relative to the first volume; it does not include the scanner's variation",
            "percent",
        ),
        *_per_region(
            REGIONS,
            "{}_smallest_detectable_percent",
            "Smallest detectable change of the {} (95 %): Student's t x standard deviation of a "
            "change due to noise, and at least 1.96 x change_sd_percent. A lower bound where "
            "noise_source is passes",
            "percent",
        ),
        Column(
            "noise_source",
            description="Source of the noise estimate; the weakest one if regions differ",
            levels={
                "repeats": "repeated scans of a session in this table (runs), at least 10 pairs",
                "changes": "scatter of this table's unflagged changes about their median, at least "
                "10 participants; includes differences between people",
                "passes": "single passes of the network only; too small to detect a change",
            },
        ),
        Column(
            "beyond_noise",
            description="Regions whose change exceeds the noise, separated by commas; n/a if the "
            "noise comes from passes only. Includes changes common to all participants",
        ),
        Column(
            "flags",
            description="Reasons why the change may not be a change of the brain, separated by "
            "commas",
            levels={
                "scanner_changed": "site, manufacturer or scanner model differ",
                "field_strength_changed": "field strengths differ",
                "voxel_size_changed": "a voxel edge differs by more than 1 %",
                "etiv_changed": "etiv_mm3 differs by more than 3 %, which is implausible for one "
                "head: a wrong scale or a bad result",
                "flagged_image": "one of the images has a flag in the group table; no_etiv counts "
                "only if the other image lacks it",
                "rated_fail": "one of the results is rated fail",
                "no_date": "the time between the images is unknown",
            },
        ),
    ]
)  # fmt: skip

# --- tables of model agreement: one row per pair of models and region ----------------------

COMPARISON: Columns = by_name(
    [
        Column("model", description="Name of the first model"),
        Column("model_version", description="Version of the first model"),
        Column("other_model", description="Name of the second model"),
        Column("other_model_version", description="Version of the second model"),
        Column("name", description="Name of the region"),
        _number(
            "dice", "Dice overlap of the two maps, 0 to 1; n/a if neither has the region", digits=4
        ),
        _number(
            "difference_mm3", "Volume by the first model - volume by the second model", "mm^3"
        ),
        _number(
            "difference_percent",
            "Difference relative to the mean of the two volumes",
            "percent",
            2,
        ),
    ]
)  # fmt: skip
GROUP_COMPARISON: Columns = {
    **by_name([_PARTICIPANT, _SESSION, *ENTITY_COLUMNS, _SOURCE]),
    **COMPARISON,
}

# --- logs/*/failures.tsv -------------------------------------------------------------------

FAILURES: Columns = by_name(
    [
        _PARTICIPANT,
        _SESSION,
        *ENTITY_COLUMNS,
        _SOURCE,
        _MODEL,
        _MODEL_VERSION,
        Column("label", description="The model's label in file names"),
        Column("reason", description="Why the image could not be processed"),
        Column("time", description="When it failed (UTC)"),
    ]
)
