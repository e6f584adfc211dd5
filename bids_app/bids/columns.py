"""The data dictionary: every column of the tables of volumes, with its unit.

`docs/measures.md` and `docs/quality.md` tell definitions, limits and sources at length.
"""

from __future__ import annotations

from typing import Any

from bids_app.bids.outputs import ENTITIES
from bids_app.regions import PARTS, REGIONS

Columns = dict[str, dict[str, Any]]

# The table of an image: a row a region.
VOLUMES: Columns = {
    "index": {"Description": "Value in the label map; n/a for the whole brainstem"},
    "name": {"Description": "Name of the region"},
    "abbreviation": {"Description": "Short name of the region"},
    "voxels": {"Description": "Voxels with this label"},
    "volume_mm3": {
        "Description": "Voxels times the volume of a voxel, which is the affine's determinant",
        "Units": "mm^3",
    },
    "soft_volume_mm3": {
        "Description": "Sum of the region's probabilities times the volume of a voxel",
        "Units": "mm^3",
    },
    "clusters": {"Description": "Connected pieces; voxels that share a face are connected"},
    "centroid_x_mm": {"Description": "Centre of mass, to the right (RAS)", "Units": "mm"},
    "centroid_y_mm": {"Description": "Centre of mass, to the front (RAS)", "Units": "mm"},
    "centroid_z_mm": {"Description": "Centre of mass, upwards (RAS)", "Units": "mm"},
    "surface_mm2": {
        "Description": "Area of the closed surface, borders with other regions included",
        "Units": "mm^2",
    },
    "midsagittal_mm2": {
        "Description": "Area on the midsagittal plane, which is fitted to the brainstem; the "
        "midbrain's holds tectum and aqueduct where the model's labels do",
        "Units": "mm^2",
    },
    "ap_diameter_mm": {
        "Description": "Largest diameter from front to back on the midsagittal plane, square to "
        "the axis of the pons (midbrain, pons) or of the medulla; n/a for other regions",
        "Units": "mm",
    },
    "volume_20mm_mm3": {
        "Description": "Volume of the medulla down to a plane across its axis 20 mm below the "
        "pons; n/a where the map ends before, and for other regions",
        "Units": "mm^3",
    },
    "volume_sd_mm3": {
        "Description": "Standard deviation of the volume over the single passes, one a network "
        "and mirroring, of which the result is the mean; n/a of a single pass",
        "Units": "mm^3",
    },
}

# The table of a dataset: a row an image and model.
WHERE: Columns = {
    "participant_id": {"Description": "Participant"},
    "session_id": {"Description": "Session"},
    **{key: {"Description": f"BIDS entity {key} of the source image"} for key in ENTITIES},
    "model": {"Description": "Name of the model"},
    "model_version": {"Description": "Version of the model"},
    "source": {"Description": "Path of the source image in its dataset"},
}


def _of(regions: tuple[str, ...], name: str, text: str, unit: str | None = None) -> Columns:
    """Describe a measure of several regions, ``{}`` in both texts standing for the region."""
    entry = {"Units": unit} if unit else {}
    return {name.format(r): {"Description": text.format(r), **entry} for r in regions}


