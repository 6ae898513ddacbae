"""What training minimises: equation 10 and the objective of each network."""
