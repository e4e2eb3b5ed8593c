"""What the training chapter cannot check about itself: kills, several processes, poisoned data, and a run that is
already there.

`python tests/test_train.py --seed 0 …` trains on the toy cohort, in a process that can be killed or multiplied."""

import inspect, json, os, subprocess, sys, time, warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Optional, Union

import h5py, numpy as np, pandas as pd, pytest, torch
from safetensors.torch import load_file

import mirage.training.train
from mirage.core import Preset, PRESETS, file_digest, open_run, run_path
from mirage.models.model import Mirage, ModelConfig
from mirage.processes import DiskFull, InUse
from mirage.evaluation.statistics import map_runs
from mirage.features.store import Store
from mirage.data.folds import SET
from mirage.training import crossvalidate
from mirage.training.train import kept_epoch, train
from toycohorts import TRAINED_LENGTHS, TRAINED_STREAMS, TrainedCohort, TrainedFeatures


def toy(patch, poison=None, drop=0.0):
    "Let mirage.training.train see the toy cohort, in this process, until the patch is undone."
    preset = Preset(
        'toy',
        backbone='none',
        window=20,
        stride=20,
        queries=2,
        pool_heads=2,
        pool_dropout=drop,
        hidden=24,
        depth=1,
        heads=2,
        epochs=4,
        batch=9,
        lr=3e-3,
        modality_dropout=0.4,
    )
    patch.setattr(TrainedFeatures, 'poison', poison)
    patch.setitem(PRESETS, 'toy', preset)
    patch.setitem(mirage.core.OWN, 'toy', ('toy', 'no'))
    toy_cohort = SimpleNamespace(open=lambda name, subjects='all': TrainedCohort(subjects))
    patch.setattr(mirage.training.train, 'Cohort', toy_cohort)
    patch.setattr(mirage.training.train, 'open_features', lambda *a, **k: TrainedFeatures())


if __name__ == '__main__':
    torch.set_num_threads(1)
    toy(pytest.MonkeyPatch(), drop=float(os.environ.get('TOY_DROP', 0)))
    if at := int(os.environ.get('TOY_KILL', 0)):  # die in the middle of this step, without a chance to clean up
        stop = mirage.training.train.stop_if_broken
        mirage.training.train.stop_if_broken = lambda step, *a, **k: os._exit(9) if step == at else stop(step, *a, **k)
    mirage.training.train.main()
    sys.exit()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    torch.set_num_threads(1)
    toy(monkeypatch)
    return tmp_path


def launch(*options, how=(), **env):
    return subprocess.run(
        [sys.executable, *how, __file__, '--cohort', 'toy', '--preset', 'toy', '--seed', '3', *options],
        capture_output=True,
        text=True,
        env=os.environ | {'OMP_NUM_THREADS': '1'} | env,
    )


@pytest.mark.promise('train', 'kill')
def test_kill_and_resume_has_the_bits_of_an_uninterrupted_run(folder, monkeypatch):
    options = '--save_every', '3'
    killed = launch(*options, '--name', 'killed', TOY_KILL='6', TOY_DROP='0.2')
    path = run_path('toy', 'train', 'killed')
    assert killed.returncode == 9 and (path / 'resume.pt').is_file() and not (path / 'provenance.json').exists()
    again = launch(*options, '--name', 'killed', TOY_DROP='0.2')
    assert 'Going on after step 3' in again.stdout, again.stderr[-2000:]
    toy(monkeypatch, drop=0.2)
    whole = train('toy', 'toy', 3, name='whole')
    assert file_digest(path / 'weights.safetensors') == file_digest(whole.path / 'weights.safetensors')
    columns = ['epoch', 'step', 'loss', 'val_r', 'lr', 'grad_norm', 'val_r sub-01', 'val_r sub-02', 'val_r sub-03']
    a, b = (pd.read_csv(p / 'history.csv')[columns] for p in (path, whole.path))
    assert a.equals(b) and len(a) == 4
    other = train('toy', 'toy', 4, name='other')
    assert file_digest(other.path / 'weights.safetensors') != file_digest(whole.path / 'weights.safetensors')


