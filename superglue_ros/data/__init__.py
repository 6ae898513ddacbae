"""Input data: images, sequences, bags, messages, trajectories, IMU readings."""