# Measures that stand in the table of an image: column there, by column here without the region.
FROM_VOLUMES = {
    "mm3": "volume_mm3",
    "soft_mm3": "soft_volume_mm3",
    "clusters": "clusters",
    "surface_mm2": "surface_mm2",
    "midsagittal_mm2": "midsagittal_mm2",
    "ap_diameter_mm": "ap_diameter_mm",
    "20mm_mm3": "volume_20mm_mm3",
    "sd_mm3": "volume_sd_mm3",
}
MEASURES: Columns = {
    **_of(REGIONS, "{}_mm3", "Volume of the label map's {}", "mm^3"),
    **_of(REGIONS, "{}_soft_mm3", "Volume of the {} as sum of its probabilities", "mm^3"),
    **_of(
        REGIONS,
        "{}_clusters",
        "Connected pieces of the {}; voxels that share a face connect",
    ),
    "voxel_size_mm": {
        "Description": "Edges of a voxel of the source image, to the right, front and up, "
        "written with x between",
        "Units": "mm",
    },
    **_of(
        REGIONS,
        "{}_surface_mm2",
        "Area of the closed surface of the {}, borders with other regions included",
        "mm^2",
    ),
    **_of(
        REGIONS,
        "{}_midsagittal_mm2",
        "Area of the {} on the midsagittal plane, which is fitted to the brainstem",
        "mm^2",
    ),
    **_of(
        PARTS,
        "{}_ap_diameter_mm",
        "Largest diameter of the {} from front to back on the midsagittal plane",
        "mm",
    ),
    "medulla_20mm_mm3": {
        "Description": "Volume of the medulla down to a plane across its axis 20 mm below the "
        "pons; n/a where the map ends before",
        "Units": "mm^3",
    },
    **_of(
        REGIONS,
        "{}_sd_mm3",
        "Standard deviation of the volume of the {} over the single passes, one a network and "
        "mirroring; n/a of a single pass",
        "mm^3",
    ),
    "midbrain_pons_ratio": {"Description": "Volume of the midbrain over that of the pons"},
    "midbrain_pons_midsagittal_ratio": {
        "Description": "Midsagittal area of the midbrain, with tectum and aqueduct where the "
        "model's labels have them, over that of the pons; published cut-offs for other "
        "definitions do not apply"
    },
    **_of(REGIONS, "{}_etiv_fraction", "Volume of the {} over etiv_mm3"),
    **_of(
        REGIONS,
        "{}_adjusted_mm3",
        "Volume of the {} less what etiv_mm3 above or below this table's mean explains (residual "
        "of a linear regression a model, plus the mean); n/a with fewer than 10 participants",
        "mm^3",
    ),
}
QUALITY: Columns = {
    "etiv_mm3": {
        "Description": "Estimated volume of the inside of the skull; n/a where it cannot be told, "
        "as where no brainstem was found",
        "Units": "mm^3",
    },
    "self_consistency": {
        "Description": "The main measure of quality, 0 to 1: mean agreement of the regions, or "
        "mean mirror_dice of a model of one network; a missing region counts 0, an empty map "
        "is 0; n/a of a single pass"
    },
    "localizer_confidence": {
        "Description": "Mean probability, 0 to 1, with which the brainstem was located"
    },
    **_of(
        PARTS,
        "{}_agreement",
        "Dice overlap, 0 to 1, between the {} of the model's networks, mean over pairs; n/a of a "
        "model of one network",
    ),
    **_of(
        PARTS,
        "{}_mirror_dice",
        "Dice overlap, 0 to 1, between the {} of single passes over the image as it is and over "
        "its mirror images, mean; n/a without mirroring",
    ),
    **_of(
        REGIONS,
        "{}_soft_dice",
        "Dice overlap, 0 to 1, between the probabilities of the {} and its label: how sure the "
        "model is",
    ),
    **_of(
        REGIONS,
        "{}_largest_component_fraction",
        "Share of the {}, 0 to 1, in its largest connected piece",
    ),
    **_of(
        REGIONS,
        "{}_symmetry",
        "Dice overlap, 0 to 1, of the {} and its mirror image about the midsagittal plane",
    ),
    "midbrain_pons_height_mm": {
        "Description": "How far the centre of the midbrain lies above that of the pons",
        "Units": "mm",
    },
    "pons_medulla_height_mm": {
        "Description": "How far the centre of the pons lies above that of the medulla",
        "Units": "mm",
    },
    "midbrain_pons_contact_mm2": {
        "Description": "Area of the voxel faces that midbrain and pons share",
        "Units": "mm^2",
    },
    "pons_medulla_contact_mm2": {
        "Description": "Area of the voxel faces that pons and medulla share",
        "Units": "mm^2",
    },
    "max_voxel_edge_mm": {"Description": "Longest edge of a voxel", "Units": "mm"},
}
ACQUISITION: Columns = {
    "site": {
        "Description": "Where the image was taken: site of participants.tsv where that is joined, "
        "else InstitutionName of its sidecar"
    },
    "manufacturer": {"Description": "Manufacturer of the scanner, from the image's sidecar"},
    "scanner_model": {"Description": "Model of the scanner, from the image's sidecar"},
    "field_strength_t": {
        "Description": "Nominal field strength, from the image's sidecar",
        "Units": "T",
    },
    "batch": {"Description": "Site, manufacturer, scanner and field strength in one, for ComBat"},
    "years_since_first": {
        "Description": "Time since the participant's first image that has a date",
        "Units": "year",
    },
}
_ROBUST = "0.6745 (volume - median) / median absolute deviation; n/a with fewer than 10 results"
OUTLIERS: Columns = {
    **_of(REGIONS, "{}_robust_z", f"How far the {{}} lies out in this table, a model: {_ROBUST}"),
    **_of(REGIONS, "{}_batch_z", f"How far the {{}} lies out among its batch, a model: {_ROBUST}"),
}
FLAGS: Columns = {
    "rating": {
        "Description": "A person's rating, from group_ratings.tsv",
        "Levels": {"pass": "to be used", "fail": "not to be used"},
    },
    "failure": {"Description": "Why the image could not be processed; n/a of a result"},
    "flags": {
        "Description": "What to look at before trusting the row, separated by commas; n/a: nothing"
    },
}
GROUP: Columns = {**WHERE, **MEASURES, **QUALITY, **ACQUISITION, **OUTLIERS, **FLAGS}

