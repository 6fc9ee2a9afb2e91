"""The accuracy ledger: predictions written down before the change, what was found after it, and how right they were."""

from perfnb.outcomes.accuracy import accuracy
from perfnb.outcomes.calibrate import calibration, own_calibration
from perfnb.outcomes.files import FOLDER_VARIABLE, ledger_folder
from perfnb.outcomes.ledger import Ledger, read_ledger
from perfnb.outcomes.record import record_outcome, record_prediction

__all__ = [
    "FOLDER_VARIABLE",
    "Ledger",
    "accuracy",
    "calibration",
    "ledger_folder",
    "own_calibration",
    "read_ledger",
    "record_outcome",
    "record_prediction",
]
