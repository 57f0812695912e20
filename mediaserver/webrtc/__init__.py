"""Calls from a browser: sessions, signalling as Pipecat's small-webrtc clients do it, RTVI messages, and a page."""
