"""The model against a plain re-implementation that shares no code with it, and against files that are not what they
should be."""

import json, struct

import numpy as np, pytest, torch, yaml
from safetensors.torch import save_file

from mirage.models import pooler
from mirage.models.model import Mirage, ModelConfig, load_model
from mirage.models.pooler import LayerPooler

D = 16
Q = 3
H = 36
P = 5
S = 4
POSITIONS = 40
DEPTH = 2
HEADS = 3
POOL_HEADS = 2
MODALITIES = ('text', 'audio', 'vision')

# ---- the published form, written down from its description


def published_shapes(d=D, q=Q, h=H, p=P, s=S, positions=POSITIONS, depth=DEPTH, heads=HEADS):
    shapes = {}
    for m in MODALITIES:
        pool = f'layer_poolers.{m}.'
        shapes |= {
            pool + 'query_tokens': (q, d),
            pool + 'attn.in_proj_weight': (3 * d, d),
            pool + 'attn.in_proj_bias': (3 * d,),
            pool + 'attn.out_proj.weight': (d, d),
            pool + 'attn.out_proj.bias': (d,),
        }
        shapes |= {f'{pool}{norm}.{x}': (d,) for norm in ('input_norm', 'output_norm') for x in ('weight', 'bias')}
        shapes |= {f'projectors.{m}.net.weight': (h // 3, q * d), f'projectors.{m}.net.bias': (h // 3,)}
    t = 'temporal_encoder.'
    shapes[t + 'time_pos_embed'] = (1, positions, h)
    t += 'encoder.'
    for i in range(depth):
        a, f = f'{t}layers.{2 * i}.', f'{t}layers.{2 * i + 1}.'
        shapes |= {a + '0.0.g': (1,), f + '0.0.g': (1,), a + '2.residual_scale': (h,), f + '2.residual_scale': (h,)}
        shapes |= {f'{a}1.to_{x}.weight': (h, h) for x in ('q', 'k', 'v', 'out')}
        shapes |= {
            f + '1.ff.0.0.weight': (4 * h, h),
            f + '1.ff.0.0.bias': (4 * h,),
            f + '1.ff.2.weight': (h, 4 * h),
            f + '1.ff.2.bias': (h,),
        }
    return shapes | {
        t + 'rotary_pos_emb.inv_freq': (h // heads // 4,),
        t + 'final_norm.g': (1,),
        'head.weights': (s, h, p),
        'head.bias_param': (s, p),
    }


def published_config(n_output=7, **changes):
    return dict(
        data=dict(modalities=list(MODALITIES), window_trs=n_output),
        modality_stack={
            m: dict(
                kind='layer_cross_attention', heads=POOL_HEADS, n_queries=Q, query_output='concat', attn_dropout=0.2
            )
            for m in MODALITIES
        },
        model=dict(
            hidden_dim=H,
            depth=DEPTH,
            heads=HEADS,
            ff_mult=4,
            projector_kind='linear',
            modality_dropout=0.3,
            n_output_timesteps=n_output,
        )
        | changes,
    )


def random_state(kind):
    torch.manual_seed(0)
    state = {}
    for name, shape in published_shapes().items():
        x = torch.randn(shape)
        if name.endswith('.g'):
            x = 0.1 * x + (kind == 'old')
        elif 'norm.weight' in name or 'residual_scale' in name:
            x = 1 + 0.2 * x
        elif name.endswith('inv_freq'):
            x = 10000.0 ** -(torch.arange(shape[0]) / shape[0])
        elif len(shape) > 1 and 'query' not in name:
            x = x / shape[-1] ** 0.5
        state[name] = x
    return state


@pytest.fixture(params=['old', 'new'])
def published(request, tmp_path):
    state = random_state(request.param)
    save_file(state, tmp_path / 'model.safetensors')
    (tmp_path / 'config.yaml').write_text(
        '# dumped\n' + yaml.safe_dump(published_config()).replace('data:', 'data: !!python/object:some.Config')
    )
    return request.param, state, tmp_path


# ---- plain re-implementation: loops and textbook formulas


def layer_norm(x, w, b):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * w + b


def plain_pool(state, m, x):  # (T, L, D) → (T, Q*D)
    def g(name):
        return state[f'layer_poolers.{m}.{name}']

    (wq, wk, wv), (bq, bk, bv), d = g('attn.in_proj_weight').split(D), g('attn.in_proj_bias').split(D), D // POOL_HEADS
    x = layer_norm(x, g('input_norm.weight'), g('input_norm.bias'))
    k, v, q = x @ wk.T + bk, x @ wv.T + bv, g('query_tokens') @ wq.T + bq
    out = []
    for t in range(len(x)):
        heads = [
            ((q[:, i : i + d] @ k[t, :, i : i + d].T) / d**0.5).softmax(-1) @ v[t, :, i : i + d] for i in range(0, D, d)
        ]
        z = torch.cat(heads, -1) @ g('attn.out_proj.weight').T + g('attn.out_proj.bias')
        out.append(layer_norm(z, g('output_norm.weight'), g('output_norm.bias')).flatten())
    return torch.stack(out)


def plain_rotate(x, inv_freq, kind):  # (T, head dim)
    x, half = x.clone(), len(inv_freq)
    angle = torch.arange(len(x)).float()[:, None] * inv_freq
    for i in range(half):
        a, b = (i, i + half) if kind == 'old' else (2 * i, 2 * i + 1)
        xa, xb, c, s = x[:, a].clone(), x[:, b].clone(), angle[:, i].cos(), angle[:, i].sin()
        x[:, a], x[:, b] = xa * c - xb * s, xb * c + xa * s
    return x


def plain_temporal_encoder(state, x, kind):  # (T, H)
    def g(name):
        return state['temporal_encoder.' + name]

    def norm(x, gain):
        return x / x.norm(dim=-1, keepdim=True) * H**0.5 * (gain if kind == 'old' else 1 + gain)

    x, d = x + g('time_pos_embed')[0, : len(x)], H // HEADS
    for i in range(DEPTH):
        n, y = f'encoder.layers.{2 * i}.', norm(x, g(f'encoder.layers.{2 * i}.0.0.g'))
        q, k, v = (y @ g(f'{n}1.to_{name}.weight').T for name in 'qkv')

        def rotate(z):
            return plain_rotate(z, g('encoder.rotary_pos_emb.inv_freq'), kind)

        heads = [
            ((rotate(q[:, j : j + d]) @ rotate(k[:, j : j + d]).T) / d**0.5).softmax(-1) @ v[:, j : j + d]
            for j in range(0, H, d)
        ]
        x = torch.cat(heads, -1) @ g(n + '1.to_out.weight').T + x * g(n + '2.residual_scale')
        n, y = f'encoder.layers.{2 * i + 1}.', norm(x, g(f'encoder.layers.{2 * i + 1}.0.0.g'))
        y = y @ g(n + '1.ff.0.0.weight').T + g(n + '1.ff.0.0.bias')
        y = 0.5 * y * (1 + torch.erf(y / 2**0.5)) @ g(n + '1.ff.2.weight').T + g(n + '1.ff.2.bias')
        x = y + x * g(n + '2.residual_scale')
    return norm(x, g('encoder.final_norm.g'))


def plain_mirage(state, features, kind, n_output, present=MODALITIES):  # {m: (T, L, D)} → (S, n_output, P)
    z = [
        plain_pool(state, m, features[m]) @ state[f'projectors.{m}.net.weight'].T + state[f'projectors.{m}.net.bias']
        for m in MODALITIES
    ]
    h = plain_temporal_encoder(state, torch.cat([x * (m in present) for m, x in zip(MODALITIES, z)], -1), kind)
    y = torch.einsum('th,shp->stp', h, state['head.weights']) + state['head.bias_param'][:, None]
    edges = [(i * len(h) // n_output, -(-(i + 1) * len(h) // n_output)) for i in range(n_output)]
    return torch.stack([y[:, a:b].mean(1) for a, b in edges], 1)


def random_features(windows=2, frames=20, layers=6):
    torch.manual_seed(1)
    return {m: 2 * torch.randn(windows, frames, layers, D) + 0.5 for m in MODALITIES}


def close(a, b, tolerance=1e-5):
    return (a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1)


# ---- published checkpoints


def test_published_checkpoint_equals_plain_reimplementation(published, capsys):
    kind, state, folder = published
    x = random_features()
    model = Mirage.from_pretrained(folder)
    assert f'{kind} convention' in capsys.readouterr().out and not model.training
    # without null tokens a missing stream is a zeroed projection
    for present in (MODALITIES, ('audio',), ('text', 'vision')):
        found = model(x, present=present)
        for b in range(2):
            one = {m: f[b] for m, f in x.items()}
            assert close(found[b], plain_mirage(state, one, kind, 7, present))
    other = Mirage.from_pretrained(folder, convention={'old': 'new', 'new': 'old'}[kind])
    assert not close(other(x), model(x), 1e-2)  # the two conventions are distinguished by this test


def test_published_names_are_the_models_names():
    with torch.device('meta'):
        model = Mirage(ModelConfig(null_tokens=False))
    full = published_shapes(2048, 24, 3072, 1000, 4, 1024, 8, 8)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == full and len(full) == 134


def test_full_size_checkpoint_loads_strictly(tmp_path):
    "1,123,105,713 parameters through the file; random where it is cheap, the rest of the file is a hole."
    header, at, rng = {}, 0, np.random.default_rng(0)
    for name, shape in published_shapes(2048, 24, 3072, 1000, 4, 1024, 8, 8).items():
        size = 4 * int(np.prod(shape))
        header[name] = dict(dtype='F32', shape=shape, data_offsets=[at, at + size])
        at += size
    head = json.dumps(header).encode()
    head += b' ' * (-len(head) % 8)
    written = {}
    with open(tmp_path / 'model.safetensors', 'wb') as f:
        f.write(struct.pack('<Q', len(head)) + head)
        f.truncate(8 + len(head) + at)
        for name, t in header.items():
            if name.endswith('final_norm.g'):
                continue  # zero: the new temporal encoder, nothing to convert
            begin, end = t['data_offsets']
            written[name] = rng.standard_normal(min(1024, (end - begin) // 4)).astype(np.float32)
            f.seek(8 + len(head) + begin)
            f.write(written[name].tobytes())
    config = published_config(100, hidden_dim=3072, depth=8, heads=8)
    for stack in config['modality_stack'].values():
        stack |= dict(n_queries=24, heads=4)
    (tmp_path / 'config.yaml').write_text(yaml.safe_dump(config))
    model = Mirage.from_pretrained(tmp_path)
    assert sum(p.numel() for p in model.parameters()) == 1_123_105_713
    assert model.config == ModelConfig(null_tokens=False, rotary=192)
    state = model.state_dict()
    assert all((state[n].flatten()[: len(w)].numpy() == w).all() for n, w in written.items())


def test_rotary_dimensions_are_those_of_the_checkpoint(tmp_path):
    state = random_state('new')
    # 4 of 12 dimensions instead of 6
    state['temporal_encoder.encoder.rotary_pos_emb.inv_freq'] = torch.tensor([1.0, 0.3])
    save_file(state, tmp_path / 'model.safetensors')
    (tmp_path / 'config.yaml').write_text(yaml.safe_dump(published_config()))
    x = random_features(1)
    assert close(Mirage.from_pretrained(tmp_path)(x)[0], plain_mirage(state, {m: f[0] for m, f in x.items()}, 'new', 7))


@pytest.mark.parametrize(
    'damage, message',
    [
        ('short', 'not a whole safetensors'),
        ('missing', 'Missing key'),
        ('shape', 'size mismatch'),
        ('extra', 'Unexpected key'),
        ('config', 'do not belong together'),
        ('heads', 'not in the published form'),
        ('gain', 'neither near 0'),
        ('pickle', 'only safetensors'),
        ('nothing', 'neither config.json'),
    ],
)
def test_bad_checkpoints_are_refused_by_name(tmp_path, damage, message):
    state, config = random_state('new'), published_config()
    if damage == 'missing':
        del state['head.bias_param']
    if damage == 'shape':
        state['head.bias_param'] = torch.zeros(S, P + 1)
    if damage == 'extra':
        state['head.more'] = torch.zeros(1)
    if damage == 'config':
        config['model']['hidden_dim'] = 72
    if damage == 'heads':
        del config['model']['heads']
    if damage == 'gain':
        state['temporal_encoder.encoder.final_norm.g'] = torch.tensor([0.5])
    if damage == 'pickle':
        torch.save(state, tmp_path / 'pytorch_model.bin')
    else:
        save_file(state, tmp_path / 'model.safetensors')
    if damage == 'short':
        data = (tmp_path / 'model.safetensors').read_bytes()
        (tmp_path / 'model.safetensors').write_bytes(data[: len(data) // 2])
    if damage != 'nothing':
        (tmp_path / 'config.yaml').write_text(yaml.safe_dump(config))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Mirage.from_pretrained(tmp_path)


# ---- our form, and the hub


def small_model(**changes):
    torch.manual_seed(0)
    config = ModelConfig(
        streams={'vision': 16, 'text': 16, 'audio': 24},
        subjects=('a', 'b'),
        parcels=P,
        n_output=7,
        queries=Q,
        pool_heads=2,
        hidden=36,
        depth=1,
        heads=3,
    )
    return Mirage(ModelConfig(**{**vars(config), **changes})).eval()


def test_push_to_hub_sends_what_save_pretrained_writes(monkeypatch, tmp_path):
    sent = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **_):
            return type('Repo', (), dict(repo_id=repo_id))

        def upload_folder(self, repo_id, folder_path, **_):
            sent[repo_id] = {p.name: p.read_bytes() for p in folder_path.iterdir()}

    monkeypatch.setattr('huggingface_hub.hub_mixin.HfApi', Api)
    model = small_model()
    model.push_to_hub('someone/brain')
    for name, data in sent['someone/brain'].items():
        (tmp_path / name).write_bytes(data)
    again = Mirage.from_pretrained(tmp_path)
    assert again.config == model.config and all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values())
    )


@pytest.mark.parametrize('form', ['ours', 'published'])
def test_a_hub_id_is_read_from_the_cache_without_a_network(tmp_path, form):
    repo, sha = tmp_path / 'models--someone--brain', 'a' * 40
    folder = repo / 'snapshots' / sha
    folder.mkdir(parents=True)
    (repo / 'refs').mkdir()
    (repo / 'refs' / 'main').write_text(sha)
    if form == 'ours':
        small_model().save_pretrained(folder)
    else:
        save_file(random_state('old'), folder / 'model.safetensors')
        (folder / 'config.yaml').write_text(yaml.safe_dump(published_config()))
    model = Mirage.from_pretrained('someone/brain', cache_dir=tmp_path, local_files_only=True)
    assert model.config.queries == Q and model.config.null_tokens == (form == 'ours')


def test_an_unfinished_run_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match='has not ended'):
        load_model(tmp_path)


# ---- the pooler


def random_pooler(dropout=0.0):
    torch.manual_seed(2)
    p = LayerPooler(D, Q, POOL_HEADS, dropout=dropout)
    for x in p.parameters():
        torch.nn.init.normal_(x, std=0.3)
    return p


def textbook(p, x):  # (N, L, D)
    k = p.input_norm(x)
    return p.output_norm(p.attn(p.query_tokens.expand(len(x), -1, -1), k, k)[0]).flatten(1)


@pytest.mark.parametrize('dropout', [0.0, 0.4])
@pytest.mark.parametrize('chunk', [1, 3, 100])
def test_pooler_equals_textbook_in_value_and_every_gradient_whatever_the_chunk(monkeypatch, chunk, dropout):
    monkeypatch.setattr(pooler, 'time_chunks', lambda x: chunk)
    p, x, gradients = random_pooler(dropout), 3 * torch.randn(7, 5, D) + 1, []
    for f in (p, lambda x: textbook(p, x)):
        x = x.detach().requires_grad_()
        p.zero_grad()
        torch.manual_seed(3)
        y = f(x)
        (y * torch.linspace(-1, 2, y.numel()).view_as(y)).sum().backward()
        gradients.append([y.detach(), x.grad] + [q.grad for q in p.parameters()])
    for ours, theirs in zip(*gradients):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_float16_features_are_what_they_are_in_float32():
    p, x = random_pooler(), torch.randn(2, 7, 5, D).half()
    assert torch.equal(p(x), p(x.float())) and p(x).dtype == torch.float32


@pytest.mark.parametrize(
    'scale, offset', [(1000.0, 0.0), (1e-3, 0.0), (1.0, 3.0), (0.0, 0.0)]
)  # large, tiny, off centre, silent
def test_float16_autocast_stays_close_to_float32(scale, offset):
    p = random_pooler()
    x = (scale * torch.randn(7, 5, D) + offset).half().requires_grad_(False)
    with torch.autocast('cpu', torch.float16):
        y = p(x)
    y.float().sum().backward()
    assert y.dtype == torch.float16 and (y - p(x)).abs().max() < 0.05 * p(x).abs().max()
    assert all(q.grad.isfinite().all() for q in p.parameters())


def test_training_step_under_bfloat16_autocast():
    model = small_model().train()
    x = {
        'text': torch.randn(2, 20, 6, 16).half(),
        'audio': torch.randn(2, 20, 6, 24).half(),
        'vision': torch.randn(2, 20, 6, 16).half(),
    }
    with torch.autocast('cpu', torch.bfloat16):
        model(x).square().mean().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters()
    )


# ---- the whole


@pytest.mark.parametrize('aggregate', ['queries', 'mean', 'groups'])
def test_every_aggregation_trains_and_comes_back(tmp_path, aggregate):
    model = small_model(aggregate=aggregate)
    model.save_pretrained(tmp_path)
    # layers are free
    x = {'text': torch.randn(1, 20, 6, 16), 'audio': torch.randn(1, 20, 9, 24), 'vision': torch.randn(1, 20, 4, 16)}
    y = Mirage.from_pretrained(tmp_path)(x)
    assert close(y, model(x)) and all(a.sum(-1).allclose(torch.ones(())) for a in model.attention(x).values())
    model.train()(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_dropping_a_stream_is_multiplying_its_projection_by_zero():
    model = small_model(null_tokens=False, pool_dropout=0.0)
    x = {m: torch.randn(1, 20, 6, d) for m, d in (('text', 16), ('audio', 24), ('vision', 16))}
    pooled = model.train().pool(x)
    h = torch.cat([model.projectors[m]['net'](pooled[m]) * (m != 'audio') for m in MODALITIES], -1)
    expected = model.head(model.temporal_encoder(h))
    gradients = []
    assert torch.equal(model(x, present=('vision', 'text')), expected)
    for y in (expected, model(x, present=('vision', 'text'))):
        model.zero_grad()
        y.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients):
        assert close(a, b)


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda m, x: m(x | {'text': x['text'][..., :8]}), 'stream text has width 8'),
        (lambda m, x: m({'text': x['text']}), 'no features of stream audio'),
        (lambda m, x: m(x, present=('smell',)), 'name at least one of'),
        (lambda m, x: m(x, present=()), 'name at least one of'),
        (lambda m, x: m({k: v.repeat(1, 60, 1, 1) for k, v in x.items()}), 'longer than the 1024 positions'),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(
            small_model(),
            {
                'text': torch.randn(1, 20, 6, 16),
                'audio': torch.randn(1, 20, 6, 24),
                'vision': torch.randn(1, 20, 6, 16),
            },
        )


@pytest.mark.parametrize(
    'field',
    [dict(aggregate='max'), dict(hidden=40), dict(hidden=32, heads=4), dict(modality_dropout=1.0), dict(pool_heads=5)],
)
def test_impossible_shapes_are_refused(field):
    with pytest.raises(ValueError, match=next(iter(field)).removeprefix('pool_')):
        small_model(**field)
