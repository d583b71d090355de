"""The ramp: after a long wait one message, then as many more as go well."""

from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy.ramp import Ramp


class RampTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ramp = Ramp(5)

    def test_it_begins_with_as_many_as_there_may_be(self) -> None:
        assert self.ramp.limit == 5
        assert self.ramp.full

    def test_after_a_wait_it_is_one(self) -> None:
        self.ramp.restart()

        assert self.ramp.limit == 1
        assert not self.ramp.full

    def test_with_a_full_lane_it_doubles_with_each_round_trip(self) -> None:
        ramp = Ramp(100)
        ramp.restart()
        limits = []
        for _ in range(4):
            for _ in range(ramp.limit):
                ramp.passed()
            limits.append(ramp.limit)

        assert limits == [2, 4, 8, 16]

    def test_it_does_not_exceed_what_there_may_be(self) -> None:
        self.ramp.restart()
        for _ in range(10):
            self.ramp.passed()

        assert self.ramp.limit == 5
        assert self.ramp.full

    def test_where_there_may_be_one_it_holds_nobody_back(self) -> None:
        ramp = Ramp(1)
        ramp.restart()

        assert ramp.full

    def test_another_wait_begins_anew(self) -> None:
        self.ramp.restart()
        self.ramp.passed()
        self.ramp.restart()

        assert self.ramp.limit == 1
