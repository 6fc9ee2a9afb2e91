"""Reader of the logs that trainers and trackers write: Hugging Face, Lightning, TensorBoard, MLflow, CSV and JSONL."""

from perfnb.read.training_log.formats import FORMATS, read_training_log

__all__ = ["FORMATS", "read_training_log"]
