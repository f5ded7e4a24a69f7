"""What is known of a point: small sections, each written once, each complete in itself."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from core.metric import Metric
from core.point import Point

Status = Literal["done", "failed", "unsupported"]


@dataclass(slots=True)
class Section:
    """One thing that was done with a point: `compress`, `profile.macs`, `task.pr` and so on.

    values: the numbers, by metric name. metrics: their meaning. details: whatever else a reader
    may want (raw samples, settings). fingerprint: what the section depends on; another fingerprint
    makes it stale. reason: why it is not done.
    """

    name: str
    status: Status
    fingerprint: str
    values: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0
    environment: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads; the values, details and environment are those of the section."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return own | {"metrics": {name: asdict(metric) for name, metric in self.metrics.items()}}

    def brief(self) -> Section:
        """What says whether the section is done, and of which model; the rest is left out."""
        weights = {k: v for k, v in self.details.items() if k == "weights"}
        return Section(
            self.name, self.status, self.fingerprint, details=weights, reason=self.reason
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Section:
        metrics = {k: Metric.from_json(v) for k, v in data.get("metrics", {}).items()}
        return cls(**{**data, "metrics": metrics})


@dataclass
class Record:
    """A point and its sections."""

    point: Point
    sections: dict[str, Section] = field(default_factory=dict)

    def pare(self, told: Container[str]) -> None:
        """Forget what has none of these names in the details and environments of its sections."""
        for section in self.sections.values():
            section.details = {k: v for k, v in section.details.items() if k in told}
            section.environment = {k: v for k, v in section.environment.items() if k in told}

    def values(self) -> dict[str, float]:
        """All measured numbers of the sections that are done."""
        merged: dict[str, float] = {}
        for section in self.sections.values():
            if section.status == "done":
                merged.update(section.values)
        return merged
