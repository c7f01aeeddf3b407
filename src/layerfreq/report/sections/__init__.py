"""Sections of the report that take the network as well as its kept weights: what each shows, one per file."""
