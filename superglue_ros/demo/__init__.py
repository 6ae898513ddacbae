"""The demonstration: a bag through the node over real DDS; summary and pictures."""
