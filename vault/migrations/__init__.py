"""The history of the vault's schema in Postgres; that of its file is `vault.sqlite`'s own."""
