"""A picture of a job's metrics: the loss and its evaluations above, learning rate and gradient norm below."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORMATS = ("svg", "png")
INK, QUIET, GRID = "#1f2933", "#7b8794", "#e4e7eb"
LOSS, EVALUATION, RATE, NORM = "#2f6fdb", "#d9480f", "#0b8f6a", "#7c4dbd"
SMOOTHED_SHARE = 0.04
"""Of the steps that the bold line averages over."""
LEAST_SMOOTHED = 20
"""Points from which on a second, smooth line says more than the first alone."""

Point = tuple[float, float]


def draw_plot(metrics: Sequence[Mapping[str, Any]], title: str, settings_dir: Path) -> dict[str, bytes]:
    """plot.svg and plot.png of lines of metrics.jsonl. `settings_dir`: where the library keeps its fonts."""
    os.environ.setdefault("MPLCONFIGDIR", str(settings_dir))
    os.environ.setdefault("MPLBACKEND", "agg")
    # Only now: it takes half a second, and most tests and all of the control plane do without.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"svg.hashsalt": "hearth", "svg.fonttype": "none", "font.size": 10, "text.color": INK}
    ):
        figure = Figure(figsize=(9, 6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        _draw_losses(above, metrics)
        _draw_pace(below, metrics)
        return {f"plot.{kind}": _rendered(figure, kind) for kind in FORMATS}


def _rendered(figure: Any, kind: str) -> bytes:
    out = io.BytesIO()
    # Without a date the same metrics give the same bytes.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(out, format=kind, dpi=120, metadata=metadata)
    return out.getvalue()


def _draw_losses(axes: Any, metrics: Sequence[Mapping[str, Any]]) -> None:
    losses, evaluations = points(metrics, "loss"), points(metrics, "eval_loss")
    smooth = smoothed(losses) if len(losses) >= LEAST_SMOOTHED else []
    if losses:
        quiet = {"alpha": 0.3, "linewidth": 1.0} if smooth else {"linewidth": 1.6, "label": "loss"}
        axes.plot(*zip(*losses, strict=True), color=LOSS, **quiet)
    if smooth:
        axes.plot(*zip(*smooth, strict=True), color=LOSS, linewidth=1.8, label="loss, smoothed")
    if evaluations:
        axes.plot(
            *zip(*evaluations, strict=True),
            color=EVALUATION,
            linewidth=1.2,
            marker="o",
            markersize=4.5,
            label="evaluation loss",
        )
        _name_last(axes, evaluations[-1])
    _dress(axes, "loss")
    _choose_scale(axes, [value for _, value in losses + evaluations])
    if losses or evaluations:
        # Above the axes: wherever it stood within, some job's line would run through it.
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, borderpad=0)


def _name_last(axes: Any, last: Point) -> None:
    axes.annotate(
        f"{last[1]:.4g}", last, xytext=(-6, 8), textcoords="offset points", ha="right", color=EVALUATION
    )


def _draw_pace(axes: Any, metrics: Sequence[Mapping[str, Any]]) -> None:
    rates, norms = points(metrics, "learning_rate"), points(metrics, "grad_norm")
    _dress(axes, "learning rate", RATE)
    axes.set_xlabel("step", color=INK)
    if rates:
        axes.plot(*zip(*rates, strict=True), color=RATE, linewidth=1.4)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes.set_ylim(bottom=0)
    if norms:
        other = axes.twinx()
        _dress(other, "gradient norm", NORM)
        other.grid(visible=False)
        other.plot(*zip(*norms, strict=True), color=NORM, linewidth=1.0, alpha=0.8)
        other.set_ylim(bottom=0)


def _dress(axes: Any, label: str, color: str = INK) -> None:
    axes.set_ylabel(label, color=color)
    axes.tick_params(colors=QUIET, labelcolor=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(QUIET)
    axes.margins(x=0.02)


def _choose_scale(axes: Any, values: Sequence[float]) -> None:
    """Powers of ten where the loss falls through them; a straight scale shows its end as a flat line."""
    if values and min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")
    elif values and min(values) >= 0:
        axes.set_ylim(bottom=0)


def points(metrics: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """(step, value) wherever a line has a number under `name`; in the order of the steps."""
    return sorted(
        (float(line["step"]), float(line[name]))
        for line in metrics
        if isinstance(line.get(name), int | float)
    )


def smoothed(line: Sequence[Point]) -> list[Point]:
    """The mean of each point and those around it, fewer of them at the ends."""
    reach = max(2, round(len(line) * SMOOTHED_SHARE / 2))
    values = [value for _, value in line]
    means = []
    for place, (step, _) in enumerate(line):
        near = min(reach, place, len(line) - 1 - place)
        window = values[place - near : place + near + 1]
        means.append((step, sum(window) / len(window)))
    return means
