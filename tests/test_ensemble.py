"Ensembles with members that fail, halves that must not see each other, and the notebook from end to end."

import os, subprocess, sys
from pathlib import Path

import h5py, numpy as np, pandas as pd, pytest, yaml

from mirage.core import Run, finish_run, start_run, unfinished
from mirage.evaluation.ensemble import blend, choose, cross_fitted, ensemble_weights, split_sums
from mirage.evaluation.statistics import planted, slow_noise

ROOT = Path(__file__).parents[1]
LENGTHS = {'s06e01a': 70, 's06e01b': 75, 's06e02a': 72, 's06e02b': 66}


def members(folder, bold, errors, seed=0, broken=()):
    "Runs whose predictions are the BOLD plus noise; one that is broken predicts NaN in the first parcel."
    rng = np.random.default_rng(seed)
    paths = []
    for i, e in enumerate(errors):
        path = folder / f'mirage-native-s{i}' / 'predictions.h5'
        path.parent.mkdir(parents=True)
        paths.append(path)
        with h5py.File(path, 'w') as f:
            for s in bold:
                for k, y in bold[s].items():
                    x = (0.3 * y + e * slow_noise(rng, *y.shape)).astype(np.float32)
                    if i in broken:
                        x[:, 0] = np.nan
                    f[f'val/{s}/{k}'] = x
    return paths


@pytest.fixture
def bold():
    return planted(np.random.default_rng(1), LENGTHS, parcels=5)[1]


def test_weights_are_the_softmax_and_a_broken_member_gets_none(tmp_path, bold):
    paths = members(tmp_path, bold, (0.5, 1.0, 2.0), broken=(1,))
    sums = [split_sums(p, bold) for p in paths]
    blended = choose(paths, sums, LENGTHS, k=3, temperature=0.3)
    assert np.allclose(blended.member_weights.sum(0), 1)
    broken = blended.paths.index(paths[1])
    assert (blended.member_weights[broken, :, 0] == 0).all() and (blended.member_weights[broken, :, 1:] > 0).all()
    for s, i in (('sub-01', 0), ('sub-02', 1)):
        for p in range(5):

            def joined(v):
                return np.concatenate([v[k][5:-5, p] for k in sorted(LENGTHS)])

            r = [np.corrcoef(joined(h5py.File(q)[f'val/{s}']), joined(bold[s]))[0, 1] for q in blended.paths]
            e = np.exp(np.array(r) / 0.3)
            e[np.isnan(r)] = 0
            assert np.allclose(blended.member_weights[:, i, p], e / e.sum(), atol=1e-6)
    assert all(np.isfinite(x).all() for *_, x in blended.predict('val'))


def test_a_member_that_fails_only_on_the_test_set_is_named(tmp_path, bold):
    paths = members(tmp_path, bold, (0.5, 1.0))
    sums = [split_sums(p, bold) for p in paths]
    for p in paths:
        with h5py.File(p, 'a') as f:
            f['s7/sub-01/s07e01a'] = np.full((30, 5), np.nan if p == paths[1] else 1.0, np.float32)
            f.create_group('s7/sub-02')
    with pytest.raises(ValueError, match='s7 sub-01 s07e01a: .* NaN .*mirage-native-s1'):
        list(choose(paths, sums, LENGTHS, k=2).predict('s7'))


def test_one_validation_run_has_no_halves_and_the_rest_goes_on(tmp_path, bold):
    paths = members(tmp_path, bold, (0.5, 1.0))
    sums = [split_sums(p, bold) for p in paths]
    one = {s: {'s06e01a': v['s06e01a']} for s, v in bold.items()}
    odd = bold | {'sub-02': {'s06e01a': bold['sub-02']['s06e01a']}}
    assert (
        cross_fitted(paths, [split_sums(p, one) for p in paths], one, k=2) is None
        and cross_fitted(paths, sums, odd, k=2) is None
    )
    assert np.isfinite(choose(paths, [split_sums(p, one) for p in paths], one['sub-01'], k=2).r).all()


