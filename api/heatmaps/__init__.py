"""From many records to one matrix: binned here, so that a browser never gets a run."""
