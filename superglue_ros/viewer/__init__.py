"""``superglue-ros view``: a recording in Rerun, or as a moving picture."""
