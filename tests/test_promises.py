"""What a stage promises when it is killed, stopped, out of room or started twice, and what is noticed of a file that
was cut, flipped, foreign, emptied or changed. Chapter 00b makes its tables of the marks."""

import io
import json
import os
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

import mirage.core
import mirage.prediction.predict
from mirage.core import Contexts, atomic, open_run, run_path, seal, unfinished, write_sealed
from mirage.data.cohort import Cohort, open_truth
from mirage.data.release import stimulus_paths
from mirage.data.simulate import make_stimulus
from mirage.data.stimuli import movie_source
from mirage.evaluation.submission import read_submission, write_submission
from mirage.features.extract import extract_splits
from mirage.features.store import Store
from mirage.models.model import Mirage, ModelConfig
from mirage.plotting.figures import COLUMN, figure_folder, new_figure, save_figure
from mirage.plotting.overview import read_account, write_overview
from mirage.plotting.results import publish
from mirage.prediction.predict import compute, make, prepare
from mirage.prediction.recipe import Recipe, check_shared
from mirage.training.crossvalidate import cross_validate
from mirage.training.train import load_state, train
from hazards import Training, begun
from test_extract import CONTEXTS, NAME
from test_inputs import Study
from test_manifest import check_files, get, mirror, toy
from toycohorts import EverySet

NBS = Path(mirage.core.__file__).resolve().parents[1] / 'nbs'
TRAINED = 'mirage-e2-native-s0'
HAZARDS = 'kill', 'signal', 'full disk', 'two at once'
FAULTS = 'cut', 'flipped', 'foreign', 'emptied', 'changed'
_ = mirror, toy  # fixtures


# ---- stages


def ended(child, note):  # exit status, what it said
    child.join(300)
    assert child.exitcode is not None, 'it hangs'
    return child.exitcode, note.read_text() if note.is_file() else ''


def keeps_its_promises(act, folder, hazards=HAZARDS, times=(1, 2, 4)):
    """`act` makes what lies in a folder: whatever happens to it, the same call makes the same afterwards, and nothing
    is left over; of two at once each ends well or is refused by name."""
    note = folder.with_name('.said')
    assert ended(begun(act, note), note) == (0, '')
    whole = results(folder)
    assert whole
    for hazard in [h for h in hazards if h != 'two at once']:
        for at in times:
            shutil.rmtree(folder)
            code, printed = ended(begun(act, note, hazard, at), note)
            if code == 0:
                assert at > 1, 'nothing happened'
                continue
            assert code == (3 if printed else -signal.SIGKILL), (hazard, printed)
            if hazard == 'full disk':
                assert 'the disk is full: ' in printed and 'same command again' in printed, printed
            assert not (folder / 'provenance.json').is_file()
            assert ended(begun(act, note), note) == (0, ''), (hazard, at)
            assert results(folder) == whole, (hazard, at)
    if 'two at once' in hazards:
        shutil.rmtree(folder)
        notes = [note.with_name(f'.said{k}') for k in (0, 1)]
        children = [begun(act, n) for n in notes]
        both = list(map(ended, children, notes))
        assert any(code == 0 for code, _ in both), both
        assert all(code == 0 or re.search('in use by process|by another process', printed) for code, printed in both), (
            both
        )
        assert results(folder) == whole


def results(folder):
    "Every file of a folder, without times; a run must count."
    if (folder / 'config.yaml').is_file():
        assert not unfinished(folder), unfinished(folder)
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}
    left = [name for name in found if '.tmp' in name or name.endswith('.lock')]
    assert not left, left
    metrics = json.loads(found.pop('metrics.json', b'{}'))
    metrics = {k: v for k, v in metrics.items() if k not in ('seconds', 'cost')}
    timed = ('provenance.json', 'history.csv')
    return {k: v for k, v in found.items() if k not in timed} | {'metrics.json': json.dumps(metrics)}


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    "A study of one's own with a training run and a ridge."
    folder = tmp_path_factory.mktemp('root')
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as m:
        m.setenv('MIRAGE_ROOT', str(folder))
        m.setenv('IN_TEST', '1')
        study = Study(folder / 'mydata')
        assert study.train(epochs=2).path.name == TRAINED
        yield study


