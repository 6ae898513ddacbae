"""Time and memory of the networks and the node, against public implementations."""
