"""Panels: views on values with controls, for notebooks."""

from perfnb.panels.bottleneck import BottleneckPanel
from perfnb.panels.monitor import MonitorPanel
from perfnb.panels.open import bottleneck_panel, whatif_panel
from perfnb.panels.open_monitor import monitor_panel
from perfnb.panels.whatif import WhatIfPanel

__all__ = ["BottleneckPanel", "MonitorPanel", "WhatIfPanel", "bottleneck_panel", "monitor_panel", "whatif_panel"]
