"""A pause ends by itself, or when somebody ends it."""

from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy.pause import Pause


class PauseTests(SynchronousTestCase):
    def test_without_an_end_it_is_never_over(self) -> None:
        assert not Pause("spam", "ops", since=100).over(1e12)

    def test_it_is_over_at_its_end(self) -> None:
        pause = Pause("spam", "ops", since=100, until=200)

        assert [pause.over(now) for now in (100, 199.9, 200, 201)] == [False, False, True, True]
