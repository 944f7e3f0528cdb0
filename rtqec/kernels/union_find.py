"""Union-find decoding: grow clusters around the events until each is even or touches the boundary, then peel.

Every look at an edge from one of its ends grows it by at least one unit, or takes it off that end's list for good.
That gives the work of a window a hard bound (`UnionFind.visits_max`). What was touched is reset, nothing else.

Sources: Delfosse and Nickerson, Quantum 5, 595 (2021), arXiv:1709.06218, for clusters and peeling; Huang, Newman and
Brown, Phys. Rev. A 102, 012419 (2020), arXiv:2004.04693, for growth by weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled
from rtqec.kernels.records import record

VERTEX = record(
    ("first_half", "i4"), ("end_half", "i4"), ("open_end", "i4"), ("parent", "i4"), ("size", "i4"), ("head", "i4"),
    ("tail", "i4"), ("following", "i4"), ("odd", "i4"), ("anchor", "i4"), ("seen_at", "i4"), ("event", "i4"),
    ("tree_degree", "i4"), ("tree_edges", "i4"),
)  # fmt: skip
"""A detector. The first two fields are the graph: its half-edges. `parent` is `UNTOUCHED` between windows. Of a
cluster's root: `size`; `head` and `tail` of the list of vertices that still have edges to grow, linked by `following`;
parity `odd`; `anchor`, its edge to the boundary or -1; `seen_at`, the step at which it was last listed. Of the forest:
`tree_edges` is the XOR of the vertex's tree edges, which names the edge of a leaf without a list."""

EDGE = record(("near", "i4"), ("far", "i4"), ("weight", "i4"), ("first_flip", "i4"), ("end_flip", "i4"))
"""An edge: its detectors, `far` is `BOUNDARY` where it leads there; its length, 0 if it is free; the answer bits that
it flips."""

EDGE_INDEX = np.uint32
"""Unsigned, so that numba leaves out its look at negative indices: 3 to 15 % of a window's time (EPYC, 2026-11-20)."""

UNTOUCHED = -1
BOUNDARY = -1
FILLED = -1
TOUCHED, FULL, LEAST, LIGHTEST, VISITS, NUM_WORK = range(6)
"""Places in `work`: vertices touched, full edges to follow, least growth that an open edge lacks, the model's lightest
edge, looks at an edge since the call began."""


@compiled
def find_root(vertices: Any, v: Any) -> Any:
    """The root of a vertex's cluster, halving the path to it."""
    while vertices[v].parent != v:
        vertices[v].parent = vertices[vertices[v].parent].parent
        v = vertices[v].parent
    return v


@compiled
def touch(vertices: Any, halves: Any, open_edges: Any, lacking: Any, touched: Any, full: Any, work: Any, v: Any) -> Any:
    """Make a vertex that no cluster holds a cluster of its own, even. Its edges are to grow; free ones are full."""
    vertex = vertices[v]
    vertex.parent = v
    vertex.size = 1
    vertex.head = v
    vertex.tail = v
    vertex.following = -1
    vertex.odd = 0
    vertex.anchor = -1
    vertex.seen_at = -1
    vertex.event = 0
    vertex.tree_degree = 0
    vertex.tree_edges = 0
    vertex.open_end = vertex.end_half
    for k in range(vertex.first_half, vertex.end_half):
        e = halves[k]
        open_edges[k] = e
        if lacking[e] == 0:
            full[work[FULL]] = e
            work[FULL] += 1
    touched[work[TOUCHED]] = v
    work[TOUCHED] += 1


@compiled
def link(vertices: Any, v: Any, e: Any, change: Any) -> Any:
    """Put a tree edge at a vertex (change 1), or take it away (change -1)."""
    vertices[v].tree_degree += change
    vertices[v].tree_edges ^= e


@compiled
def join(vertices: Any, edges: Any, a: Any, b: Any) -> Any:
    """Make two clusters one: the smaller hangs below the larger, and their lists become one."""
    if vertices[a].size < vertices[b].size:
        a, b = b, a
    kept, gone = vertices[a], vertices[b]
    gone.parent = a
    kept.size += gone.size
    kept.odd ^= gone.odd
    if kept.head < 0:
        kept.head = gone.head
        kept.tail = gone.tail
    elif gone.head >= 0:
        vertices[kept.tail].following = gone.head
        kept.tail = gone.tail
    if kept.anchor < 0:
        kept.anchor = gone.anchor
    elif gone.anchor >= 0:
        # One way out is enough; a second one would close a loop through the boundary.
        link(vertices, edges[gone.anchor].near, gone.anchor, -1)


