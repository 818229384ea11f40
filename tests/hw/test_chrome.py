"""The trace file: spans tile the time, phases lie in their ops."""

import json

import pytest
import torch

import hw
from hw.chrome import chrome_trace

#: Sums of some hundred float64 spans: 2^-52 x 1000, rounded up.
SUM = 1e-12


@pytest.mark.parametrize("machine", ["ipu_bow", "a100"])
def test_spans_tile_the_time(machine):
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
    report = hw.cost(net, torch.ones(16, 64), machine=machine)
    trace = json.loads(json.dumps(chrome_trace(report)))
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    for track in (1, 2):
        clock = 0.0
        for event in (e for e in spans if e["tid"] == track):
            assert event["ts"] == pytest.approx(clock, rel=SUM, abs=SUM)
            clock += event["dur"]
        assert clock == pytest.approx(report.time_s * 1e6, rel=1e-9)
    assert [e["name"] for e in spans if e["tid"] == 1] == [op.name for op in report.ops]
    counters = [e["args"]["byte"] for e in trace["traceEvents"] if e["ph"] == "C"]
    assert counters == [op.memory_byte for op in report.ops]
