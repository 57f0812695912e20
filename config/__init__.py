"""Configuration of a node and of its tenants: schema, loading, errors that name the field."""
