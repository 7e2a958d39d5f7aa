"""Timings against peers, printed as ratios: ``python -m benchmarks.<name> [--json] [--quick]``."""
