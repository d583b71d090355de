"""The reader of expressions finds what they name."""

from twisted.trial.unittest import SynchronousTestCase

from tests.deploy.promql import Selector, grouped_by, selectors


class PromqlTests(SynchronousTestCase):
    def test_metrics_and_their_matchers(self) -> None:
        assert selectors('sum by (a) (rate(m_total{x="1", y=~"a|b"}[5m])) / n > 0.05') == [
            Selector("m_total", (("x", "=", "1"), ("y", "=~", "a|b"))),
            Selector("n", ()),
        ]

    def test_functions_keywords_and_ranges_are_no_metrics(self) -> None:
        expression = "max_over_time(m[1h:15s]) > bool 0 unless on (a, b) n{} or vector(0)"
        assert [each.metric for each in selectors(expression)] == ["m", "n"]

    def test_what_stands_in_strings_is_no_metric(self) -> None:
        assert selectors('m{x="n{y}", z="[5m]"}')[0].metric == "m"
        assert len(selectors('m{x="n (y)", z="[5m]"}')) == 1

    def test_labels_that_are_grouped_and_joined_by(self) -> None:
        assert grouped_by('sum by (a, b) (m{x="by (c)"}) and on (d) n') == {"a", "b", "d"}
