"""``brainstem-models``: list, check, download and install models."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_app.cli.options import guarded
from bids_app.errors import ModelError, UsageError
from bids_app.models import install, store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bids_app.models.store import Model


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
        description="Lists, checks, downloads and installs models. The model open is in the "
        "package and needs none of this.",
        epilog="exit codes: 0 done; 2 wrong command line, or the licence was not accepted; 5 a "
        "model is missing, damaged or cannot be had; 6 the folder of models cannot be written; "
        "130 stopped with Ctrl-C",
    )
    commands = parser.add_subparsers(required=True, metavar="{list,verify,fetch,import}")
    list_ = commands.add_parser("list", help="list all models, installed or not")
    list_.set_defaults(work=_list)
    check = commands.add_parser("verify", help="check that files of models are whole")
    check.add_argument(
        "names",
        nargs="*",
        metavar="NAME|FOLDER",
        help="names or folders of models (default: all installed)",
    )
    check.set_defaults(work=_verify)
    get = commands.add_parser("fetch", help="download a published model and install it")
    get.add_argument("model", metavar="NAME", help="mars-nnunet or mars-mdgru")
    get.add_argument("--url", help="folder of the published files on a mirror, http(s)://...")
    get.set_defaults(work=_fetch)
    add = commands.add_parser("import", help="install a model from files, without a network")
    add.add_argument(
        "model", metavar="NAME", help="mars-nnunet, mars-mdgru, or a name for a model of your own"
    )
    add.add_argument(
        "path",
        type=Path,
        metavar="PATH",
        help="the folder of a model (of this app, or as nnU-Net v2 or v1 or MD-GRU leaves it), or "
        "the archive of an nnU-Net v1 model",
    )
    add.add_argument(
        "--name", help="install it under this name instead, which is its label in file names too"
    )
    add.set_defaults(work=_import)
    for command in (get, add):
        command.add_argument(
            "--accept-licence",
            action="store_true",
            help="accept the licence of a published model; without this the "
            "licence is named and nothing is done",
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
    rows = [("name", "label", "version", "licence", "folds", "where")]
    names = defaultdict(list)  # by label
    for name, folder in sorted(found.items()):
        try:
            model = store.read_manifest(folder)
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
        print(f"warning: There is no folder {root}.", file=sys.stderr)
    for label, sharing in names.items():
        if line := store.shared_label(label, sharing):
            print(f"warning: {line}", file=sys.stderr)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    root = store.models_dir(arguments.models_dir)
    others = store.without_manifest(arguments.models_dir)
    names = arguments.names or sorted(store.installed(arguments.models_dir) | others)
    if not arguments.names and root is not None and not root.exists():
        raise ModelError(f"There is no folder {root}.")
    code = 0
    for name in names:
        try:
            model = store.find(str(others.get(name, name)), arguments.models_dir)
            store.verify(model)
        except ModelError as error:
            print(f"{name}: not usable")
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
        else:
            matching = (
                "1 file matches" if len(model.files) == 1 else f"{len(model.files)} files match"
            )
            print(f"{name}: {matching}, SHA-256 {model.sha256}")
    return code


def _fetch(arguments: argparse.Namespace) -> int:
    entry = store.registry().get(arguments.model)
    if entry is None or "files" not in entry:
        known = [name for name, entry in store.registry().items() if "files" in entry]
        raise UsageError(f"{arguments.model}: cannot be fetched. Known: {', '.join(known)}.")
    terms = _accept(arguments.model, entry, accepted=arguments.accept_licence)
    from bids_app.models.fetch import check_address, fetch_model  # brings pooch and requests

    if arguments.url is not None:
        check_address(arguments.url)
    print(terms)
    before = _files(install.target_folder(arguments.model, arguments.models_dir))
    model = fetch_model(arguments.model, arguments.models_dir, arguments.url)
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
        terms = _accept(published, entry, accepted=arguments.accept_licence)
        credits_ = install.Credits(entry["licence"], entry["citation"], entry["doi"])
    before = _files(install.target_folder(name, arguments.models_dir))
    model = install.import_model(arguments.path, name, arguments.models_dir, credits_, published)
    if terms:
        print(terms)
    _report(model, entry, before)
    return 0


def _files(folder: Path) -> dict[Path, int]:
    """Tell which files stand in the place of a model, by their inodes: new ones have others."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != store.MANIFEST)
    return {path: path.stat().st_ino for path in paths}


def _accept(name: str, entry: Mapping[str, Any], *, accepted: bool) -> str:
    """Give the terms of a published model, and go on only if its licence is accepted."""
    if entry["engine"] not in store.IMPORTED:
        raise UsageError(f"{name} is the name of the model in the package. Choose another name.")
    licence = f"{name} is licensed {entry['licence']}. {entry['terms']}"
    if not accepted:
        raise UsageError(f"{licence} Accept that with --accept-licence.")
    return f"{licence}\nCite: {entry['citation']} https://doi.org/{entry['doi']}"


def _report(model: Model, entry: Mapping[str, Any] | None, before: Mapping[Path, int]) -> None:
    changed = _files(model.folder) != before
    where = ("is repaired" if before else "is") if changed else "was already"
    folds = f", {len(model.folds)} fold{'s' * (len(model.folds) > 1)}: {' '.join(model.folds)}"
    print(
        f"{model.name} (seg-{model.label}, licence {model.licence}{folds if model.folds else ''}) "
        f"{where} in {model.folder}"
    )
    for file in model.sources:
        print(f"made from {file.path}, {file.bytes:,} bytes, SHA-256 {file.sha256}")
    if entry is None and model.mode == "v1":
        taken = ", ".join(f"{region.index} {region.name}" for region in model.regions)
        print(
            f"nnU-Net v1 stores no names of labels: they are taken to be {taken}. If they are "
            f"others, change [labels] in {model.folder / store.MANIFEST} before the first run."
        )
    if entry is not None and len(model.folds) < entry.get("folds", 0):
        print(
            f"warning: the published model has {entry['folds']} folds, these files hold fewer: "
            "results will not be its. Is a part of them missing?",
            file=sys.stderr,
        )
    if model.engine == "mdgru" and not any(
        file.path.endswith((".meta", ".meta.gz")) for file in model.sources
    ):
        print(
            "No .meta was among these files, so the graph was NOT checked: how the network is put "
            "together and the size of its windows are taken to be those of the published one."
        )
    if entry is not None and not all("digest" in file for file in entry["files"]):
        print(
            "The publisher's digest of the files is not known: that of these files was recorded, "
            "and is checked from now on."
        )
