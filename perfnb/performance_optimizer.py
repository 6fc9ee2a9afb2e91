"""PerformanceOptimizer: the whole road, from metrics to an applied config, as one object for scripts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from perfnb import json_output
from perfnb.config.file_home import FileHome
from perfnb.diagnose import diagnose
from perfnb.errors import PerfnbError
from perfnb.performance_optimizer_applied import Applied, applied
from perfnb.performance_optimizer_entries import bottlenecks, hyperparameters, recommendation, together
from perfnb.performance_optimizer_inputs import checked_units, run_of
from perfnb.report_content import reported
from perfnb.report_environment import config_rows
from perfnb.report_file import html_page
from perfnb.safe_text import clean
from perfnb.whole_file import write_whole
from perfnb.wording import verdict

SCHEMA: Final = 1
"""Version of the dicts: rises when a key goes or changes its meaning."""


_BOTTLENECKS: Final = "bottlenecks.json"
_PAGE: Final = "optimization_report.html"
_REPORT: Final = "optimization_report.json"
_APPLIED: Final = "applied.json"
_LONGEST: Final = 200


class OutputError(PerfnbError):
    """The output folder cannot be made or written: says why, and whether a config file was changed before that."""


class PerformanceOptimizer:
    """Analyse a training, recommend changes and apply them, from a script; what it finds is kept in a folder.

    It calls what the notebooks call (`read_metrics`, `diagnose`, `suggest`, `suggest_hyperparameters`, `report`, `apply`) and
    imports neither IPython nor ipywidgets.

    Parameters
    ----------
    output_dir
        Folder for what it saves; made where it does not exist. `~` is the home of a user, here as in all other paths.
    units
        Unit of columns that do not say their own, as in `perfnb.read_metrics`: `{"*_time": "s"}`.

    Attributes
    ----------
    output_dir
        The folder.

    Raises
    ------
    OutputError
        If the folder cannot be made or written.
    LogFormatError
        If units is no mapping.

    Examples
    --------
    >>> import tempfile
    >>> optimizer = PerformanceOptimizer(tempfile.mkdtemp(), units={"*_time": "s"})
    >>> found = optimizer.analyze_training_bottlenecks("data/samples/logs/my_loop.jsonl")
    >>> found[0]["bottleneck"], found[0]["unit"]
    ('data_stall', 'time')
    """

    def __init__(self, output_dir: str | os.PathLike[str], *, units: Mapping[str, str] | None = None) -> None:
        self._units = checked_units(units)
        self.output_dir = _made(output_dir)
        self._check_folder()

    def analyze_training_bottlenecks(
        self, training_metrics: Any, memory_snapshots: Any = None, system_metrics: Any = None
    ) -> list[dict[str, Any]]:
        """Bottlenecks of a training, largest severity first.

        Saved as bottlenecks.json, beside them the verdict, not_measured and notes, as `analyze_and_optimize` has them.

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
            If the metrics cannot be read, or the folder cannot be written: the message says what is there and what to pass.
        """
        self._check_folder(_BOTTLENECKS)
        run = run_of(training_metrics, memory_snapshots, system_metrics, units=self._units)
        diagnosis = diagnose(run)
        found = bottlenecks(diagnosis)
        content = {"schema": SCHEMA, "verdict": verdict(diagnosis).sentence, "bottlenecks": found}
        answers = json_output.analysis(diagnosis, ())
        content |= {name: answers[name] for name in ("not_measured", "notes")}
        self._write(self.output_dir / _BOTTLENECKS, _text(content))
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
        self._check_folder(_PAGE, _REPORT)
        run = run_of(training_metrics, memory_snapshots, config=current_config, units=self._units)
        told = reported(run, current_config)
        diagnosis = told.diagnosis
        answers = json_output.analysis(diagnosis, ())
        pairs = enumerate(zip(told.suggestions, told.shown, strict=True), 1)
        page, file = self.output_dir / _PAGE, self.output_dir / _REPORT
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
        texts = {page: html_page(told), file: _text(report)}
        for path, text in texts.items():
            self._write(path, text)
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
        OutputError
            If the folder cannot be written. The config is as it was then, or the message says that it was changed, and where its
            backup lies.
        """
        self._check_folder(_APPLIED)
        done = applied(recommendations, current_config)
        try:
            self._write(self.output_dir / _APPLIED, _text({"schema": SCHEMA, "applied": done.applied, "refused": done.refused}))
        except OutputError as error:
            message = f"{error}{_but_changed(done)}"
            raise OutputError(message) from error
        return done

    def _check_folder(self, *names: str) -> None:
        """See that files of these names can be written, before anything else is done."""
        try:
            with tempfile.TemporaryFile(dir=self.output_dir, prefix=".perfnb-"):
                taken = next((name for name in names if (self.output_dir / name).is_dir()), None)
        except OSError as error:
            message = f"output_dir {clean(self.output_dir, _LONGEST)} cannot be written: {error.strerror}"
            raise OutputError(message) from error
        if taken is not None:
            message = f"{clean(self.output_dir / taken, _LONGEST)} cannot be written: it is a folder; name another output_dir"
            raise OutputError(message)

    def _write(self, path: Path, content: str) -> None:
        try:
            write_whole(path, content.encode("utf-8", errors="backslashreplace"))
        except OSError as error:
            message = f"{clean(path, _LONGEST)} cannot be written: {error.strerror}; that file is as it was"
            raise OutputError(message) from error


def _made(output_dir: Any) -> Path:
    """The folder, made where it was not."""
    if not isinstance(output_dir, (str, os.PathLike)) or not os.fsdecode(output_dir).strip():
        message = f"output_dir is {clean(repr(output_dir), _LONGEST)}: pass the path of a folder, '.' for the current one"
        raise OutputError(message)
    given = os.fsdecode(output_dir)
    try:
        folder = Path(given).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"output_dir {clean(given, _LONGEST)} cannot be made a folder: {error.strerror}"
        raise OutputError(message) from error
    except (RuntimeError, ValueError) as error:  # ~ of a user who is not there; a character that no path has
        message = f"output_dir {clean(given, _LONGEST)} is no path of a folder: {clean(error, _LONGEST)}; pass another"
        raise OutputError(message) from error
    return folder


def _text(content: Mapping[str, Any]) -> str:
    return json_output.as_json(content) + "\n"


def _but_changed(done: Applied) -> str:
    """What to say of a config file that was changed before something went wrong."""
    config = done.config
    if not done.applied or not isinstance(config, FileHome) or config.backup is None:
        return ""
    path, backup = clean(config.path, _LONGEST), clean(config.backup, _LONGEST)
    return f"; but the config was changed already: {path}, and what it held before lies in {backup}"
