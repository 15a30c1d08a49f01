"""Which cases show one patient, and the split that each patient is in."""
