"""What happens around an optimizer step, and when training ends early."""

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from scripts.training.handlers import ClipGradients, EarlyStop, ScheduleSteps
from torch import nn

PAIRS = [(torch.tensor([[float(i)]]), torch.tensor([[3.0 * i + 1]])) for i in range(16)]


def trained(batch_size, accumulate, max_norm=1e6):
    """Weights and learning rates of a linear layer after the 16 pairs, in steps of batch_size x accumulate."""
    torch.manual_seed(0)
    network = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    rates = []
    optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
    batches = [
        [torch.cat(part) for part in zip(*PAIRS[i : i + batch_size], strict=True)] for i in range(0, 16, batch_size)
    ]
    SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=batches,
        network=network,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        prepare_batch=lambda batch, *_, **__: batch,
        accumulation_steps=accumulate,
        optim_set_to_none=True,
        decollate=False,
        train_handlers=[ClipGradients(optimizer, max_norm), ScheduleSteps(schedule)],
    ).run()
    return torch.cat([p.detach().flatten() for p in network.parameters()]), rates


@pytest.mark.parametrize("max_norm", [1e6, 1.0])
def test_four_batches_of_two_are_one_batch_of_eight(max_norm):
    whole, rates = trained(8, 1, max_norm)
    accumulated, same_rates = trained(2, 4, max_norm)
    torch.testing.assert_close(accumulated, whole, atol=1e-6, rtol=1e-6)
    assert rates == same_rates == [0.1, 0.05]


def test_gradients_are_clipped_right_before_the_step():
    parameter = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    ClipGradients(optimizer, 1.0).attach(Engine(lambda *_: None))
    for size, expected in ((10.0, 0.5), (0.1, 0.1)):
        parameter.data.zero_()
        parameter.grad = torch.full((4,), size)
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), torch.full((4,), -expected), atol=1e-4, rtol=1e-4)


def validated(epochs, patience, best_epochs):
    """Epochs that a trainer does whose validation finds its best in ``best_epochs``."""
    trainer, evaluator = Engine(lambda *_: None), Engine(lambda *_: None)
    stop = EarlyStop(patience, trainer)
    stop.attach(evaluator)
    found = [0]

    def validate(engine):
        found[0] = engine.state.epoch if engine.state.epoch in best_epochs else found[0]
        evaluator.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "best_metric_epoch", found[0]))
        evaluator.run([0])

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    return trainer.run([0], max_epochs=epochs).epoch, stop


def test_training_ends_after_so_many_validations_without_a_gain():
    assert validated(10, 2, (1, 2, 4))[0] == 6
    assert validated(10, 0, (1,))[0] == 10


def test_early_stop_goes_on_counting_where_it_was():
    _, stop = validated(3, 3, (1,))
    later = EarlyStop(3, Engine(lambda *_: None))
    later.load_state_dict(stop.state_dict())
    assert not later.exhausted
    evaluator = Engine(lambda *_: None)
    evaluator.state.best_metric_epoch = 1
    later(evaluator)
    assert later.exhausted


def test_early_stop_takes_no_negative_number():
    with pytest.raises(SystemExit, match="early_stop is -1; it takes a number of validations, 0 for never"):
        EarlyStop(-1, Engine(lambda *_: None))
