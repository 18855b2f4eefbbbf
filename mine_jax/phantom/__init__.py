"""The embedded default: scenes, a cortex with planted selectivity and its small models."""