@compiled
def follow(vertices: Any, edges: Any, halves: Any, open_edges: Any, lacking: Any, touched: Any, full: Any, work: Any,
           e: Any) -> Any:  # fmt: skip
    """Go where a full edge leads: to the boundary, or to a vertex whose cluster joins, if it is not the same."""
    near, far = edges[e].near, edges[e].far
    if vertices[near].parent == UNTOUCHED:
        touch(vertices, halves, open_edges, lacking, touched, full, work, near)
    a = find_root(vertices, near)
    if far == BOUNDARY:
        if vertices[a].anchor < 0:
            vertices[a].anchor = e
            link(vertices, near, e, 1)
        return
    if vertices[far].parent == UNTOUCHED:
        touch(vertices, halves, open_edges, lacking, touched, full, work, far)
    b = find_root(vertices, far)
    if a != b:
        link(vertices, near, e, 1)
        link(vertices, far, e, 1)
        join(vertices, edges, a, b)


@compiled
def follow_full(vertices: Any, edges: Any, halves: Any, open_edges: Any, lacking: Any, touched: Any, full: Any,
                work: Any) -> Any:  # fmt: skip
    """Follow all full edges, and the free ones where they lead."""
    i = 0
    while i < work[FULL]:
        follow(vertices, edges, halves, open_edges, lacking, touched, full, work, full[i])
        i += 1
    work[FULL] = 0


@compiled
def grow_vertex(vertex: Any, open_edges: Any, lacking: Any, full: Any, work: Any, growth: Any) -> Any:
    """Grow a vertex's open edges; those that are full leave its list."""
    kept, num_full, least = vertex.first_half, work[FULL], work[LEAST]
    work[VISITS] += vertex.open_end - kept
    for k in range(kept, vertex.open_end):
        e = open_edges[k]
        rest = lacking[e]
        if rest <= 0:
            continue  # Free, or filled from its other end.
        rest -= growth
        if rest > 0:
            lacking[e] = rest
            open_edges[kept] = e
            kept += 1
            least = min(least, rest)
        else:
            lacking[e] = FILLED
            full[num_full] = e
            num_full += 1
    vertex.open_end = kept
    work[FULL] = num_full
    work[LEAST] = least


@compiled
def grow_cluster(vertices: Any, root: Any, open_edges: Any, lacking: Any, full: Any, work: Any, growth: Any) -> Any:
    """Grow all open edges of a cluster; vertices that have none left leave its list. False if it had none at all."""
    cluster = vertices[root]
    v, before = cluster.head, -1
    found = v >= 0
    while v >= 0:
        vertex = vertices[v]
        grow_vertex(vertex, open_edges, lacking, full, work, growth)
        if vertex.open_end > vertex.first_half:
            before = v
        elif before < 0:
            cluster.head = vertex.following
        else:
            vertices[before].following = vertex.following
        v = vertex.following
    cluster.tail = before
    return found


@compiled
def list_odd(vertices: Any, active: Any, count: Any, step: Any) -> Any:
    """Replace a list of vertices by the roots of their clusters, those that must grow on, each once; their number."""
    kept = 0
    for i in range(count):
        root = find_root(vertices, active[i])
        cluster = vertices[root]
        if cluster.odd and cluster.anchor < 0 and cluster.seen_at != step:
            cluster.seen_at = step
            active[kept] = root
            kept += 1
    return kept


