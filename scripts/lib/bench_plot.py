"""Draws the readings of scripts/bench as an SVG: throughput against connections, beside the ceilings.

    python3 bench_plot.py READINGS.json OUT.svg
"""

import json
import re
import sys
from html import escape

WIDTH, HEIGHT = 860, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 260, 40, 50
COLOURS = ["#1b6ca8", "#c8553d", "#3a7d44", "#8f5db7", "#b8860b", "#4a4a4a"]
LINE = re.compile(r"(credit|debit|transfer), (1,000 wallets|hot wallet), (\d+) connections$")


def series_of(lines):
    """Name of the series to its points: connections, median, lowest, highest."""
    series = {}
    for entry in lines:
        match = LINE.match(entry["line"]["name"])
        if not match or entry["median"] is None:
            continue
        rates = [r["rate"] for r in entry["line"]["readings"] if r["missing"] is None]
        point = (int(match[3]), entry["median"], min(rates), max(rates))
        series.setdefault(f"{match[1]}, {match[2]}", []).append(point)
    return {name: sorted(points) for name, points in series.items()}


def marks_of(lines):
    """What commands one by one can be held against: the best median of each ceiling, and what credits reach in step."""
    ceilings = {}
    for entry in lines:
        name, median = entry["line"]["name"], entry["median"]
        if median is None:
            continue
        if name.startswith("pgbench"):
            kind = "pgbench" + (", one row" if "one row" in name else "") + ", best client count"
            ceilings[kind] = max(ceilings.get(kind, 0), median)
        elif name == "credit, 1,000 wallets, in step":
            ceilings[name] = median
    return ceilings


def draw(report):
    series, ceilings = series_of(report["lines"]), marks_of(report["lines"])
    counts = sorted({count for points in series.values() for count, *_ in points})
    if not counts:
        return None
    highest = max([high for points in series.values() for *_, high in points] + list(ceilings.values()))
    step = 10 ** (len(str(int(highest))) - 1)
    top = (int(highest / step) + 1) * step
    across = WIDTH - LEFT - RIGHT
    x = {count: LEFT + across * (i + 0.5) / len(counts) for i, count in enumerate(counts)}

    def y(rate):
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - rate / top)

    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="15">Commands a second, by connections: bursts, and what lasts</text>',
    ]
    for i in range(6):
        rate = top * i / 5
        svg.append(f'<line x1="{LEFT}" x2="{LEFT + across}" y1="{y(rate):.1f}" y2="{y(rate):.1f}" stroke="#dddddd"/>')
        svg.append(f'<text x="{LEFT - 8}" y="{y(rate) + 4:.1f}" text-anchor="end">{rate:,.0f}</text>')
    for count in counts:
        svg.append(f'<text x="{x[count]:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{count}</text>')
    legend = TOP
    for (name, points), colour in zip(series.items(), COLOURS):
        path = " ".join(f"{x[count]:.1f},{y(rate):.1f}" for count, rate, _, _ in points)
        svg.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for count, rate, low, high in points:
            at = x[count]
            svg.append(f'<circle cx="{at:.1f}" cy="{y(rate):.1f}" r="3" fill="{colour}"/>')
            svg.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke="{colour}"/>')
        svg += key(legend, name, colour, "")
        legend += 20
    for (name, rate), colour in zip(ceilings.items(), ["#000000", "#777777", COLOURS[0]]):
        svg.append(
            f'<line x1="{LEFT}" x2="{LEFT + across}" y1="{y(rate):.1f}" y2="{y(rate):.1f}" '
            f'stroke="{colour}" stroke-dasharray="6 4"/>'
        )
        svg += key(legend, name, colour, "6 4")
        legend += 20
    return "\n".join(svg + ["</svg>", ""])


def key(at, name, colour, dashes):
    x = WIDTH - RIGHT + 15
    return [
        f'<line x1="{x}" x2="{x + 24}" y1="{at}" y2="{at}" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>',
        f'<text x="{x + 32}" y="{at + 4}">{escape(name)}</text>',
    ]


def main():
    readings, out = sys.argv[1:]
    with open(readings, encoding="utf-8") as file:
        svg = draw(json.load(file))
    if svg is None:
        print("bench_plot: no commands in these readings, nothing drawn", file=sys.stderr)
        return
    with open(out, "w", encoding="utf-8") as file:
        file.write(svg)


if __name__ == "__main__":
    main()
