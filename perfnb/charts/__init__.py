"""Charts: DataFrame -> altair chart, nothing else."""

from perfnb.charts import quick_import  # noqa: F401 - before any other, for all of them import altair
from perfnb.charts.accuracy import accuracy_chart
from perfnb.charts.bandwidth import bus_bandwidth_chart
from perfnb.charts.breakdown import breakdown_chart
from perfnb.charts.clocks import clocks_chart
from perfnb.charts.compare import compare_chart
from perfnb.charts.critical_path import critical_path_chart
from perfnb.charts.device import communication_overlap_chart, device_breakdown_chart, idle_chart
from perfnb.charts.findings import findings_chart
from perfnb.charts.impact import impact_chart
from perfnb.charts.kernels import annotation_chart, kernels_chart, operators_chart, sequences_chart
from perfnb.charts.launch_histogram import launch_histogram_chart
from perfnb.charts.live import live
from perfnb.charts.operator_tree import operator_tree_chart
from perfnb.charts.roofline import roofline_chart
from perfnb.charts.static import alternative, svg
from perfnb.charts.step_lines import copy_bandwidth_chart, launch_queue_chart, memory_chart
from perfnb.charts.stragglers import arrivals_chart, stragglers_chart
from perfnb.charts.timeline import step_timeline_chart

__all__ = [
    "accuracy_chart",
    "alternative",
    "annotation_chart",
    "arrivals_chart",
    "breakdown_chart",
    "bus_bandwidth_chart",
    "clocks_chart",
    "communication_overlap_chart",
    "compare_chart",
    "copy_bandwidth_chart",
    "critical_path_chart",
    "device_breakdown_chart",
    "findings_chart",
    "idle_chart",
    "impact_chart",
    "kernels_chart",
    "launch_histogram_chart",
    "launch_queue_chart",
    "live",
    "memory_chart",
    "operator_tree_chart",
    "operators_chart",
    "roofline_chart",
    "sequences_chart",
    "step_timeline_chart",
    "stragglers_chart",
    "svg",
]
