"""DINOv2 with the text head dino.txt: its backbone, its network and the checks of its config.json."""
