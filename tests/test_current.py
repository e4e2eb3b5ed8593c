"""What was made from recordings, runs or features that have changed since is not used, drawn or gathered in silence;
what is refused is refused in one line."""

import os
import subprocess
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

import mirage.training.crossvalidate as crossvalidate
from mirage.core import check_name, get_preset, plain_name, run_path
from mirage.data.cohort import Cohort
from mirage.evaluation.sanity import Pairs, find_delay, shuffle_runs
from mirage.evaluation.statistics import resample
from mirage.features.store import ChangedInUse, inputs_of, open_features
from mirage.plotting.figures import COLUMN, DRAWN_FROM, figure_folder, input_run, new_figure, save_figure
from mirage.plotting.overview import set_aside_items, write_overview
from mirage.plotting.results import publish, verify, write_results
from mirage.processes import InUse, hold, temporary
from mirage.training.runs import open_current
from owncohorts import execute
from test_inputs import Study

NAME = 'mirage-e1-native-s0'


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    monkeypatch.setenv('IN_TEST', '1')
    torch.set_num_threads(1)
    study = Study(tmp_path / 'mydata')
    study.train(epochs=1)
    return study


STALE = {
    '06b_evaluate': dict(runs=f'train/{NAME}, train/{NAME}', draws=20),
    '06c_ensemble': dict(members=f' {NAME} ', k=1),
    '07a_attribute': dict(run=NAME, probes=False, draws=20),
    '07b_depth': dict(run=NAME),
    '09c_card': dict(run=NAME, licence='mit'),
}


@pytest.mark.filterwarnings('ignore')
def test_no_stage_goes_on_with_a_training_on_recordings_that_were_replaced_since(study):
    study.bold('p1')
    for chapter, given in STALE.items():
        with pytest.raises(ValueError, match='inputs than are there now: bold.p1/a.npy'):
            execute(chapter, cohort=str(study.folder), **given)


@pytest.mark.filterwarnings('ignore')
def test_a_run_of_runs_is_not_used_after_one_of_them_was_made_again(study):
    cohort = str(study.folder)
    execute('06b_evaluate', cohort=cohort, runs=f' train/{NAME} ', draws=20)
    assert open_current(cohort, f'evaluate/{NAME}')
    study.train(epochs=1, name=NAME, seed=3, overwrite=True)
    with pytest.raises(ValueError, match=f'was made of another train/{NAME} than the one that is there now'):
        open_current(cohort, f'evaluate/{NAME}')


@pytest.mark.filterwarnings('ignore')
def test_folds_of_recordings_before_and_after_a_change_are_not_gathered(study, monkeypatch):
    plain = crossvalidate.train

    def train(*given, fold, **how):
        run = plain(*given, fold=fold, **how)
        if fold == 1:
            study.bold('p1')
        return run

    how = dict(preset='smoke', epochs=1, members=1, name='all', workers=0)
    with monkeypatch.context() as m:
        m.setattr(crossvalidate, 'train', train)
        with pytest.raises(ChangedInUse, match='bold.p1/a.npy.*changed while other folds were trained'):
            crossvalidate.cross_validate(str(study.folder), 3, **how)
    assert not run_path(str(study.folder), 'ensemble', 'all').exists()
    run = crossvalidate.cross_validate(str(study.folder), 3, **how)  # the same command begins fold 1 again
    assert run.config['inputs']['bold'] == inputs_of(Cohort.open(str(study.folder)))['bold']


def draw(cohort, item='fig3_bars', **how):  # as a figure's notebook does
    fig = new_figure(COLUMN, 1.0)
    fig.add_axes((0.2, 0.3, 0.7, 0.5)).plot([0, 1], [0, 1])
    numbers = pd.DataFrame(dict(x=[0, 1]))
    save_figure(
        fig,
        item,
        str(cohort.root),
        numbers,
        title='Bars',
        caption='Bars.',
        shown=cohort,
        params=dict(cohort='c'),
        **how,
    )


CHANGES = {
    f'train/{NAME} was made again': lambda study: study.train(epochs=1, name=NAME, seed=3, overwrite=True),
    'bold.p2/a.npy': lambda study: study.bold('p2'),
    'features.text.a': lambda study: study.features(),
    'tr: 1.49 → 2.5': lambda study: study.about(tr=2.5),
}


@pytest.mark.filterwarnings('ignore')
def test_no_page_shows_an_item_that_was_drawn_from_other_recordings_features_or_runs(study, capsys):
    name, how = str(study.folder), dict(preset=asdict(get_preset('smoke')), fusion='native')
    for says, change in CHANGES.items():
        study.train(epochs=1, name=NAME, overwrite=True)
        cohort = Cohort.open(name)
        input_run(name, 'train', NAME)
        draw(cohort, read=how | dict(inputs=inputs_of(cohort, open_features(cohort, get_preset('smoke')))))
        assert write_overview(name).is_file() and not set_aside_items(name, ['fig3_bars']) and not DRAWN_FROM
        change(study)
        for page in (write_overview, write_results, publish):
            with pytest.raises(ValueError, match=f'fig3_bars was drawn from something else.*{says}'):
                page(name)
        assert set_aside_items(name, ['fig3_bars'], dry=True) == set_aside_items(name, ['fig3_bars']) == ['fig3_bars']
        assert says in capsys.readouterr().err and not set_aside_items(name, ['fig3_bars'])


