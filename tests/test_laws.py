"Laws that hold for whatever one is given, tried on many drawn at random."

import json, tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pytest, torch, yaml
from hypothesis import HealthCheck, example, given, settings, strategies as st

from mirage.core import DELAY, Contexts, check_name, plain_name, read_yaml
from mirage.plotting.cortex import fill_page, script_json
from mirage.training.loader import make_windows
from mirage.models.model import Mirage, ModelConfig
from mirage.prediction.recipe import Recipe
from mirage.data.release import runs_table
from mirage.data.stimuli import first_frame
from mirage.features.store import Store
from mirage.evaluation.statistics import map_runs
from mirage.evaluation.submission import content_digest, read_submission, write_submission

quick = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
    database=None,
)


@quick
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    window=st.integers(1, 120),
    tr=st.floats(0.2, 5),
    hz=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    batches=st.sampled_from(['paired', 'independent']),
)
def test_every_sample_of_every_run_is_predicted_exactly_once(lengths, window, tr, hz, batches):
    rows = [
        (f'sub-{i}', 'movie', 'f', 's', 1, 's7', None, None, n, None, None, 0.0)[: len(runs_table([]).columns)]
        for i, n in enumerate(lengths)
    ]
    cohort = SimpleNamespace(
        name='c', subjects=tuple(f'sub-{i}' for i in range(len(lengths))), tr=tr, runs=runs_table(rows)
    )
    counts = [np.zeros(n, int) for n in lengths]
    for w in make_windows(cohort, 's7', window, window, batches=batches, hz=hz):
        for subject, _, row in w.runs:
            counts[subject][w.start : min(w.start + window, row.n_tr)] += 1
        assert w.frame == first_frame(w.start, tr, hz) and abs(w.frame / hz - (w.start * tr - DELAY)) <= 0.5 / hz + 1e-6
    assert all((c == 1).all() for c in counts)


plain = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=12)
tree = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


@quick
@given(value=tree, cut=st.floats(0, 1))
def test_yaml_is_used_whole_or_refused(value, cut, tmp_path):
    file = tmp_path / 'x.yaml'
    text = yaml.safe_dump(value)
    file.write_text(text, encoding='utf-8', newline='')
    assert read_yaml(file) == value
    if isinstance(value, dict) and value:  # the same once more: every key is given twice
        body = yaml.safe_dump(value, default_flow_style=False)
        file.write_text(body + body, encoding='utf-8', newline='')
        with pytest.raises(ValueError, match='x.yaml'):
            read_yaml(file)
    file.write_bytes(text.encode()[: int(cut * len(text.encode()))])
    try:
        read_yaml(file)
    except ValueError as e:
        assert 'x.yaml' in str(e)


@quick
@given(value=tree)
def test_a_recipe_takes_nothing_that_it_does_not_know(value, tmp_path):
    Recipe('tiny-tribe', cohort='c').write(tmp_path / 'recipe.yaml')
    good = yaml.safe_load((tmp_path / 'recipe.yaml').read_text())
    for key in [*good, 'more']:
        (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(good | {key: value}), encoding='utf-8', newline='')
        try:
            found = Recipe.read(tmp_path / 'recipe.yaml')
        except ValueError as e:
            assert 'recipe.yaml' in str(e)
        else:
            read = getattr(found, key, None)
            same = dict(contexts=lambda: read == Contexts(**value), parcels=lambda: list(read) == value)
            assert key != 'more' and same.get(key, lambda: read == value)()


