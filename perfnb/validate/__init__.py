"""perfnb checks itself on the user's machine: `perfnb validate`, or `validate()` from a script."""

from perfnb.validate.check import Check
from perfnb.validate.validation import Validation, validate

__all__ = ["Check", "Validation", "validate"]
