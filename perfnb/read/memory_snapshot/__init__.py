"""Memory snapshots, memory timelines and out-of-memory errors of torch."""

from perfnb.read.memory_snapshot.out_of_memory import OutOfMemory, out_of_memory
from perfnb.read.memory_snapshot.reader import read_memory_snapshot

__all__ = ["OutOfMemory", "out_of_memory", "read_memory_snapshot"]
