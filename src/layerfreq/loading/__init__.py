"""Other people's models, weights, data sets and files, loaded safely."""
