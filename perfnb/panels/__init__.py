"""Panels: views on values with controls, for notebooks."""

from perfnb.panels.bottleneck import BottleneckPanel
from perfnb.panels.open import bottleneck_panel, whatif_panel
from perfnb.panels.whatif import WhatIfPanel

__all__ = ["BottleneckPanel", "WhatIfPanel", "bottleneck_panel", "whatif_panel"]
