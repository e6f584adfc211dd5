"""``brainstem-models``: list, verify, download and install models."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app.cli.options import guarded
from bids_app.errors import ModelError, UsageError
from bids_app.io.files import status
from bids_app.models import install, store
from bids_app.models.manifest import MANIFEST, read_manifest, verify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bids_app.models.manifest import Model


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Command line without the program's name; that of the process by default.

    Returns
    -------
    int
        Exit code; see `bids_app.errors`.
    """
    arguments = make_parser().parse_args(argv)
    return guarded(lambda: int(arguments.work(arguments)))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="brainstem-models",
        description="List, verify, download and install models. The open model comes with the "
        "package and needs no installation.",
        epilog="exit codes: 0 done; 2 invalid command line, or licence not accepted; 5 a model is "
        "missing, damaged or cannot be downloaded; 6 the folder of models cannot be written; "
        "130 stopped with Ctrl-C",
    )
    commands = parser.add_subparsers(required=True, metavar="{list,verify,fetch,import}")
    list_ = commands.add_parser("list", help="list all models, installed or not")
    list_.set_defaults(work=_list)
    check = commands.add_parser("verify", help="verify the files of installed models")
    check.add_argument(
        "names",
        nargs="*",
        metavar="NAME|FOLDER",
        help="names or folders of models (default: all installed models)",
    )
    check.set_defaults(work=_verify)
    get = commands.add_parser("fetch", help="download and install a published model")
    get.add_argument("model", metavar="NAME", help="mars-nnunet or mars-mdgru")
    get.add_argument("--url", help="folder of the published files on a mirror, http(s)://...")
    get.set_defaults(work=_fetch)
    add = commands.add_parser("import", help="install a model from local files")
    add.add_argument(
        "model", metavar="NAME", help="mars-nnunet, mars-mdgru, or a name for your own model"
    )
    add.add_argument(
        "path",
        type=Path,
        metavar="PATH",
        help="the folder of a model (of this app, nnU-Net v2, nnU-Net v1 or MD-GRU), or the "
        "archive of an nnU-Net v1 model",
    )
    add.add_argument("--name", help="install it under this name, also used as label in file names")
    add.set_defaults(work=_import)
    for command in (get, add):
        command.add_argument(
            "--accept-licence",
            action="store_true",
            help="accept the licence of a published model; without this option the licence is "
            "shown and nothing is installed",
        )
    for command in (list_, check, get, add):
        command.add_argument(
            "--models-dir",
            type=Path,
            metavar="FOLDER",
            help="folder of installed models (default: the environment variable "
            "BRAINSTEM_MODELS_DIR)",
        )
    return parser


def _list(arguments: argparse.Namespace) -> int:
    root = store.models_dir(arguments.models_dir)
    found = store.installed(arguments.models_dir) | store.without_manifest(arguments.models_dir)
    rows = [("name", "label", "version", "licence", "folds", "location")]
    names = defaultdict(list)  # by label
    for name, folder in sorted(found.items()):
        try:
            model = read_manifest(folder)
        except ModelError as error:
            rows.append((name, "-", "-", "-", "-", f"not usable: {error}"))
            continue
        label = f"seg-{model.label}"
        folds = f"{len(model.folds)} ({' '.join(model.folds)})" if model.folds else "-"
        rows.append((name, label, model.version, model.licence, folds, str(folder)))
        names[model.label.lower()].append(name)
    for name, entry in store.registry().items():
        if name not in found:
            source = f"not installed; {entry['source']}"
            rows.append((name, f"seg-{entry['label']}", "-", entry["licence"], "-", source))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[5]]))
    if root is not None and not root.exists():
        _warn(f"The folder {root} does not exist.")
    for label, sharing in names.items():
        if problem := store.shared_label(label, sharing):
            _warn(problem)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    root = store.models_dir(arguments.models_dir)
    others = store.without_manifest(arguments.models_dir)
    names = arguments.names or sorted(store.installed(arguments.models_dir) | others)
    if not arguments.names and root is not None and not root.exists():
        raise ModelError(f"The folder {root} does not exist.")
    code = 0
    for name in names:
        try:
            model = store.find(str(others.get(name, name)), arguments.models_dir)
            verify(model)
        except ModelError as error:
            print(f"{name}: not usable")
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
        else:
            number = len(model.files)
            matching = "1 file matches" if number == 1 else f"{number} files match"
            print(f"{name}: {matching}, SHA-256 {model.sha256}")
    return code