def test_too_few_draws_shuffles_or_shifts_for_an_interval_are_refused(study):
    x = {'p1': {'a': np.random.default_rng(0).normal(size=(80, 3))}}
    for draws in (0, 1):
        with pytest.raises(ValueError, match=f'draws is {draws}, expected a whole number from 2'):
            resample(x, x, dict(a='a'), draws=draws)
    cohort = Cohort.open(str(study.folder))
    pairs = Pairs(cohort, open_features(cohort, get_preset('smoke')))
    for wrong in (0, 1):
        with pytest.raises(ValueError, match='shuffles is'):
            shuffle_runs(pairs, wrong)
    for reach, step in ((0.5, 1.0), (8.0, 1e-6), (1e6, 1.0), (-8.0, 1.0)):
        with pytest.raises(ValueError, match='seconds, is'):
            find_delay(pairs, reach, step)


@pytest.mark.parametrize('wrong', [None, 3, b'mine', ['mine'], 'x' * 5000, 'a/' + 300 * 'é', ''])
def test_what_can_be_no_cohort_is_refused_in_a_sentence(wrong):
    with pytest.raises(ValueError, match='a cohort (is|needs)'):
        Cohort.open(wrong)


@pytest.mark.parametrize('wrong', [3, None, [], [3]])
def test_what_can_be_no_subjects_is_refused_in_a_sentence(study, wrong):
    with pytest.raises(ValueError, match='subject'):
        Cohort.open(str(study.folder), subjects=wrong)


def test_names_that_only_look_like_others_are_refused():
    for wrong in ('p\u0430ypal', 'sub-\uff10\uff11', '\ufb01le', 'x\u00aa', '\u0391lpha'):
        with pytest.raises(ValueError, match='looks like another name'):
            check_name('subject', wrong)
        assert check_name('movie', plain_name(wrong))
    for fine in ('Łukasz', 'sub-01', 'фильм', 'κόσμος', '映画', 'naïve'):
        assert check_name('subject', fine) == fine


SHOWN = {
    "import mirage.core\nmirage.core.check_name('run', '../x')": "ValueError: run is '../x'. Use letters",
    "raise FileNotFoundError('there is no such run')": 'FileNotFoundError: there is no such run',
}
WHOLE = ("int('banana')", '{}[3]', "assert False, 'x'", "import json\njson.loads('{')", 'None + 1')


def test_a_notebook_shows_what_is_refused_in_one_line_and_the_faults_of_others_whole(monkeypatch):
    shell, shown = InteractiveShell(), []
    monkeypatch.setattr('IPython.get_ipython', lambda: shell)
    monkeypatch.setattr(shell, '_showtraceback', lambda kind, error, lines: shown.append(lines))
    shell.run_cell('from mirage.core import check_parameters\ncheck_parameters(globals())')
    for source, line in SHOWN.items():
        assert shell.run_cell(source).error_in_exec is not None
        assert len(shown[-1]) == 1 and shown[-1][0].startswith(line), shown[-1]
        shell.run_line_magic('tb', '')
        assert len(shown[-1]) > 1  # its frames
    for source in WHOLE:
        assert shell.run_cell(source).error_in_exec is not None
        assert len(shown[-1]) > 2, shown[-1]  # its frames


def test_two_pages_of_one_folder_are_not_made_at_once(study):
    folder = run_path(str(study.folder), 'notebooks', 'mine')
    with hold(folder / '.lock', 'the page of mydata'):
        with pytest.raises(InUse, match=f'in use by process {os.getpid()}'):
            execute('09d_mine', cohort=str(study.folder), preset='smoke', folds=3)


@pytest.mark.filterwarnings('ignore')
def test_what_a_killed_drawing_left_is_no_item_and_goes_with_the_next_one(study):
    cohort, name = Cohort.open(str(study.folder)), str(study.folder)
    draw(cohort)
    ended = subprocess.Popen(['true'])
    ended.wait()
    for end in ('json', 'csv', 'png'):
        for folder in (figure_folder(name), study.folder / 'kept'):
            folder.mkdir(exist_ok=True)
            left = temporary(folder / f'fig3_bars.{end}')
            left.with_name(left.name.replace(f'.{os.getpid()}-', f'.{ended.pid}-')).write_text('half')
    assert write_overview(name).read_text().count('<section') == 1
    publish(name, study.folder / 'kept')
    assert verify(name, study.folder / 'kept').verdict.tolist() == ['the same']
    draw(cohort)
    assert not [p.name for p in figure_folder(name).iterdir() if '.tmp' in p.name]
