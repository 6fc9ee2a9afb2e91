"""Dynamics of the training itself: what its curve shows, what a probe proves, what may be claimed of either."""
