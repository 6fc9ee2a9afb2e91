"""One detector, one file, its examples beside it; found by their file names."""
