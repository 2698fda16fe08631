"""Feedback -> plan -> loss: pure tensor functions, one file per variable of the taxonomy."""
