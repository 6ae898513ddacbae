"""The node as a process, fed from a bag: what demonstration, evaluation and benchmark share."""
