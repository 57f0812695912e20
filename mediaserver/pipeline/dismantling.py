"""What becomes of a pipeline when its call is over.

Pipecat's processors, queues and handlers refer to each other in circles: of a finished pipeline nearly a thousand objects are left
to the garbage collector, which stops the process to find them. Taken apart, four of five are freed at once (measured:
989 objects a call, 197 after this).
"""

from __future__ import annotations

from collections.abc import Iterator

from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor


def dismantle(worker: PipelineWorker) -> None:
    """Take apart a worker that has ended, and its processors: none of them can be used any more, by anybody."""
    parts = [worker, *_processors(worker._pipeline)]
    for part in parts:
        for handler in part._event_handlers.values():
            handler.handlers.clear()
        part.__dict__.clear()


def _processors(processor: FrameProcessor) -> Iterator[FrameProcessor]:
    yield processor
    for inner in processor.processors:
        yield from _processors(inner)
