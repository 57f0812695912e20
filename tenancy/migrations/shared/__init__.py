"""Numbers and the tenants' status."""
