"""Exact neighbors beside faiss's IndexFlatIP, what approximate ones lose, and what the whole contest would take.

    python benchmarks/neighbors.py [--queries 10000] [--gallery 1000000] [--rounds 3]
    python benchmarks/neighbors.py --queries 8192 --gallery 200000 --dims 64 512 --k 10 100
    python benchmarks/neighbors.py --curve --gallery 200000
    python benchmarks/neighbors.py --plan 117577 1580470 --gallery 100000
    python benchmarks/neighbors.py --mapped --gallery 1580470 --rounds 1

Random unit vectors of 512 float32; ten neighbors; --dims and --k take others where the contest is alone. The contenders
of a round follow each other, so that the ratio is that of one moment; processor time says more where others use the
machine. faiss's time includes filling its index, which copies the gallery. --curve takes vectors in clusters of about
20 instead, since random ones have no neighbors that an index could lead to. --mapped writes the gallery to a temporary
float16 file and searches it through a memory map: the process's peak memory is the figure.
"""
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from machine import listed, machine, median_range
from numpy.typing import NDArray

from arcshard.console import Parser, run, size_text
from retrieval import nearest
from retrieval.search import approximate

DIM, K, BLOCK = 512, 10, 65536
CLUSTER = 20  # rows a center
EFFORTS = (1, 4, 16, 64, 256)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--queries", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--gallery", type=int, default=1_000_000, help="default: 1000000")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--dims", type=int, nargs="+", default=[DIM], help="dimensions (default: 512)")
    parser.add_argument("--k", type=int, nargs="+", default=[K], help="neighbors (default: 10)")
    parser.add_argument("--curve", action="store_true", help="recall and rate of ivf and hnsw by effort instead")
    parser.add_argument("--plan", type=int, nargs=2, metavar=("QUERIES", "GALLERY"),
                        help="time and memory of as many instead, from what --queries and --gallery take")
    parser.add_argument("--mapped", action="store_true", help="peak memory of a mapped search instead")
    args = parser.parse_args()
    print(listed(machine(("torch", "faiss-cpu", "numpy"))))
    if args.mapped:
        mapped(unit_vectors(args.queries, 0), args.gallery, args.rounds)
    elif args.curve:
        centers = unit_vectors(-(-args.gallery // CLUSTER), 2)
        curve(clustered(args.queries, centers, 0), clustered(args.gallery, centers, 1))
    elif args.plan:
        plan(unit_vectors(args.queries, 0), unit_vectors(args.gallery, 1), args.rounds, *args.plan)
    else:
        for dim in args.dims:
            queries, gallery = unit_vectors(args.queries, 0, dim), unit_vectors(args.gallery, 1, dim)
            for k in args.k:
                contest(queries, gallery, k, args.rounds)


def unit_vectors(rows: int, seed: int, dim: int = DIM) -> NDArray[np.float32]:
    out = np.empty((rows, dim), np.float32)
    for start in range(0, rows, BLOCK):
        out[start:start + BLOCK] = block(min(BLOCK, rows - start), seed, start, dim)
    return out


def block(rows: int, seed: int, start: int, dim: int = DIM) -> NDArray[np.float32]:
    drawn = np.random.default_rng((seed, start)).standard_normal((rows, dim), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def clustered(rows: int, centers: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """A random center and as much noise: cosines near 0.5 in a cluster, near 0 between two."""
    vectors = unit_vectors(rows, seed)
    vectors += centers[np.random.default_rng(seed).integers(len(centers), size=rows)]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def flat(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int) -> None:
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    index.search(queries, k)


def contest(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int, rounds: int) -> None:
    seconds: dict[str, list[tuple[float, float]]] = {"nearest": [], "IndexFlatIP": []}
    work = {"nearest": lambda: nearest(queries, gallery, k), "IndexFlatIP": lambda: flat(queries, gallery, k)}
    for i in range(rounds):
        for name in list(work)[::-1 if i % 2 else 1]:  # each is first in every other round
            start = time.perf_counter()
            cpu = timed(work[name], time.process_time)
            seconds[name].append((time.perf_counter() - start, cpu))
    print(f"{len(queries):,} x {len(gallery):,} x {gallery.shape[1]}, top {k}")
    for kind, column in (("elapsed", 0), ("processor", 1)):
        ours, theirs = ([pair[column] for pair in pairs] for pairs in seconds.values())
        print(f"{kind:10} nearest {median_range(ours, '.2f')} s, IndexFlatIP {median_range(theirs, '.2f')} s, "
              f"rate beside it {median_range([b / a for a, b in zip(ours, theirs)], '.2f')}")


def curve(queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> None:
    exact = nearest(queries, gallery, K)[1]
    print(f"{len(queries):,} x {len(gallery):,} x {DIM}: share of the ten nearest found, and time with building")
    for method in ("ivf", "hnsw"):
        for effort in EFFORTS:
            start = time.perf_counter()
            rows = approximate(queries, gallery, K, method, effort)[1]
            found = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(rows, exact)])
            print(f"{method:5} effort {effort:4}  {found:.3f}  {time.perf_counter() - start:8.2f} s")


def plan(queries: NDArray[np.float32], gallery: NDArray[np.float32], rounds: int, asked: int, known: int) -> None:
    """Products grow with both; of memory only the queries, the result and a chunk need to be there."""
    nearest(queries[:256], gallery[:BLOCK], K)
    seconds = [timed(lambda: nearest(queries, gallery, K)) for _ in range(rounds)]
    factor = asked / len(queries) * known / len(gallery)
    memory = asked * (4 * DIM + 12 * K)
    hours = median_range([s * factor / 3600 for s in seconds], ".2f")
    print(f"{len(queries):,} x {len(gallery):,} takes {median_range(seconds, '.2f')} s; {asked:,} x {known:,}, "
          f"{factor:,.0f} times as many products: {hours} h; {size_text(memory)} for queries and result, and a "
          f"memory-mapped gallery of {size_text(2 * DIM * known)} in float16")


def mapped(queries: NDArray[np.float32], rows: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gallery.npy"
        write_gallery(path, rows)
        seconds = [timed(lambda: nearest(queries, np.load(path, mmap_mode="r"), K)) for _ in range(rounds)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{len(queries):,} x {rows:,} x {DIM}, gallery mapped: {median_range(seconds, '.1f')} s, peak memory "
          f"{size_text(peak)}, mapped pages included")


def write_gallery(path: Path, rows: int) -> None:
    gallery = np.lib.format.open_memmap(path, "w+", np.float16, (rows, DIM))
    for start in range(0, rows, BLOCK):
        gallery[start:start + BLOCK] = block(min(BLOCK, rows - start), 1, start)
    gallery.flush()


if __name__ == "__main__":
    run(main)
