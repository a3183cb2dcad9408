"""The bounded cache."""

from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl.conditioning.cache import ByteCache


def test_what_was_put_is_found_and_counted():
    cache = ByteCache(100)
    assert cache.get("a") is None
    cache.put("a", "value", 40)
    assert cache.get("a") == "value"
    counters = cache.counters
    assert (counters.hits, counters.misses, counters.entries, counters.bytes) == (1, 1, 1, 40)


def test_what_was_used_longest_ago_is_forgotten_first():
    cache = ByteCache(100)
    for key in "abc":
        cache.put(key, key, 30)
    cache.get("a")
    cache.put("d", "d", 30)
    assert [cache.get(key) for key in "abcd"] == ["a", None, "c", "d"]


def test_what_is_larger_than_the_cache_is_not_kept_and_throws_nothing_out():
    cache = ByteCache(100)
    cache.put("a", "a", 100)
    cache.put("b", "b", 101)
    assert cache.get("a") == "a"
    assert cache.get("b") is None


def test_a_cache_of_no_bytes_keeps_nothing():
    cache = ByteCache(0)
    cache.put("a", "a", 1)
    assert cache.get("a") is None
    assert cache.counters.bytes == 0


def test_a_key_that_is_put_again_counts_once():
    cache = ByteCache(100)
    cache.put("a", 1, 60)
    cache.put("a", 2, 70)
    assert cache.get("a") == 2
    assert cache.counters.bytes == 70


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60))))
def test_bytes_never_exceed_the_bound(puts):
    cache = ByteCache(100)
    for key, size in puts:
        cache.put(key, size, size)
        assert cache.get(key) == size
        held = [found for found in map(cache.get, range(6)) if found is not None]
        assert cache.counters.bytes == sum(held) <= 100
        assert cache.counters.entries == len(held)
