"""The graph IR: sizes, types, interned nodes, graphs, and their text."""
