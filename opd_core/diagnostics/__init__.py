"""What is shown: token records, the probe of what really moved, the run-start self-check."""
