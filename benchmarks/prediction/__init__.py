"""Predictions against what was measured after the change."""
