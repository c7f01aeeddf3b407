"""Inside the user's model: where it can be cut, how a cut is read, and what its features are."""
