"""Recorded training runs with a measured truth: the workloads and the program that records them into data/samples."""
