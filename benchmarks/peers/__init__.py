"""What others keep such a history with, measured beside the library: `python -m benchmarks.peers`."""
