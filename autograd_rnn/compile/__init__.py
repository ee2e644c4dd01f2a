"""Equations to fast code: passes from system to system, then source. Its user's face is `Cell.compile`."""
