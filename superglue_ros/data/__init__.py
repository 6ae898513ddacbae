"""What comes from outside: images, sequences, bags, messages, trajectories."""
