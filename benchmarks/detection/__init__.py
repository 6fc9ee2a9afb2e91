"""The fault-injection benchmark: trainings with one known cause of lost time, its measured size, and what detectors say."""
