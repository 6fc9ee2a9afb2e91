"""What a probe of the dataset tells the models: batches in their order, and what a worker costs beside them."""

from __future__ import annotations


class ProbedLoader:
    """To be filled."""
