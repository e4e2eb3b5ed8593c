"""What changed is noticed and named, a finished run is never replaced in silence, altered files are recognised."""

import os, time
from pathlib import Path

import h5py, numpy as np, pandas as pd, pytest, torch

import mirage.core, mirage.training.train
from mirage.data.cohort import Cohort, open_truth
from mirage.core import atomic, file_digest, finish_run, get_preset, known_digest, provenance
from mirage.core import remembered, root, run_path, seal, seal_broken, start_run, unfinished
from mirage.plotting.figures import input_run
from mirage.training.runs import parameters_of, run_name, set_aside, why_not
from mirage.features.store import Store, check_inputs, open_features
from mirage.training.train import train


class Study:
    "Two people, three movies, ready-made text features; every part can be changed."

    def __init__(self, folder):
        self.folder, self.rng = folder, np.random.default_rng(0)
        (folder / 'features/text').mkdir(parents=True)
        rows = ['subject,split,set,bold']
        for person in ('p1', 'p2'):
            (folder / person).mkdir()
            rows += [
                f'{person},{movie},{which},{person}/{movie}.npy'
                for movie, which in zip('abc', ('train', 'train', 'val'))
            ]
            self.bold(person)
        (folder / 'runs.csv').write_text('\n'.join(rows) + '\n')
        self.features()
        self.about()

    def about(self, tr=1.49, rate=2.0):
        (self.folder / 'cohort.yaml').write_text(f'tr: {tr}\nparcels: 10\nfeatures: {{text: {rate}}}\n')

    def bold(self, person):
        for movie in 'abc':
            np.save(self.folder / person / f'{movie}.npy', self.rng.normal(size=(44, 10)).astype('f4'))

    def features(self):
        for movie in 'abc':
            np.save(self.folder / f'features/text/{movie}.npy', self.rng.normal(size=(140, 2, 12)).astype('f4'))

    def train(self, **how):
        return train(cohort=str(self.folder), **dict(preset='smoke', epochs=4) | how)


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    torch.set_num_threads(1)
    return Study(tmp_path / 'mydata')


def flip(path, at=None):
    "One bit, in place; the date is set back, as a failing copy or a careless editor might leave it."
    before = os.stat(path)
    with open(path, 'r+b') as f:
        f.seek(at if at is not None else before.st_size // 2)
        byte = f.read(1)[0]
        f.seek(-1, 1)
        f.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    'what, change',
    [
        ('inputs.bold.p1/a.npy', lambda s: s.bold('p1')),
        ('inputs.bold.p2/c.npy', lambda s: flip(s.folder / 'p2/c.npy')),
        ('inputs.features.text.b', lambda s: s.features()),
        ('inputs.tr: 1.49 → 2.5', lambda s: s.about(tr=2.5)),
        ('inputs.rates.text: 2.0 → 1.0', lambda s: s.about(rate=1.0)),
    ],
)
def test_whoever_corrects_an_input_gets_a_new_training_and_is_shown_what_changed(study, capsys, what, change):
    first = study.train()
    study.train()
    assert 'nothing to train' in capsys.readouterr().out
    before = (first.path / 'weights.safetensors').stat().st_mtime_ns
    change(study)
    study.train()
    printed = capsys.readouterr().out
    assert 'nothing to train' not in printed and what in printed
    assert (first.path / 'weights.safetensors').stat().st_mtime_ns > before


def test_a_run_that_moves_to_another_set_is_another_input(study, capsys):
    study.train()
    text = (study.folder / 'runs.csv').read_text()
    (study.folder / 'runs.csv').write_text(text.replace('p1,b,train', 'p1,b,val').replace('p2,b,train', 'p2,b,val'))
    study.train()
    assert 'inputs.runs.p1.b 1: train 44 0.0 → val 44 0.0' in capsys.readouterr().out  # set, samples, onset


def test_another_onset_of_the_first_sample_is_another_input(study, capsys):
    study.train()
    lines = (study.folder / 'runs.csv').read_text().splitlines()
    (study.folder / 'runs.csv').write_text(
        '\n'.join([lines[0] + ',onset', *(line + ',-1.5' for line in lines[1:])]) + '\n'
    )
    study.train()
    assert 'inputs.runs.p1.a 1: train 44 0.0 → train 44 -1.5' in capsys.readouterr().out


