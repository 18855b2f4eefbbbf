"""The SigLIP family: its backbone, its network and the checks of its config.json."""