def test_two_processes_follow_the_curve_of_one():
    train('toy', 'toy', 3, name='one')
    two = launch(
        '--name',
        'two',
        how=(
            '-m',
            'accelerate.commands.launch',
            '--cpu',
            '--num_processes',
            '2',
            '--num_machines',
            '1',
            '--mixed_precision',
            'no',
            '--dynamo_backend',
            'no',
            '--main_process_port',
            '0',
        ),
        USE_LIBUV='0',
    )
    assert two.returncode == 0, two.stderr[-3000:]
    a, b = (open_run(run_path('toy', 'train', n)) for n in ('one', 'two'))
    a_h, b_h = (pd.read_csv(r.path / 'history.csv') for r in (a, b))
    for column in ('loss', 'grad_norm', 'val_r', 'lr'):
        np.testing.assert_allclose(a_h[column], b_h[column], rtol=1e-4, atol=1e-5)
    assert a_h.loss.nunique() == len(a_h)
    a_w, b_w = (load_file(r.path / 'weights.safetensors') for r in (a, b))
    for k in a_w:
        torch.testing.assert_close(a_w[k], b_w[k], rtol=1e-3, atol=1e-4)


def test_a_poisoned_feature_stops_the_run_and_is_named(folder, monkeypatch):
    toy(monkeypatch, poison=('audio', 'c'))
    with pytest.raises(
        FloatingPointError,
        match=r'step \d+: the loss is not finite.* the audio stream of c from TR 20, 1 of 2880 of its values',
    ):
        train('toy', 'toy', 3)
    assert not (folder / 'results/toy/train/mirage-native-s3/provenance.json').exists()


def test_an_exploding_gradient_is_named(monkeypatch):
    class Explode(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, g):
            return g * float('inf')

    forward = Mirage.encode

    def encode(self, features, present=None):
        h = forward(self, features, present)
        return Explode.apply(h) if self.training and 'text' in (present or TRAINED_STREAMS) else h

    monkeypatch.setattr(Mirage, 'encode', encode)
    with pytest.raises(
        FloatingPointError, match='the gradient is not finite. The cause is the text stream of .*finite, so lower'
    ):
        train('toy', 'toy', 3)


def test_a_finished_run_is_recognised_and_a_damaged_one_is_not(folder, capsys, monkeypatch):
    run = train('toy', 'toy', 3, epochs=1)
    weights = file_digest(run.path / 'weights.safetensors')
    assert run.path.name == 'mirage-e1-native-s3' and not (run.path / 'resume.pt').exists()
    with monkeypatch.context() as m:
        m.setattr(mirage.training.train, 'fit', None)
        assert train('toy', 'toy', 3, epochs=1).path == run.path
    assert 'nothing to train' in capsys.readouterr().out
    (run.path / 'weights.safetensors').write_bytes(b'cut short')
    assert file_digest(train('toy', 'toy', 3, epochs=1).path / 'weights.safetensors') == weights


def test_predictions_have_every_tr_of_every_run(folder):
    run = train('toy', 'toy', 3, epochs=1)
    with h5py.File(run.path / 'predictions.h5') as f:
        shapes = {which: map_runs(np.shape, runs) for which, runs in f.items()}
        assert all(
            np.isfinite(d).all() and np.ptp(d[:], axis=0).all()
            for which in f
            for s in f[which]
            for d in f[which][s].values()
        )
    people = ['sub-01', 'sub-02', 'sub-03']
    assert shapes == {'val': {s: {'v': (41, 6)} for s in people}, 's7': {s: {'t': (30, 6)} for s in people}}
    # no public BOLD of sub-02
    assert set(zip(run.scores['set'], run.scores.subject)) == {('val', s) for s in people} | {
        ('s7', 'sub-01'),
        ('s7', 'sub-03'),
    }
    val, m = run.scores[run.scores['set'] == 'val'], run.metrics
    assert np.isclose(m['val_r'], val.groupby('subject').r.mean().mean()) and np.isclose(
        m['val_r'], kept_epoch(pd.read_csv(run.path / 'history.csv').to_dict('records'), 0.0)['val_r']
    )


