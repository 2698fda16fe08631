"""A run as one HTML file: no server, no other file, no request. Model text enters its page as text nodes alone."""
