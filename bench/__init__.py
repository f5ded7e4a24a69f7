"""The command line and the sweep."""
