"Submissions with the real lengths: what is refused, and that any NumPy can read what is written."

import pickletools, zipfile
from pathlib import Path

import numpy as np, pytest

from mirage.data.release import read_lengths
from mirage.evaluation.statistics import map_runs
from mirage.evaluation.submission import content_digest, deviations, dump_npy, read_submission, write_submission

LENGTHS = Path(__file__).parent / 'data/algonauts2025/target_samples'
SUBJECTS = ('sub-01', 'sub-02', 'sub-03', 'sub-05')
PARCELS = 3


def real_rows(name):  # {subject: {split: TRs}} from the dataset's own files
    return {s: read_lengths(LENGTHS / s / 'target_sample_number' / f'{s}_{name}_fmri_samples.npy') for s in SUBJECTS}


def good(rows):
    rng = np.random.default_rng(0)
    return map_runs(lambda n: rng.standard_normal((n, PARCELS), np.float32), rows)


def test_the_eight_real_length_files():
    s7, ood = real_rows('friends-s7'), real_rows('ood')
    assert [sum(r.values()) for r in s7.values()] == [23499, 23464, 23499, 23499] and {len(r) for r in s7.values()} == {
        49
    }
    assert {sum(r.values()) for r in ood.values()} == {4918} and {len(r) for r in ood.values()} == {12}
    assert s7['sub-02']['s07e03b'] == 417 and s7['sub-01']['s07e03b'] == 452
    for rows in (s7, ood):
        assert deviations(good(rows), rows, PARCELS) == []


def changed(subject, split, change):
    def break_it(x):
        x[subject][split] = change(x)

    return break_it


@pytest.mark.parametrize(
    'break_it, expected',
    [
        (lambda x: x['sub-03'].pop('s07e10a'), 'sub-03 s07e10a: the split is missing'),
        (
            changed('sub-01', 's07e01a', lambda x: np.vstack([x['sub-01']['s07e01a'], x['sub-01']['s07e01b'][:1]])),
            'sub-01 s07e01a: has 461 rows, expected 460',
        ),
        (changed('sub-02', 's07e03b', lambda x: x['sub-01']['s07e03b']), 'sub-02 s07e03b: has 452 rows, expected 417'),
        (
            changed('sub-05', 's07e01a', lambda x: x['sub-05']['s07e01a'].astype(float)),
            'sub-05 s07e01a: has dtype float64, expected float32',
        ),
        (lambda x: x['sub-01']['s07e04b'].__setitem__((7, 2), np.nan), 'sub-01 s07e04b: has 1 NaN or infinite values'),
        (lambda x: x.update({'sub-04': x['sub-01']}), 'sub-04: is no subject of this set'),
        (lambda x: x.pop('sub-02'), 'sub-02: the subject is missing'),
        (
            changed('sub-01', 's07e01b', lambda x: {'left': x['sub-01']['s07e01b']}),
            'sub-01 s07e01b: is a dict, expected an array',
        ),
        (
            changed('sub-01', 's07e01b', lambda x: np.array([x, None], dtype=object)),
            'sub-01 s07e01b: has dtype object, expected float32',
        ),
        (changed('sub-01', 's06e01b', lambda x: x['sub-01']['s07e01b']), 'sub-01 s06e01b: is no split of this set'),
        (
            lambda x: [v.__setitem__((slice(None), 1), 2.0) for v in x['sub-03'].values()],
            'sub-03 s07: 1 parcels never change, .* parcel 2',
        ),
    ],
)
def test_every_deviation_is_refused_by_name_and_nothing_is_written(break_it, expected, tmp_path):
    rows = real_rows('friends-s7')
    x = good(rows)
    break_it(x)
    with pytest.raises(ValueError, match=expected) as error:
        write_submission(tmp_path / 's7.zip', x, rows, PARCELS)
    assert 'in 1 places' in str(error.value) and not list(tmp_path.iterdir())


def test_a_movie_predicted_as_constant_is_refused():
    rows = real_rows('ood')
    x = good(rows)
    for k in ('wot1', 'wot2'):
        x['sub-01'][k][5:-5, 0] = 0  # the rows that count
    assert deviations(x, rows, PARCELS) == ['sub-01 wot: 1 parcels never change, the first is parcel 1: their r is NaN']


def test_the_file_names_no_module_that_another_numpy_lacks(tmp_path):
    rows = real_rows('ood')
    x = good(rows)
    path = tmp_path / 'fmri_predictions_ood.zip'
    x['sub-01']['wot1'] = np.asfortranarray(x['sub-01']['wot1'])
    digest = write_submission(path, x, rows, PARCELS)
    with zipfile.ZipFile(path) as z:
        assert z.namelist() == ['fmri_predictions_ood.npy']
        z.extractall(tmp_path)
        raw = (tmp_path / 'fmri_predictions_ood.npy').read_bytes()
    ops = list(pickletools.genops(raw[10 + int.from_bytes(raw[8:10], 'little') :]))
    assert {arg for op, arg, _ in ops if op.name in ('GLOBAL', 'INST')} == {'numpy ndarray', 'numpy dtype'}
    assert not any(op.name == 'STACK_GLOBAL' for op, *_ in ops)
    assert b'_core' not in raw and b'multiarray' not in raw
    loaded = np.load(tmp_path / 'fmri_predictions_ood.npy', allow_pickle=True).item()
    assert all(np.array_equal(loaded[s][k], x[s][k]) and loaded[s][k].dtype == np.float32 for s in x for k in x[s])
    assert digest == content_digest(loaded) == content_digest(read_submission(path))


def test_equal_predictions_give_equal_files(tmp_path):
    rows = real_rows('ood')
    x = good(rows)
    (tmp_path / 'b').mkdir()
    for folder in (tmp_path, tmp_path / 'b'):
        write_submission(folder / 'ood.zip', x, rows, PARCELS)
    assert (tmp_path / 'ood.zip').read_bytes() == (tmp_path / 'b/ood.zip').read_bytes()


def test_a_file_saved_by_numpy_itself_is_read_and_a_hostile_one_is_not(tmp_path):
    x = {'sub-01': {'wot1': np.ones((2, 3), np.float32)}}
    np.save(tmp_path / 'x.npy', x)
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as z:
        z.write(tmp_path / 'x.npy', 'x.npy')
    assert np.array_equal(read_submission(tmp_path / 'x.zip')['sub-01']['wot1'], x['sub-01']['wot1'])

    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / 'ran',)

    with open(tmp_path / 'h.npy', 'wb') as f:
        dump_npy(f, {'sub-01': Hostile()})
    with zipfile.ZipFile(tmp_path / 'h.zip', 'w') as z:
        z.write(tmp_path / 'h.npy', 'h.npy')
    with pytest.raises(ValueError, match='h.zip is no submission that can be read .it names .*which no array needs'):
        read_submission(tmp_path / 'h.zip')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('at', [0.3, 0.6, 0.9])
def test_a_flipped_byte_in_a_submission_is_noticed(at, tmp_path):
    rows = real_rows('ood')
    path = tmp_path / 'ood.zip'
    write_submission(path, good(rows), rows, PARCELS)
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match='ood.zip is no submission'):
        read_submission(path)
