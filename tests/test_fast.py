"""Every fast way to do a thing gives what the plain way gives, to the rounding of its precision, and stops where that
stops."""

import re
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer

import mirage.features.backbones
import mirage.training.loader
import mirage.training.train
from mirage.core import Contexts, file_digest, hardware, run_path
from mirage.data.release import stimulus_paths
from mirage.data.simulate import make_stimulus
from mirage.features.backbones import load_backbone
from mirage.features.extract import extract_splits, measured_tflops, product_rate
from mirage.models.model import Mirage, ModelConfig
from mirage.models.pooler import LayerPooler, MixLayers, TextbookPooler
from mirage.training.loader import Loader, Reader, make_windows
from mirage.training.runs import parameters_of, run_name, why_not
from mirage.training.train import Learner, clip_gradients, make_optimizer, start_accelerator, train
from safetensors.torch import load_file
from test_train import toy
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode
from toycohorts import TRAINED_LENGTHS, TRAINED_STREAMS, TrainedCohort, TrainedFeatures

SMALL = ModelConfig(
    streams=dict(text=32, audio=32, vision=24),
    subjects=('ann', 'bob'),
    parcels=10,
    n_output=10,
    queries=4,
    pool_dropout=0.0,
    hidden=48,
    depth=2,
    heads=4,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    torch.set_num_threads(1)
    toy(monkeypatch)
    return tmp_path


def value_and_gradients(run, parameters):
    for p in parameters:
        p.grad = None
    y = run()
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y.detach(), *(p.grad.clone() for p in parameters)]


