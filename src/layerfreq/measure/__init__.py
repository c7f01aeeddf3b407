"""The measure itself: low-pass filtering, energy kept, and how far the numbers can be trusted."""
