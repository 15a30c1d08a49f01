"""How processes that train together find each other."""

import pytest
from scripts.training.processes import join


def test_a_process_that_torchrun_did_not_start_gets_one_line(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit, match="multi_gpu_train.json: start it with torchrun"):
        join("cpu")
