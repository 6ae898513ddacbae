"""Training objectives: equation 10 and the objective of each network."""
