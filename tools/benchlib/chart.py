"""The results as a picture."""

from __future__ import annotations

from pathlib import Path

from benchlib.results import MIB, Results

TIMES = ("first commit", "packages installed", "package upgrade", "unchanged, read again", "restore")
SIZES = ("first version", "three versions", "a second machine adds")
COLOURS = {
    "vimgvc": "#c2410c",
    "limit": "#d6d3d1",
    "restic": "#1d4ed8",
    "borg": "#15803d",
    "borg-fixed": "#86efac",
    "desync": "#7e22ce",
    "qemu-img": "#57534e",
}


def draw(results: Results, path: Path) -> None:
    """Two panels, seconds and stored MiB; nothing for a run without them. Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import patches
    from matplotlib import pyplot as plt

    times = {
        measure: {tool: value for tool in COLOURS if (value := results.median(measure, tool)) is not None}
        for measure in TIMES
    }
    sizes = {
        measure: {tool: stored[tool] / MIB for tool in COLOURS if tool in stored}
        for measure in SIZES
        if (stored := results.stored.get(measure))
    }
    if not any(times.values()):
        return
    figure, panels = plt.subplots(1, 2, figsize=(13, 6), width_ratios=(3, 2), layout="constrained")
    for panel, groups, title in zip(panels, (times, sizes), ("seconds", "stored MiB"), strict=True):
        _bars(panel, {name: values for name, values in groups.items() if values}, title)
    handles = [patches.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    figure.legend(handles, COLOURS, loc="outside lower center", ncols=len(COLOURS), frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _bars(panel: object, groups: dict[str, dict[str, float]], title: str) -> None:
    """Horizontal bars, one group for each measure, the value at the end of each."""
    from matplotlib.axes import Axes

    assert isinstance(panel, Axes)
    position = 0.0
    ticks: list[float] = []
    for values in groups.values():
        start = position
        for tool, value in values.items():
            panel.barh(position, value, color=COLOURS[tool], height=0.85)
            label = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
            panel.annotate(label, (value, position), (3, 0), textcoords="offset points", va="center", fontsize=8)
            position += 1
        ticks.append((start + position - 1) / 2)
        position += 0.8
    panel.set_yticks(ticks, list(groups))
    panel.invert_yaxis()
    panel.set_title(title, loc="left")
    panel.margins(x=0.12)
    panel.spines[["top", "right"]].set_visible(False)
