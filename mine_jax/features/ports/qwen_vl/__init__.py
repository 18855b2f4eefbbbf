"""The Qwen2.5-VL family: its backbone, its network and the checks of its config.json."""
