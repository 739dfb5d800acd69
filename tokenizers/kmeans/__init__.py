"""k-means over SSL features: sampling, training, assignment, units."""