def test_what_was_not_measured_does_not_teach():
    "Changing BOLD outside `seen` changes nothing; one repeat fewer does."
    windows = mirage.training.train.make_windows(TrainedCohort(), 'train', 20, 20)
    loader = mirage.training.train.Loader(
        TrainedCohort(), mirage.training.train.Reader(TrainedFeatures(), TRAINED_LENGTHS), 20
    )
    (batch,) = loader([[w for w in windows if w.split == 'c']])
    y = torch.randn(3, 3, 20, 6)
    loss = mirage.training.train.squared_error(y, batch)
    batch.bold[~batch.mask] = 100.0
    assert torch.equal(loss, mirage.training.train.squared_error(y, batch))
    batch.mask[:, 0, 1] = False
    assert mirage.training.train.squared_error(y, batch) < loss


def test_paired_and_independent_batches_have_the_same_objective():
    cohort, features = TrainedCohort(), TrainedFeatures()
    loader = mirage.training.train.Loader(cohort, mirage.training.train.Reader(features, TRAINED_LENGTHS), 20)
    torch.manual_seed(0)
    model = Mirage(ModelConfig.from_preset(PRESETS['toy'], {m: 16 for m in TRAINED_STREAMS}, cohort.subjects, 6)).eval()
    loss = {}
    for kind in ('paired', 'independent'):
        (batch,) = loader([mirage.training.train.make_windows(cohort, 'train', 20, 20, batches=kind)])
        loss[kind] = mirage.training.train.squared_error(model(batch.features), batch) / batch.mask.sum()
    assert len(batch.windows) > 20 and torch.isclose(loss['paired'], loss['independent'], rtol=1e-5)


def int8_store(folder):
    "The toy features, held as int8."
    store = Store.create(folder / 'store', {}, TRAINED_STREAMS, stored='int8')
    for m in TRAINED_STREAMS:
        for split in TRAINED_LENGTHS:
            store.write(m, split, TrainedFeatures().read(m, split, 0, TrainedFeatures().steps(split)))
    return store


@pytest.mark.parametrize('budget', [0, 2e9])
def test_a_batch_of_an_int8_store_holds_whole_numbers_until_it_is_on_the_device(folder, budget):
    store, cohort = int8_store(folder), TrainedCohort()
    windows = mirage.training.train.make_windows(cohort, 'train', 20, 20)[:3]
    reader = mirage.training.train.Reader(store, TRAINED_LENGTHS, budget)
    (batch,) = mirage.training.train.Loader(cohort, reader, 20)([windows])
    decoded, alone = batch.to('cpu'), batch[1].to('cpu')
    for m, x in batch.features.items():
        byhand = np.stack([store.read(m, w.split, w.frame, w.frame + x.shape[1]) for w in windows])
        assert x.dtype == torch.int8 and decoded.features[m].dtype == torch.float16 and not decoded.scales
        assert (decoded.features[m].numpy() == byhand).all() and (alone.features[m][0].numpy() == byhand[1]).all()
    assert reader.distinct == sum(store.steps(s) for s in TRAINED_LENGTHS) * sum(
        L * D for L, D in TRAINED_STREAMS.values()
    )


def test_training_on_int8_has_the_bits_of_training_on_what_it_decodes_to(folder, monkeypatch):
    store = int8_store(folder)
    monkeypatch.setattr(mirage.training.train, 'open_features', lambda *a, **k: store)
    coded = load_file(train('toy', 'toy', 3, epochs=1, name='coded').path / 'weights.safetensors')
    monkeypatch.setattr(Store, 'coded', lambda self, stream: False)
    plain = load_file(train('toy', 'toy', 3, epochs=1, name='plain').path / 'weights.safetensors')
    assert all(torch.equal(coded[k], plain[k]) for k in plain)


