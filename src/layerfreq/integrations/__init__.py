"""Shells on `Monitor` for other people's training loops and trackers, one a file; none is imported with the core."""
