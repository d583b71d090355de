"""The demo's accounts: where each published message is, and whether that is where it should be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from attrs import define, field, frozen

from whatsapp_egress.sandbox.fates import Fate


@frozen
class Counts:
    """How many messages are where; `dead_lettered` by reason."""

    published: int
    sent: int
    dead_lettered: Counter[str]

    @property
    def done(self) -> int:
        """How many have ended, one way or the other."""
        return self.sent + self.dead_lettered.total()

    @property
    def waiting(self) -> int:
        """How many are still on their way."""
        return max(0, self.published - self.done)

    def ends(self, fate: Fate) -> bool:
        """Whether this is how *fate* was to end."""
        return self.sent == fate.sent and self.dead_lettered == Counter(fate.dead_lettered)


@define
class Ledger:
    """What was published, and what is known to have become of it, by each message's id.

    `sent` counts how often the Graph API accepted it; `queued` are those found in the queue after the gateway
    had stopped.
    """

    fates: list[Fate]
    published: dict[str, str] = field(factory=dict)  # to its tenant
    sent: Counter[str] = field(factory=Counter)
    dead: dict[str, list[str]] = field(factory=dict)  # to the reasons
    queued: set[str] = field(factory=set)

    def dead_letter(self, message: str, reason: str) -> bool:
        """Note a dead letter; return whether it is ours."""
        ours = message in self.published
        if ours:
            self.dead.setdefault(message, []).append(reason)
        return ours

    def accepted(self, messages: Iterable[str]) -> None:
        """Replace what is known to be sent by *messages*, each as often as it was accepted."""
        self.sent = Counter(each for each in messages if each in self.published)

    @property
    def settled(self) -> bool:
        """Whether every message has ended."""
        return all(each in self.sent or each in self.dead for each in self.published)

    def counts(self) -> dict[str, Counts]:
        """Return each tenant's counts."""
        published = Counter(self.published.values())
        sent = Counter(self.published[each] for each in self.sent)
        dead: dict[str, Counter[str]] = defaultdict(Counter)
        for each, reasons in self.dead.items():
            dead[self.published[each]][reasons[0]] += 1
        return {
            fate.tenant: Counts(published[fate.tenant], sent[fate.tenant], dead[fate.tenant])
            for fate in self.fates
        }

    def total(self) -> Counts:
        """Return the counts of all tenants together."""
        reasons = Counter(reasons[0] for reasons in self.dead.values())
        return Counts(len(self.published), len(self.sent), reasons)

    def faults(self) -> list[str]:
        """Return what is not as it should be, in sentences; nothing, if all is well."""
        sent, dead = set(self.sent), set(self.dead)
        suspects = [
            (set(self.published) - sent - dead - self.queued, "missing"),
            (self.queued - sent - dead, "still queued"),
            ({each for each, times in self.sent.items() if times > 1}, "sent more than once"),
            ({each for each, reasons in self.dead.items() if len(reasons) > 1}, "dead-lettered twice"),
            (sent & dead, "both sent and dead-lettered"),
            (self.queued & (sent | dead), "ended and queued nevertheless"),
        ]
        found = [f"{len(each)} {what}, such as {min(each)}" for each, what in suspects if each]
        counts = self.counts()
        return found + [
            f"{fate.tenant}: foretold were {in_words(fate.sent, fate.dead_lettered)}; "
            f"there are {in_words(counts[fate.tenant].sent, counts[fate.tenant].dead_lettered)}"
            for fate in self.fates
            if not counts[fate.tenant].ends(fate)
        ]


def in_words(sent: int, dead_lettered: Mapping[str, int], between: str = ", ") -> str:
    """Return such as ``20 sent, 30 dead-lettered (expired 10, rejected 20)``."""
    reasons = reasons_in_words(dead_lettered)
    dead = f"{sum(dead_lettered.values())} dead-lettered"
    return f"{sent} sent{between}{dead}" + (f" ({reasons})" if reasons else "")


def reasons_in_words(dead_lettered: Mapping[str, int]) -> str:
    """Return such as ``expired 10, rejected 20``."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(dead_lettered.items()) if count)
