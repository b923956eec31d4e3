"""Laws of the book of vectors, and of the autoencoder that writes with it."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

import families
from citygrain.errors import ConfigError
from citygrain.networks.quantizer import Quantizer
from citygrain.protocols import Noise, Quantized


def codes(vectors, side=4):
    """Codes `(B, c, side, side)` of vectors `(B · side², c)`."""
    return vectors.view(-1, side, side, vectors.shape[-1]).movedim(-1, 1)


def clusters(count, spread=0.02, seed=0):
    """Eight centres, far apart, and `count` vectors around them."""
    generator = torch.Generator().manual_seed(seed)
    centres = 4 * torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    which = torch.randint(8, (count,), generator=generator)
    return centres, centres[which] + spread * torch.randn(count, 3, generator=generator)


def among(rows, code):
    """Which of the rows `(n, c)` are vectors of codes, to the bit."""
    return (rows[:, None] == code.movedim(1, -1).reshape(-1, code.shape[1])).all(-1).any(1)


def taught(book, steps, *, batch=256, seed=0):
    for step in range(steps):
        code = codes(clusters(batch, seed=seed + step)[1])
        book.learn(code, book(code))
    return book


def test_the_book_finds_the_centres_of_clusters():
    torch.manual_seed(0)
    book = Quantizer(8, 3, decay=0.9)
    centres, vectors = clusters(4096)
    book.start(codes(vectors))
    taught(book, 100)
    apart = torch.cdist(centres, book.book)
    assert (apart.min(1).values < 0.02).all()
    assert sorted(apart.argmin(1).tolist()) == list(range(8))
    assert torch.allclose(book.counts.sum(), torch.tensor(256.0), rtol=1e-3)


def test_a_token_is_the_nearest_entry_in_half_precision_too():
    torch.manual_seed(0)
    book = Quantizer(50, 5)
    code = torch.randn(3, 5, 4, 4)
    nearest = torch.cdist(code.movedim(1, -1).reshape(-1, 5), book.book).argmin(1).view(3, 4, 4)
    assert torch.equal(book(code), nearest)
    assert torch.equal(book(book.look_up(nearest)), nearest)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(book(code), nearest)
        book.learn(code.bfloat16(), nearest)
    assert {value.dtype for value in book.state_dict().values()} == {torch.float32}


def test_an_entry_is_the_running_mean_of_its_vectors():
    book = Quantizer(2, 1, decay=0.75)
    book.start(codes(torch.tensor([[0.0], [8.0]]).repeat(8, 1)))
    first = int(book.book[1] < book.book[0])  # the entry at 0
    code = codes(torch.tensor([1.0, 2.0, 3.0, 9.0] * 4)[:, None])
    book.learn(code, book(code))
    # Three quarters of one vector at the start, one quarter of this batch: 12 vectors that sum to 24, 4 to 36.
    assert book.book[first].item() == pytest.approx((0.25 * 24) / (0.75 + 0.25 * 12), rel=1e-4)
    assert book.book[1 - first].item() == pytest.approx((0.75 * 8 + 0.25 * 36) / (0.75 + 0.25 * 4), rel=1e-4)


def test_an_unused_entry_begins_anew_at_a_vector_of_the_batch():
    torch.manual_seed(0)
    book = Quantizer(10, 3, decay=0.9, patience=5)
    book.start(codes(clusters(256)[1]))
    far = torch.tensor([0, 4])
    for buffer in (book.book, book.sums):
        buffer[far] = 1e4
    taught(book, 4)
    assert (book.book[far] > 1e3).all()
    code = codes(clusters(256, seed=4)[1])
    others = torch.tensor([i for i in range(10) if i not in far])
    book.learn(code, book(code))
    assert among(book.book[far], code).all()
    assert not among(book.book[others], code).any()
    assert (book.idle[far] == 0).all()
    taught(book, 3, seed=5)
    assert book.counts[far].min() > 1


def test_a_book_starts_spread_out_over_what_it_is_shown():
    torch.manual_seed(0)
    rare = torch.cat([torch.zeros(2000, 2), torch.tensor([[5.0, 0.0], [0.0, 5.0]]).repeat(24, 1)])
    book = Quantizer(128, 2)  # more than there are different vectors
    book.start(codes(rare))
    assert torch.equal(book.book.unique(dim=0), torch.tensor([[0.0, 0.0], [0.0, 5.0], [5.0, 0.0]]))


@pytest.mark.parametrize("wrong", [{"book_size": 1}, {"decay": 1.0}, {"decay": -0.1}, {"patience": 0}])
def test_impossible_books_are_refused(wrong):
    with pytest.raises(ConfigError, match="book cannot"):
        Quantizer(**{"book_size": 8, "channels": 2, **wrong})


def layouts(batch):
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    made = families.make("vector_quantized")
    made.measure_data(layouts(32))
    return made


def test_the_book_starts_at_codes_of_the_data(model):
    assert among(model.quantizer.book, model.encode(layouts(32))).all()


def test_the_book_is_kept_in_training_and_only_there(model):
    def state():
        return {name: value.clone() for name, value in model.state_dict().items()}

    before = state()
    model.eval()
    model.loss(layouts(8), families.some_conditions(8, model.spec))
    model.train()
    model.from_tokens(model.tokens(layouts(8)))
    model.decode(model.encode(layouts(8)))
    model.sample(families.some_conditions(2, model.spec), noise=Noise([0, 1]))
    assert all(torch.equal(value, before[name]) for name, value in state().items())
    model.loss(layouts(8), families.some_conditions(8, model.spec))
    changed = {name for name, value in state().items() if not torch.equal(value, before[name])}
    assert changed == {"steps", "quantizer.book", "quantizer.counts", "quantizer.sums", "quantizer.idle"}


def test_the_decoder_goes_from_the_code_to_the_book_and_in_validation_sees_the_book_alone(model):
    model.warmup = 4
    seen = []
    model.decoder.register_forward_pre_hook(lambda decoder, given: seen.append(given[0]))
    conditions = families.some_conditions(8, model.spec)
    code = model.encode(layouts(8))
    for step in range(6):
        vectors = model.quantizer.look_up(model.quantizer(code))  # those of before the book learns
        model.train().loss(layouts(8), conditions)
        assert torch.allclose(seen[-1], torch.lerp(code, vectors, min(1, (step + 1) / 4)), atol=1e-6)
        after = model.quantizer.look_up(model.quantizer(code))
        model.eval().loss(layouts(8), conditions)
        assert torch.allclose(seen[-1], after, atol=1e-6)


def test_gradients_pass_straight_through_the_book(model):
    code = torch.randn(2, *model.code_shape, requires_grad=True)
    vectors = model.quantizer.look_up(model.quantizer(code)).requires_grad_()
    weight = torch.randn(2, *model.spec.shape)
    (through,) = torch.autograd.grad((model.decode(code) * weight).sum(), code)
    (at,) = torch.autograd.grad((model.decoder(vectors).sigmoid() * weight).sum(), vectors)
    assert at.abs().sum() > 0
    assert torch.allclose(through, at, atol=1e-6)


def test_tokens_say_what_the_quantised_code_says(model):
    assert isinstance(model, Quantized)
    tokens = model.tokens(layouts(4))
    assert tokens.dtype == torch.int64
    assert tokens.shape == (4, *model.code_shape[1:])
    assert len(tokens.unique()) > 8
    assert 0 <= tokens.min() <= tokens.max() < model.book_size
    decoded = model.decode(model.encode(layouts(4)))
    assert torch.allclose(model.from_tokens(tokens), decoded, atol=1e-5)


def test_what_is_logged_says_how_much_of_the_book_is_used(model):
    model.eval()
    tokens = torch.arange(4 * math.prod(model.code_shape[1:])).view(4, *model.code_shape[1:])
    model.quantizer.forward = lambda code: tokens % used
    for used in (1, 4, model.book_size):
        logged = model.loss(layouts(4), families.some_conditions(4, model.spec))
        assert logged["perplexity"].item() == pytest.approx(used, rel=1e-5)
        assert logged["used"].item() == pytest.approx(used / model.book_size)


PROCESS = """
import sys
import torch
import torch.distributed as dist
from citygrain.networks.quantizer import Quantizer

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
start, batches = torch.load(f"{folder}/given.pt")
torch.manual_seed(rank)
book = Quantizer(9, 3, decay=0.9, patience=4)
book.load_state_dict(start)
for code in batches:
    mine = code[rank::2]
    book.learn(mine, book(mine))
torch.save(book.state_dict(), f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_several_processes_keep_one_book(tmp_path):
    centres, _ = clusters(0)
    book = Quantizer(9, 3, decay=0.9, patience=4)
    book.start(codes(torch.cat([centres, torch.full((8, 3), 1e4)])))  # one of them is to be unused
    batches = [codes(clusters(256, seed=step)[1]) for step in range(4)]
    torch.save((book.state_dict(), batches), tmp_path / "given.pt")
    processes = [subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    unused = book.book[:, 0] > 1e3
    for code in batches:
        book.learn(code, book(code))
    assert torch.allclose(one["book"][~unused], book.book[~unused], atol=1e-5)
    assert torch.allclose(one["counts"], book.counts)
    assert among(one["book"][unused], batches[-1]).all()
