"""Call workers: processes that run the pipelines, so that what happens in one of them costs no call.

The edge keeps signalling, media and admission. A worker runs `CallPipeline`s and reaches the world through one Unix socket
to the edge: media events come in, playout commands and what is observed go out. When a worker dies or hangs, the edge plays
a short phrase and hands the call, with its journal, to another one.

    messages    what crosses, and its octets (sans-IO)
    watch       when a worker is suspect, and when it is lost (sans-IO)
    connection  one socket's end: frames in, frames out, bounded
    nursery     the warmed parent that workers are forked from
    worker      a worker's process
    far_link    the media link as a pipeline in a worker sees it
    hosted      a call in the edge whose pipeline runs in a worker
    pool        the workers of a node: who has which call, who replaces whom
"""
