"""The report of a sweep while it runs. Nothing that goes wrong with it ends a training."""

from __future__ import annotations

import contextlib
import time
import traceback
from typing import TYPE_CHECKING

from ablatrix.cli import output
from ablatrix.store import SweepDirectory

if TYPE_CHECKING:
    from ablatrix.store import Store
    from ablatrix.tracking import Mirror

REPORT_S = 30.0
SHARE = 9  # times as long as the report took, at least, until the next: it takes a tenth of the driver's time at most
ERROR_FILE = "report-error.txt"


class LiveReport:
    """Written anew every so often. A failure is told once, and kept with its traceback in `ERROR_FILE` until one succeeds."""

    def __init__(self, store: Store, sweep: SweepDirectory, mirror: Mirror) -> None:
        self.store, self.sweep, self.mirror = store, sweep, mirror
        self.problem: str | None = None
        self._told: set[str] = set()
        self._due = time.monotonic()

    @property
    def error_file(self) -> str:
        """Where the last failure is kept."""
        return str(self.sweep.path / ERROR_FILE)

    def refresh(self) -> None:
        """Write the report where it is due."""
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write the report now; `problem` says afterwards what went wrong, None where nothing did."""
        began = time.monotonic()
        try:
            self._write()
        except Exception as error:
            self._keep(error)
        else:
            self.problem = None
            with contextlib.suppress(OSError):
                (self.sweep.path / ERROR_FILE).unlink(missing_ok=True)
        took = time.monotonic() - began
        self._due = time.monotonic() + max(REPORT_S, SHARE * took)

    def _write(self) -> None:
        from ablatrix.cli.syncing import cell_means
        from ablatrix_reports.trial_curves import write_trial_curves
        from ablatrix_reports.write import write_report

        write_trial_curves(self.store, self.sweep.name)
        write_report(self.store, self.sweep.name)
        self.mirror.cell_means(cell_means(self.store, self.sweep.name))

    def _keep(self, error: Exception) -> None:
        self.problem = f"{type(error).__name__}: {error}".splitlines()[0]
        with contextlib.suppress(OSError):  # the disk may be full, which may be what went wrong
            at = time.strftime("%Y-%m-%d %H:%M:%S %Z")
            (self.sweep.path / ERROR_FILE).write_text(f"{at}\n{''.join(traceback.format_exception(error))}")
        if self.problem not in self._told:
            self._told.add(self.problem)
            output.notes().print(
                f"The report could not be written ({self.problem}); the training goes on. See {self.error_file}", style="yellow"
            )
