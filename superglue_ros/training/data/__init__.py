"""Training data: corpus, view sets with ground truth, labels, cached features."""
