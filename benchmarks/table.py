"""One line of the table that stores.py prints."""

from dataclasses import dataclass

AT_ONCE = 32


@dataclass
class Row:
    """One line of the table: two medians in microseconds, or two rates, and their ratio."""

    store: str
    operation: str
    ours: float
    floor: float
    bound: float | None
    least: bool = False  # the bound is a minimum, not a maximum

    @property
    def ratio(self) -> float:
        return self.ours / self.floor

    @property
    def kept(self) -> bool | None:
        """Say whether the ratio is within its bound; None if it has none."""
        if self.bound is None:
            return None
        return self.ratio >= self.bound if self.least else self.ratio <= self.bound

    def line(self) -> str:
        rate = self.operation.startswith(str(AT_ONCE))
        shown = [f"{x:,.0f}/s" if rate else f"{x / 1000:.3f} ms" for x in (self.ours, self.floor)]
        bound = f"{'≥' if self.least else '≤'} {self.bound:.2f}" if self.bound else ""
        verdict = {None: "", True: "yes", False: "**no**"}[self.kept]
        cells = self.store, self.operation, *shown, f"{self.ratio:.2f}", bound, verdict
        return f"| {' | '.join(cells)} |"
