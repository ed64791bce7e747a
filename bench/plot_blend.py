#!/usr/bin/env python3
"""Draws the result of `kdn bench blend --json FILE`: answers over the work of a blend.

    build/bin/kdn bench blend --model DIR --json build/blend.json
    python3 bench/plot_blend.py build/blend.json build/blend.svg

One panel for each task. The work is the share of a full prefill's FLOPs. Needs
matplotlib (python3-matplotlib in Debian).
"""

from __future__ import annotations

from typing import Any

import plotting


def points_of(task: dict[str, Any], figure: str) -> dict[str, list[tuple[float, float, float]]]:
    """Of each selection: its FLOPs, figure and half interval, by ratio."""
    points: dict[str, list[tuple[float, float, float]]] = {}
    for blend in sorted(task["selections"], key=lambda each: each["ratio"]):
        estimate = blend[figure]
        points.setdefault(blend["selection"], []).append(
            (blend["flops"], estimate["mean"], estimate.get("half_of_95", 0))
        )
    return points


def main() -> None:
    result, pyplot = plotting.begin(__doc__)
    tasks = result["tasks"]
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure, panels = pyplot.subplots(
        rows, columns, figsize=(3.6 * columns, 3.2 * rows), layout="constrained", squeeze=False
    )
    for panel in panels.flat[len(tasks) :]:
        panel.axis("off")
    for panel, task in zip(panels.flat, tasks):
        shown = "right" if "right" in task["full_prefill"] else "kl"
        for name, points in points_of(task, shown).items():
            is_default = name == result["default_selection"]
            panel.errorbar(
                [flops for flops, _, _ in points],
                [mean for _, mean, _ in points],
                yerr=[half for _, _, half in points] if is_default else None,
                marker="o",
                markersize=4,
                linewidth=2 if is_default else 1,
                label=name,
            )
        for name, style in (("full_prefill", "-"), ("pure_reuse", "--")):
            panel.axhline(task[name][shown]["mean"], color="black", linewidth=0.8, linestyle=style, label=name)
        panel.set(
            title=f"{task['task']} ({task['items']})",
            xlabel="FLOPs, share of a full prefill",
            ylabel="right answers" if shown == "right" else "mean KL, nats",
        )
        panel.grid(alpha=0.3)
    # The last panel is free unless the tasks fill the rows.
    panels.flat[-1].legend(*panels.flat[0].get_legend_handles_labels(), fontsize=7, loc="center")
    plotting.save(figure)


if __name__ == "__main__":
    main()