def stopped_before_predicting(study, monkeypatch, **how):
    "A training that ends as Ctrl-C ends it, when its epochs are done."

    def stop(*a, **k):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(mirage.training.train, 'write_predictions', stop)
        with pytest.raises(KeyboardInterrupt):
            study.train(save_every=1, **how)


def test_a_stopped_training_never_goes_on_over_other_inputs(study, capsys, monkeypatch):
    stopped_before_predicting(study, monkeypatch)
    study.bold('p1')
    run = study.train(save_every=1)
    printed = capsys.readouterr().out
    assert 'Going on' not in printed and 'inputs.bold.p1/a.npy' in printed and not unfinished(run.path)


@pytest.mark.parametrize(
    'how, named',
    [
        (dict(precision='bf16'), 'precision: no → bf16'),
        (dict(epochs=2), 'preset.epochs: 4 → 2'),
        (dict(seed=5), 'seed: 0 → 5'),
        (dict(preset='tiny'), 'preset.name: smoke → tiny'),
    ],
)
def test_a_finished_run_is_not_replaced_under_its_name(study, how, named):
    run = study.train(name='mine')
    kept = {p.name: file_digest(p) for p in run.path.iterdir()}
    with pytest.raises(FileExistsError, match=named):
        study.train(name='mine', **how)
    assert kept == {p.name: file_digest(p) for p in run.path.iterdir()} and not unfinished(run.path)


def test_who_says_overwrite_replaces_it(study):
    study.train(name='mine')
    assert study.train(name='mine', seed=5, overwrite=True).config['seed'] == 5


def test_a_stopped_training_is_not_thrown_away_by_another_setting(study, monkeypatch):
    stopped_before_predicting(study, monkeypatch, name='mine')
    with pytest.raises(FileExistsError, match='was stopped before its end.*seed: 0 → 5'):
        study.train(name='mine', seed=5)
    assert (run_path(study.folder, 'train', 'mine') / 'resume.pt').is_file()


def test_another_preset_or_precision_than_the_cohorts_own_is_in_the_name(study, monkeypatch):
    monkeypatch.setitem(mirage.core.OWN, str(study.folder), ('smoke', 'no'))
    assert study.train().path.name == 'mirage-e4-native-s0'
    assert study.train(precision='bf16').path.name == 'mirage-e4-bf16-native-s0'
    monkeypatch.setitem(mirage.core.OWN, str(study.folder), ('tiny', 'no'))
    assert study.train().path.name == 'mirage-smoke-e4-native-s0'


WRONG = [
    dict(name='../x'),
    dict(name='a/b'),
    dict(name=''),
    dict(name='.hidden'),
    dict(window=3000),
    dict(seed=1.5),
    dict(seed=-1),
    dict(seed=True),
    dict(epochs=-1),
    dict(epochs=0),
    dict(epochs=None, window=0),
    dict(queries=-3),
    dict(modality_dropout=1.5),
    dict(modality_dropout=float('nan')),
    dict(precision='fp8'),
    dict(aggregate='median'),
    dict(batches='x'),
    dict(fusion='early'),
    dict(save_every=0),
    dict(memory=float('nan')),
    dict(workers=-1),
    dict(preset='big'),
    dict(window='50'),
    dict(backbone='auto'),
    dict(precision=None),
    dict(subjects=None),
    dict(workers=1.5),
    dict(subjects='p3'),
    dict(overwrite='yes'),
]


@pytest.mark.parametrize('how', WRONG, ids=str)
def test_a_wrong_argument_is_refused_before_anything_is_written(study, how):
    with pytest.raises(ValueError, match='|'.join(name.rstrip('s') for name in how)):
        study.train(**how)
    assert not (root() / 'results').exists()