def before_writing(name, /, begins='start_run(', ends='finish_run(', instead=None, **parameters):
    "A chapter up to the cell that begins its run; what is left to do, perhaps with other functions instead of its own."
    source = json.loads((NBS / f'{name}.ipynb').read_text())['cells']
    cells = [c for c in source if c['cell_type'] == 'code']
    texts = [re.sub(r'^%.*$', '', ''.join(c['source']), flags=re.M) for c in cells]
    last = max(i for i, text in enumerate(texts) if begins in text and 'import' not in text)
    space = {'display': lambda *a: None, '__name__': '__main__'}
    for cell, text in zip(cells[:last], texts):
        exec(compile(text, f'{name}.ipynb', 'exec'), space)
        if 'parameters' in cell['metadata'].get('tags', []):
            space.update(parameters)
    end = max(i for i, text in enumerate(texts) if ends in text and 'import' not in text)
    rest = [compile(text, f'{name}.ipynb', 'exec') for text in texts[last : end + 1]]
    space |= instead or {}
    return lambda: [exec(code, space) for code in rest]


CHAPTERS = {
    'ridge': ('03d_ridge', 'linear-native', dict(preset='smoke', overwrite=True)),
    'evaluate': ('06b_evaluate', TRAINED, dict(runs=f'train/{TRAINED}', draws=20)),
    'ensemble': ('06c_ensemble', 'mine', dict(preset='smoke', members=TRAINED, k=1, name='mine')),
    'attribute': ('07a_attribute', TRAINED, dict(run=TRAINED, draws=20, probes=False)),
    'depth': ('07b_depth', TRAINED, dict(run=TRAINED, nodes=24)),
}


@pytest.mark.promise(('ridge', 'evaluate', 'ensemble', 'attribute', 'depth'), HAZARDS)
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('stage', CHAPTERS)
def test_a_stage_that_is_killed_stopped_out_of_room_or_started_twice_ends_as_if_nothing_had_happened(study, stage):
    chapter, name, parameters = CHAPTERS[stage]
    act = before_writing(chapter, cohort=str(study.folder), **parameters)
    keeps_its_promises(act, run_path(str(study.folder), stage, name))


@pytest.mark.promise('train', HAZARDS)
@pytest.mark.filterwarnings('ignore')
def test_a_training_that_is_killed_stopped_out_of_room_or_started_twice_has_the_same_bits(study):
    how = dict(cohort=str(study.folder), preset='smoke', epochs=2, seed=7, save_every=1)
    act = Training(train, os.environ['MIRAGE_ROOT'], how)
    keeps_its_promises(act, run_path(str(study.folder), 'train', 'mirage-e2-native-s7'), times=(1, 4, 6))


@pytest.mark.long
@pytest.mark.promise('cross-validation', HAZARDS)
@pytest.mark.filterwarnings('ignore')
def test_folds_that_are_gathered_are_there_whole_or_not_at_all(study):
    how = dict(cohort=str(study.folder), folds=3, preset='smoke', epochs=1, members=1, name='folds', workers=0)
    act = Training(cross_validate, os.environ['MIRAGE_ROOT'], how)
    keeps_its_promises(act, run_path(str(study.folder), 'ensemble', 'folds'))


@pytest.mark.promise('figure', HAZARDS)
@pytest.mark.filterwarnings('ignore')
def test_a_figure_is_there_with_its_account_or_has_none(study, monkeypatch):
    monkeypatch.setattr('mirage.plotting.figures.display', lambda *a: None)
    given = dict(begins='save_figure(', ends='save_figure(', cohort=str(study.folder), preset='smoke')
    act, folder = before_writing('figures/sanity', **given), figure_folder(str(study.folder))
    act()
    names = {p.name for p in folder.iterdir()}
    assert names == {f'sanity.{end}' for end in ('json', 'png', 'pdf', 'csv')}
    keeps_its_promises(act, folder)


