"""How long credentials are good for."""

from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy.credentials import Credentials, Entry, Keeping

KEEPING = Keeping(fresh=900, stale=3600, negative=30)


class CredentialsTests(SynchronousTestCase):
    def test_without_an_end_they_never_expire(self) -> None:
        assert not Credentials("t").expired(1e12)

    def test_they_expire_at_their_end(self) -> None:
        credentials = Credentials("t", expires_at=100)

        assert [credentials.expired(now) for now in (99.9, 100, 101)] == [False, True, True]

    def test_the_token_is_not_shown(self) -> None:
        assert "EAAsecret" not in repr(Entry(Credentials("EAAsecret"), 0))


class EntryTests(SynchronousTestCase):
    def test_it_is_fresh_for_the_cache_ttl(self) -> None:
        entry = Entry(Credentials("t"), fetched_at=1000)

        assert [entry.fresh(KEEPING, now) for now in (1000, 1899.9, 1900)] == [True, True, False]

    def test_it_is_usable_for_the_stale_ttl(self) -> None:
        entry = Entry(Credentials("t"), fetched_at=1000)

        assert [entry.usable(KEEPING, now) for now in (1000, 4599.9, 4600)] == [True, True, False]

    def test_it_is_neither_past_the_end_of_its_credentials(self) -> None:
        entry = Entry(Credentials("t", expires_at=1010), fetched_at=1000)

        assert entry.fresh(KEEPING, 1009)
        assert not entry.fresh(KEEPING, 1010)
        assert not entry.usable(KEEPING, 1010)
