"""The app as one task of brainlife.io: a T1w image in, a parcellation and a message out.

In the working folder: config.json (keys t1 and, optional, model) is read; written are ``output/``,
the derivative dataset; ``parc/``, brainlife's datatype neuro/parcellation/volume; and product.json,
which brainlife shows, with volumes, flags and a picture.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from bids_app.bids.outputs import Outputs
from bids_app.bids.results import read_results
from bids_app.bids.scans import Scan

if TYPE_CHECKING:
    from bids_app.bids.results import Result

PICTURE_PIXELS = 480  # wide; brainlife keeps product.json in its database
_DESCRIPTION = {"Name": "brainlife task", "BIDSVersion": "1.10.0", "DatasetType": "raw"}


def main() -> int:
    """Do the task of the working folder; give the app's exit code."""
    config = json.loads(Path("config.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="bids-", dir=".") as folder:
        bids = Path(folder)
        try:
            scan = _make_dataset(bids, Path(config["t1"]), _subject(config))
        except OSError as error:
            return _fail(f"The input t1 cannot be read: {error.strerror}.", 1)
        words = [str(bids), "output", "participant", "--skip-bids-validation"]
        words.append(f"--model={config.get('model') or 'open'}")
        app = [sys.executable, "-m", "bids_app"]
        done = subprocess.run(  # noqa: S603 - our own arguments, no shell
            [*app, *words], check=False, stderr=subprocess.PIPE, encoding="utf-8"
        )
        sys.stderr.write(done.stderr)
    result = next(read_results(Path("output")), None)
    if done.returncode or result is None:
        reason = " ".join(done.stderr.split()) or _reason()
        return _fail(reason, done.returncode or 1)
    outputs = Outputs.of(Path("output"), scan, result.label)
    _write_parcellation(outputs, result.label)
    _write_product(_product(result, outputs.picture.read_bytes()))
    return 0


def _fail(reason: str, code: int) -> int:
    """Tell brainlife why there is no result, and give the exit code."""
    _write_product({"brainlife": [{"type": "error", "msg": reason}]})
    return code


def _subject(config: dict[str, Any]) -> str:
    """Label of the participant, out of what brainlife knows of the input."""
    inputs = config.get("_inputs") or [{}]
    name = str(inputs[0].get("meta", {}).get("subject", ""))
    return re.sub("[^0-9A-Za-z]", "", name.removeprefix("sub-")) or "01"


def _make_dataset(bids: Path, image: Path, label: str) -> Scan:
    relative = f"sub-{label}/anat/sub-{label}_T1w{'.nii.gz' if image.suffix == '.gz' else '.nii'}"
    path = bids / relative
    path.parent.mkdir(parents=True)
    shutil.copyfile(image, path)
    (bids / "dataset_description.json").write_text(json.dumps(_DESCRIPTION), encoding="utf-8")
    return Scan(path, relative, (("sub", label),))


def _reason() -> str:
    """Give the reason of the failure that the last run has on record."""
    tables = sorted(Path("output").glob("logs/*/failures.tsv"))
    rows = tables[-1].read_text(encoding="utf-8").splitlines()[1:] if tables else []
    return rows[0].split("\t")[-1] if rows else "The app failed; see its log."


def _write_parcellation(outputs: Outputs, label: str) -> None:
    """Write the label map and its legend as neuro/parcellation/volume has them."""
    folder = Path("parc")
    folder.mkdir(exist_ok=True)
    shutil.copyfile(outputs.dseg, folder / "parc.nii.gz")
    lines = Path(f"output/seg-{label}_dseg.tsv").read_text(encoding="utf-8").splitlines()
    header, *rows = (line.split("\t") for line in lines)
    labels, keys = [], []
    for row in (dict(zip(header, cells, strict=True)) for cells in rows):
        if (index := int(row["index"])) == 0:
            continue
        red, green, blue = bytes.fromhex(row["color"].removeprefix("#"))
        labels.append(
            {
                "name": row["name"],
                "desc": f"{row['name']} ({row['abbreviation']})",
                "label": str(index),
                "voxel_value": index,
                "r": red,
                "g": green,
                "b": blue,
            }
        )
        keys.append(f"{index}\t->\t{index}\t== {row['name']}\n")
    (folder / "label.json").write_text(json.dumps(labels, indent=4), encoding="utf-8")
    (folder / "key.txt").write_text("".join(keys), encoding="utf-8")


def _product(result: Result, picture: bytes) -> dict[str, Any]:
    volumes = {row.name: row.volume_mm3 for row in result.volumes}
    listed = ", ".join(f"{name} {value / 1000:.2f} ml" for name, value in volumes.items())
    messages = [{"type": "success", "msg": f"{listed}. For research only; not a medical device."}]
    messages += [
        {
            "type": "warning",
            "msg": f"Flag: {flag}. Look at the picture before you trust the volumes.",
        }
        for flag in result.sidecar.flags
    ]
    messages += [{"type": "warning", "msg": text} for text in result.sidecar.warnings]
    return {
        "brainlife": [*messages, _shown(picture)],
        "volumes_mm3": volumes,
        "model": result.model[0],
        "flags": result.sidecar.flags,
    }


def _shown(picture: bytes) -> dict[str, Any]:
    """Make a picture small, and hand it to the one kind of graph that brainlife draws."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=70)
    source = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
    width, height = image.size
    place = {"x": 0, "y": 1, "sizex": 1, "sizey": 1, "xref": "paper", "yref": "paper"}
    hidden = {"visible": False, "range": [0, 1]}
    return {
        "type": "plotly",
        "name": "Regions on the T1w image",
        "data": [],
        "layout": {
            "images": [{"source": source, "layer": "below", **place}],
            "width": width,
            "height": height,
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
            "xaxis": hidden,
            "yaxis": hidden,
        },
    }


def _write_product(content: dict[str, Any]) -> None:
    Path("product.json").write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