def draw_toy(root):  # whose data it shows
    "One figure of nobody's."
    people = SimpleNamespace(name='toy', root=root, simulated=True, subjects=('a', 'b'), atlas=None)
    numbers = pd.DataFrame(dict(x=range(9), y=range(9)))
    save_figure(
        new_figure(COLUMN, 1.0),
        'fig1_bars',
        'toy',
        numbers,
        title='Bars',
        caption='Bars.',
        shown=people,
        params=dict(cohort='toy'),
    )
    return people


@pytest.mark.promise('page', HAZARDS)
@pytest.mark.filterwarnings('ignore')
def test_a_page_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    monkeypatch.setattr('mirage.plotting.figures.display', lambda *a: None)
    made = dict(time='now', commit='c', dirty=False, python='3', platform='here', versions={})
    monkeypatch.setattr('mirage.plotting.overview.provenance', lambda: made)
    people = draw_toy(tmp_path)

    def act():
        write_overview('toy', page=tmp_path / 'page' / 'index.html')
        publish('toy', tmp_path / 'page', people)

    keeps_its_promises(act, tmp_path / 'page')


@pytest.mark.promise('submit', HAZARDS)
@pytest.mark.filterwarnings('ignore')
def test_a_submission_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    toy = EverySet(tmp_path / 'data/toy', parcels=1000)
    toy.write_run('train', 'mirage-native-s0')
    monkeypatch.setattr(Cohort, 'open', lambda *a, **k: toy)
    monkeypatch.setattr('mirage.training.runs.why_not', lambda *a, **k: '')  # a toy cohort has no files
    keeps_its_promises(
        before_writing('06d_submission', cohort='toy'), run_path('toy', 'submission', 'mirage-native-s0'), times=(1, 4)
    )


@pytest.mark.promise('share', HAZARDS)
@pytest.mark.filterwarnings('ignore')
def test_a_shared_model_and_its_card_are_there_whole_or_not_at_all(tmp_path, monkeypatch):
    from test_predict import write_scored

    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    shutil.copy(NBS.parent / 'data_manifest.yaml', tmp_path)
    write_scored()
    act = before_writing('09c_card', cohort='embedded')
    keeps_its_promises(act, run_path('embedded', 'hub', 'mirage-native-s0'), times=(1, 3, 7))


@pytest.mark.promise('from a folder to a page', HAZARDS)
@pytest.mark.filterwarnings('ignore')
def test_all_chapters_for_a_folder_end_as_if_nothing_had_happened(study):
    """Each chapter is a process of its own and keeps the promises of its stage; here it writes what it was asked for,
    and the chapter that asks them is stopped between."""

    def chapter(job, cohort, where, overwrite=False):
        with atomic(where / f'{len(list(where.glob("*.ipynb"))):02d}.ipynb') as tmp:
            tmp.write_text(job.notebook)

    instead = dict(run_chapter=chapter, in_test=lambda: False)
    given = dict(begins='with hold(', ends='with hold(', cohort=str(study.folder), preset='smoke', folds=3)
    act = before_writing('09d_mine', instead=instead, **given)
    keeps_its_promises(act, run_path(str(study.folder), 'notebooks', 'mine'))


@pytest.mark.promise('simulate', HAZARDS)
@pytest.mark.filterwarnings('ignore')
def test_a_simulated_movie_is_there_whole_or_not_at_all(tmp_path):
    def act():
        make_stimulus(tmp_path / 'cohort', 's01e01a', 's01', n_tr=4, seed=0)

    keeps_its_promises(act, tmp_path / 'cohort', times=(1, 2))


