"""Panels: views on values with controls, for notebooks."""

from perfnb.panels.bottleneck import BottleneckPanel
from perfnb.panels.compare import ComparePanel
from perfnb.panels.monitor import MonitorPanel
from perfnb.panels.open import bottleneck_panel, whatif_panel
from perfnb.panels.open_compare import compare_panel
from perfnb.panels.open_monitor import monitor_panel
from perfnb.panels.open_training import training_panel
from perfnb.panels.training import TrainingPanel
from perfnb.panels.whatif import WhatIfPanel

__all__ = [
    "BottleneckPanel",
    "ComparePanel",
    "MonitorPanel",
    "TrainingPanel",
    "WhatIfPanel",
    "bottleneck_panel",
    "compare_panel",
    "monitor_panel",
    "training_panel",
    "whatif_panel",
]
