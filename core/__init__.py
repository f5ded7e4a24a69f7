"""The vocabulary of the harness: specs, metrics, points, records. Standard library only."""
