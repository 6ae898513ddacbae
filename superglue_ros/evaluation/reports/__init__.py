"""Output of an evaluation: result folders, tables, plots, pages, comparisons."""
