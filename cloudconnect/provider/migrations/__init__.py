"""Alembic migrations of the accounts data base."""
