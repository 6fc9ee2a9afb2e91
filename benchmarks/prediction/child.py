"""What the runner imports once, before it forks a process for each pair: no thread of torch has started then."""

import torch
import torch._dynamo  # optimizers import it at their first step: two seconds in every forked process

from benchmarks.prediction import measure
from perfnb.read.recorded import run_of
from perfnb.record.recorder import Recorder
from perfnb.whatif.transform import transforms

__all__ = ["Recorder", "measure", "run_of"]

torch.set_num_threads(1)  # forked processes cannot use threads that others started
transforms()  # imports every model
