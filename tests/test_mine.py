"""From a folder to a page: what is odd about it is said, what will be done is told before, and every step of the plan
runs on cohorts of every shape."""

import warnings
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mirage.data.cohort import Cohort
from mirage.features.store import ready_features, untrained_models
from mirage.prediction.mine import (
    ask_for_brains,
    check_enough,
    choose_folds,
    cut_runs,
    look_over,
    plan_chapters,
    run_names,
)
from owncohorts import COHORTS, execute, write_own


def opened(tmp_path, monkeypatch, name='plain', **how):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    monkeypatch.setenv('IN_TEST', '1')
    write_own(tmp_path / 'data/own', **(COHORTS[name] | how))
    return Cohort.open('own')


def layers_of(cohort):
    return {m: L for m, (L, _) in ready_features(cohort).streams.items()}


def test_what_is_odd_about_a_folder_is_said(tmp_path, monkeypatch):
    cohort = opened(tmp_path, monkeypatch, streams=dict(text=(1, 3), audio=(1, 8)), lost={('p2', 'm1')})
    folder = tmp_path / 'data/own'
    loud = np.load(folder / 'features/audio/m1.npy')
    loud[..., 2] = 5
    for movie in ('m1', 'm2', 'm3', 'm4'):
        np.save(folder / f'features/audio/{movie}.npy', (loud * 400).astype(np.float16))
    runs = (folder / 'runs.csv').read_text()
    (folder / 'runs.csv').write_text(runs.replace('bold/p2-m2.npy', 'bold/p1-m2.npy'))
    cohort = Cohort.open('own')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        table, notes = look_over(cohort, ready_features(cohort))
    notes = '\n'.join(notes)
    assert len(table) == 6
    for sentence in (
        'p2 has 5 of 6 runs: without m1',
        'p1-m2.npy is the recording of 2 runs',
        'text: 3 columns are not divisible by the 4 heads',
        'text: 3 columns: each layer is normalised',
        'audio: 1 of 8 columns never change in m1, m2, m3, m4',
        'times as much as text',
    ):
        assert sentence in notes, notes


def test_a_folder_in_order_is_not_called_odd(tmp_path, monkeypatch):
    cohort = opened(tmp_path, monkeypatch)
    assert look_over(cohort, ready_features(cohort))[1] == []


def test_features_of_a_random_network_are_called_that_where_the_people_are_real():
    real, simulated = (SimpleNamespace(name='mine', simulated=s, rates={}) for s in (False, True))
    assert 'a tiny random network' in untrained_models(real, 'tiny-qwen3-omni-thinking')
    assert not untrained_models(simulated, 'tiny-qwen3-omni-thinking')
    assert not untrained_models(real, 'qwen3-omni-thinking') and not untrained_models(real, 'text=models/mine')
    came = SimpleNamespace(name='mine', simulated=False, rates=dict(text=2.0))  # with features, which are read instead
    assert not untrained_models(came, 'tiny-qwen3-omni-thinking')


def test_few_movies_are_left_out_one_by_one_and_two_not_at_all(tmp_path, monkeypatch):
    assert choose_folds(opened(tmp_path / 'a', monkeypatch)) == 'runs'
    assert choose_folds(opened(tmp_path / 'b', monkeypatch, sets=dict(m1='train', m2='val'))) is None
    many = {f'm{k}': 'train' for k in range(12)}
    assert choose_folds(opened(tmp_path / 'c', monkeypatch, sets=many)) == '5'
    assert choose_folds(None, 'none') is None
    plain = opened(tmp_path / 'd', monkeypatch)
    assert choose_folds(plain, '3') == '3'
    for wrong in ('banana', '1', '-3', '99', '2.5'):
        with pytest.raises(ValueError, match='folds'):
            choose_folds(plain, wrong)


def one_run(folder, monkeypatch, onset):
    "A cohort of one run, whose BOLD begins at some second of the movie."
    cohort = opened(folder, monkeypatch, sets=dict(m1='train'), streams=dict(text=(2, 4)))
    table = (folder / 'data/own/runs.csv').read_text().splitlines()
    lines = [f'{table[0]},onset', *(f'{line},{onset}' for line in table[1:])]
    (folder / 'data/own/runs.csv').write_text('\n'.join(lines) + '\n')
    return Cohort.open('own') if cohort else None


