"""What is kept of a section whose process died at it: a failure, with what it said last."""

from __future__ import annotations

from bench import logs
from bench.jobs import Started
from core.record import Section
from results.store import RunFolder


def write_death(
    run: RunFolder, key: str, name: str, fingerprint: str, reason: str, started: Started | None
) -> Section:
    """Record what nobody could who worked at it. started: what the process said of its beginning.

    Raises:
        InputError: the section cannot be written.
    """
    section = Section(
        name, "failed", fingerprint, reason=reason,
        environment=dict(started.environment) if started else {},
    )  # fmt: skip
    log = run.log(key, name)
    if logs.settle(log):
        section.details["log"] = str(log.relative_to(run.path))
        section.reason += f"; its last words are in {log}"
    run.write_section(key, section)
    return section
