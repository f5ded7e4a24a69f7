"""One file per cost; the file name is the profiler's name."""