def test_a_half_is_predicted_without_having_been_seen(tmp_path, bold):
    """Whatever the BOLD of the second half is, members and weights from the first half stay the same; those from all
    splits do not."""
    paths = members(tmp_path, bold, (0.8, 0.9, 1.0, 1.1))
    first = ['s06e01a', 's06e01b']
    other = {s: dict(v) for s, v in bold.items()}
    for splits in other.values():
        splits |= {k: -y[::-1] for k, y in splits.items() if k not in first}
    a, b = [split_sums(p, bold) for p in paths], [split_sums(p, other) for p in paths]
    assert np.array_equal(choose(paths, a, first, k=2).member_weights, choose(paths, b, first, k=2).member_weights)
    assert not np.allclose(choose(paths, a, LENGTHS, k=2).r, choose(paths, b, LENGTHS, k=2).r)
    scored = cross_fitted(paths, a, bold, k=2)
    assert scored.r.shape == (2, 5) and 0.2 < scored.mean < 0.6


def test_no_weight_at_all_predicts_zero():
    w = ensemble_weights(np.full((2, 3), np.nan))
    assert (blend(w, np.full((2, 4, 3), np.nan)) == 0).all()


def ensemble_of(home, name, root):  # the finished process
    "As whoever has a cohort of their own types it."
    env = os.environ | dict(MIRAGE_ROOT=str(root), PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    env.pop('IN_TEST', None)
    asked = f'-p cohort {home} -p members mirage-native-* -p k 3 -p name {name}'.split()
    notebook = [str(ROOT / 'nbs/06c_ensemble.ipynb'), str(root / 'out.ipynb')]
    line = [sys.executable, '-m', 'papermill', '--no-progress-bar', *notebook, *asked]
    return subprocess.run(line, env=env, capture_output=True, text=True, cwd=root)


def test_the_notebook_from_runs_to_an_ensemble(tmp_path, bold):
    "A cohort of one's own, three runs of which one is broken in a parcel; then a run that has not ended."
    home = tmp_path / 'data/mine'
    home.mkdir(parents=True)
    lines = ['subject,split,set,bold']
    for s in bold:
        for k, y in bold[s].items():
            np.save(home / f'{s}_{k}.npy', y)
            lines.append(f'{s},{k},val,{s}_{k}.npy')
    (home / 'runs.csv').write_text('\n'.join(lines) + '\n')
    (home / 'cohort.yaml').write_text(yaml.safe_dump(dict(tr=2.0, parcels=5, features=dict(text=2.0))))
    for p in members(tmp_path / 'results/mine/train', bold, (0.8, 0.9, 1.0), broken=(2,)):
        finish_run(start_run(p.parent, dict(seed=0)), dict(val_r=0.0))

    done = ensemble_of(home, 'three', tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    run = Run(tmp_path / 'results/mine/ensemble/three')
    assert (
        not unfinished(run.path)
        and set(run.scores) == {'subject', 'parcel', 'set', 'r'}
        and len(run.config['members']) == 3
    )
    table = pd.read_parquet(run.path / 'members.parquet')
    assert np.allclose(table.groupby(['subject', 'parcel']).member_weight.sum(), 1)
    assert (table.query('member == "mirage-native-s2" and parcel == 1').member_weight == 0).all()
    with h5py.File(run.path / 'predictions.h5') as f:
        assert {k: v.shape for k, v in f['val/sub-01'].items()} == {k: (n, 5) for k, n in LENGTHS.items()}
    (tmp_path / 'results/mine/train/mirage-native-s1/predictions.h5').write_bytes(b'cut')
    failed = ensemble_of(home, 'again', tmp_path)
    assert (
        failed.returncode
        and 'was altered or cut short' in failed.stderr
        and not (tmp_path / 'results/mine/ensemble/again').exists()
    )
