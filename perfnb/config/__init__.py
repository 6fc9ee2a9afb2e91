"""Homes of a config: where a knob lives in it, and a new config with another value."""
