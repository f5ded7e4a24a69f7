"""Intel's and AMD's running average power limit (RAPL), as Linux shows it: joules per package."""

from __future__ import annotations

from pathlib import Path

from profilers._base import Unavailable

ROOT = Path("/sys/class/powercap")


class Packages:
    """The energy of all processor packages; a counter that begins anew is followed.

    Raises:
        Unavailable: the machine shows no counter, or not to this user.
    """

    def __init__(self, root: Path = ROOT) -> None:
        # `intel-rapl:0` is a package, on AMD's processors too; `intel-rapl:0:0` a part of it.
        self.zones = sorted(z for z in root.glob("intel-rapl:*") if z.name.count(":") == 1)
        if not self.zones:
            raise Unavailable(f"this machine shows no RAPL counters in {root}")
        self.last = [self._read(zone, "energy_uj") for zone in self.zones]
        self.spans = [self._read(zone, "max_energy_range_uj") + 1 for zone in self.zones]
        self.total = 0

    def joules(self) -> float:
        """What was taken since this object was made; ask again before a counter runs round."""
        for index, zone in enumerate(self.zones):
            now = self._read(zone, "energy_uj")
            self.total += (now - self.last[index]) % self.spans[index]
            self.last[index] = now
        return self.total / 1e6

    def _read(self, zone: Path, name: str) -> int:
        try:
            return int((zone / name).read_text())
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"RAPL counter {zone.name} cannot be read ({error}); Linux shows it to root alone "
                f"unless told otherwise: chmod a+r {zone / name}"
            ) from error