# The table of changes: a row for each later image of a participant.
LONGITUDINAL: Columns = {
    "participant_id": {"Description": "Participant"},
    "first_session_id": {"Description": "Session that is compared with, the first"},
    "session_id": {"Description": "The later session"},
    **{key: {"Description": f"BIDS entity {key} of both source images"} for key in ENTITIES},
    "model": {"Description": "Name of the model"},
    "model_version": {"Description": "Version of the model"},
    "first_source": {"Description": "Path of the first image in its dataset"},
    "source": {"Description": "Path of the later image in its dataset"},
    "years": {"Description": "Time between both images; n/a without dates", "Units": "year"},
    **_of(REGIONS, "{}_change_mm3", "Volume of the {} in the later image less the first", "mm^3"),
    **_of(
        REGIONS, "{}_change_percent", "Change of the {} in per cent of the first volume", "percent"
    ),
    **_of(
        REGIONS,
        "{}_change_percent_per_year",
        "Change of the {} in per cent of the first volume, over years; n/a below 30 days",
        "percent/year",
    ),
    **_of(
        REGIONS,
        "{}_change_sd_percent",
        "Standard deviation of the change of the {} as the single passes of the network tell it, "
        "in per cent of the first volume; without the scanner's share",
        "percent",
    ),
    **_of(
        REGIONS,
        "{}_smallest_detectable_percent",
        "Smallest change of the {} that stands out of the noise with 95 %: Student's t times the "
        "standard deviation of a change that is noise alone, and never below that of the passes "
        "(1.96 change_sd_percent); a lower bound where noise_source is passes",
        "percent",
    ),
    "noise_source": {
        "Description": "What that noise is taken of; of several, the weakest",
        "Levels": {
            "repeats": "repeated scans of a session in this table (runs), 10 pairs at least",
            "changes": "scatter of this table's unflagged changes about their median, 10 "
            "participants at least; holds also how people differ in their change",
            "passes": "single passes of the network alone, which is too little to tell a change by",
        },
    },
    "beyond_noise": {
        "Description": "Regions whose change is larger than the noise, separated by commas; n/a of "
        "noise from passes alone. A change common to all participants counts too"
    },
    "flags": {
        "Description": "Why the change may not be one of the brain, separated by commas",
        "Levels": {
            "scanner_changed": "site, manufacturer or model of the scanner differ",
            "field_strength_changed": "the field strengths differ",
            "voxel_size_changed": "an edge of the voxels differs by more than 1 %",
            "etiv_changed": "etiv_mm3 differs by more than 3 %, as in one head it cannot: a wrong "
            "scale or a bad result",
            "flagged_image": "one of the images has a flag in the group table; no_etiv counts only "
            "where the other image lacks it",
            "rated_fail": "one of the results is rated fail",
            "no_date": "the time between the images is unknown",
        },
    },
}
