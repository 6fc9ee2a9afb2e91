"""Parts of the benchmarks of trace reading: sides, measured children, scale files, mutations and the fuzz workers."""
