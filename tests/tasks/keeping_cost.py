"""What hidden states cost in memory, kept on disk, read again, and encoded at each use.

    python tests/tasks/keeping_cost.py --data .../LibriSpeech --subset test-other \
        --utterances 30 --out results/hidden-states

Every way reads all frames once, as a head does that is trained for one epoch.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from encoders import store
from encoders.corpora import open_corpus
from encoders.hidden_cache import Cache, hidden_folder
from tasks._features import Keeping, extract, place

#: What is done, and with how many bytes of memory for frames.
WAYS = {"in memory": 1e12, "first pass, kept on disk": 0, "second pass, from disk": 0,
        "encoded at each use": 0}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="random:hubert_base")
    parser.add_argument("--data", required=True)
    parser.add_argument("--subset")
    parser.add_argument("--utterances", type=int, default=30)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    with (asked.out / f"{asked.dtype}.csv").open("w", newline="") as file:
        rows = None
        for row in measure(asked):
            rows = rows or csv.DictWriter(file, list(row))
            if not file.tell():
                rows.writeheader()
            rows.writerow(row)
            file.flush()
            print(row, flush=True)


def measure(asked: argparse.Namespace) -> Iterator[dict[str, object]]:
    """A row for each way; all must give the same frames."""
    encoder, corpus = store.load(asked.model), open_corpus(asked.data, asked.subset)
    items = corpus.items[:: max(1, len(corpus.items) // asked.utterances)][: asked.utterances]
    items.sort(key=place)  # as heads read them that batch by length
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_CACHE"] = folder
        sums = set()
        for way, memory in WAYS.items():
            start, cpu = time.perf_counter(), time.process_time()
            with Cache(1e12 * ("disk" in way), asked.dtype).open(asked.model) as shards:
                features = extract(encoder, corpus, [], items, Keeping(shards, asked.dtype, memory))
                extracted, extracted_cpu = time.perf_counter(), time.process_time()
                sums.add(sum(features.joined([item]).double().sum().item() for item in items))
                read, read_cpu = time.perf_counter(), time.process_time()
            yield {
                "way": way, "dtype": asked.dtype, "utterances": len(items),
                "audio_s": round(sum(item.seconds for item in items), 1),
                "disk_bytes": _size("*") if "disk" in way else 0,
                "means_bytes": _size("means-*") if "disk" in way else 0,
                "extract_s": round(extracted - start, 2),
                "extract_cpu_s": round(extracted_cpu - cpu, 2),
                "read_s": round(read - extracted, 2),
                "read_cpu_s": round(read_cpu - extracted_cpu, 2),
            }  # fmt: skip
    assert len(sums) == 1, sums


def _size(pattern: str) -> int:
    return sum(path.stat().st_size for path in hidden_folder().glob(f"*/{pattern}.safetensors"))


if __name__ == "__main__":
    main()
