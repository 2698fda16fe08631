"""Measurements with committed results. Each prints what it finds and writes benchmarks/results/NAME.json."""
