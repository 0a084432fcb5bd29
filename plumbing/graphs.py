"""A function on a GPU whose kernels are started all at once: a CUDA graph.

A step of decoding is some 300 kernels, most of a few microseconds. Python takes longer to ask for
them, one by one, than the GPU to run them; a graph that was recorded once is asked for as a whole.
"""
from contextlib import suppress

import torch

# Both by device. All graphs are recorded on one stream, and the latest of them keeps the memory
# that they compute in, of which the next one takes over what is free.
streams = {}
latest = {}


class Recording:
    """recording(function, x) = function(x), on a GPU from a CUDA graph; always the same function.

    The first call with an x of some shape runs as it is, and makes what is made once. The second is
    recorded; from then on the recording is replayed. That reads and writes the very tensors that
    were there when it was recorded: after one of them was replaced, forget() must be called. The
    function must not wait for the GPU. What it returns is overwritten by the next call, of another
    recording too: two threads cannot have one on the same GPU."""

    def __init__(self):
        self.forget()

    def forget(self):
        self.x = None
        self.graph = None
        self.result = None

    def __call__(self, function, x):
        if self.x is None or self.x.shape != x.shape:
            self.forget()
            self.x = torch.empty_like(x)
            return function(x)
        self.x.copy_(x)
        if self.graph is None:
            try:
                self.graph, self.result = recorded(function, self.x)
            except torch.OutOfMemoryError:  # while it records, torch gives back nothing it has kept
                torch.cuda.empty_cache()
                return function(x)
        self.graph.replay()
        return self.result


def recorded(function, x):
    """(a CUDA graph of function(x), what it returns)."""
    if x.device not in streams:
        streams[x.device] = torch.cuda.Stream(x.device)
    stream = streams[x.device]
    pool = None
    if x.device in latest:
        pool = latest[x.device].pool()
    graph = torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(stream):
        # Other threads may go on to use the GPU meanwhile.
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            result = function(x)
        except BaseException:
            with suppress(RuntimeError):  # what went wrong in the function is to be told
                graph.capture_end()
            raise
        graph.capture_end()
    latest[x.device] = graph
    return graph, result


def release():
    """Gives back the memory that graphs computed in; none of them may be replayed any more."""
    if latest:
        latest.clear()
        torch.cuda.empty_cache()
