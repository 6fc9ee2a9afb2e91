"""Reader of the traces that torch.profiler (Kineto) writes."""

from perfnb.read.kineto.reader import read_kineto

__all__ = ["read_kineto"]
