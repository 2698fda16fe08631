"""Other systems at the same work, to compare with. Needs the extra [peers]."""
