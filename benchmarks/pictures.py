"""Draw README's pictures from the figures in benchmarks/results: `python -m benchmarks.pictures`.

Each size's figures are there as `python -m benchmarks --json benchmarks/results/jobs-SIZE.json` writes them, and
the peers' as `python -m benchmarks.peers --json benchmarks/results/peers.json` does.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from PIL import Image

from benchmarks.peers.peer import LIBRARY, TITLES

RESULTS = Path(__file__).with_name("results")
OURS, OTHERS, INK, QUIET = "#0b6e99", "#b9bec4", "#22272e", "#6b737c"
# A light ground of its own, so that the text is legible on a dark page too.
STYLE = {
    "figure.facecolor": "#fcfcfa",
    "axes.facecolor": "#fcfcfa",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": INK,
    "savefig.dpi": 150,
}
BY_SIZE = ("list 1000", "list 100", "list 10")


def by_size(results: Path) -> None:
    """What a page costs against the jobs in the history: the library's, and floor A's."""
    costs: defaultdict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for path in results.glob("jobs-*.json"):
        measured = json.loads(path.read_text())
        for figure in measured["figures"]:
            if figure.get("case") in BY_SIZE:
                costs[figure["case"]][measured["jobs"]] = figure["seconds"], figure["floor_seconds"]
    if not costs:
        message = f"no figures in {results}: python -m benchmarks --json {results}/jobs-SIZE.json"
        raise FileNotFoundError(message)
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for case in BY_SIZE:
        sizes = sorted(costs[case])
        ours, floor = zip(*(costs[case][size] for size in sizes), strict=True)
        axes.plot(sizes, floor, color=OTHERS, linewidth=1.5, marker="o", markersize=4, markerfacecolor="#fcfcfa")
        axes.plot(sizes, ours, color=OURS, linewidth=2, marker="o", markersize=5)
        axes.annotate(
            f"{int(case.removeprefix('list ')):,} jobs: {_time(ours[-1])}",
            (sizes[-1], ours[-1]),
            xytext=(10, 0),
            textcoords="offset points",
            color=OURS,
            va="center",
        )
    axes.set(xscale="log", yscale="log", xticks=sizes, xlabel="jobs in the history")
    axes.set_xlim(sizes[0] / 1.6, sizes[-1] * 1.6)
    axes.set_ylim(bottom=1e-5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _time(seconds)))
    axes.minorticks_off()
    axes.grid(axis="y", color="#e6e7e4", linewidth=0.8)
    _title(axes, "The newest jobs of one connection", "full records; grey: hand-written SQL that gives plain tuples")
    _save(figure, results / "by-size.png")


def beside_peers(results: Path) -> None:
    """Each operation of each peer, as a multiple of the library's time."""
    operations: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in json.loads((results / "peers.json").read_text())["figures"]:
        name = {"get": "get one job", "latest": "newest of 1,000 connections"}.get(row["operation"], row["operation"])
        operations[name if row["durability"] == "full" else f"{name}, relaxed"].append(row)
    figure, panels = plt.subplots(3, 3, figsize=(8.4, 6.2), sharex=True, sharey=True, layout="constrained")
    for axes, (operation, rows) in zip(panels.flat, operations.items(), strict=True):
        _panel(axes, operation, rows)
    panels[0, 0].invert_yaxis()
    title = "How many times the library's cost (logarithmic: longer is slower, left of the line is faster)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, weight="bold")
    figure.get_layout_engine().set(wspace=0.03, hspace=0.06)
    _save(figure, results / "peers.png")


def _panel(axes: Axes, operation: str, rows: list[dict[str, Any]]) -> None:
    names = [TITLES[row["peer"]] for row in rows]
    ratios = [row["ratio"] for row in rows]
    [ours] = [row["seconds"] for row in rows if row["peer"] == LIBRARY]
    axes.barh(names, [ratio - 1 for ratio in ratios], left=1, height=0.62, color=OTHERS)
    axes.axvline(1, color=OURS, linewidth=2)
    for name, row in zip(names, rows, strict=True):
        mine = row["peer"] == LIBRARY
        text = _time(ours) if mine else _times(row["ratio"])
        axes.annotate(
            text,
            (max(row["ratio"], 1), name),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=OURS if mine else INK,
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.set_xlim(0.3, 3000)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:,g}"))
    axes.minorticks_off()
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title(operation, loc="left", fontsize=9, weight="bold")


def _title(axes: Axes, title: str, below: str) -> None:
    axes.set_title(f"{title}\n", loc="left", fontsize=11, weight="bold")
    axes.text(0, 1.03, below, transform=axes.transAxes, color=QUIET)


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:,.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:,.0f} µs"  # noqa: PLR2004  a millisecond


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if round(ratio, 1) >= 10 else f"{ratio:.1f}"  # noqa: PLR2004  two digits


def _save(figure: Figure, path: Path) -> None:
    # A palette makes it a third of the size.
    drawn = io.BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(path, optimize=True)
    plt.close(figure)
    print(path)


def main() -> None:
    """Draw both."""
    mpl.use("Agg")
    with mpl.rc_context(STYLE):
        by_size(RESULTS)
        beside_peers(RESULTS)


if __name__ == "__main__":
    main()