@compiled
def grow_all(vertices: Any, edges: Any, halves: Any, open_edges: Any, lacking: Any, touched: Any, active: Any,
             full: Any, work: Any, count: Any) -> Any:  # fmt: skip
    """Grow the odd clusters among `active` until none is left. False if one cannot become even."""
    step = 0
    follow_full(vertices, edges, halves, open_edges, lacking, touched, full, work)
    count = list_odd(vertices, active, count, step)
    growth = max(1, work[LIGHTEST] >> 1)
    while count:
        work[LEAST] = 1 << 30
        for i in range(count):
            if not grow_cluster(vertices, active[i], open_edges, lacking, full, work, growth):
                return False
        # An edge grows from both ends, so that nothing happens before half of the least that is lacking. What joins
        # now brings edges that were not looked at.
        growth = max(1, work[LEAST] >> 1) if work[FULL] == 0 else 1
        follow_full(vertices, edges, halves, open_edges, lacking, touched, full, work)
        step += 1
        count = list_odd(vertices, active, count, step)
    return True


@compiled
def peel(vertices: Any, edges: Any, flips: Any, touched: Any, work: Any, answers_b8: Any, row: Any) -> Any:
    """Take the forest apart leaf by leaf; the edge of a leaf with an event belongs to the correction."""
    for i in range(work[TOUCHED]):
        v = touched[i]
        while v != BOUNDARY and vertices[v].tree_degree == 1:
            e = vertices[v].tree_edges
            edge = edges[e]
            other = edge.far if edge.near == v else edge.near
            vertices[v].tree_degree = 0
            if other != BOUNDARY:
                link(vertices, other, e, -1)
                vertices[other].event ^= vertices[v].event
            if vertices[v].event:
                for k in range(edge.first_flip, edge.end_flip):
                    answers_b8[row, flips[k] >> 3] ^= 1 << (flips[k] & 7)
            v = other


@compiled
def read_events(rows_b8: Any, row: Any, vertices: Any, halves: Any, open_edges: Any, lacking: Any, touched: Any,
                active: Any, full: Any, work: Any) -> Any:  # fmt: skip
    """Make the events of a window odd clusters; their number."""
    count = 0
    for byte in range(rows_b8.shape[1]):
        bits, v = rows_b8[row, byte], 8 * byte
        while bits:
            if bits & 1:
                touch(vertices, halves, open_edges, lacking, touched, full, work, v)
                vertices[v].event = 1
                vertices[v].odd = 1
                active[count] = v
                count += 1
            bits >>= 1
            v += 1
    return count


@compiled
def reset(vertices: Any, edges: Any, halves: Any, lacking: Any, erased: Any, touched: Any, work: Any) -> Any:
    """Forget a window."""
    for i in range(work[TOUCHED]):
        vertex = vertices[touched[i]]
        vertex.parent = UNTOUCHED
        for k in range(vertex.first_half, vertex.end_half):
            lacking[halves[k]] = edges[halves[k]].weight
    for e in erased:
        lacking[e] = edges[e].weight
    work[TOUCHED] = 0
    work[FULL] = 0


@compiled
def decode_windows(rows_b8: Any, erased: Any, vertices: Any, edges: Any, halves: Any, open_edges: Any, lacking: Any,
                   flips: Any, touched: Any, active: Any, full: Any, work: Any, answers_b8: Any) -> Any:  # fmt: skip
    """Decode a batch.

    Args:
        erased: uint32, edges that are free in every window of the batch.
        vertices, edges: `VERTEX` and `EDGE`.
        halves: uint32, the edges of each vertex; `open_edges`: same shape, scratch.
        lacking: int32, growth that each edge lacks: its weight between windows, 0 if it is free, `FILLED` once grown.
        flips: int32, answer bits. `work`: int64, see `TOUCHED`.
        touched, active: int32, scratch, one per vertex. `full`: uint32, scratch, two per edge.
        answers_b8: Filled; zeros where a window has no answer.

    Returns:
        The first window whose events cannot be paired, or -1.
    """
    failed = -1
    work[VISITS] = 0
    for row in range(rows_b8.shape[0]):
        for byte in range(answers_b8.shape[1]):
            answers_b8[row, byte] = 0
        for e in erased:
            lacking[e] = 0
        count = read_events(rows_b8, row, vertices, halves, open_edges, lacking, touched, active, full, work)
        if grow_all(vertices, edges, halves, open_edges, lacking, touched, active, full, work, count):
            peel(vertices, edges, flips, touched, work, answers_b8, row)
        elif failed < 0:
            failed = row
        reset(vertices, edges, halves, lacking, erased, touched, work)
    return failed
