"""The campaign on one GPU: before/after pairs, memory, overhead, faults and NVML fixtures, recorded in ten minutes."""
