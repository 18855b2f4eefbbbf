"""What a run directory records of itself: its lock, its files and their hashes."""
