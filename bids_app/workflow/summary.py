"""The messages that a participant-level run logs at its start and end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bids_app.bids.labels import T1W
from bids_app.bids.outputs import report_name
from bids_app.cpus import cpu_limit
from bids_app.errors import few
from bids_app.regions import REGIONS, of_brainstem
from bids_app.version import __version__

if TYPE_CHECKING:
    from bids_app.bids.scans import Scan
    from bids_app.models.manifest import Model
    from bids_app.settings import Settings
    from bids_app.workflow.interrupt import Stop
    from bids_app.workflow.log import Failures
    from bids_app.workflow.pipeline import Outcome

LOG = logging.getLogger(__name__)


def announce(settings: Settings, model: Model) -> None:
    """Log what runs: versions, licence, and options or regions without effect."""
    LOG.info("brainstem BIDS App %s. For research only; not a medical device.", __version__)
    LOG.info("Model: %s, version %s (seg-%s)", model.name, model.version, model.label)
    LOG.info("Licence of the model: %s", model.licence)
    LOG.info("CPU threads: %d of %d CPUs available (%s)", settings.nprocs, *cpu_limit())
    if line := model.ineffective_options(vars(settings)):
        LOG.warning("%s", line)
    if others := [region.name for region in model.regions if region.name not in REGIONS]:
        LOG.warning(
            "the group table has no columns for %s of the model %s; *_volumes.tsv of each image "
            "has them. %s",
            ", ".join(others),
            model.name,
            "All of its regions together count as the brainstem"
            if len(of_brainstem(model.regions)) == len(model.regions)
            else "They do not count in the brainstem",
        )


def summarise(
    settings: Settings, model: Model, outcome: Outcome, failures: Failures, stop: Stop
) -> None:
    """Log what became of all images, and where the results are."""
    if outcome.done:
        LOG.info("\n%s", _table(model, outcome))
    if failures.records:
        names = few(failure.source for failure in failures.records)
        LOG.error("failed: %s. Reasons: above and in %s", names, failures.path)
    for scan in outcome.elsewhere:
        LOG.info("skipped, another run is processing it: %s", scan.relative)
    for scan in outcome.cut_short:
        LOG.info("not finished, starts over next time: %s", scan.relative)
    counts = (
        f"{len(outcome.done)} done, {len(outcome.complete)} complete before, "
        f"{len(failures.records)} failed, {len(outcome.elsewhere)} skipped (another run)"
    )
    if stop.signal:
        counts += "; interrupted. Re-run the same command to resume"
    LOG.info("\n%s\nResults: %s", counts, settings.output_dir)
    if outcome.done or outcome.complete or failures.records:
        LOG.info(
            "Reports: %s/%s. Next: the group level.", settings.output_dir, report_name("sub-*")
        )
    if outcome.done:
        LOG.info("Please cite: %s", settings.output_dir / "logs" / "CITATION.md")


def _table(model: Model, outcome: Outcome) -> str:
    names = {scan: _name(scan) for scan, _ in outcome.done}
    title = "volumes in ml"
    width = max(map(len, [title, *names.values()]))
    heads = [*(region.name for region in model.regions), "brainstem"]
    columns = "  ".join(f"{head:>10}" for head in heads)
    lines = [f"{title:<{width}}  {columns}  {'seconds':>7}  flags"]
    for scan, result in sorted(outcome.done, key=lambda pair: pair[0]):
        volumes = "  ".join(f"{row.volume_mm3 / 1000:10.2f}" for row in result.volumes)
        flags = ", ".join(result.sidecar.flags) or "-"
        lines.append(f"{names[scan]:<{width}}  {volumes}  {result.sidecar.seconds:7.1f}  {flags}")
    return "\n".join(lines)


def _name(scan: Scan) -> str:
    parts = [f"{key}-{value}" for key, value in scan.entities]
    return "_".join(parts if scan.suffix == T1W else [*parts, scan.suffix])
