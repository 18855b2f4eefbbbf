"""The scripts that made the phantom's weights; the only part of the phantom that uses torch."""