def largest_error(ours, theirs):
    "Relative to the length of each tensor."
    return max(float((a - b).norm() / b.norm().clamp_min(1e-9)) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize('dtype, most', [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize('size', [1.0, 3000.0])  # states of real models have values of thousands
def test_the_pooler_in_one_piece_has_the_value_and_the_gradients_of_the_textbook(dtype, most, size):
    torch.manual_seed(0)
    pool = LayerPooler(48, queries=5, heads=4).to(dtype)
    for p in pool.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x = (size * torch.randn(3, 7, 13, 48)).to(dtype).requires_grad_()
    parameters = [*pool.parameters(), x]
    ours = value_and_gradients(lambda: pool.forward_whole(x), parameters)
    theirs = value_and_gradients(lambda: TextbookPooler(pool)(x), parameters)
    assert largest_error(ours, theirs) < most


def test_attention_in_columns_mixes_as_attention_in_rows():
    "As it lies on a GPU, where rows of an odd number of layers would be slow."
    torch.manual_seed(0)
    x, rows = torch.randn(7, 13, 48), torch.rand(7, 4, 5, 13)
    columns = rows.flatten(1, 2).mT.contiguous().mT.unflatten(1, (4, 5))
    assert torch.equal(rows, columns) and not columns.is_contiguous()
    shapes = (7, 4, 5), (4, 12, 48), (4, 12), (48, 48), (48,), (48,), (48,)
    others = [torch.randn(shape, requires_grad=True) for shape in shapes]
    found = []
    for w in (rows, columns):
        w, states = w.detach().requires_grad_(), x.clone().requires_grad_()
        found.append(
            value_and_gradients(
                lambda w=w, states=states: MixLayers.apply(states, w, *others, 1e-5), [w, states, *others]
            )
        )
    assert largest_error(*found) < 1e-6


def compiled_and_plain(backend):
    torch.manual_seed(0)
    model = Mirage(SMALL).train()
    x = {m: torch.randn(2, 30, 13, d).half() for m, d in SMALL.streams.items()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    plain = value_and_gradients(lambda: model(x, present=('text', 'vision')), parameters)
    model.compile_parts(backend)
    return value_and_gradients(lambda: model(x, present=('text', 'vision')), parameters), plain, model, x


def test_a_compiled_model_has_the_value_and_the_gradients_of_the_plain_one_and_evaluates_as_before():
    compiled, plain, model, x = compiled_and_plain('aot_eager')
    assert largest_error(compiled, plain) < 1e-4
    before = Mirage(SMALL).eval()
    before.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x), before(x))


@pytest.mark.long
def test_a_model_of_compiled_code_has_the_value_and_the_gradients_of_the_plain_one():
    compiled, plain, _, _ = compiled_and_plain('inductor')
    assert largest_error(compiled, plain) < 1e-4


def test_more_shapes_than_are_compiled_for_are_an_error_and_no_silent_return_to_plain_code(monkeypatch):
    monkeypatch.setattr('mirage.models.model.SHAPES', 2)
    model = Mirage(SMALL).train()
    model.compile_parts('eager')
    with pytest.raises(Exception, match='fullgraph=True'):
        for frames in range(10, 20):
            model({'text': torch.randn(1, frames, 13, 32)}, present=('text',))


def test_a_step_of_fused_adamw_is_that_of_plain_adamw_to_rounding():
    preset, found = mirage.training.train.chosen_preset('smoke', 'paper'), []
    for fused in (False, True):
        torch.manual_seed(0)
        model = Mirage(SMALL)
        optimizer, schedule = make_optimizer(model, preset, steps=30, fused=fused)
        draw = torch.Generator().manual_seed(1)
        for _ in range(30):
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=draw)
            optimizer.step()
            schedule.step()
        found.append([p.detach() for p in model.parameters()])
    assert largest_error(*found) < 1e-5


CLIP = 40.0  # of gradients whose norm is about 27 or 81


def fused_learner(steps, scale):
    "With a scaler of gradients as accelerate's fp16 has one, which is to be had on a CPU as well."
    torch.manual_seed(0)
    model, preset = Mirage(SMALL), mirage.training.train.chosen_preset('smoke', 'paper')
    optimizer, schedule = make_optimizer(model, preset, steps, fused=True)
    scaler = torch.amp.GradScaler('cpu', scale) if scale else None
    start_accelerator('no')
    wrapped = AcceleratedOptimizer(optimizer, scaler=scaler)
    if scaler:
        scaler.scale(torch.ones(()))  # as it does with the first loss
    accelerator = SimpleNamespace(
        unscale_gradients=lambda: scaler and scaler.unscale_(optimizer), clip_grad_norm_=torch.nn.utils.clip_grad_norm_
    )
    return Learner(model, model, wrapped, schedule, accelerator, fused=True)


def clip_apart(learner, clip):
    learner.accelerator.unscale_gradients()
    return learner.accelerator.clip_grad_norm_(learner.model.parameters(), clip)


def steps_taken(clip, *, scale=None, steps=30):
    "Weights, moments and norms of some steps, every other one above the limit."
    learner, norms = fused_learner(steps, scale), []
    draw, size = torch.Generator().manual_seed(1), sum(p.numel() for p in learner.model.parameters()) ** 0.5
    for step in range(steps):
        for p in learner.model.parameters():
            p.grad = torch.randn(p.shape, generator=draw) * (27 if step % 2 else 81) / size * (scale or 1)
        norms.append(float(clip(learner, CLIP)))
        learner.optimizer.step()
        learner.schedule.step()
    moments = [v for s in learner.optimizer.state_dict()['state'].values() for v in s.values()]
    return [p.detach() for p in learner.model.parameters()], moments, norms


@pytest.mark.parametrize('scale', [None, 1024.0])
def test_gradients_clipped_inside_the_step_of_adamw_do_what_clipping_before_it_does(scale):
    "Norms above and below the limit in turn; with a scaler as well, which takes its scale off first."
    weights, moments, norms = steps_taken(clip_gradients, scale=scale)
    same_weights, same_moments, same_norms = steps_taken(clip_apart, scale=scale)
    assert norms == same_norms and min(norms) < CLIP < max(norms)
    assert largest_error(weights, same_weights) < 1e-5 and largest_error(moments, same_moments) < 1e-5
    again, moments_again, _ = steps_taken(clip_gradients, scale=scale)
    assert all(map(torch.equal, weights + moments, again + moments_again))


class Passes(TorchDispatchMode):
    "How often all gradients are multiplied by a pass of its own."

    def __init__(self):
        super().__init__()
        self.multiplied = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.multiplied += func._schema.name.startswith('aten::_foreach_mul_')
        return func(*args, **kwargs or {})


def test_no_pass_of_its_own_multiplies_the_gradients_of_a_fused_step():
    passes = []
    for clip in (clip_apart, clip_gradients):
        with Passes() as watched:
            steps_taken(clip, steps=3)
        passes.append(watched.multiplied)
    assert passes == [3, 0]


@pytest.mark.parametrize('options', [dict(fused=True), dict(fused=True, precision='bf16')])
def test_a_fused_training_follows_the_plain_one_and_says_so_in_name_and_config(folder, options):
    plain = train('toy', 'toy', 3, **options | dict(fused=False))
    fused = train('toy', 'toy', 3, **options)
    assert '-fused-' in fused.path.name and fused.config['fused'] is True and 'fused' not in plain.config
    ours, theirs = (pd.read_csv(r.path / 'history.csv') for r in (fused, plain))
    for column in ('step', 'loss', 'grad_norm', 'val_r', 'lr'):
        np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-3, atol=1e-4)
    again = train('toy', 'toy', 3, name='again', **options)
    assert file_digest(again.path / 'weights.safetensors') == file_digest(fused.path / 'weights.safetensors')


