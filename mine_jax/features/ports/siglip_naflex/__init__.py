"""SigLIP 2 NaFlex, SigLIP on grids of any shape: its backbone, its network and the checks of its config.json."""
