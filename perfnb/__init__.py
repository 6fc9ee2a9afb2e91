"""perfnb tells where training time goes, what to change, how much that will help, and whether it did.

The public names. Each is loaded from its module on first use, so that `import perfnb` costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from perfnb.apply import apply, preview, undo
    from perfnb.charts import accuracy_chart, breakdown_chart, findings_chart, impact_chart, step_timeline_chart
    from perfnb.config.as_config import as_config
    from perfnb.device_time import device_breakdown
    from perfnb.diagnose import diagnose
    from perfnb.findings import Diagnosis, Finding, NotMeasured
    from perfnb.fix import Suggestion
    from perfnb.ledger import step_ledger
    from perfnb.magics import load_ipython_extension, unload_ipython_extension
    from perfnb.outcomes.accuracy import accuracy
    from perfnb.panels import bottleneck_panel, compare_panel, monitor_panel, training_panel, whatif_panel
    from perfnb.perfetto import open_in_perfetto
    from perfnb.performance_optimizer import PerformanceOptimizer
    from perfnb.prediction import Change, Prediction, Unknown
    from perfnb.read.kineto import read_kineto as read_trace
    from perfnb.read.memory_snapshot import read_memory_snapshot
    from perfnb.read.metrics import read_metrics
    from perfnb.read.run_folder import read_run
    from perfnb.read.training_log import read_training_log
    from perfnb.record.allocator_history import record_allocations
    from perfnb.record.begin import record
    from perfnb.record.collective_probe import probe_collectives
    from perfnb.record.loader_probe import probe_dataset
    from perfnb.record.machine_probe import probe_machine
    from perfnb.record.recorder import Recorder, step
    from perfnb.report_file import report
    from perfnb.run import Machine, Recording, Run
    from perfnb.suggest import plan, suggest
    from perfnb.summarize import RankSummary, summarize_ranks
    from perfnb.training.probe import probe
    from perfnb.training.probe_result import ProbeResult
    from perfnb.training.probe_state import TrainingState
    from perfnb.training.suggest import suggest_hyperparameters
    from perfnb.verify import Outcome, verify
    from perfnb.whatif.collective_link import with_link_times
    from perfnb.whatif.critical_path import critical_path, critical_path_summary
    from perfnb.whatif.dry_run import MeasuredPeak, MemoryModel, predict_memory
    from perfnb.whatif.dry_run_checkpoints import checkpoint_candidates
    from perfnb.whatif.memory_fit import largest_batch
    from perfnb.whatif.pipeline_knobs import predict_pipeline
    from perfnb.whatif.pipeline_table import pipeline_replay
    from perfnb.whatif.scaled_path import critical_path_bounds, least_step_us
    from perfnb.whatif.step_model import predict

__version__ = "0.1.0"

__all__ = [
    "Change",
    "Diagnosis",
    "Finding",
    "Machine",
    "MeasuredPeak",
    "MemoryModel",
    "NotMeasured",
    "Outcome",
    "PerformanceOptimizer",
    "Prediction",
    "ProbeResult",
    "RankSummary",
    "Recorder",
    "Recording",
    "Run",
    "Suggestion",
    "TrainingState",
    "Unknown",
    "__version__",
    "accuracy",
    "accuracy_chart",
    "apply",
    "as_config",
    "bottleneck_panel",
    "breakdown_chart",
    "checkpoint_candidates",
    "compare_panel",
    "critical_path",
    "critical_path_bounds",
    "critical_path_summary",
    "device_breakdown",
    "diagnose",
    "findings_chart",
    "impact_chart",
    "largest_batch",
    "least_step_us",
    "load_ipython_extension",
    "monitor_panel",
    "open_in_perfetto",
    "pipeline_replay",
    "plan",
    "predict",
    "predict_memory",
    "predict_pipeline",
    "preview",
    "probe",
    "probe_collectives",
    "probe_dataset",
    "probe_machine",
    "read_memory_snapshot",
    "read_metrics",
    "read_run",
    "read_trace",
    "read_training_log",
    "record",
    "record_allocations",
    "report",
    "step",
    "step_ledger",
    "step_timeline_chart",
    "suggest",
    "suggest_hyperparameters",
    "summarize_ranks",
    "training_panel",
    "undo",
    "unload_ipython_extension",
    "verify",
    "whatif_panel",
    "with_link_times",
]

_PLACES: Final = MappingProxyType(
    {
        "Change": "perfnb.prediction",
        "Diagnosis": "perfnb.findings",
        "Finding": "perfnb.findings",
        "Machine": "perfnb.run",
        "MeasuredPeak": "perfnb.whatif.dry_run",
        "MemoryModel": "perfnb.whatif.dry_run",
        "NotMeasured": "perfnb.findings",
        "Outcome": "perfnb.verify",
        "PerformanceOptimizer": "perfnb.performance_optimizer",
        "Prediction": "perfnb.prediction",
        "ProbeResult": "perfnb.training.probe_result",
        "RankSummary": "perfnb.summarize",
        "Recorder": "perfnb.record.recorder",
        "Recording": "perfnb.run",
        "Run": "perfnb.run",
        "Suggestion": "perfnb.fix",
        "TrainingState": "perfnb.training.probe_state",
        "Unknown": "perfnb.prediction",
        "accuracy": "perfnb.outcomes.accuracy",
        "accuracy_chart": "perfnb.charts",
        "apply": "perfnb.apply",
        "as_config": "perfnb.config.as_config",
        "bottleneck_panel": "perfnb.panels",
        "breakdown_chart": "perfnb.charts",
        "checkpoint_candidates": "perfnb.whatif.dry_run_checkpoints",
        "compare_panel": "perfnb.panels",
        "critical_path": "perfnb.whatif.critical_path",
        "critical_path_bounds": "perfnb.whatif.scaled_path",
        "critical_path_summary": "perfnb.whatif.critical_path",
        "device_breakdown": "perfnb.device_time",
        "diagnose": "perfnb.diagnose",
        "findings_chart": "perfnb.charts",
        "impact_chart": "perfnb.charts",
        "largest_batch": "perfnb.whatif.memory_fit",
        "least_step_us": "perfnb.whatif.scaled_path",
        "load_ipython_extension": "perfnb.magics",
        "monitor_panel": "perfnb.panels",
        "open_in_perfetto": "perfnb.perfetto",
        "pipeline_replay": "perfnb.whatif.pipeline_table",
        "plan": "perfnb.suggest",
        "predict": "perfnb.whatif.step_model",
        "predict_memory": "perfnb.whatif.dry_run",
        "predict_pipeline": "perfnb.whatif.pipeline_knobs",
        "preview": "perfnb.apply",
        "probe": "perfnb.training.probe",
        "probe_collectives": "perfnb.record.collective_probe",
        "probe_dataset": "perfnb.record.loader_probe",
        "probe_machine": "perfnb.record.machine_probe",
        "read_memory_snapshot": "perfnb.read.memory_snapshot",
        "read_metrics": "perfnb.read.metrics",
        "read_run": "perfnb.read.run_folder",
        "read_trace": "perfnb.read.kineto:read_kineto",
        "read_training_log": "perfnb.read.training_log",
        "record": "perfnb.record.begin",
        "record_allocations": "perfnb.record.allocator_history",
        "report": "perfnb.report_file",
        "step": "perfnb.record.recorder",
        "step_ledger": "perfnb.ledger",
        "step_timeline_chart": "perfnb.charts",
        "suggest": "perfnb.suggest",
        "suggest_hyperparameters": "perfnb.training.suggest",
        "summarize_ranks": "perfnb.summarize",
        "training_panel": "perfnb.panels",
        "undo": "perfnb.apply",
        "unload_ipython_extension": "perfnb.magics",
        "verify": "perfnb.verify",
        "whatif_panel": "perfnb.panels",
        "with_link_times": "perfnb.whatif.collective_link",
    }
)
"""Public name to its module, with the name that it has there after a colon where that differs."""

_PACKAGES: Final = ("analyses", "charts", "outcomes")
"""Packages of many public names, reached as `perfnb.analyses.idle_gaps` after `import perfnb`."""


class _Package(ModuleType):
    """The module `perfnb`, which keeps a public name for the function where a submodule has the same name.

    Importing `perfnb.diagnose` makes Python bind the submodule as an attribute of its package, over the function of that name.
    """

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute, unless it is a submodule that would hide the public name."""
        if not (name in _PLACES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """The public name, loaded on first use (PEP 562)."""
    if name in _PACKAGES:
        return importlib.import_module(f"perfnb.{name}")
    if name not in _PLACES:
        message = f"module 'perfnb' has no attribute {name!r}: its public names are {', '.join(__all__)}"
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    place, _, inner_name = _PLACES[name].partition(":")
    value = getattr(importlib.import_module(place), inner_name or name)
    globals()[name] = value
    return value


def _show_values() -> None:
    """Show perfnb's values by their faces in a notebook that imports perfnb and never says `%load_ext perfnb`."""
    ipython = sys.modules.get("IPython")
    shell = getattr(ipython, "get_ipython", lambda: None)()
    if shell is not None:
        importlib.import_module("perfnb.magics").register_display(shell)


def __dir__() -> list[str]:
    """The public names and those that every module has."""
    return sorted({*globals(), *__all__, *_PACKAGES})


_show_values()
