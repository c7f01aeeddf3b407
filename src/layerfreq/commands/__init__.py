"""Commands of the command line, one a file; `layerfreq.cli` registers each with one line."""