@pytest.mark.parametrize('poison', [('audio', 'c'), ('text', 'a')])
def test_a_fused_training_stops_at_the_same_step_for_the_same_cause_and_keeps_nothing_of_it(
    folder, monkeypatch, poison
):
    toy(monkeypatch, poison=poison)
    said = []
    for name, fused in (('plain', False), ('fused', True)):
        with pytest.raises(FloatingPointError) as stopped:
            train('toy', 'toy', 3, name=name, fused=fused, save_every=1)
        said.append(str(stopped.value))
        path = run_path('toy', 'train', name)
        saved = torch.load(path / 'resume.pt', weights_only=True) if (path / 'resume.pt').is_file() else dict(done=0)
        assert saved['done'] == int(re.match(r'step (\d+)', said[-1])[1]) - 1
        assert not (path / 'provenance.json').exists()
    assert said[0] == said[1] and f'the {poison[0]} stream of {poison[1]}' in said[0]


def test_a_fused_step_that_is_not_finite_changes_no_weight_and_no_moment(folder, monkeypatch):
    "The host looks a step later: until then the device itself must have left everything as it was."
    seen = []
    step = mirage.training.train.train_step

    def watched(learner, batch, number, seed, clip):
        def state():
            moments = [v for s in learner.optimizer.state_dict()['state'].values() for v in s.values()]
            return [x.clone() for x in (*learner.model.parameters(), *moments)]

        before = state()
        sent = step(learner, batch, number, seed=seed, clip=clip)
        seen.append((all(torch.equal(a, b) for a, b in zip(before, state())), np.isfinite(sent.read()).all()))
        return sent

    toy(monkeypatch, poison=('audio', 'c'))
    monkeypatch.setattr(mirage.training.train, 'train_step', watched)
    with pytest.raises(FloatingPointError):
        train('toy', 'toy', 3, fused=True)
    skipped = [unchanged for unchanged, finite in seen if not finite]
    assert skipped == [True] and not any(unchanged for unchanged, finite in seen[1:] if finite)
    assert seen[-1][1] and not seen[-2][1]  # one step late


def test_ways_to_make_a_step_are_in_the_name_and_another_way_is_another_run(folder):
    for options in (dict(fused=True), dict(compiled=True), dict(compiled=True, fused=True, precision='bf16')):
        name = run_name('native', 'queries', 3, **options)
        assert parameters_of(name) == dict(fusion='native', aggregate='queries', seed=3) | options
    assert name == 'mirage-bf16-compiled-fused-native-s3'
    train('toy', 'toy', 3, epochs=1, fused=True, name='mirage-e1-native-s3')
    assert 'other settings than asked for: fused: True → None' in why_not('toy', 'train', 'mirage-e1-native-s3', 'toy')


def test_a_compiled_training_follows_the_plain_one(folder, monkeypatch, capsys):
    compile_parts = Mirage.compile_parts
    monkeypatch.setattr(Mirage, 'compile_parts', lambda self: compile_parts(self, 'aot_eager'))
    monkeypatch.setattr(mirage.training.train, 'check_compiler', lambda device: None)
    plain, compiled = train('toy', 'toy', 3, epochs=2), train('toy', 'toy', 3, epochs=2, compiled=True)
    assert (
        compiled.path.name == 'mirage-e2-compiled-native-s3'
        and 's for a step that compiled:' in capsys.readouterr().out
    )
    ours, theirs = (load_file(r.path / 'weights.safetensors') for r in (compiled, plain))
    assert largest_error([ours[k] for k in theirs], theirs.values()) < 1e-3


