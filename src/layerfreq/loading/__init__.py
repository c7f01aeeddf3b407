"""Loading models, weights, data sets and files safely."""
