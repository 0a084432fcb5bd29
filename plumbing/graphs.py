"""A function on a GPU whose kernels are started all at once: a CUDA graph.

A step of decoding is some 300 kernels, most of a few microseconds. Python takes longer to ask for
them, one by one, than the GPU to run them; a graph that was recorded once is asked for as a whole.
"""
from contextlib import suppress

import torch

# Both by device. All graphs compute in the same memory, a pool: no two of them run at once. torch
# drops a pool that no graph has, so the latest graph is kept, and the next one takes it over from
# that; and it uses memory again only on the stream that it was asked for on, so all have one.
streams = {}
latest = {}


class Recording:
    """recording(function, x) = function(x), on a GPU from a CUDA graph; always the same function.

    The first call, and the first after x has changed its shape, only runs the function: libraries
    set up in it what they set up once. The second records the function's kernels as a graph and
    replays it, and so do later calls. A replay runs no Python: the same kernels read and write the
    very tensors that they were recorded with. So x is copied into one that stays, and once another
    of them was replaced, forget() must be called. The function must not wait for the GPU, as
    .item() does. What it returns may be overwritten by the next call, of another recording too, as
    all share their memory: two threads cannot have one on the same GPU."""

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
            except torch.OutOfMemoryError:
                # While a graph is recorded, torch cannot give back the memory that it keeps unused.
                # It does so now; this call goes without a graph, and the next one tries again.
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
    """Gives back the memory that graphs compute in, if no Recording has one any more."""
    if latest:
        latest.clear()
        torch.cuda.empty_cache()
