"""Diagnoses of a training by its own curve: one detector, one file."""