@pytest.mark.long
@pytest.mark.promise('extract', HAZARDS)
@pytest.mark.filterwarnings('ignore')
def test_an_extraction_that_is_killed_stopped_out_of_room_or_started_twice_makes_the_same_store(tmp_path):
    make_stimulus(tmp_path / 'cohort', 's01e01a', 's01', n_tr=4, seed=0)
    video, transcript = stimulus_paths(tmp_path / 'cohort', 's01e01a')
    movie = pd.DataFrame([('s01e01a', video, transcript)], columns=['split', 'video', 'transcript'])

    def act():
        extract_splits(
            movie, tmp_path / 'store', NAME, fusion='native', protocol='aligned', contexts=CONTEXTS, workers=1
        )

    keeps_its_promises(act, tmp_path / 'store', times=(2, 3))


@pytest.mark.long
@pytest.mark.promise('predict', HAZARDS)
@pytest.mark.filterwarnings('ignore')
def test_a_prediction_that_is_killed_stopped_out_of_room_or_started_twice_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    make_stimulus(tmp_path / 'cohort', 's01e01a', 's01', n_tr=8, seed=0)
    shared_model(tmp_path / 'model', parcels=1000)
    job = prepare(*stimulus_paths(tmp_path / 'cohort', 's01e01a'), weights=tmp_path / 'model', name='one', device='cpu')
    found = compute(job)
    monkeypatch.setattr(mirage.prediction.predict, 'compute', lambda job: found)
    keeps_its_promises(lambda: make(job, animation=False), run_path('movies', 'predict', 'one'), times=(3,))


@pytest.mark.promise('fetch', ('signal', 'two at once'))
def test_a_download_that_is_stopped_or_started_twice_is_whole(tmp_path, toy, mirror):
    mirror.contents = toy[1]

    def act():
        get(toy, mirror, tmp_path)

    keeps_its_promises(act, tmp_path / 'toy', hazards=('signal', 'two at once'), times=(1, 2))
    assert check_files(toy[0]['files'], tmp_path / 'toy').state.eq('ok').all()


# ---- files


