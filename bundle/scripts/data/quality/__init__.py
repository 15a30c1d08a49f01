"""What a case is like, and what looks wrong in it."""
