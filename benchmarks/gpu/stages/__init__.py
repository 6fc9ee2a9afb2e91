"""One file per stage of the campaign; what a stage has to define is in `benchmarks.gpu.units.Stage`."""
