"""Faults of the check of reliability: how they are made, and how a command ended after one."""
