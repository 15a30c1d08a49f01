"""The data report: one page for each prepared set."""
