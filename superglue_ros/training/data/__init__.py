"""What training learns from: corpus, view sets with ground truth, labels, cached features."""
