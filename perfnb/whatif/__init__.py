"""Predicting a change before it is made: models of a step, and the edits that knobs make to them."""
