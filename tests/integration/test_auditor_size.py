"""Ten thousand symbols: what their coverage costs the auditor. `benchmarks/auditor.py` shows what it costs in CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Measured in a process of its own, because a test session's peak memory says nothing about the auditor's. The events
# are made one by one, as they would arrive.
MEASURED = """
import asyncio, resource, sys
from pathlib import Path
from services.auditor.handlers import runs
from shared import events as e
from tests.integration.auditor_house import House, decisions, failure

house = House(Path(sys.argv[1]))
symbols = [f"PSE:S{number:05}" for number in range(10_000)]
batches = [symbols[start : start + 50] for start in range(0, len(symbols), 50)]
toxic = e.Rejected(stage="validation", failure=failure("toxic", "the close moved by 900 %"))
answers = []
loop = asyncio.new_event_loop()

def give(events, opening=False):
    made = runs.open_(events[0], desk=house.desk) if opening else runs.note(events, desk=house.desk)
    answers.extend(loop.run_until_complete(made))

idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
candidates = [{"symbol": symbol, "metadata": {"close": 1.5}} for symbol in symbols]
give([house.event(e.RunCandidates(candidates=candidates, run_id="r1"))], opening=True)
for start in range(0, len(symbols), 64):
    give([
        house.event(e.SymbolMetadata(run_id="r1", symbol=symbol, observed_at=house.now, record={"currency": "PHP"}))
        for symbol in symbols[start : start + 64]
    ])
for number, batch in enumerate(batches):
    give([house.catalogued(*batch, version=number + 1), house.attempted(batch=number, fetched=50)])
    give([house.hydrated(*batch, batch=number)])
    give([house.rated(*batch[1:], batch=number, rejected={batch[0]: toxic})])
assert decisions(answers)[0].reason == "9,800 of 10,000 covered: 200 candidates have a gap"
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024)
"""


def test_ten_thousand_symbols_cost_at_most_two_hundred_megabytes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "data")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 200
