"""Does the dashboard stay quick? ``python -m benchmarks.dashboard`` runs every part."""
