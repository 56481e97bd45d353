"""What `verify` says of a bundle, for people and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from dashboards.formats import latency_label, one_line
from dashboards.terminal.documents import latency_document, plain
from dashboards.terminal.tables import facts_table
from search.results.bundle.verifying import BundleReport, SampleRun
from workers.wording import counted


def report_panel(report: BundleReport) -> RenderableType:
    """Return what was found, a line for each step, and the verdict."""
    facts: list[tuple[str, str | Text]] = [("bundle", Text(str(report.folder)))]
    if report.files is not None:
        facts.append(("files", f"{counted(report.files, 'file')} as written"))
    facts += [("samples", sample_text(run)) for run in report.samples]
    if report.files is not None and not report.samples:
        facts.append(("samples", "none in this bundle"))
    facts += _latency_facts(report)
    facts.append(("verdict", _verdict_text(report)))
    return facts_table(facts)


def sample_text(run: SampleRun) -> str:
    """Return how a model file's outputs for the samples compare with the recorded ones."""
    if run.difference is None:
        return f"{run.file}: not run, its runtime isn't installed here"
    words = "as recorded" if run.agrees else "differ"
    return (
        f"{run.file}: {counted(run.images, 'image')}, outputs {words} ({run.difference:.1e}, at most {run.tolerance:g})"
    )


def _latency_facts(report: BundleReport) -> list[tuple[str, str | Text]]:
    latency, measured = report.latency, report.measured
    if latency is None or measured is None:
        return []
    limit, of = "no limit on latency", ""
    if measured.limit_ms is not None:
        limit = f"{measured.limit_ms:g} ms"
        of = "" if measured.limit_of == measured.target else f", which was set for {measured.limit_of}"
    return [
        ("latency", f"{latency.median_ms:.4g} ms, up to {latency.interval_high_ms:.4g} ({latency_label(latency)})"),
        ("on", f"{one_line(latency.device)}, {latency.runtime} {latency.runtime_version}"),
        ("budget", limit + of),
    ]


def _verdict_text(report: BundleReport) -> str:
    if report.verified_by:
        return f"{report.verdict}, {report.verified_by}"
    return report.verdict if report.latency is not None or report.failure is not None else "PASS, latency not measured"


def report_document(report: BundleReport) -> dict[str, Any]:
    """Return the report as plain JSON values."""
    measured = report.measured
    return {
        "bundle": str(report.folder),
        "version": report.version,
        "files": report.files,
        "samples": [
            {
                "file": run.file,
                "images": run.images,
                "largest_difference": plain(run.difference),
                "tolerance": run.tolerance,
            }
            for run in report.samples
        ],
        "latency": None if report.latency is None else latency_document(report.latency.record),
        "limit_ms": None if measured is None else measured.limit_ms,
        "limit_of": None if measured is None else measured.limit_of,
        "verdict": report.verdict,
        "verified_by": report.verified_by,
        "failure": None if report.failure is None else str(report.failure),
        "exit_code": 0 if report.failure is None else report.failure.exit_code,
    }