@pytest.mark.parametrize(
    'given',
    [
        dict(),
        dict(modality_dropout=0.1 + 0.2),
        dict(modality_dropout=1e-7),
        dict(modality_dropout=float(np.nextafter(1, 0))),
        dict(preset='smoke', precision='no'),
        dict(backbone='tiny-tribe', preset='tiny', precision='bf16'),
        dict(backbone='qwen3-omni-thinking', preset='tiny'),
        dict(subjects='sub-01,sub-03', batches='independent'),
        dict(subjects='native-s0,q8', queries=3, window=50, epochs=2),
        dict(protocol='streaming,chunk=20'),
    ],
    ids=str,
)
def test_names_and_parameters_are_each_others_inverse(given):
    for fusion, aggregate, seed in (('native', 'queries', 0), ('tower', 'groups', 12345678901)):
        whole = given | dict(fusion=fusion, aggregate=aggregate, seed=seed)
        assert parameters_of(run_name(**whole)) == whole


def test_a_number_that_rounds_is_another_run():
    assert len({run_name('native', 'queries', 0, modality_dropout=p) for p in (0.3, 0.1 + 0.2, 0.30000001)}) == 3


# files that were altered


def test_a_remembered_digest_is_forgotten_when_the_file_changes_even_if_its_date_does_not(study):
    file = study.folder / 'p1/a.npy'
    old = time.time() - 100
    os.utime(file, (old, old))
    time.sleep(2.1)  # younger files are not remembered
    assert known_digest(file) == file_digest(file)
    assert remembered('file', file, lambda p: 'computed again') == file_digest(file)
    flip(file)
    assert known_digest(file) == file_digest(file)


def test_a_flipped_bit_in_a_digest_note_is_not_believed(study):
    file = study.folder / 'p1/a.npy'
    time.sleep(2.1)
    known = known_digest(file)
    for note in (root() / 'features' / '.digests').iterdir():
        note.write_text(note.read_text().replace(known[:8], '00000000'))
    assert known_digest(file) == known


def make_store(folder):
    store = Store.create(folder, dict(name='x'), dict(text=(3, 8)))
    for movie in 'ab':
        store.write(
            'text', movie, np.random.default_rng(1).normal(size=(50, 3, 8)), source='movie 1 transcript 2 tr 1.49'
        )
    return store


@pytest.mark.parametrize('how', ['flipped', 'zeroed'])
def test_altered_features_are_recognised_when_they_are_opened(study, tmp_path, how):
    store = make_store(tmp_path / 'features/s/x')
    assert store.has('text', 'a', verify=True)
    file = store.file('text', 'a')
    if how == 'flipped':
        flip(file, at=os.path.getsize(file) - 100)
    else:
        with h5py.File(file, 'r+') as f:
            f['states'][...] = 0
    again = Store.open(store.path)
    assert 'was altered after it was written' in again.fault('text', 'a', verify=True)
    assert again.has('text', 'b', verify=True)
    with pytest.raises(ValueError, match='altered'):
        again.digest('text', 'a')


def in_the_middle(monkeypatch, at, change):
    "Whatever `change` does happens once, before step `at` of a training."
    steps, plain = [], mirage.training.train.stop_if_broken

    def passed(step, *others, **named):
        steps.append(step)
        if step == at and steps.count(at) == 1:
            change()
        return plain(step, *others, **named)

    monkeypatch.setattr(mirage.training.train, 'stop_if_broken', passed)


CHANGES = {
    'a feature is replaced': ('features/text/[ab].npy was changed', lambda s: s.features()),
    'one bit of a feature flips': ('features/text/b.npy was changed', lambda s: flip(s.folder / 'features/text/b.npy')),
    'a recording is replaced': ('inputs were changed.*p1/a.npy', lambda s: s.bold('p1')),
    'one bit of a recording flips': ('inputs were changed.*p2/c.npy', lambda s: flip(s.folder / 'p2/c.npy')),
}


@pytest.mark.parametrize('memory', [0.0, 2.0])
@pytest.mark.parametrize('what', CHANGES)
def test_what_is_changed_in_the_middle_of_a_training_stops_it_and_the_next_begins_with_what_is_there(
    study, monkeypatch, capsys, what, memory
):
    named, change = CHANGES[what]
    with monkeypatch.context() as m:
        in_the_middle(m, 3, lambda: change(study))
        with pytest.raises(ValueError, match=named):
            study.train(save_every=1, memory=memory)
    assert not list((root() / 'results').rglob('provenance.json'))
    again = study.train(save_every=1, memory=memory)
    assert 'Going on' not in capsys.readouterr().out and not unfinished(again.path)


