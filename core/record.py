"""What is known of a point: small sections, each written once, each complete in itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from core.metric import Metric
from core.point import Point

Status = Literal["done", "failed", "unsupported"]


@dataclass
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
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Section:
        metrics = {k: Metric.from_json(v) for k, v in data.get("metrics", {}).items()}
        return cls(**{**data, "metrics": metrics})


@dataclass
class Record:
    """A point and its sections."""

    point: Point
    sections: dict[str, Section] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """All measured numbers of the sections that are done."""
        merged: dict[str, float] = {}
        for section in self.sections.values():
            if section.status == "done":
                merged.update(section.values)
        return merged
