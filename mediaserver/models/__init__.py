"""The embedded models in a process of their own, behind an OpenAI-compatible API on loopback.

Nothing of the server imports the model packages: piper is GPL-3 and stays behind this process boundary, and a model that
crashes takes no call with it. `mediaserver.models.process` starts the process and watches over it.
"""
