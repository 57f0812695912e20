"""How the schema came to be: one history for what is shared, one for what belongs to a tenant.

Each module is one revision of Alembic's; the SQL is written out, for a migration describes what was true when it was
written. ``upgrade`` is given the operations of its own connection: Alembic's ``op`` is one for the whole process.
"""
