"""`python -m layerfreq`: the command line."""

from layerfreq.cli import main

if __name__ == "__main__":
    main()
