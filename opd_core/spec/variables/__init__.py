"""The variables of the taxonomy (arXiv 2606.22793), one file each, as what a job may ask for."""
