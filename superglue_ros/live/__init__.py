"""Run the node as a process on a bag; for demonstration, evaluation and benchmark."""
