"""Care for providers: who is asked, when the next one is, and what is known of them. The cores are sans-IO.

`breaker` leaves out what keeps failing, `hedge` decides who is in flight, `stats` counts; `asking` runs a chain in
asyncio, `connections` keeps sockets warm, `failures` says what an error of a client means.
"""