@quick
@given(
    steps=st.integers(1, 9),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    start=st.integers(-4, 9),
    length=st.integers(0, 9),
    cut=st.floats(0, 1),
    at=st.floats(0, 0.999),
    bit=st.integers(0, 7),
)
@example(steps=1, shape=(1, 1), start=0, length=0, cut=0.0, at=0.74609375, bit=0)  # the name of an attribute
def test_a_store_never_gives_half_a_file(steps, shape, start, length, cut, at, bit):
    with tempfile.TemporaryDirectory() as d:
        states = np.random.default_rng(steps).normal(size=(steps, *shape)).astype(np.float16)
        store = Store.create(d, dict(a=1), dict(text=shape))
        path = store.write('text', 'f', states, source='movie')
        whole = path.read_bytes()
        expected = np.zeros((length, *shape), np.float16)
        for k in range(length):
            if 0 <= start + k < steps:
                expected[k] = states[start + k]
        assert np.array_equal(Store.open(d).read('text', 'f', start, start + length), expected)
        path.write_bytes(whole[: int(cut * len(whole))])
        if cut < 1:
            assert not Store.open(d).has('text', 'f')
            with pytest.raises(ValueError, match='f.h5'):
                Store.open(d).length('text', 'f')
        flipped = bytearray(whole)
        flipped[int(at * len(whole))] ^= 1 << bit
        path.write_bytes(flipped)
        again = Store.open(d)
        if again.has('text', 'f', verify=True):
            assert np.array_equal(again.read('text', 'f', 0, steps), states)  # what was flipped carries nothing


names = st.text('abcdefghij0123456789-_.', min_size=1, max_size=12).filter(lambda s: s[0] not in '-_.')


@quick
@given(
    lengths=st.dictionaries(
        st.sampled_from(['wot1', 'wot2', 'chaplin1', 'pulpfiction2']), st.integers(12, 40), min_size=1
    ),
    subjects=st.lists(names, min_size=1, max_size=3, unique=True),
    parcels=st.integers(1, 5),
    fortran=st.booleans(),
)
def test_submissions_come_back_as_they_went(lengths, subjects, parcels, fortran):
    rng = np.random.default_rng(parcels)
    rows = {s: dict(lengths) for s in subjects}
    order = 'F' if fortran else 'C'
    x = map_runs(lambda n: np.asarray(rng.normal(size=(n, parcels)), np.float32, order=order), rows)
    with tempfile.TemporaryDirectory() as d:
        digest = write_submission(Path(d) / 'x.zip', x, rows, parcels)
        back = read_submission(Path(d) / 'x.zip')
    assert (
        list(back) == list(x)
        and content_digest(back) == digest
        and all(np.array_equal(back[s][k], x[s][k]) for s in x for k in x[s])
    )


@quick
@given(
    widths=st.dictionaries(
        st.sampled_from(['text', 'audio', 'vision', 'smell']), st.sampled_from([4, 8, 12]), min_size=1
    ),
    people=st.integers(1, 3),
    frames=st.integers(2, 12),
    null=st.booleans(),
    seed=st.integers(0, 99),
)
def test_all_modalities_together_are_the_whole(widths, people, frames, null, seed):
    torch.manual_seed(seed)
    model = Mirage(
        ModelConfig(
            streams=widths,
            subjects=[f's{i}' for i in range(people)],
            parcels=3,
            n_output=2,
            queries=2,
            pool_heads=2,
            hidden=12 * len(widths),
            depth=1,
            heads=2,
            null_tokens=null,
        )
    ).eval()
    x = {m: torch.randn(1, frames, 3, d) for m, d in widths.items()}
    whole = model(x)
    for order in (list(widths), list(reversed(list(widths)))):
        assert torch.equal(model(x, present=order), whole)
    assert whole.shape == (1, people, 2, 3) and all(
        torch.allclose(model(x, torch.tensor([s])), whole[:, s : s + 1], atol=1e-5) for s in range(people)
    )


@quick
@given(text=st.text(max_size=60))
def test_any_text_becomes_a_plain_name_or_none_and_stands_in_a_page_as_itself(text):
    assert plain_name(text) == '' or check_name('name', plain_name(text)) == plain_name(text)
    script = script_json({'x': text})
    assert not set('<>&\u2028\u2029') & set(script) and json.loads(script)['x'] == text
    assert fill_page('a__X__b__Y__', X=text, Y='__X__') == f'a{text}b__X__'
