"""A small fixed run gives the numbers that it gave: features of a tiny random model, losses, validation r. Another kind
of processor moves the last bits; whoever upgrades a library sees here what it moves, and `python tests/test_golden.py`
writes the new numbers."""

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mirage.core import hardware, provenance
from mirage.data.release import stimulus_paths
from mirage.data.simulate import make_stimulus
from mirage.features.extract import extract_splits
from test_extract import CONTEXTS, NAME
from test_inputs import Study

GOLDEN = Path(__file__).with_name('golden.json')
MAY_MOVE = 0.001  # of a number; AVX2 or plain code instead of AVX-512 moved them by six millionths


def measured(folder):  # name → number
    "What a simulated movie, its features and a short training give."
    torch.set_num_threads(1)
    make_stimulus(folder / 'cohort', 's01e01a', 's01', n_tr=4, seed=0)
    row = ('s01e01a', *stimulus_paths(folder / 'cohort', 's01e01a'))
    movie = pd.DataFrame([row], columns=['split', 'video', 'transcript'])
    store = extract_splits(movie, folder / 'store', NAME, fusion='native', protocol='aligned', contexts=CONTEXTS)
    found = {}
    for stream, (layers, _) in store.streams.items():
        states = store.read(stream, 's01e01a', 0, store.steps('s01e01a')).astype(np.float64)
        for layer in (0, layers - 1):
            found[f'{stream}, layer {layer}: deviation'] = float(states[:, layer].std())
        found[f'{stream}: from step to step'] = float(np.abs(np.diff(states, axis=0)).mean())
    run = Study(folder / 'mydata').train(epochs=3)
    history = pd.read_csv(run.path / 'history.csv')
    found |= {
        f'training: {k} of epoch {e}': float(v) for k in ('loss', 'grad_norm') for e, v in enumerate(history[k], 1)
    }
    by_parcel = run.scores.r.to_numpy()
    return found | {'training: mean r': run.metrics['val_r'], 'training: deviation of r': float(by_parcel.std())}


@pytest.mark.filterwarnings('ignore')
def test_a_small_fixed_run_gives_the_numbers_that_it_gave(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    golden, found = json.loads(GOLDEN.read_text()), measured(tmp_path)
    assert set(found) == set(golden['numbers'])
    was = {k: golden['numbers'][k] for k in found}
    moved = [
        f'{k}: {was[k]:.6g} → {v:.6g}' for k, v in found.items() if abs(v - was[k]) > MAY_MOVE * max(abs(was[k]), 0.1)
    ]
    now = provenance()['versions']
    versions = [f'{k}: {v} → {now.get(k)}' for k, v in golden['versions'].items() if now.get(k) != v]
    about = f'made on {golden["hardware"]}, here {hardware()}; versions that differ: {versions or "none"}'
    assert not moved, '\n'.join([*moved, about])


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as d, warnings.catch_warnings(action='ignore'):
        os.environ['MIRAGE_ROOT'] = d
        numbers = measured(Path(d))
    written = dict(numbers=numbers, hardware=hardware(), versions=provenance()['versions'])
    GOLDEN.write_text(json.dumps(written, indent=1) + '\n')
    sys.exit()
