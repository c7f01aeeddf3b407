"""The engine of CPUs: tiles of the product matrix, and all cutoffs from few functions of the distance."""
