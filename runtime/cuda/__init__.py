"""Programs on an NVIDIA GPU: memory, launches, graphs, streams, variables and arrays that live there."""
