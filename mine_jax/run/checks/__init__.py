"""What a user can ask before a run: is the installation whole, can every input be used?"""