def test_a_cut_resume_file_says_so(folder):
    path = run_path('toy', 'train', 'mirage-native-s3')
    path.mkdir(parents=True)
    (path / 'resume.pt').write_bytes(b'PK\x03\x04 not a whole file')
    with pytest.raises(ValueError, match='resume.pt cannot be read.*Delete it'):
        train('toy', 'toy', 3)


def test_train_called_again_in_one_kernel_with_another_precision_works_and_has_the_bits_of_a_fresh_kernel(folder):
    first = train('toy', 'toy', 3, epochs=1, name='first')
    coarse = train('toy', 'toy', 3, epochs=1, precision='bf16', name='coarse')
    again = train('toy', 'toy', 3, epochs=1, name='again')
    assert [r.config['precision'] for r in (first, coarse, again)] == ['no', 'bf16', 'no']
    digests = [file_digest(r.path / 'weights.safetensors') for r in (first, coarse, again)]
    assert digests[0] == digests[2] != digests[1]
    fresh = launch('--epochs', '1', '--name', 'fresh')
    assert (
        fresh.returncode == 0 and file_digest(run_path('toy', 'train', 'fresh') / 'weights.safetensors') == digests[0]
    )


def test_a_precision_that_this_machine_cannot_do_is_refused_and_the_next_call_works(folder):
    with pytest.raises(ValueError, match='precision|fp16|mixed'):
        train('toy', 'toy', 3, epochs=1, precision='fp61')
    assert train('toy', 'toy', 3, epochs=1).metrics['steps'] > 0


@pytest.mark.parametrize('steps', [1, 2, 3, 4])
def test_a_training_of_few_steps_ends(folder, steps, monkeypatch):
    one_step = mirage.training.train.replace(PRESETS['toy'], batch=1000, epochs=steps)  # an epoch is one step
    monkeypatch.setitem(PRESETS, 'toy', one_step)
    run = train('toy', 'toy', 3)
    history = pd.read_csv(run.path / 'history.csv')
    assert history.step.iloc[-1] == steps and np.isfinite(history.loss).all() and (history.lr > 0).all()


