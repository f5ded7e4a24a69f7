"""k-means of frames: the targets of masked prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Clusters:
    """k-means of standardised frames: centroids (clusters, dim), labels (frames,)."""

    centroids: Tensor
    mean: Tensor
    std: Tensor
    labels: Tensor


def cluster(frames: Tensor, clusters: int, seed: int) -> Clusters:
    """Cluster frames (n, dim), fitted on at most 60,000 of them."""
    from sklearn.cluster import MiniBatchKMeans

    generator = torch.Generator().manual_seed(seed)
    chosen = frames[torch.randperm(len(frames), generator=generator)[:60_000]].float()
    mean, std = chosen.mean(0), chosen.std(0) + 1e-4
    means = MiniBatchKMeans(clusters, batch_size=4096, n_init=3, random_state=seed)
    means.fit(((chosen - mean) / std).numpy())
    centroids = torch.from_numpy(means.cluster_centers_).float()
    labels = [nearest((f.float() - mean) / std, centroids) for f in frames.split(50_000)]
    return Clusters(centroids, mean, std, torch.cat(labels))


def nearest(frames: Tensor, centroids: Tensor) -> Tensor:
    """The index of the centroid nearest to each frame (..., dim)."""
    return torch.cdist(frames, centroids).argmin(-1)
