"""The two pictures of a run: latency and throughput over time. SVG by hand, PNG by matplotlib."""

from html import escape

# Name of the column, what the legend calls it, colour. The first line is drawn first.
LATENCY = ("Latency", "ms", (
    ("max_ms", "max", "#b8b8b8"), ("p99_ms", "p99", "#d62728"),
    ("p90_ms", "p90", "#ff9f1c"), ("p50_ms", "p50", "#1f77b4"),
))
THROUGHPUT = ("Throughput", "operations/s", (
    ("applied", "applied", "#2a9d5c"), ("declined", "declined", "#ff9f1c"),
    ("failed", "failed", "#d62728"),
))
WIDTH, HEIGHT = 860, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 34, 36


def svg(chart, rows):
    """One chart as an `<svg>` that stands for itself."""
    title, unit, lines = chart
    x_max = max(len(rows) - 1, 1)
    y_max = max([row[column] or 0 for row in rows for column, _, _ in lines] + [0])
    ticks = scale(y_max or 1)
    inner_w, inner_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(second):
        return LEFT + inner_w * second / x_max

    def y(value):
        return TOP + inner_h * (1 - value / ticks[-1])

    parts = [
        '<svg viewBox="0 0 %d %d" role="img" aria-label="%s over time">'
        % (WIDTH, HEIGHT, escape(title)),
        '<text x="%d" y="16" class="title">%s (%s)</text>' % (LEFT, escape(title), escape(unit)),
    ]
    for value in ticks:
        at = y(value)
        parts.append('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="grid"/>'
                     % (LEFT, WIDTH - RIGHT, at, at))
        parts.append('<text x="%d" y="%.1f" text-anchor="end">%g</text>'
                     % (LEFT - 6, at + 4, value))
    for second in scale(x_max):
        if second <= x_max and second == int(second):
            parts.append('<text x="%.1f" y="%d" text-anchor="middle">%d s</text>'
                         % (x(second), HEIGHT - 14, second))
    for place, (column, name, colour) in enumerate(lines):
        points = " ".join("%.1f,%.1f" % (x(i), y(row[column])) for i, row in enumerate(rows)
                          if row[column] is not None)
        parts.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="1.8"/>'
                     % (points, colour))
        right = WIDTH - RIGHT - 80 * (len(lines) - place)
        parts.append('<rect x="%d" y="7" width="10" height="10" fill="%s"/>' % (right, colour))
        parts.append('<text x="%d" y="16">%s</text>' % (right + 15, escape(name)))
    return "\n".join(parts + ["</svg>"])


def scale(largest):
    """Round numbers from 0 to just above `largest`: four to eight of them."""
    step = 10.0 ** len(str(int(largest)))
    while largest / step < 4:
        step /= 2 if str(step).lstrip("0.")[0] in "12" else 2.5
    count = int(-(-largest // step))
    return [round(step * i, 9) for i in range(count + 1)]


def write_png(rows, folder):
    """Both charts as PNG. False, and nothing written, without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    # Needs no display.
    matplotlib.use("Agg")
    from matplotlib import pyplot

    for chart, name in ((LATENCY, "latency.png"), (THROUGHPUT, "throughput.png")):
        title, unit, lines = chart
        figure, axes = pyplot.subplots(figsize=(10, 4))
        for column, label, colour in lines:
            there = [row for row in rows if row[column] is not None]
            axes.plot([row["second"] for row in there], [row[column] for row in there],
                      label=label, color=colour)
        axes.set(title=title, xlabel="s", ylabel=unit, ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
        figure.tight_layout()
        figure.savefig(str(folder / name), dpi=120)
        pyplot.close(figure)
    return True
