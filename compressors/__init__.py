"""One file per compression method; the file name is the method's name."""
