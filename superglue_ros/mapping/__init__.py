"""What is kept of frames: keyframes, landmark tracks, verified pairs, loops, maps on disk."""
