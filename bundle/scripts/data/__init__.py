"""Data sets by name: reading, splitting, preparing and reporting them."""