def damage(path, fault):
    "What happens to a file, with the date that it had."
    before, data = os.stat(path), path.read_bytes()
    if fault == 'cut':
        data = data[: 2 * len(data) // 3]
    if fault == 'flipped':
        at = 2 * len(data) // 3
        data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    if fault == 'foreign':
        data = b'Dear all,\nplease find enclosed.\n'
    if fault == 'emptied':
        data = b''
    if fault == 'changed':
        data = changed(path, data)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def changed(path, data):
    "Another sound file of the same form."
    if path.suffix == '.npy':
        file = io.BytesIO()
        np.save(file, np.load(path)[::-1].copy())
        return file.getvalue()
    if path.suffix == '.h5':
        with h5py.File(path, 'r+') as f:
            name = next(k for k in ('states', 'ceiling', 'x') if k in f)
            f[name][...] = f[name][()][::-1].copy()
        return path.read_bytes()
    if path.name == 'runs.csv':
        return data.replace(b'b,train', b'b,val')
    lines = data.split(b'\n')
    if path.suffix == '.csv' and len(lines) > 3:
        return b'\n'.join([lines[0], *lines[2:3], lines[1], *lines[3:]])
    return data.replace(b'1', b'2') if data.replace(b'1', b'2') != data else data[::-1]


@pytest.fixture
def own(tmp_path, monkeypatch):
    "A study whose recordings are a table, an array and an HDF5 file, and that was trained on."
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    torch.set_num_threads(1)
    study = Study(tmp_path / 'mydata')
    for person, suffix in (('p1', '.csv'), ('p2', '.h5')):
        x = np.load(study.folder / f'{person}/b.npy')
        if suffix == '.csv':
            np.savetxt(study.folder / f'{person}/b.csv', x, delimiter=',', header=','.join('ABCDEFGHIJ'), comments='')
        else:
            with h5py.File(study.folder / f'{person}/b.h5', 'w') as f:
                f['x'] = x
    runs = (study.folder / 'runs.csv').read_text().replace('p1/b.npy', 'p1/b.csv').replace('p2/b.npy', 'p2/b.h5')
    lines = runs.splitlines()
    keys = [f'{line},{"x" if line.endswith(".h5") else ""}' for line in lines[1:]]
    (study.folder / 'runs.csv').write_text('\n'.join([f'{lines[0]},key', *keys]) + '\n')
    with h5py.File(study.folder / 'features/text/b.h5', 'w') as f:
        f['x'] = np.load(study.folder / 'features/text/b.npy')
    (study.folder / 'features/text/b.npy').unlink()
    study.train(epochs=1)
    return study


OWN = {
    'BOLD (.npy)': 'p1/a.npy',
    'BOLD (.csv)': 'p1/b.csv',
    'BOLD (.h5)': 'p2/b.h5',
    'features made elsewhere (.npy)': 'features/text/a.npy',
    'features made elsewhere (.h5)': 'features/text/b.h5',
    'runs.csv': 'runs.csv',
    'cohort.yaml': 'cohort.yaml',
}


@pytest.mark.promise(OWN, FAULTS)
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', OWN)
def test_a_file_of_ones_own_that_is_no_longer_what_it_was_is_refused_or_makes_another_run(own, kind, capsys):
    path = own.folder / OWN[kind]
    sound = path.read_bytes()
    for fault in FAULTS:
        damage(path, fault)
        assert path.read_bytes() != sound
        try:
            own.train(epochs=1)
        except (ValueError, OSError, FileNotFoundError) as e:
            assert path.stem in str(e) or kind == 'runs.csv', (fault, str(e))
        else:
            printed = capsys.readouterr().out
            assert 'nothing to train' not in printed and 'was made with something else and is made again' in printed, (
                fault
            )
            assert fault in ('flipped', 'changed') or fault == 'cut' and path.suffix == '.csv', fault  # of whole rows
        path.write_bytes(sound)
        capsys.readouterr()


def shared_model(folder, parcels=20):
    torch.manual_seed(0)
    shape = dict(n_output=10, queries=2, pool_heads=2, hidden=24, depth=1, heads=2, parcels=parcels)
    Mirage(ModelConfig(streams=dict(text=48, audio=48, vision=48), subjects=('a', 'b'), **shape)).save_pretrained(
        folder
    )
    recipe = Recipe(
        NAME,
        protocol='aligned',
        contexts=Contexts(words=8, audio=2.0, video=1.0),
        cohort='nobody',
        simulated=True,
        atlas='schaefer1000' if parcels == 1000 else None,
    )
    recipe.write(folder / 'recipe.yaml')
    shared = 'model.safetensors', 'config.json', 'recipe.yaml'
    digests = {name: mirage.core.file_digest(folder / name) for name in shared}
    write_sealed(folder / 'digests.json', dict(files=digests))
    return folder


def ours(kind, d):  # (file, how it is read)
    "A file that this project has written, in a folder of its own."
    if kind == 'features of ours':
        store = Store.create(d / 's', dict(a=1), dict(text=(3, 2)))
        store.write(
            'text', 'a', np.random.default_rng(0).normal(size=(5000, 3, 2)), source='movie 1 transcript 2 tr 1.49'
        )
        return d / 's/text/a.h5', lambda: Store.open(d / 's').digest('text', 'a')
    if kind == 'resume.pt':
        with atomic(d / 'resume.pt') as tmp:
            torch.save(dict(config=mirage.core.digest(dict(a=1)), model=torch.arange(900.0)), tmp)
            seal(tmp)
        return d / 'resume.pt', lambda: load_state(d / 'resume.pt', dict(a=1))
    if kind == 'truth of a simulation':
        with atomic(d / 'truth.h5') as tmp:
            with h5py.File(tmp, 'w') as f:
                f['ceiling'] = np.arange(100.0)
            seal(tmp)
        return d / 'truth.h5', lambda: open_truth(d / 'truth.h5').close()
    if kind == 'account of a figure':
        folder = d / 'results/toy/figures'
        about = dict(item='item', title='t', caption='c', cohort='toy', simulated=True, command='x', files={})
        write_sealed(folder / 'item.json', about | dict(faults=[], claims=[]))
        return folder / 'item.json', lambda: read_account('toy', 'item')
    if kind in ('picture of a figure', 'numbers of a figure'):
        draw_toy(d)
        end = dict(zip(('picture of a figure', 'numbers of a figure'), ('png', 'csv')))[kind]
        return figure_folder('toy') / f'fig1_bars.{end}', lambda: read_account('toy', 'fig1_bars')
    if kind == 'weights of somebody else':
        return shared_model(d / 'm') / 'model.safetensors', lambda: check_shared(str(d / 'm'))
    if kind == 'recipe of somebody else':
        return shared_model(d / 'm') / 'recipe.yaml', lambda: check_shared(str(d / 'm'))
    if kind == 'digests of somebody else':
        return shared_model(d / 'm') / 'digests.json', lambda: check_shared(str(d / 'm'))
    if kind == 'submission':
        x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
        write_submission(d / 'a.zip', {'sub-01': {'wot1': x}}, {'sub-01': {'wot1': 20}}, 3)
        return d / 'a.zip', lambda: read_submission(d / 'a.zip')


OURS = (
    'features of ours',
    'resume.pt',
    'truth of a simulation',
    'account of a figure',
    'picture of a figure',
    'numbers of a figure',
    'weights of somebody else',
    'recipe of somebody else',
    'digests of somebody else',
    'submission',
)


@pytest.mark.promise(OURS, FAULTS)
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', OURS)
def test_a_file_that_we_have_written_is_refused_by_name_when_it_is_no_longer_what_it_was(kind, tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    path, read = ours(kind, tmp_path)
    sound = path.read_bytes()
    for fault in FAULTS:
        read()
        damage(path, fault)
        with pytest.raises((ValueError, OSError)) as refused:
            read()
        assert path.stem in str(refused.value), (fault, str(refused.value))
        path.write_bytes(sound)
        read()


OF_RUN = (
    'config.yaml',
    'inputs.json',
    'metrics.json',
    'history.csv',
    'scores.parquet',
    'weights.safetensors',
    'predictions.h5',
    'provenance.json',
)


@pytest.mark.promise(OF_RUN, FAULTS)
@pytest.mark.parametrize('name', OF_RUN)
def test_a_run_of_which_a_file_is_no_longer_what_it_was_does_not_count(study, name, tmp_path):
    shutil.copytree(run_path(str(study.folder), 'train', TRAINED), tmp_path / 'run')
    path = tmp_path / 'run' / name
    sound = path.read_bytes()
    for fault in FAULTS:
        open_run(tmp_path / 'run')
        if fault == 'changed' and path.suffix in ('.h5', '.parquet', '.safetensors'):
            path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 255]))
        else:
            damage(path, fault)
        with pytest.raises((ValueError, OSError)) as refused:
            open_run(tmp_path / 'run')
        assert name in str(refused.value), (fault, str(refused.value))
        path.write_bytes(sound)


@pytest.mark.promise(('movie', 'transcript'), FAULTS)
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', ['movie', 'transcript'])
def test_features_no_longer_count_when_the_movie_or_the_transcript_is_no_longer_what_it_was(kind, tmp_path):
    make_stimulus(tmp_path, 's01e01a', 's01', n_tr=4, seed=0)
    video, transcript = stimulus_paths(tmp_path, 's01e01a')
    store = Store.create(tmp_path / 'store', dict(a=1), dict(text=(3, 2)))
    store.write('text', 'a', np.ones((50, 3, 2)), source=movie_source(video, transcript))
    path = video if kind == 'movie' else transcript
    sound = path.read_bytes()
    for fault in FAULTS:
        assert not store.fault('text', 'a', movie_source(video, transcript))
        damage(path, fault)
        assert f'made from another version of the {kind};' in store.fault(
            'text', 'a', movie_source(video, transcript)
        ), fault
        path.write_bytes(sound)
