"""Two processes train every family alike."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import json, os, sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import families

class Loss(torch.nn.Module):
    def __init__(self, generator):
        super().__init__()
        self.generator = generator
        self.clock = torch.nn.Parameter(torch.zeros(()))  # as the task has for families without parameters

    def forward(self, layout, conditions):
        return self.generator.loss(layout, conditions)["loss"] + 0 * self.clock

dist.init_process_group("gloo")
rank, problems = dist.get_rank(), {}
for name in families.EVERY:
    model = families.make(name).train()
    wrapped = DistributedDataParallel(Loss(model))
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=1e-3)
    torch.manual_seed(rank)
    try:
        for step in range(2):
            optimizer.zero_grad()
            conditions = families.some_conditions(4, model.spec, seed=10 * step + rank)
            wrapped(torch.rand(4, *model.spec.shape), conditions).backward()
            optimizer.step()
        flat = torch.cat([p.detach().flatten() for p in model.parameters()] or [torch.zeros(1)])
        both = [torch.empty_like(flat) for _ in range(2)]
        dist.all_gather(both, flat)
        if not torch.allclose(both[0], both[1], atol=1e-6):
            problems[name] = "the processes have come apart"
    except Exception as error:
        problems[name] = f"{type(error).__name__}: {error}"
if rank == 0:
    print(json.dumps(problems))
"""


@pytest.mark.slow
def test_two_processes_take_the_same_steps_in_every_family():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).resolve().parent
    shared = {
        **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent / "src")]),
    }  # fmt: skip
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=240) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], outputs[0][1][-3000:] + outputs[1][1][-3000:]
    assert json.loads(outputs[0][0].splitlines()[-1]) == {}
