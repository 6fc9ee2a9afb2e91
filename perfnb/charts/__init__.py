"""Charts: DataFrame -> altair chart, nothing else."""

from perfnb.charts.breakdown import breakdown_chart
from perfnb.charts.findings import findings_chart
from perfnb.charts.impact import impact_chart
from perfnb.charts.live import live
from perfnb.charts.static import alternative, svg
from perfnb.charts.timeline import step_timeline_chart

__all__ = ["alternative", "breakdown_chart", "findings_chart", "impact_chart", "live", "step_timeline_chart", "svg"]
