"""Shared code of the course: import what you need from its modules, by name."""
