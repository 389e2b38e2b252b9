"""The modules behind ``scripts/patchset``."""
