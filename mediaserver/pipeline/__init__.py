"""One Pipecat pipeline per call, over the media link.

Frames here are coarse: caller audio only while somebody speaks, whole synthesised chunks out. The 20 ms clock, the
voice activity detection and the playout live in the media engine.
"""
