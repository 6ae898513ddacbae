"""What an evaluation leaves: result folders, tables, plots, pages, comparisons."""
