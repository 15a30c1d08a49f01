"""The code of the SegVol bundle: one noun per file."""
