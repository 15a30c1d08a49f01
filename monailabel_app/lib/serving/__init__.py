"""The server around MONAI Label's own: what it checks, where it runs, what it answers."""
