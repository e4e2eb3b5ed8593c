"""Small cohorts as other people bring them: one stream or two, one layer, one person or fifteen, sets and runs that are
missing. Everything that chapters and figures do with them is run for real, on the smoke preset."""

import json
import re
from pathlib import Path

import numpy as np

from mirage.core import root
from mirage.data.cohort import Cohort
from mirage.plotting.figures import lacking

NBS = Path(__file__).resolve().parents[1] / 'nbs'
TR, ROWS, PARCELS = 2.0, 60, 12
STREAMS = dict(text=(3, 8), audio=(4, 8), vision=(2, 8))  # stream → layers, width
SETS = dict(m1='train', m2='train', m3='val', m4='val', m5='test', m6='test_by_movie')  # movie → set
COHORTS = dict(
    plain={},
    one_stream=dict(streams=dict(text=(3, 8))),
    two_streams=dict(streams=dict(text=(3, 8), audio=(4, 8))),
    one_layer=dict(streams=dict(text=(1, 8), audio=(1, 8))),
    one_person=dict(people=1),
    fifteen_people=dict(people=15, streams=dict(text=(2, 4))),
    no_validation=dict(sets=dict(m1='train', m2='train', m3='test')),
    one_run_a_set=dict(sets=dict(m1='train', m2='val', m3='test')),
    missing_runs=dict(people=3, lost={('p2', 'm3'), ('p2', 'm4'), ('p3', 'm1'), ('p1', 'm5')}),
)


def write_own(folder, people=2, streams=STREAMS, sets=SETS, lost=(), noise=1.0, seed=0):
    "A folder of own data: what people saw five seconds ago, mixed from the streams, and noise."
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    (folder / 'bold').mkdir(parents=True)
    lines = ['subject,split,set,bold']
    mixed = {m: rng.standard_normal((shape[1], PARCELS)) for m, shape in streams.items()}
    for movie, which in sets.items():
        evoked = np.zeros((ROWS, PARCELS))
        for m, (layers, width) in streams.items():
            x = rng.standard_normal((ROWS * 4, layers, width)).cumsum(0)
            x = (x - x.mean(0)) / x.std(0)
            (folder / 'features' / m).mkdir(parents=True, exist_ok=True)
            np.save(folder / 'features' / m / f'{movie}.npy', x.astype(np.float16))
            late = x[np.maximum(np.arange(ROWS) * 4 - 10, 0), -1]
            evoked += late @ mixed[m]
        evoked /= evoked.std(0)
        for i in range(people):
            who = f'p{i + 1}'
            if (who, movie) not in lost:
                y = evoked + noise * rng.standard_normal((ROWS, PARCELS))
                np.save(folder / f'bold/{who}-{movie}.npy', y.astype(np.float32))
                lines.append(f'{who},{movie},{which},bold/{who}-{movie}.npy')
    (folder / 'runs.csv').write_text('\n'.join(lines) + '\n')
    rates = ''.join(f'  {m}: 2.0\n' for m in streams)
    (folder / 'cohort.yaml').write_text(f'tr: {TR}\nparcels: {PARCELS}\nfeatures:\n{rates}')
    return folder


def execute(notebook, **params):
    "The cells of a notebook in this process, with parameters as papermill would set them."
    space = {'display': lambda *a, **k: None, '__name__': '__main__'}
    for cell in json.loads((NBS / f'{notebook}.ipynb').read_text())['cells']:
        if cell['cell_type'] != 'code':
            continue
        exec(re.sub(r'^%.*$', '', ''.join(cell['source']), flags=re.M), space)
        if 'parameters' in cell['metadata'].get('tags', []):
            space.update(params)
    return space


def make_runs(cohort):
    "The runs that figures are drawn from."
    execute('03d_ridge', cohort=cohort, preset='smoke')
    execute('05_train', cohort=cohort, preset='smoke', workers=0)
    if not lacking('fig12_streams', Cohort.open(cohort), Cohort.open(cohort).rates):
        execute('03f_banded', cohort=cohort, preset='smoke')
    execute('07a_attribute', cohort=cohort, draws=20)
    execute('07b_depth', cohort=cohort, nodes=6)
    return root()
