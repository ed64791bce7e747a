#!/usr/bin/env python3
"""Draws the result of `kdn bench codec --json FILE`: divergence over bits per value.

    build/bin/kdn bench codec --json build/codec.json
    python3 bench/plot_codec.py build/codec.json build/codec.svg

Needs matplotlib (python3-matplotlib in Debian).
"""

from __future__ import annotations

import plotting

MARKERS = {256: "o", 1500: "s"}


def main() -> None:
    result, pyplot = plotting.begin(__doc__)
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    families = list(dict.fromkeys(point["family"] for point in result["points"]))
    for color, family in zip(pyplot.rcParams["axes.prop_cycle"].by_key()["color"], families):
        for chunk_tokens, marker in MARKERS.items():
            points = [
                point
                for point in result["points"]
                if point["family"] == family and point["chunk_tokens"] == chunk_tokens and point["kl_mean"] > 0
            ]
            points.sort(key=lambda point: point["bits_per_value"])
            if not points:
                continue
            axes.plot(
                [point["bits_per_value"] for point in points],
                [point["kl_mean"] for point in points],
                color=color,
                marker=marker,
                linestyle="-" if chunk_tokens == 256 else "--",
                label=f"{family}, chunks of {chunk_tokens}",
            )
            for point in points if chunk_tokens == 256 else []:
                place = (point["bits_per_value"], point["kl_mean"])
                axes.annotate(point["codec"], place, xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(
        yscale="log",
        xlabel="bits per value, without what is known of the model",
        ylabel="mean KL of the logits, nats",
        xlim=(None, 12),  # room for the legend
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="upper right")
    plotting.save(figure)


if __name__ == "__main__":
    main()
