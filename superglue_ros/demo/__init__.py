"""The demonstration: a bag over real DDS through the node, to numbers and pictures."""