def _fetch(arguments: argparse.Namespace) -> int:
    entry = store.registry().get(arguments.model)
    if entry is None or "files" not in entry:
        known = [name for name, entry in store.registry().items() if "files" in entry]
        raise UsageError(f"{arguments.model}: cannot be fetched. Known: {', '.join(known)}.")
    terms = _accepted_terms(arguments.model, entry, accepted=arguments.accept_licence)
    if arguments.url is not None:
        from bids_app.models.download import check_address  # brings pooch and requests

        check_address(arguments.url)
    print(terms)
    before = _files(install.target_folder(arguments.model, arguments.models_dir))
    model = install.fetch_model(arguments.model, arguments.models_dir, arguments.url)
    _report(model, entry, before)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    name = arguments.model if arguments.name is None else arguments.name
    known = store.registry()
    published = arguments.model if arguments.model in known else name if name in known else ""
    if name in known and name != published:
        raise UsageError(f"{name} is the name of a published model. Choose another --name.")
    entry = known.get(published)
    credits_, terms = install.Credits(), ""
    if entry is not None:
        terms = _accepted_terms(published, entry, accepted=arguments.accept_licence)
        credits_ = install.Credits(entry["licence"], entry["citation"], entry["doi"])
    before = _files(install.target_folder(name, arguments.models_dir))
    model = install.import_model(arguments.path, name, arguments.models_dir, credits_, published)
    if terms:
        print(terms)
    _report(model, entry, before)
    return 0


def _files(folder: Path) -> dict[Path, int]:
    """Inodes of a model's files: a replaced file has another one."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path: status(path).st_ino for path in paths}


def _accepted_terms(name: str, entry: Mapping[str, Any], *, accepted: bool) -> str:
    """Terms of a published model; refuse to continue unless its licence is accepted."""
    if entry["engine"] not in install.IMPORTED:
        raise UsageError(f"{name} is the name of the packaged model. Choose another name.")
    licence = f"{name} is licensed under {entry['licence']}. {entry['terms']}"
    if not accepted:
        raise UsageError(f"{licence} Accept these terms with --accept-licence.")
    return f"{licence}\nCite: {entry['citation']} https://doi.org/{entry['doi']}"


def _report(model: Model, entry: Mapping[str, Any] | None, before: Mapping[Path, int]) -> None:
    """Print what was installed, and what its files leave open."""
    changed = _files(model.folder) != before
    what = ("repaired" if before else "installed") if changed else "already installed"
    folds = f", {len(model.folds)} fold{'s' * (len(model.folds) > 1)}: {' '.join(model.folds)}"
    print(
        f"{model.name} (seg-{model.label}, licence {model.licence}{folds if model.folds else ''}): "
        f"{what} in {model.folder}"
    )
    for file in model.sources:
        print(f"converted from {file.path}, {file.bytes:,} bytes, SHA-256 {file.sha256}")
    if entry is None and model.mode == "v1":
        assumed = ", ".join(f"{region.index} {region.name}" for region in model.regions)
        print(
            f"nnU-Net v1 stores no label names. These are assumed: {assumed}. If they differ, "
            f"change [labels] in {model.folder / MANIFEST} before the first run."
        )
    if entry is not None and len(model.folds) < entry.get("folds", 0):
        _warn(
            f"The published model has {entry['folds']} folds, but these files hold fewer: results "
            "will differ from the published model's. Is a part of the files missing?"
        )
    if model.engine == "mdgru" and not any(
        file.path.endswith((".meta", ".meta.gz")) for file in model.sources
    ):
        print(
            "There is no .meta file, so the graph was NOT checked: the architecture and the window "
            "size are assumed to be those of the published model."
        )
    if entry is not None and not all("digest" in file for file in entry["files"]):
        print(
            "The publisher states no digest of the files. The digests of these files were recorded "
            "and will be checked from now on."
        )


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)