def test_where_nothing_can_be_compiled_a_compiled_training_is_refused_before_anything_is_written(folder, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError('no C++ compiler was found')

    monkeypatch.setattr(torch, 'compile', broken)
    with pytest.raises(ValueError, match='compiled: torch cannot compile here .*no C.. compiler.*without compiled'):
        train('toy', 'toy', 3, compiled=True)
    assert not list(folder.glob('results/toy/train/*/*'))


def test_a_gpu_without_bfloat16_is_refused_by_name(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda *a: 'Tesla T4')
    with pytest.raises(ValueError, match='precision bf16: Tesla T4 has no products in bfloat16'):
        train('toy', 'toy', 3, precision='bf16')
    assert not list(folder.glob('results/toy/train/*/*'))


class Slow(TrainedFeatures):
    "Features that take their time."

    seconds = 0.0

    def _fill(self, stream, split, start, out):
        time.sleep(self.seconds)
        super()._fill(stream, split, start, out)


@pytest.mark.parametrize('device', [None, 'cpu'])
@pytest.mark.parametrize('read, allocate, compute', [(0.06, 0.0, 0.02), (0.0, 0.05, 0.02), (0.0, 0.0, 0.05)])
def test_waiting_is_all_the_time_that_the_step_could_not_run(monkeypatch, device, read, allocate, compute):
    "From a slow disk, or for slow memory, in the time of a loop that does nothing else."
    empty = mirage.training.loader.Batch.empty.__func__

    def slowly(cls, *args, **kwargs):
        time.sleep(allocate)
        return empty(cls, *args, **kwargs)

    monkeypatch.setattr(mirage.training.loader.Batch, 'empty', classmethod(slowly))
    monkeypatch.setattr(Slow, 'seconds', read)
    cohort = TrainedCohort()
    loader = Loader(cohort, Reader(Slow(), TRAINED_LENGTHS, budget=0), 20, workers=1, device=device)
    plan = [[w] for w in (make_windows(cohort, 'train', 20, 20) * 3)[:16]]
    began = time.perf_counter()
    busy = 0.0
    for _ in loader(plan):
        start = time.perf_counter()
        time.sleep(compute)
        busy += time.perf_counter() - start
    spent = time.perf_counter() - began
    assert abs(loader.waited - (spent - busy)) < 0.1 * (spent - busy) + 0.005
    if read:
        assert loader.waited > len(plan) * (3 * read - compute) * 0.9
    if allocate:
        assert loader.waited > len(plan) * allocate * 0.9


def states_of(batch):
    return {m: x.clone() for m, x in batch.features.items()}


def batches_of(loader, plan):
    return [(states_of(b), b.bold.clone(), b.mask.clone()) for b in loader(plan)]


def test_buffers_are_made_once_and_give_the_batches_that_fresh_memory_gives():
    cohort = TrainedCohort()
    reader = Reader(TrainedFeatures(), TRAINED_LENGTHS)
    windows = make_windows(cohort, 'train', 20, 20)
    plan = [windows[i : i + n] for i, n in zip(range(0, 20, 2), (3, 2, 1, 3, 2, 3, 1, 2, 3, 3))]
    fresh, turned = Loader(cohort, reader, 20), Loader(cohort, reader, 20, device='cpu')
    made = []
    for _ in range(3):
        ours, theirs = batches_of(turned, plan), batches_of(fresh, plan)
        for (x, *rest), (y, *other) in zip(ours, theirs, strict=True):
            assert all(torch.equal(x[m], y[m]) for m in TRAINED_STREAMS)
            assert all(torch.equal(a, b) for a, b in zip(rest, other))
        made.append({id(b) for b in turned.copier.unused})
    assert made[0] == made[1] == made[2] and len(made[0]) <= mirage.training.loader.IN_FLIGHT * 2


class Event:
    "A stand-in for one of CUDA: it has happened when its stream was waited for."

    def __init__(self, enable_timing=False):
        self.timed, self.time = enable_timing, None

    def record(self, stream=None):
        self.time = time.perf_counter()

    def query(self):
        return True

    def synchronize(self):
        assert self.time is not None

    def elapsed_time(self, other):
        assert self.timed and other.timed
        return 1e3 * (other.time - self.time)


class Stream:
    waited: list = []

    def __init__(self, device=None):
        pass

    def record_event(self):
        event = Event()
        event.record()
        return event

    def wait_event(self, event):
        self.waited.append(event)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def test_on_a_gpu_what_is_computed_waits_for_the_copy_and_holds_its_memory(monkeypatch):
    "With stand-ins for CUDA's streams and events: the order of calls, not their speed."
    held = []
    for name, value in dict(
        Stream=Stream, Event=Event, stream=lambda s: s, current_stream=lambda d=None: Stream()
    ).items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, 'record_stream', lambda self, stream: held.append(self.data_ptr()))
    cohort = TrainedCohort()
    loader = Loader(cohort, Reader(TrainedFeatures(), TRAINED_LENGTHS), 20, device='cpu')
    loader.copier.gpu, loader.copier.stream, loader.idle.gpu = True, Stream(), True
    monkeypatch.setattr(
        mirage.training.loader.Copier, 'buffers', lambda self: mirage.training.loader.Buffers(pin=False)
    )
    plan = [[w] for w in make_windows(cohort, 'train', 20, 20)[:9]]
    for batch in loader(plan):
        assert batch.bold.data_ptr() in held and batch.features['text'].data_ptr() in held
    copied = [b.copied for b in loader.copier.unused]
    assert len(copied) == len(plan) and all(event in Stream.waited for event in copied)
    assert loader.waited > 0 and not loader.idle.events