def test_a_store_that_is_replaced_while_it_is_read_is_noticed_and_one_of_the_same_numbers_is_not(study, tmp_path):
    store = make_store(tmp_path / 'features/s/x').hold('ab')
    kept = store.read('text', 'a', 0, 50)
    make_store(store.path)  # extracted again
    assert np.array_equal(store.read('text', 'a', 0, 50), kept)
    store.write('text', 'a', np.ones((50, 3, 8)), source='movie 1 transcript 2 tr 1.49')
    for _ in range(2):
        with pytest.raises(ValueError, match='a.h5 was changed while it was in use: put it back'):
            store.read('text', 'a', 3, 9)
    assert store.read('text', 'b', 3, 9).any()
    other = Store.open(store.path).hold('b')
    with h5py.File(other.file('text', 'b'), 'r+') as f:  # in place, and dated back
        before = os.stat(f.filename)
        f['states'][7] += 1
    os.utime(other.file('text', 'b'), ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ValueError, match='b.h5 was changed while it was in use'):
        other.read('text', 'b', 3, 9)


def test_looking_whether_inputs_are_the_same_takes_less_than_3_percent_of_an_epoch(study, capsys):
    run = study.train(epochs=6)
    data = Cohort.open(str(study.folder))
    features = open_features(data, get_preset('smoke'))
    time.sleep(2.1)  # a file that was written a moment ago is read again
    read = run.config['inputs']
    check_inputs(read, data, features)
    began = time.perf_counter()
    for _ in range(20):
        check_inputs(read, data, features)
    looks = (time.perf_counter() - began) / 20
    epoch = float(np.median(pd.read_csv(run.path / 'history.csv').seconds))
    with capsys.disabled():
        print(f' [looking at inputs: {1000 * looks:.2f} ms, {looks / epoch:.2%} of a smoke-sized epoch]', end='')
    assert looks < 0.03 * epoch


def test_features_of_another_movie_or_transcript_are_refused_by_name(tmp_path, study):
    store = make_store(tmp_path / 'features/s/x')
    assert 'another version of the movie;' in store.fault('text', 'a', 'movie 9 transcript 2 tr 1.49')
    assert 'another version of the transcript;' in store.fault('text', 'a', 'movie 1 transcript none tr 1.49')
    assert 'another version of the movie and the tr;' in store.fault('text', 'a', 'movie 9 transcript 2 tr 2')
    assert not store.fault('text', 'a', 'movie 1 transcript 2 tr 1.49')


@pytest.mark.parametrize('at', [0.02, 0.3, 0.6, 0.9, 0.9999])
def test_a_flipped_resume_file_is_never_loaded(study, monkeypatch, at):
    stopped_before_predicting(study, monkeypatch)
    (path,) = (root() / 'results').rglob('resume.pt')
    flip(path, at=int(at * path.stat().st_size))
    with pytest.raises(ValueError, match='resume.pt cannot be read: it was altered or cut short'):
        study.train(save_every=1)


def test_an_altered_truth_is_refused(tmp_path, study):
    with atomic(tmp_path / 'truth.h5') as tmp:
        with h5py.File(tmp, 'w') as f:
            f['ceiling'] = np.arange(100.0)
        seal(tmp)
    with open_truth(tmp_path / 'truth.h5') as f:
        assert f['ceiling'][7] == 7
    with h5py.File(tmp_path / 'truth.h5', 'r+') as f:
        f['ceiling'][7] = 8
    assert seal_broken(tmp_path / 'truth.h5')
    with pytest.raises(ValueError, match='truth.h5 was altered'):
        open_truth(tmp_path / 'truth.h5')


def test_every_flipped_byte_of_a_provenance_is_noticed(tmp_path, study):
    run = finish_run(start_run(tmp_path / 'results/a/b/c', dict(seed=0)), dict(val_r=0.5))
    file = run.path / 'provenance.json'
    whole = file.read_bytes()
    for at in range(0, len(whole), 7):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert unfinished(run.path), at
    file.write_bytes(whole)
    assert not unfinished(run.path)


