"""The report as one HTML file that needs nothing from anywhere else."""

from html import escape

from .charts import LATENCY, THROUGHPUT, svg
from .tally import PERCENTILES

STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2rem auto; padding: 0 1rem; }
svg { width: 100%; height: auto; margin: 1rem 0; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
svg .title { font-weight: 600; font-size: 14px; }
svg .grid { stroke: var(--line); }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
.yes { color: #2a9d5c; font-weight: 600; } .no { color: #d62728; font-weight: 600; }
"""


def report(result, tally, rows, limits):
    """`limits` are (what, value, limit, whether it holds)."""
    passed = result["passed"]
    body = [
        "<h1>Load test: <span class=%s>%s</span></h1>"
        % (("yes", "passed") if passed else ("no", "failed")),
        "<p>Run %s, seed %d: %s.</p>"
        % (escape(result["run"]), result["seed"], escape(result["load"])),
        "<p>%d operations, %.0f/s over %.1f s. Latency counts from the time at which an operation "
        "was meant to begin. <em>Declined</em> is a refusal for insufficient funds.</p>"
        % (len(tally.samples), result["operationsPerSecond"], result["elapsedMs"] / 1000),
        svg(LATENCY, rows),
        svg(THROUGHPUT, rows),
        operations(tally),
        "<h2>Thresholds</h2>",
        table(("", "measured", "limit", ""),
              [(what, value, limit, verdict(holds)) for what, value, limit, holds in limits]),
        "<h2>Books</h2>",
    ]
    for whose, checked in result["check"].items():
        body.append("<p>%d %s wallets with %d ledger entries checked, %d findings.</p>"
                    % (checked["wallets"], whose, checked["entries"], len(checked["findings"])))
        if checked["findings"]:
            found = [(finding["wallet"], finding["what"]) for finding in checked["findings"]]
            body.append(table(("wallet", "finding"), found))
    for title, counts in (("Answers", tally.statuses), ("Repeated", tally.repeated),
                          ("Failures", tally.failures)):
        if counts:
            body.append("<h2>%s</h2>" % title)
            body.append(table(("", "count"), sorted(counts.items(), key=str)))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<title>Load test %s</title><style>%s</style></head>\n<body>%s</body></html>\n"
        % (escape(result["run"]), STYLE, "\n".join(body))
    )


class Html(str):
    """Text that is HTML already."""


def verdict(holds):
    return Html("<span class=%s>%s</span>" % (("yes", "holds") if holds else ("no", "exceeded")))


def operations(tally):
    heads = ("", "count", "applied", "declined", "failed") + tuple(
        name + " ms" for name, _ in PERCENTILES
    )
    rows = []
    for name, counts, latencies in tally.table():
        row = [name, sum(counts.values()), counts["applied"], counts["declined"], counts["failed"]]
        rows.append(row + ["%.2f" % latencies[key] for key, _ in PERCENTILES])
    return table(heads, rows)


def table(heads, rows):
    def cells(tag, row):
        texts = (cell if isinstance(cell, Html) else escape(str(cell)) for cell in row)
        return "<tr>%s</tr>" % "".join("<%s>%s</%s>" % (tag, text, tag) for text in texts)

    lines = [cells("th", heads)] + [cells("td", row) for row in rows]
    return "<table>%s</table>" % "\n".join(lines)
