"""The administration of a node over HTTP: tenants, numbers, trunks, configuration versions and keys.

Who may do what is decided here; what is done is the registry's, the lifecycle's and the vault's. The command line uses the
same application. It knows nothing of calls: what only a media server can say (a dry run, figures of a node) is given in.
"""
