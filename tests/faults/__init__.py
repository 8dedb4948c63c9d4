"""Tests of what can go wrong, by the ids in SECURITY.md."""
