"""Tables of facts about a traced run: each `x(run) -> DataFrame`, one file per analysis."""

from perfnb.analyses.annotation_device_time import annotation_device_time, largest_annotations
from perfnb.analyses.arrivals import arrivals, arrivals_summary, longest_waits
from perfnb.analyses.bus_bandwidth import bandwidth_summary, bus_bandwidth
from perfnb.analyses.clocks import ClockAlignment, align_clocks
from perfnb.analyses.communication_overlap import communication_overlap
from perfnb.analyses.compare import compare_kernels, compare_operators, compare_steps, largest_changes
from perfnb.analyses.compare_parts import compare_parts
from perfnb.analyses.copies import copies, copy_bandwidth, copy_bandwidth_summary, copy_summary, thinned_copy_bandwidth
from perfnb.analyses.idle_gaps import idle_gaps, idle_summary
from perfnb.analyses.kernel_sequences import kernel_sequences, largest_sequences
from perfnb.analyses.kernel_summary import kernel_summary, largest
from perfnb.analyses.launch_queue import launch_queue, launch_queue_summary, thinned_launch_queue
from perfnb.analyses.launch_statistics import launch_histogram, launch_statistics, launch_summary
from perfnb.analyses.memory_timeline import memory_drawing, memory_peaks, memory_timeline
from perfnb.analyses.operator_flops import operator_flops
from perfnb.analyses.operator_kernels import largest_operators, operator_kernels
from perfnb.analyses.operator_tree import operator_rectangles, operator_tree
from perfnb.analyses.roofline import flop_summary, roofline
from perfnb.analyses.stragglers import caused_waits, stragglers, stragglers_summary

__all__ = [
    "ClockAlignment",
    "align_clocks",
    "annotation_device_time",
    "arrivals",
    "arrivals_summary",
    "bandwidth_summary",
    "bus_bandwidth",
    "caused_waits",
    "communication_overlap",
    "compare_kernels",
    "compare_operators",
    "compare_parts",
    "compare_steps",
    "copies",
    "copy_bandwidth",
    "copy_bandwidth_summary",
    "copy_summary",
    "flop_summary",
    "idle_gaps",
    "idle_summary",
    "kernel_sequences",
    "kernel_summary",
    "largest",
    "largest_annotations",
    "largest_changes",
    "largest_operators",
    "largest_sequences",
    "launch_histogram",
    "launch_queue",
    "launch_queue_summary",
    "launch_statistics",
    "launch_summary",
    "longest_waits",
    "memory_drawing",
    "memory_peaks",
    "memory_timeline",
    "operator_flops",
    "operator_kernels",
    "operator_rectangles",
    "operator_tree",
    "roofline",
    "stragglers",
    "stragglers_summary",
    "thinned_copy_bandwidth",
    "thinned_launch_queue",
]
