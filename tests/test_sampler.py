"""Who trains on which views, and where a run goes on."""

import pytest
from ignite.engine import Engine
from scripts.training.sampler import ViewSampler
from torch.utils.data import DataLoader


def views_of_steps(length, batch_size, accumulate, world_size):
    """The views of every optimizer step, those of all processes together."""
    samplers = [ViewSampler(length, batch_size, accumulate, rank, world_size) for rank in range(world_size)]
    shares = [list(sampler) for sampler in samplers]
    block = batch_size * accumulate
    return [
        sorted(view for share in shares for view in share[i * block : (i + 1) * block])
        for i in range(samplers[0].steps)
    ]


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "world_size"), [(8, 1, 1), (4, 1, 2), (2, 4, 1), (1, 2, 4), (2, 2, 2)]
)
def test_a_step_sees_the_same_views_however_they_are_shared_out(batch_size, accumulate, world_size):
    assert views_of_steps(27, batch_size, accumulate, world_size) == [list(range(8 * i, 8 * i + 8)) for i in range(3)]


def test_every_process_gets_as_many_views_and_none_that_another_has():
    shares = [list(ViewSampler(11, rank=rank, world_size=3)) for rank in range(3)]
    assert [len(share) for share in shares] == [3, 3, 3]
    assert sorted(sum(shares, [])) == list(range(9))


def test_a_single_process_validates_on_every_view():
    assert list(ViewSampler(7)) == list(range(7))


def test_a_run_that_goes_on_within_an_epoch_starts_at_the_next_unseen_view():
    sampler = ViewSampler(12, batch_size=2)
    loader = DataLoader(list(range(12)), sampler=sampler, batch_size=2)
    seen = []
    engine = Engine(lambda _, batch: seen.append(batch.tolist()))
    sampler.attach(engine)
    engine.load_state_dict({"iteration": 10, "epoch_length": len(loader), "max_epochs": 3})
    engine.run(loader)
    assert seen == [[8, 9], [10, 11], [0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    assert len(loader) == 6


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"length": 7, "batch_size": 4, "world_size": 2},
            "7 views are too few: a step takes batch_size 4 x accumulate 1 x 2",
        ),
        ({"length": 7, "batch_size": 0}, "batch_size is 0"),
        ({"length": 7, "accumulate": 1.5}, "accumulate is 1.5"),
    ],
)
def test_what_cannot_be_shared_out_gets_one_line(given, told):
    with pytest.raises(SystemExit, match=told):
        ViewSampler(**{"rank": 0, "world_size": 1, **given})
