"""One file per downstream task; the file name is the task's name."""
