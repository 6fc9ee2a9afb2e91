"""PerformanceOptimizer: the whole road, from metrics to an applied config, as one object for scripts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from perfnb import json_output
from perfnb.diagnose import diagnose
from perfnb.errors import PerfnbError
from perfnb.performance_optimizer_applied import Applied, applied
from perfnb.performance_optimizer_entries import bottlenecks, hyperparameters, recommendation, together
from perfnb.performance_optimizer_inputs import run_of
from perfnb.report_content import reported
from perfnb.report_environment import config_rows
from perfnb.report_file import html_page
from perfnb.safe_text import clean
from perfnb.whole_file import write_whole
from perfnb.wording import verdict

SCHEMA: Final = 1
"""Version of the dicts: rises when a key goes or changes its meaning."""


class OutputError(PerfnbError):
    """The output folder cannot be made or written: says why."""


class PerformanceOptimizer:
    """Analyse a training, recommend changes and apply them, from a script; what it finds is kept in a folder.

    It calls what the notebooks call (`read_metrics`, `diagnose`, `suggest`, `suggest_hyperparameters`, `report`, `apply`) and
    imports neither IPython nor ipywidgets.

    Parameters
    ----------
    output_dir
        Folder for what it saves; made where it does not exist.
    units
        Unit of columns that do not say their own, as in `perfnb.read_metrics`: `{"*_time": "s"}`.

    Attributes
    ----------
    output_dir
        The folder.

    Raises
    ------
    OutputError
        If the folder cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> optimizer = PerformanceOptimizer(tempfile.mkdtemp(), units={"*_time": "s"})
    >>> found = optimizer.analyze_training_bottlenecks("data/samples/logs/my_loop.jsonl")
    >>> found[0]["bottleneck"], found[0]["unit"]
    ('data_stall', 'time')
    """

    def __init__(self, output_dir: str | os.PathLike[str], *, units: Mapping[str, str] | None = None) -> None:
        self.output_dir = Path(output_dir).expanduser()
        self._units = units
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"output_dir {clean(self.output_dir, 200)} cannot be made a folder: {error.strerror}"
            raise OutputError(message) from error

    def analyze_training_bottlenecks(
        self, training_metrics: Any, memory_snapshots: Any = None, system_metrics: Any = None
    ) -> list[dict[str, Any]]:
        """Bottlenecks of a training, largest severity first; saved as bottlenecks.json.

        Parameters
        ----------
        training_metrics
            A `Run`; a list of dicts, dict of lists or DataFrame of step times, phases, losses, ...; or a path: of a run folder, a
            trace, a trainer's log, or such rows as CSV, JSONL, JSON or Parquet.
        memory_snapshots
            Rows of allocated and reserved memory in the same forms, or the path of a snapshot of torch's allocator (.pickle).
        system_metrics
            Rows of the host and its GPUs in the same forms.

        Returns
        -------
        list of dict
            bottleneck, status ("found" or "possible"), severity (share of step time, or of memory as `unit` says, 0 to 1) with
            its interval, lost_us, confidence and what it rests on, ranks, steps, description, evidence.

        Raises
        ------
        PerfnbError
            If the metrics cannot be read: the message says what is there and what to pass.
        """
        run = run_of(training_metrics, memory_snapshots, system_metrics, units=self._units)
        diagnosis = diagnose(run)
        found = bottlenecks(diagnosis)
        self._save("bottlenecks.json", {"schema": SCHEMA, "verdict": verdict(diagnosis).sentence, "bottlenecks": found})
        return found

    def analyze_and_optimize(
        self, training_metrics: Any, memory_snapshots: Any = None, current_config: Any = None
    ) -> dict[str, Any]:
        """Report of a training: bottlenecks, what to change and what that is predicted to bring.

        Saved as optimization_report.json (this dict) and optimization_report.html (the page of `perfnb.report`).

        Parameters
        ----------
        training_metrics, memory_snapshots
            As in `analyze_training_bottlenecks`.
        current_config
            Any home of a config, as in `perfnb.as_config`: a mapping, an object, a file's path. Without one, and where the run
            holds none, no change can be named.

        Returns
        -------
        dict
            verdict, bottlenecks, optimization_recommendations (best first), plan (which of them to apply together, and what each
            adds; empty for fewer than two predictions), hyperparameter_suggestions, training_findings, not_applicable,
            not_limiting, not_measured, notes, config, saved. An expected improvement has its 80 % interval, or is
            `unknown` with the reason.

        Raises
        ------
        PerfnbError
            If the metrics or the config cannot be read, or the folder cannot be written.
        """
        run = run_of(training_metrics, memory_snapshots, config=current_config, units=self._units)
        told = reported(run, current_config)
        diagnosis = told.diagnosis
        answers = json_output.analysis(diagnosis, ())
        pairs = enumerate(zip(told.suggestions, told.shown, strict=True), 1)
        page, file = self.output_dir / "optimization_report.html", self.output_dir / "optimization_report.json"
        report = {
            "schema": SCHEMA,
            "verdict": verdict(diagnosis).sentence,
            "step": answers["step"],
            "bottlenecks": bottlenecks(diagnosis),
            "optimization_recommendations": [
                recommendation(item, shown, priority, diagnosis) for priority, (item, shown) in pairs
            ],
            "plan": [together(step) for step in told.plan],
            "hyperparameter_suggestions": hyperparameters(told.hyperparameters),
            "training_findings": answers["training"]["findings"],
            "not_applicable": [{"strategy": each.fix, "reason": each.reason} for each in told.refused],
            "not_limiting": answers["not_limiting"],
            "not_measured": answers["not_measured"],
            "notes": answers["notes"],
            "config": dict(config_rows(told.config)),
            "saved": {"html": str(page), "json": str(file)},
        }
        self._write(page, html_page(told))
        self._save(file.name, report)
        return report

    def apply_optimization_recommendations(self, recommendations: Any, current_config: Any) -> Applied:
        """The config with the recommendations in it; saved as applied.json.

        Parameters
        ----------
        recommendations
            `report["optimization_recommendations"]`, some of its entries, the report itself, suggestions of `perfnb.suggest`, or
            changes.
        current_config
            Any home of a config; a file is replaced as one and keeps a backup, other configs are not touched.

        Returns
        -------
        Applied
            `config`, `applied`, `refused`: a tuple of the new config, what is in it, and what is not with the reason. Refused is
            what starts from another value than the config has, changes what another one changed, has no place in the config
            (with code to paste), or is a hyperparameter that wants a probe first.

        Raises
        ------
        PerfnbError
            If something is no recommendation, or the config cannot be read or written.
        """
        done = applied(recommendations, current_config)
        self._save("applied.json", {"schema": SCHEMA, "applied": done.applied, "refused": done.refused})
        return done

    def _save(self, name: str, content: Mapping[str, Any]) -> None:
        self._write(self.output_dir / name, json_output.as_json(content) + "\n")

    def _write(self, path: Path, content: str) -> None:
        try:
            write_whole(path, content.encode("utf-8", errors="backslashreplace"))
        except OSError as error:
            message = f"{clean(path, 200)} cannot be written: {error.strerror}; what was there is as it was"
            raise OutputError(message) from error
