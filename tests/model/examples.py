"""The worked examples of the specification, played on the model alone: `python3 tests/model/examples.py`.

A model that is wrong in the same way as the service shows nothing; these are figures that were worked out by hand.
"""

import unittest
from fractions import Fraction

import money
from commands import decide
from convert import computed
from marks import asked
from post import split
from state import Wallet
from world import Rules, World

DAY = 86_400_000


class Examples(unittest.TestCase):
    def setUp(self):
        self.world, self.number = World(), 0

    def do(self, do, at=0, **step):
        """One command; its codes where it is refused."""
        self.number += 1
        step = {"do": do, "name": step.pop("name", f"t{self.number}")} | step
        outcome = decide(self.world, step, at)
        return outcome.codes or outcome.body

    def open(self, name, balance="0", overdraft="0", currency="USD"):
        self.do("create", wallet=name, owner="o", currency=currency, initial=balance, overdraft=overdraft)

    def state(self, name):
        wallet = self.world.wallets[name]
        return tuple(money.text(number, wallet.scale) for number in (wallet.balance, wallet.held, wallet.available))

    def pairs(self, name):
        return [(side, amount, grant) for side, amount, _, grant in self.world.wallets[name].events[-1].pairs]

    def test_the_trace_of_a_hold_over_a_grant(self):
        self.open("w", "50")
        self.do("grant", wallet="w", grant="P", amount="10", category="promotional")
        self.do("hold", wallet="w", hold="h", amount="30")
        self.assertEqual(self.state("w"), ("60.00", "30.00", "30.00"))
        self.do("capture", hold="h", amount="12", final=False, name="first")
        self.assertEqual(self.state("w"), ("48.00", "18.00", "30.00"))
        self.assertEqual(self.pairs("w"), [("DEBIT", 1000, "P"), ("DEBIT", 200, None)])
        self.do("capture", hold="h", amount="8")
        self.assertEqual(self.state("w"), ("40.00", "0.00", "40.00"))
        self.do("reverse", of="first", amount="5", reason="r")
        self.assertEqual(self.state("w"), ("45.00", "0.00", "45.00"))
        self.assertEqual(self.pairs("w"), [("CREDIT", 200, None), ("CREDIT", 300, "P")])

    def test_captures_within_their_hold_4_to_9(self):
        self.open("w", "36")
        self.do("hold", wallet="w", hold="h", amount="30")
        self.do("capture", hold="h", amount="20", final=False)
        self.assertEqual(self.do("capture", hold="h", amount="20", final=False), {"amount_exceeds_hold"})
        self.assertEqual(self.do("capture", hold="h")["capturedAmount"], "30.00")
        self.assertEqual(self.do("capture", hold="h", amount="1"), {"hold_closed"})
        self.open("v", "36")
        self.do("hold", wallet="v", hold="i", amount="30", maxCapture="36")
        self.assertEqual(self.do("capture", hold="i", amount="36.01"), {"amount_exceeds_hold"})
        self.do("debit", wallet="v", amount="0.01")
        self.assertEqual(self.do("capture", hold="i", amount="36"), {"insufficient_funds"})
        self.do("credit", wallet="v", amount="0.01")
        self.assertEqual(self.do("capture", hold="i", amount="36")["status"], "captured")
        self.assertEqual(self.state("v"), ("0.00", "0.00", "0.00"))

    def test_expiry_is_exact_to_the_command_10_to_13(self):
        self.open("w", "60")
        self.do("hold", wallet="w", hold="h", amount="60", expiresIn=1)
        self.assertEqual(self.do("debit", wallet="w", amount="60", at=999), {"insufficient_funds"})
        self.assertEqual(self.do("debit", wallet="w", amount="61", at=1000), {"insufficient_funds"})
        self.assertEqual(self.do("debit", wallet="w", amount="60", at=1000)["version"], 5)
        self.assertEqual(self.do("capture", hold="h", at=500), {"hold_expired"})

    def test_overdraft_17_to_19(self):
        self.open("w", "10", "20")
        self.do("hold", wallet="w", hold="k", amount="5")
        self.assertEqual(self.do("hold", wallet="w", hold="h", amount="25.01"), {"insufficient_funds"})
        self.do("hold", wallet="w", hold="h", amount="25")
        self.do("release", hold="k")
        self.do("adjust", hold="h", amount="30")
        self.do("capture", hold="h")
        self.assertEqual(self.state("w"), ("-20.00", "0.00", "0.00"))
        self.assertEqual(self.do("limits", wallet="w", overdraft="19.99", reason="r"), {"limit_in_use"})

    def test_reversals_31_and_32(self):
        self.open("w", "50")
        self.do("debit", wallet="w", amount="50", name="d")
        for expected in ("20.00", "40.00"):
            self.do("reverse", of="d", amount="20", reason="r")
            self.assertEqual(self.state("w")[0], expected)
        self.assertIn("amount_exceeds_original", self.do("reverse", of="d", amount="20", reason="r"))
        self.open("v", "0", "100")
        self.do("credit", wallet="v", amount="50", name="c")
        self.do("hold", wallet="v", hold="h", amount="40")
        self.assertEqual(self.do("reverse", of="c", reason="r"), {"insufficient_funds"})
        self.do("reverse", of="c", reason="r", onInsufficient="overdraft")
        self.assertEqual(self.state("v"), ("0.00", "40.00", "60.00"))

    def test_legs_have_no_order_39_and_40(self):
        for name, balance in (("a", "0"), ("b", "0"), ("c", "100")):
            self.open(name, balance)
        legs = [{"from": "a", "to": "b", "amount": "100"}, {"from": "c", "to": "a", "amount": "99.99"}]
        self.assertEqual(self.do("post", legs=legs), {"insufficient_funds"})
        legs[1]["amount"] = "100"
        self.do("post", legs=legs)
        self.assertEqual([self.state(name)[0] for name in "abc"], ["0.00", "100.00", "0.00"])
        self.assertEqual(self.pairs("a"), [("CREDIT", 10_000, None), ("DEBIT", 10_000, None)])

    def test_conversions_44_and_case_8(self):
        usd, jpy = Wallet("u", "o", "USD", 2, 0, 0), Wallet("j", "o", "JPY", 0, 0, 0)
        self.assertEqual(computed(1, Fraction(99), usd, jpy, True)[1], 0)
        self.assertEqual(computed(1, Fraction("149.5"), usd, jpy, True)[1:], (1, Fraction("1.495"), Fraction("0.495")))
        eur, rate = Wallet("e", "o", "EUR", 2, 0, 0), Fraction("1.083457")
        self.assertEqual(computed(10_000, rate, eur, usd, True), (10_000, 10_834, Fraction("108.3457"), Fraction("0.0057")))
        exchange, rounding = Fraction("99.99473906"), Fraction("0.00526094")
        self.assertEqual(computed(10_834, rate, eur, usd, False), (10_000, 10_834, exchange, rounding))

    def test_velocity_47_and_48(self):
        self.open("w", "500")
        limit = {"name": "d", "kind": "amount", "window": "P1D", "timezone": "UTC", "max": "100"}
        self.do("limits", wallet="w", velocity=[limit], reason="r")
        self.do("hold", wallet="w", hold="h", amount="60")
        self.assertEqual(self.do("debit", wallet="w", amount="50"), {"limit_exceeded"})
        self.do("release", hold="h")
        self.assertEqual(self.do("debit", wallet="w", amount="50")["version"], 6)
        self.do("hold", wallet="w", hold="i", amount="50", at=DAY - 1)
        self.do("debit", wallet="w", amount="60", at=DAY)
        self.do("release", hold="i", at=DAY)
        self.assertEqual(self.do("debit", wallet="w", amount="41", at=DAY), {"limit_exceeded"})

    def test_splits_and_case_9(self):
        parts = [{"percent": "2.9", "plus": "0.30"}, {"weight": 1}, {"weight": 1}, {"weight": 1}]
        self.assertEqual(split(Rules(), 10_000, parts, 2), [320, 3227, 3226, 3227])
        self.assertEqual(split(Rules(), 5, [{"weight": w} for w in ("33.3", "33.3", "33.4")], 2), [2, 1, 2])

    def test_draw_refund_and_case_14(self):
        self.open("w", "7")
        grants = (("A", "10", "promotional", 60), ("B", "5", "promotional", 29))
        for name, amount, category, days in grants:
            self.do("grant", wallet="w", grant=name, amount=amount, category=category, expiresIn=days * 86_400)
        self.do("grant", wallet="w", grant="C", amount="20", category="paid", expiresIn=14 * 86_400)
        self.do("debit", wallet="w", amount="18", name="d")
        self.assertEqual(self.pairs("w"), [("DEBIT", 500, "B"), ("DEBIT", 1000, "A"), ("DEBIT", 300, "C")])
        self.do("credit", wallet="w", amount="1", at=14 * DAY)
        self.assertEqual(self.state("w")[0], "8.00")
        event = self.world.wallets["w"].events[-2]
        self.assertEqual(event.pairs, [("DEBIT", 1700, "breakage", "C")])

    def test_refund_after_expiry_case_6_and_57(self):
        for category, expected in ((None, "20.00"), ("main", "23.00")):
            self.setUp()
            self.open("w")
            self.do("grant", wallet="w", grant="P", amount="10", category="promotional", expiresIn=10)
            self.do("grant", wallet="w", grant="Q", amount="20", category="paid")
            self.do("debit", wallet="w", amount="15", name="d")
            self.do("reverse", of="d", amount="8", reason="r", at=20_000, **({"expiredGrant": "main"} if category else {}))
            self.assertEqual(self.state("w")[0], expected)

    def test_a_grant_that_is_held_when_it_expires_56(self):
        self.open("w")
        self.do("grant", wallet="w", grant="P", amount="10", category="promotional", expiresIn=1)
        self.do("hold", wallet="w", hold="h", amount="6")
        self.do("capture", hold="h", amount="4", at=2000)
        gone = [event.change for event in self.world.wallets["w"].events if event.kind == "WalletGrantExpired"]
        self.assertEqual((gone, self.state("w")[0]), ([400, 200], "0.00"))

    def test_main_alone_pays_transfers_61(self):
        self.open("w", "5")
        self.open("v")
        self.do("grant", wallet="w", grant="P", amount="10", category="promotional")
        self.assertEqual(self.do("transfer", wallet="w", to="v", amount="6"), {"insufficient_funds"})
        self.do("debit", wallet="w", amount="6", name="d")
        self.assertEqual(self.pairs("w"), [("DEBIT", 600, "P")])
        self.assertEqual(self.do("hold", wallet="w", hold="h", amount="6", to="v"), {"insufficient_funds"})

    def test_marks_57_and_58_and_the_top_ups_of_section_b5(self):
        self.open("w", "25", "100")
        marks = [{"name": "low", "below": "10"}, {"name": "lower", "percent": "50", "of": "10"}]
        self.do("thresholds", wallet="w", thresholds=marks)
        self.do("topup_rule", wallet="w", below="20", amount="10")
        self.do("debit", wallet="w", amount="22", name="d")
        kinds = [event.kind for event in self.world.wallets["w"].events[-4:]]
        crossed = "WalletThresholdCrossed"
        self.assertEqual(kinds, ["WalletDebited", crossed, crossed, "WalletTopUpRequested"])
        self.do("debit", wallet="w", amount="1")
        self.assertEqual(self.world.wallets["w"].events[-1].kind, "WalletDebited")
        self.do("complete_topup", topup="u-d-w")
        self.assertEqual(self.state("w")[0], "22.00")
        self.assertEqual([asked({"fixed": True, "more": 10, "below": 20}, own) for own in (19, -15)], [10, 40])


if __name__ == "__main__":
    unittest.main()