def test_one_long_run_is_refused_with_a_way_out_and_cut_into_parts_that_keep_their_time(tmp_path, monkeypatch, capsys):
    cohort = one_run(tmp_path, monkeypatch, onset=-4.0)
    ready = ready_features(cohort)
    assert choose_folds(cohort, 'auto', ready) is None
    with pytest.raises(ValueError, match=r'BOLD of 1 movie and none of the set val.*-p cut 2'):
        check_enough(cohort, None)
    before = sorted(path.read_bytes() for path in (tmp_path / 'data/own').rglob('*.*'))
    folder = cut_runs(cohort, ready, 2 / 3)
    assert 'no run is of the set val, so the last part, m1-part3, is taken for it' in capsys.readouterr().out
    assert before == sorted(path.read_bytes() for path in (tmp_path / 'data/own').rglob('*.*'))
    parts = Cohort.open(folder)
    cut = ready_features(parts)
    assert choose_folds(parts, 'auto', cut) == 'runs' and parts.runs.n_tr.sum() == cohort.runs.n_tr.sum()
    assert list(parts.splits.split) == ['m1-part1', 'm1-part2', 'm1-part3'] and parts.splits['set'].iloc[-1] == 'val'
    whole = cohort.rows(next(cohort.runs.itertuples(index=False)))
    for k, row in enumerate(parts.runs[parts.runs.subject == 'p1'].itertuples(index=False)):
        assert np.allclose(parts.rows(row), whole[20 * k : 20 * (k + 1)], atol=1e-4)
        for i in (3, 19):  # what was shown at a sample is the same as in the whole run
            first, second = round((row.onset + i * 2.0) * 2), round((-4.0 + (20 * k + i) * 2.0) * 2)
            theirs = cut.read('text', row.split, first, first + 1)
            assert np.array_equal(theirs, ready.read('text', 'm1', second, second + 1)), (k, i)
    again = folder.stat().st_mtime_ns
    assert cut_runs(cohort, ready, 2 / 3) == folder and folder.stat().st_mtime_ns == again
    (folder / 'parts.txt').unlink()
    with pytest.raises(FileExistsError, match='rename or remove it'):
        cut_runs(cohort, ready, 2 / 3)


def test_parts_of_one_movie_are_left_out_one_by_one_though_their_features_are_the_same(tmp_path, monkeypatch):
    opened(tmp_path, monkeypatch)
    folder = tmp_path / 'data/own'
    lines = ['subject,split,set,bold,onset']
    for k in range(1, 5):
        for stream in ('text', 'audio', 'vision'):
            np.save(folder / f'features/{stream}/m{k}.npy', np.load(folder / f'features/{stream}/m1.npy'))
        lines += [f'{who},m{k},train,bold/{who}-m{k}.npy,{20 + 120 * k}' for who in ('p1', 'p2')]
    (folder / 'runs.csv').write_text('\n'.join(lines) + '\n')
    cohort = Cohort.open('own')
    assert choose_folds(cohort, 'auto', ready_features(cohort)) == 'runs'
    (folder / 'runs.csv').write_text('\n'.join(line.rpartition(',')[0] for line in lines) + '\n')
    cohort = Cohort.open('own')
    assert choose_folds(cohort, 'auto', ready_features(cohort)) is None  # the same moments, four times


def test_the_plan_says_what_is_not_drawn_and_why(tmp_path, monkeypatch):
    cohort = opened(tmp_path, monkeypatch, 'one_layer')
    jobs, not_drawn = plan_chapters(cohort, layers_of(cohort), 'runs')
    notebooks = [job.notebook for job in jobs]
    assert 'one layer' in not_drawn['fig9_depth'] and '07b_depth' not in notebooks
    assert not {f'figures/{item}' for item in not_drawn} & set(notebooks)
    assert notebooks[0] == '03d_ridge' and notebooks[-2:] == ['08d_overview', '08e_results']
    assert 'text-minilm' in run_names('text=models/minilm').cross_mirage


@pytest.mark.parametrize(
    'name', ['one_stream', *(pytest.param(n, marks=pytest.mark.long) for n in COHORTS if n != 'one_stream')]
)
def test_every_step_of_the_plan_runs_to_a_page(tmp_path, monkeypatch, name):
    cohort = opened(tmp_path, monkeypatch, name)
    jobs, not_drawn = plan_chapters(cohort, layers_of(cohort), choose_folds(cohort))
    for job in jobs:
        if job.kind == 'page':
            monkeypatch.delenv('IN_TEST', raising=False)  # else pages show one table
        execute(job.notebook, cohort='own', **job.parameters)
        plt.close('all')
    figures = tmp_path / 'results/own/figures'
    page, readme = (figures / 'index.html').read_text(), (figures / 'README.md').read_text()
    people = {'one_person': '1 person', 'fifteen_people': '15 people', 'missing_runs': '3 people'}.get(name, '2 people')
    assert 'Traceback' not in page and f'Real BOLD: own, {people}' in readme and f'Real BOLD: own, {people}' in page
    assert '## Not drawn' in readme and 'was not trained on this cohort' not in readme and 'season 7' not in readme
    drawn = {path.stem for path in figures.glob('*.png')}
    assert 'table1_scores' in drawn and 'sanity' in drawn and not drawn & set(not_drawn)


def test_without_the_data_and_a_terminal_make_brains_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr('sys.stdin', open('/dev/null'))
    with pytest.raises(FileNotFoundError, match=r'165 files .* MB.*make data GROUP=studyforrest ACTION=fetch'):
        ask_for_brains(tmp_path)
