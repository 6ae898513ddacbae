"""Pictures of matches, and plots."""
