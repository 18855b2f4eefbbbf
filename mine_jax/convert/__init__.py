"""The types in the forms of other software; optional packages are imported where they are used."""