def test_what_a_step_tells_is_read_after_its_event(monkeypatch):
    sent = mirage.training.train.SentLoss(
        1, [], torch.tensor([0.5, 2.0]), SimpleNamespace(synchronize=lambda: arrived.append(1))
    )
    arrived = []
    assert sent.read() == (0.5, 2.0) and arrived == [1]


def sequences(rng, count, length):
    "Rows of words for a language module: some tokens of each are read."
    ids = rng.integers(10, 50, (count, length))
    at = np.tile(np.arange(length, dtype=np.float32), (3, 1))
    return [(row.astype(int), at, [np.array([length - 1]), np.array([3, 4])]) for row in ids]


def states_and_compiled(name, backend, monkeypatch):
    plain, compiled = load_backbone(name), load_backbone(name, compiled=True)
    made = []
    compile_layers = mirage.features.backbones.compile_layers
    watched = CompileCounterWithBackend(backend)
    monkeypatch.setattr(mirage.features.backbones, 'compile_layers', lambda layers: compile_layers(layers, watched))
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        for count, length in ((2, 40), (3, 57), (1, 33), (2, 64), (4, 21)):
            rows = sequences(rng, count, length)
            theirs, ours = plain.language(rows), compiled.language(rows)
            made.append(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return made, watched.frame_count


@pytest.mark.parametrize('name', ['tiny-qwen3-omni-thinking', 'tiny-qwen2.5-omni-7b'])
def test_compiled_layers_give_the_states_of_plain_ones_and_are_compiled_for_all_lengths_at_once(monkeypatch, name):
    "Twelve layers and five shapes, of which a batch of one is special: recording does not make them compile again."
    differences, compiled = states_and_compiled(name, 'aot_eager', monkeypatch)
    assert max(differences) < 1e-6 and compiled <= 4


@pytest.mark.long
def test_layers_of_compiled_code_give_the_states_of_plain_ones(monkeypatch):
    differences, _ = states_and_compiled('tiny-qwen3-omni-thinking', 'inductor', monkeypatch)
    assert max(differences) < 1e-5


def test_a_backbone_without_a_language_module_is_not_compiled():
    with pytest.raises(ValueError, match='compiled concerns the language module of Qwen-Omni; tiny-vjepa2 has none'):
        load_backbone('tiny-vjepa2', compiled=True)


def test_the_files_of_a_store_say_that_they_were_made_by_compiled_layers(tmp_path, monkeypatch):
    compile_layers = mirage.features.backbones.compile_layers
    monkeypatch.setattr(mirage.features.backbones, 'compile_layers', lambda layers: compile_layers(layers, 'eager'))
    make_stimulus(tmp_path / 'cohort', 's01e01a', 's01', n_tr=4, seed=0)
    row = ('s01e01a', *stimulus_paths(tmp_path / 'cohort', 's01e01a'))
    movie = pd.DataFrame([row], columns=['split', 'video', 'transcript'])
    contexts = Contexts(words=8, audio=2.0, video=1.0)
    store = extract_splits(movie, tmp_path / 'store', 'tiny-qwen3-omni-thinking', contexts=contexts, compiled=True)
    assert store.made_elsewhere(['s01e01a']) == {f'{hardware()}, compiled': 3}
    with pytest.warns(UserWarning, match='made elsewhere .3 on .*, compiled; this is'):
        extract_splits(movie, tmp_path / 'store', 'tiny-qwen3-omni-thinking', contexts=contexts)


def test_an_estimate_takes_the_rate_of_this_device_and_what_is_given_before_it(monkeypatch):
    rate = product_rate('cpu', torch.float32)
    assert rate > 1e-4 and product_rate('cpu', torch.float32) == rate  # measured once
    backbone, fast = load_backbone('tiny-qwen3-omni-thinking'), load_backbone('tiny-qwen3-omni-thinking', compiled=True)
    assert measured_tflops(fast) > measured_tflops(backbone) > 0.2 * rate
