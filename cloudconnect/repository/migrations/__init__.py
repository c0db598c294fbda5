"""Alembic migrations of a repository's catalogue."""
