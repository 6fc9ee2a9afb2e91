"""What each case's process has imported before it begins: named to the fork server, which imports it once."""

from benchmarks.detection import controls, single, storage
from perfnb.read.recorded import run_of
from perfnb.record.recorder import Recorder

__all__ = ["Recorder", "controls", "run_of", "single", "storage"]
