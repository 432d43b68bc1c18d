"""Who runs in a step: fairness, budgets, preemption, reuse; against a cache that only counts pages."""

import math
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from nums_core.llm.cache.kv_cache import OutOfPages
from nums_core.llm.engine.batcher import Batcher
from nums_core.llm.engine.sequence import Sequence


class Counting:
    """Pages as numbers: shared ones are counted once."""

    def __init__(self, n_pages, page_tokens=4):
        self.free_pages, self.page_tokens = set(range(n_pages)), page_tokens
        self.pages = {}

    @property
    def n_free_pages(self):
        return len(self.free_pages)

    def _grow(self, seq_id, n_tokens):
        pages = self.pages[seq_id]
        more = math.ceil(n_tokens / self.page_tokens) - len(pages)
        if more > len(self.free_pages):
            raise OutOfPages(f"{more} pages wanted, {len(self.free_pages)} free")
        pages += [self.free_pages.pop() for _ in range(more)]

    def allocate(self, seq_id, n_tokens, *, prompt_tokens=None, expected_tokens=None, chunk_tokens=None):
        assert seq_id not in self.pages
        self.pages[seq_id] = []
        try:
            self._grow(seq_id, n_tokens)
        except OutOfPages:
            del self.pages[seq_id]
            raise

    def extend(self, seq_id, n_tokens):
        self._grow(seq_id, n_tokens)

    def free(self, seq_id):
        mine = self.pages.pop(seq_id)
        self.free_pages |= set(mine) - {p for pages in self.pages.values() for p in pages}

    def fork(self, parent, child, n_tokens):
        assert n_tokens % self.page_tokens == 0
        shared = self.pages[parent][:n_tokens // self.page_tokens]
        assert len(shared) * self.page_tokens == n_tokens
        self.pages[child] = list(shared)


def sequence(name, n_prompt, *, scored=False, chunk=None, first=0):
    return Sequence(name, list(range(first, first + n_prompt)), SimpleNamespace(seed=0, max_tokens=8), scored=scored, chunk=chunk)


def batcher(n_pages=100, max_batch=8, max_step_tokens=16, **options):
    return Batcher(Counting(n_pages), max_batch=max_batch, max_step_tokens=max_step_tokens, **options)


def step(b):
    """Run a step as the engine would: whoever has no token left gets one more."""
    chunks = b.next()
    made = [(c.sequence.request_id, c.n_tokens, c.n_rows) for c in chunks]
    b.advance(chunks)
    for c in chunks:
        assert c.sequence in b.seq_id
        if not c.sequence.n_waiting and not c.sequence.scored:
            c.sequence.append(7, 0.0)
    return made


def test_prompts_are_read_in_chunks_and_decoding_goes_first():
    b = batcher()
    b.add(sequence("a", 3))
    assert step(b) == [("a", 3, 1)]
    b.add(sequence("long", 40))
    assert step(b) == [("a", 1, 1), ("long", 15, 0)]
    b.add(sequence("c", 2))
    assert step(b) == [("a", 1, 1), ("long", 15, 0)]  # first come, first served
    assert step(b) == [("a", 1, 1), ("long", 10, 1), ("c", 2, 1)]
    assert step(b) == [("a", 1, 1), ("long", 1, 1), ("c", 1, 1)]


def test_a_scored_sequence_wants_every_row_and_reads_in_its_own_chunks():
    b = batcher()
    b.add(sequence("s", 7, scored=True, chunk=3))
    assert [step(b) for _ in range(4)] == [[("s", 3, 3)], [("s", 3, 3)], [("s", 1, 1)], []]


def test_no_more_than_max_batch_run():
    b = batcher(max_batch=2)
    sequences = [sequence(str(k), 2) for k in range(3)]
    for s in sequences:
        b.add(s)
    assert [name for name, *_ in step(b)] == ["0", "1"]
    b.remove(sequences[0])
    assert [name for name, *_ in step(b)] == ["1", "2"]


def test_the_last_to_arrive_gives_up_its_pages_and_comes_back_first():
    b = batcher(n_pages=5)  # 20 tokens
    a, c = sequence("a", 7), sequence("c", 7)
    b.add(a)
    b.add(c)
    assert [name for name, *_ in step(b)] == ["a", "c"]
    assert [name for name, *_ in step(b)] == ["a", "c"]  # both are at 8 tokens: two pages each
    assert step(b) == [("a", 1, 1)]
    assert b.n_preempted == 1 and c.n_cached == 0 and list(b.waiting) == [c]
    b.add(sequence("d", 1))
    b.remove(a)
    assert step(b) == [("c", 9, 1), ("d", 1, 1)]  # its two generated tokens are read again with the prompt


def test_nobody_is_admitted_who_would_be_preempted_at_once():
    b = batcher(n_pages=4)
    a, c = sequence("a", 7), sequence("c", 7)
    b.add(a)
    b.add(c)
    assert [step(b) for _ in range(3)] == [[("a", 7, 1)], [("a", 1, 1)], [("a", 1, 1)]]
    b.remove(a)
    assert step(b) == [("c", 7, 1)] and b.n_preempted == 0


def test_a_sequence_that_no_memory_fits_is_failed_and_the_next_goes_on():
    b = batcher(n_pages=2)
    big, small = sequence("big", 9), sequence("small", 2)
    b.add(big)
    b.add(small)
    assert step(b) == []  # nothing fits until the head of the queue is out of the way
    (failed,) = b.take_failed()
    assert failed is big and big.error.startswith("request big:") and "memory=" in big.error
    assert step(b) == [("small", 2, 1)]
    for _ in range(6):
        step(b)
    assert step(b) == [] and b.take_failed() == [small]  # it has outgrown the cache, alone
    assert b.idle and len(b.cache.free_pages) == 2


def test_prompts_that_begin_alike_share_pages():
    b = batcher(n_pages=8, reuse_prefixes=True)
    first, second = sequence("first", 10), sequence("second", 10)
    b.add(first)
    assert step(b) == [("first", 10, 1)]
    b.add(second)
    assert step(b) == [("first", 1, 1), ("second", 2, 1)]  # eight tokens are there already
    assert b.n_reused_tokens == 8 and len(b.cache.free_pages) == 8 - 4
    b.remove(first)
    b.remove(second)
    third = sequence("third", 6)
    b.add(third)
    assert step(b) == [("third", 2, 1)]  # pages outlive their sequences


def test_a_scored_sequence_reads_all_its_tokens():
    b = batcher(reuse_prefixes=True)
    b.add(sequence("a", 10))
    step(b)
    b.add(sequence("s", 10, scored=True))
    assert step(b) == [("a", 1, 1), ("s", 10, 10)]


def test_kept_pages_make_room_before_anybody_is_preempted():
    b = batcher(n_pages=4, reuse_prefixes=True)
    a = sequence("a", 8)
    b.add(a)
    step(b)
    b.remove(a)
    assert len(b.cache.free_pages) == 2
    b.add(sequence("other", 14, first=50))
    assert step(b) == [("other", 14, 1)]
    assert b.n_preempted == 0


@given(st.data())
def test_all_end_nothing_leaks_and_budgets_hold(data):
    n_pages = data.draw(st.integers(3, 10))
    b = batcher(n_pages, max_batch=3, max_step_tokens=5, reuse_prefixes=data.draw(st.booleans()))
    todo = [(sequence(str(k), data.draw(st.integers(1, 14)), first=data.draw(st.sampled_from([0, 0, 100]))),
             data.draw(st.integers(1, 6))) for k in range(data.draw(st.integers(1, 5)))]
    ended = []
    for s, _ in todo:
        b.add(s)
    wanted = dict(todo)
    for _ in range(400):
        made = step(b)
        assert sum(n for _, n, _ in made) <= 5
        assert [s.arrived_s for s in b.running] == sorted(s.arrived_s for s in b.running)
        ended += b.take_failed()
        for s in list(b.running):
            if len(s.generated) >= wanted[s]:
                b.remove(s)
                ended.append(s)
        if b.idle:
            break
    assert set(ended) == set(wanted) and len(ended) == len(wanted)
    assert all(s.error is None for s, n in todo if s.n_prompt + n <= 4 * n_pages)
    b.forget_prefixes()
    assert len(b.cache.free_pages) == n_pages and not b.cache.pages


def test_removing_one_that_waits_leaves_the_others():
    b = batcher()
    a, c = sequence("a", 2), sequence("c", 2)
    b.add(a)
    b.add(c)
    b.remove(a)
    assert step(b) == [("c", 2, 1)]