@pytest.mark.promise('train', 'two at once')
def test_two_trainings_of_one_run_the_second_is_refused_by_name_at_once(folder):
    path = run_path('toy', 'train', 'same')
    first = subprocess.Popen(
        [
            sys.executable,
            __file__,
            '--cohort',
            'toy',
            '--preset',
            'toy',
            '--seed',
            '3',
            '--epochs',
            '3000',
            '--save_every',
            '5',
            '--name',
            'same',
        ],
        env=os.environ | {'OMP_NUM_THREADS': '1'},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (path / 'resume.pt').is_file():
        assert first.poll() is None
        time.sleep(0.1)
    state = file_digest(path / 'config.yaml')
    with pytest.raises(InUse, match=f'the training run same is in use by process {first.pid} on .*kill {first.pid}'):
        train('toy', 'toy', 3, epochs=3000, save_every=5, name='same')
    assert file_digest(path / 'config.yaml') == state
    first.kill()
    first.wait()
    run = train('toy', 'toy', 3, name='same', overwrite=True)  # the killed one's lock is no obstacle
    assert not (path / '.lock').exists() and not [f for f in run.path.iterdir() if '.tmp' in f.name]


def test_a_training_that_failed_lets_go_of_its_run(folder, monkeypatch):
    toy(monkeypatch, poison=('audio', 'c'))
    for _ in range(2):
        with pytest.raises(FloatingPointError):
            train('toy', 'toy', 3)
    assert not (run_path('toy', 'train', 'mirage-native-s3') / '.lock').exists()


@pytest.mark.promise('train', 'full disk')
def test_a_disk_that_fills_up_stops_a_training_with_its_state_and_the_same_call_goes_on(folder, monkeypatch):
    whole = train('toy', 'toy', 3, name='whole')
    path, save, saved = run_path('toy', 'train', 'filled'), torch.save, []

    def fills_up(value, file):
        saved.append(value['done'])
        if len(saved) > 2:
            raise RuntimeError(
                '[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0; No space left on device'
            )
        save(value, file)

    with monkeypatch.context() as m:
        m.setattr(torch, 'save', fills_up)
        with pytest.raises(DiskFull, match='the disk is full: .*resume.pt could not be written.*same command again'):
            train('toy', 'toy', 3, save_every=2, name='filled')
    assert (
        torch.load(path / 'resume.pt', weights_only=True)['done'] == saved[1]
        and not (path / 'provenance.json').exists()
        and not (path / '.lock').exists()
    )
    again = train('toy', 'toy', 3, save_every=2, name='filled')
    assert file_digest(again.path / 'weights.safetensors') == file_digest(whole.path / 'weights.safetensors')


def test_chapter_and_function_have_the_same_parameters():
    "What papermill may pass is what `train` takes, with the same defaults."
    book = json.loads((Path(__file__).resolve().parents[1] / 'nbs/05_train.ipynb').read_text())
    cell = next(c for c in book['cells'] if 'parameters' in c['metadata'].get('tags', []))
    space = dict(Optional=Optional, Union=Union)
    exec(''.join(cell['source']), space)
    of_train = {k: p.default for k, p in inspect.signature(train).parameters.items() if k != 'on_epoch'}
    in_chapter = {k: space[k] for k in space['__annotations__']}
    assert in_chapter.pop('members') is None  # of a cross-validation
    assert in_chapter == of_train


def test_an_option_that_is_none_is_the_presets(folder):
    done = launch('--epochs', '1', '--queries', 'None', '--name', 'none')
    assert done.returncode == 0, done.stderr[-2000:]
    assert open_run(run_path('toy', 'train', 'none')).config['preset']['queries'] == 2
    refused = launch('--epochs', '1', '--fusion', 'None')
    assert refused.returncode and 'fusion is' in refused.stderr


def in_folds(poisoned=None):
    "The toy cohort, where somebody's recordings of a movie can be others."

    class Folds(TrainedCohort):
        def bold_window(self, row, start, stop):
            bold = super().bold_window(row, start, stop)
            return -bold[::-1] if row.split == poisoned else bold

    return SimpleNamespace(open=lambda name, subjects='all': Folds(subjects))


def test_a_fold_learns_nothing_from_the_bold_that_it_predicts(folder, monkeypatch):
    monkeypatch.setattr(mirage.training.train, 'Cohort', in_folds())
    one = train('toy', 'toy', 3, folds='runs', fold=2)
    assert one.path.name == 'mirage-cv-fold2-native-s3'
    fold = one.config['fold']
    assert fold == dict(number=2, of=5, held_out=['b'], validation=['a']) and fold['validation'] != fold['held_out']
    with h5py.File(one.path / 'predictions.h5') as f:
        assert set(f) == {'val', SET} and set(f[SET]['sub-01']) == {'b'} and 'sub-03' not in f[SET]
    monkeypatch.setattr(mirage.training.train, 'Cohort', in_folds('b'))
    two = train('toy', 'toy', 3, folds='runs', fold=2, name='other')
    assert file_digest(one.path / 'weights.safetensors') == file_digest(two.path / 'weights.safetensors')
    monkeypatch.setattr(mirage.training.train, 'Cohort', in_folds('c'))
    three = train('toy', 'toy', 3, folds='runs', fold=2, name='third')
    assert file_digest(one.path / 'weights.safetensors') != file_digest(three.path / 'weights.safetensors')


def test_all_folds_are_gathered_and_the_run_says_so(folder, monkeypatch):
    for module in (mirage.training.train, crossvalidate):
        monkeypatch.setattr(module, 'Cohort', in_folds())
    monkeypatch.setattr(crossvalidate, 'open_features', lambda *a, **k: TrainedFeatures())
    looked_at = []  # the toy cohort has no files that could change
    monkeypatch.setattr(crossvalidate, 'changed_inputs', lambda cohort, run: looked_at.append(run.path.name))
    run = crossvalidate.cross_validate('toy', 'runs', members=2, preset='toy', epochs=1)
    assert len(set(looked_at)) == 10
    assert run.path.parent.name == 'ensemble' and run.path.name == 'mirage-cv-e1-native-m2'
    assert run.config['folds'] == [['a'], ['b'], ['c'], ['v'], ['t']] and len(run.config['inputs']['of']) == 10
    told = pd.read_csv(run.path / 'folds.csv')
    assert len(told) == 10 and (told.groupby('fold').stops_on.nunique() == 2).all()
    cohort = TrainedCohort()
    with h5py.File(run.path / 'predictions.h5') as f:
        for row in cohort.runs[(cohort.runs.repeat == 1) & cohort.runs.bold.notna()].itertuples():
            assert f[SET][row.subject][row.split].shape == (row.n_tr, 6)
        seeds = [open_run(run_path('toy', 'train', f'mirage-cv-fold3-e1-native-s{k}')) for k in run.config['seeds']]
        parts = [h5py.File(r.path / 'predictions.h5')[f'{SET}/sub-02/c'][()] for r in seeds]
        assert np.allclose(f[f'{SET}/sub-02/c'], np.mean(parts, 0), atol=1e-6)
    assert np.isclose(run.metrics['r'][SET], run.scores.groupby('subject').r.mean().mean())
    again = crossvalidate.cross_validate('toy', 'runs', members=2, preset='toy', epochs=1)
    assert again.provenance == run.provenance


@pytest.mark.parametrize(
    'wrong, match',
    [
        (dict(folds='runs'), 'fold is None: a training is of one fold, from 1 to 5'),
        (dict(folds='runs', fold=6), 'fold is 6'),
        (dict(fold=1), 'give folds too'),
        (dict(folds=9, fold=1), 'they make no 9 folds'),
        (dict(folds='movies', fold=1), 'it may be runs'),
        (dict(lr=0.0), 'lr'),
        (dict(patience=-1), 'patience'),
    ],
)
def test_a_fold_that_is_none_is_refused_before_anything_is_written(folder, wrong, match):
    with pytest.raises(ValueError, match=match):
        train('toy', 'toy', 3, **wrong)
    assert not list(folder.glob('results/*/*/*'))


def test_a_training_ends_when_patience_does_and_goes_on_as_it_would_have(folder, monkeypatch):
    short = train('toy', 'toy', 3, epochs=6, validations=2, patience=2, lr=0.3, name='short')
    history = pd.read_csv(short.path / 'history.csv')
    highest = int(history.val_r.argmax())
    assert len(history) == highest + 3 < 12 and history.epoch.iloc[0] == 0.5
    whole = train('toy', 'toy', 3, epochs=6, validations=2, patience=0, lr=0.3, name='whole')
    whole_history = pd.read_csv(whole.path / 'history.csv')
    assert len(whole_history) == 12 and np.array_equal(whole_history.val_r[: len(history)], history.val_r)


def test_weights_that_only_got_worse_and_a_ridge_that_wins_are_said(folder):
    history = [dict(epoch=k, val_r=r) for k, r in enumerate((0.3, 0.2, 0.1), 1)]
    with pytest.warns(UserWarning, match='the first of 3 validations was the best .* lower the learning rate'):
        mirage.training.train.warn_of_training(history, history[0], 0.3, None)
    with pytest.warns(UserWarning, match='ridge on the same features predicts the validation set better: r 0.3500'):
        mirage.training.train.warn_of_training(history[::-1], history[0], 0.3, dict(val_r=0.35))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        mirage.training.train.warn_of_training(history[::-1], history[0], 0.3, dict(val_r=0.25))
