"""What people see: a line of progress, tables, findings. Nicer where `rich` is installed."""

import sys
import time

from .books import Account
from .tally import PERCENTILES

try:
    from rich.console import Console
    from rich.table import Table
except ImportError:
    Console = Table = None

FINDINGS_SHOWN = 20


class Display:
    """Speaks on the standard output, or on the error output where that belongs to the JSON."""

    def __init__(self, json_on_stdout):
        self._stream = sys.stderr if json_on_stdout else sys.stdout
        self._terminal = self._stream.isatty()
        rich = Console and self._terminal
        self._console = Console(file=self._stream, highlight=False) if rich else None
        self._before = (time.monotonic(), 0)
        self._progress = False

    def line(self, text, style=None):
        self._clear()
        if self._console and style:
            self._console.print(text, style=style, markup=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def good(self, text):
        self.line(text, "bold green")

    def bad(self, text):
        self.line(text, "bold red")

    def progress(self, text, done, total=None):
        """Overwrites the line of progress, at most five times a second; on a terminal only."""
        now, (then, before) = time.monotonic(), self._before
        if not self._terminal or now - then < 0.2:
            return
        rate = (done - before) / (now - then)
        self._before = (now, done)
        share = "%d" % done if total is None else "%d of %d" % (done, total)
        self._stream.write("\r\x1b[K%s %s, %.0f/s" % (text, share, max(rate, 0)))
        self._stream.flush()
        self._progress = True

    def _clear(self):
        if self._progress:
            self._stream.write("\r\x1b[K")
            self._progress = False

    def table(self, heads, rows):
        self._clear()
        widths = [max(len(row[i]) for row in [heads] + rows) for i in range(len(heads))]
        # It would cut digits off where the window is narrow.
        if self._console and sum(widths) + 3 * len(widths) < self._console.width:
            table = Table(*heads)
            for column in table.columns[1:]:
                column.justify = "right"
            for row in rows:
                table.add_row(*row)
            self._console.print(table)
            return
        for row in [heads] + rows:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
            print("  ".join(cells).rstrip(), file=self._stream, flush=True)

    def tally(self, tally, seconds):
        heads = ["", "count", "applied", "declined", "failed"]
        heads += [name + (" ms" if name == "max" else "") for name, _ in PERCENTILES]
        rows = []
        for name, counts, latencies in tally.table():
            row = [name, sum(counts.values()), counts["applied"], counts["declined"]]
            row += [counts["failed"]] + ["%.2f" % latencies[key] for key, _ in PERCENTILES]
            rows.append([str(cell) for cell in row])
        self.table(heads, rows)
        rate = len(tally.samples) / seconds if seconds else 0
        self.line("throughput %.0f operations/s over %.1f s" % (rate, seconds))
        self.line("statuses %s" % counted(tally.statuses))
        if tally.repeated:
            text = "repeated %s; answered as replays %d"
            self.line(text % (counted(tally.repeated), tally.replayed))
        if tally.failures:
            self.bad("FAILED %s" % counted(tally.failures))

    def checked(self, whose, checked):
        if checked.waited:
            self.line("projections in step after %.1f s" % checked.waited)
        self.line("checked %d %s, %d ledger entries" % (checked.wallets, whose, checked.entries))
        for wallet, what in checked.findings[:FINDINGS_SHOWN]:
            self.bad("  wallet %s: %s" % (wallet, what))
        if len(checked.findings) > FINDINGS_SHOWN:
            self.bad("  ... and %d more" % (len(checked.findings) - FINDINGS_SHOWN))

    def money(self, books, checked):
        """True unless the sum of all balances is not what the script made it."""
        expected = books.expected()
        if expected is None:
            count = sum(account.uncertain for account in books.accounts)
            self.bad("%d wallets have operations whose outcome is not known" % count)
            return True
        parts = (books.opened, books.credited, books.debited, expected)
        money = [str(Account("", cents, 0).balance()) for cents in parts]
        conserved = checked.balances == Account("", expected, 0).balance()
        text = "money: %s before + %s credited - %s debited = %s" % tuple(money)
        self.line("%s, %s in the wallets" % (text, checked.balances), None if conserved else "red")
        return conserved


def counted(counts):
    return ", ".join("%s: %d" % item for item in sorted(counts.items(), key=str))