def test_what_was_drawn_does_not_make_the_code_dirty(tmp_path, monkeypatch):
    import subprocess

    def git(*a):
        subprocess.run(
            ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b', *a],
            check=True,
            capture_output=True,
        )

    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    for name in ('nbs', 'figures'):
        (tmp_path / name).mkdir()
    for file in ('nbs/00_core.ipynb', 'figures/a.csv'):
        (tmp_path / file).write_text('1')
    git('init')
    git('add', '.')
    git('commit', '-m', 'a')
    (tmp_path / 'figures/a.csv').write_text('2')
    assert provenance()['dirty'] is False
    (tmp_path / 'nbs/00_core.ipynb').write_text('2')
    assert provenance()['dirty'] is True


def test_weights_are_readable_like_all_other_files(study):
    run = study.train()
    assert len({p.stat().st_mode for p in run.path.iterdir() if p.is_file()}) == 1


# figures and the pipeline


def test_a_figure_refuses_a_run_of_another_preset(study, monkeypatch):
    monkeypatch.setitem(mirage.core.OWN, str(study.folder), ('smoke', 'no'))
    study.train(epochs=None)
    assert input_run(str(study.folder), 'train', 'mirage-native-s0').config['preset']['name'] == 'smoke'
    study.train(preset='tiny', epochs=4, name='mirage-native-s0', overwrite=True)
    with pytest.raises(ValueError, match='other settings than asked for: preset.name: tiny → smoke'):
        input_run(str(study.folder), 'train', 'mirage-native-s0')


def test_a_figure_refuses_a_run_of_other_inputs(study):
    run = study.train(name='mirage-e4-native-s0', preset='smoke')
    assert not why_not(str(study.folder), 'train', run.path.name, 'smoke')
    study.bold('p2')
    with pytest.raises(ValueError, match='other inputs than are there now: bold.p2/a.npy'):
        input_run(str(study.folder), 'train', run.path.name, 'smoke')


def test_the_pipeline_sets_aside_what_it_did_not_ask_for(study, capsys):
    run = study.train(name='mirage-native-s0', preset='smoke')
    name = 'train/mirage-native-s0'
    assert set_aside(str(study.folder), [name], 'smoke', dry=True) and not unfinished(run.path)
    assert 'preset.epochs: 4 → 2' in capsys.readouterr().err
    found = set_aside(str(study.folder), [name], 'smoke')
    assert unfinished(run.path)  # it no longer counts
    again = study.train(name='mirage-native-s0', preset='smoke', epochs=None)
    assert set_aside(str(study.folder), [name], 'smoke') == found  # made as asked: nothing new, so that it is made once
    assert not unfinished(again.path)


def test_nothing_is_set_aside_where_the_data_cannot_be_read(study):
    run = study.train(name='mirage-native-s0')
    (study.folder / 'cohort.yaml').rename(study.folder / 'away')
    assert not set_aside(str(study.folder), ['train/mirage-native-s0'], 'smoke') and not unfinished(run.path)


def test_another_default_that_the_pipeline_passes_anyway_retrains_nothing(tmp_path, monkeypatch):
    "Whoever saves chapter 05 with the seed that was tried last has not changed what the pipeline runs."
    project = Path(mirage.core.__file__).resolve().parents[1]
    text = (project / 'nbs/paper.smk').read_text()
    space = {}
    exec('import ast, functools, hashlib, importlib.util, json, re\nfrom pathlib import Path', space)
    exec(text[text.index('@functools.cache\ndef plain') : text.index('def cohort_of')], space)
    monkeypatch.chdir(project)

    def saved(old, new):
        book = (project / 'nbs/05_train.ipynb').read_text()
        assert book.count(old) == 1
        (tmp_path / 'book.ipynb').write_text(book.replace(old, new))
        return space['code'](tmp_path / 'book.ipynb', 'cohort preset seed fusion aggregate name overwrite')

    before = saved('seed: Optional[int] = None', 'seed: Optional[int] = None')
    assert saved('seed: Optional[int] = None', 'seed: Optional[int] = 7') == before
    # not passed: it decides what is run
    assert saved("batches: str = 'paired'", "batches: str = 'independent'") != before
    assert saved('if step in when:', 'if step not in when:') != before
