"""The admin database's schema as it came to be; the form of the revisions is that of `tenancy.migrations`."""
