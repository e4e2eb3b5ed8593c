"Recordings as people keep them: what a table's first row is, whose parcels are whose, and what was not measured."

import warnings

import h5py, numpy as np, pandas as pd, pytest

from mirage.data.cohort import Cohort
from mirage.features.store import ready_features
from mirage.data.recordings import read_table

RNG = np.random.default_rng(0)
REAL, RAW = RNG.normal(size=(30, 6)).round(4), RNG.integers(900, 1100, (30, 6))
GAPS = [2, 3, 5, 9, 14, 15]


@pytest.fixture
def study(tmp_path):
    "Makes a cohort of one's own from arrays or from what writes a file: {subject: (n, parcels) or function}."

    def make(bold: dict, parcels=6, about='', suffix='csv'):
        (tmp_path / 'bold').mkdir(exist_ok=True)
        (tmp_path / 'features/text').mkdir(parents=True, exist_ok=True)
        lines = ['subject,split,set,bold']
        for (subject, split), write in bold.items():
            file = tmp_path / 'bold' / f'{subject}-{split}.{suffix}'
            if callable(write):
                write(file)
            else:
                np.save(file.with_suffix('.npy'), write)
                file = file.with_suffix('.npy')
            lines.append(f'{subject},{split},{"val" if split == "v" else "train"},bold/{file.name}')
        for split in {split for _, split in bold}:
            np.save(tmp_path / 'features/text' / f'{split}.npy', RNG.normal(size=(120, 2, 4)).astype('f2'))
        (tmp_path / 'runs.csv').write_text('\n'.join(lines) + '\n')
        (tmp_path / 'cohort.yaml').write_text(f'tr: 2.0\nparcels: {parcels}\nfeatures: {{text: 2.0}}\n{about}\n')
        return tmp_path

    return make


def table(x, names=None, **how):  # a function that writes it
    how = dict(index=False, header=list(names) if names is not None else False) | how
    return lambda file: pd.DataFrame(x).to_csv(file, **how)


# What somebody wrote, and what must be read: (file's text or table, names).
NUMBERED = {
    '1 to P': (table(REAL, range(1, 7)), REAL),
    '0 as pandas counts': (table(REAL, range(6)), REAL),
    'from 101': (table(REAL, range(101, 107)), REAL),
    'regions with gaps': (table(REAL, GAPS), REAL),
    'regions in another order': (table(REAL, [140, 3, 7, 201, 9, 55]), REAL),
    'quoted': (table(REAL, [f'"{k}"' for k in GAPS], quoting=3), REAL),
    'as fractions': (table(REAL, [f'{k}.0' for k in GAPS]), REAL),
    'above whole numbers': (table(RAW, range(1, 7)), RAW),
    'above many whole numbers': (table(np.hstack([RAW] * 3), range(1, 19)), np.hstack([RAW] * 3)),
    'words': (table(REAL, list('ABCDEF')), REAL),
    'a comment sign': (table(REAL, ['# A', *'BCDEF']), REAL),
    'one word among numbers': (table(REAL, [1, 2, 3, 4, 5, 'VAN']), REAL),
    'numbers and an index': (table(REAL, GAPS, index=True), REAL),
    'pandas, as it comes': (lambda f: pd.DataFrame(REAL).to_csv(f), REAL),
    'no names': (table(REAL), REAL),
    'no names, whole numbers': (table(RAW), RAW),
    'no names, first sample zeros': (table(np.vstack([np.zeros(6), REAL])), np.vstack([np.zeros(6), REAL])),
    'no names, a missing first value': (
        table(np.vstack([[np.nan, 1, 2, 3, 4, 5], REAL])),
        np.vstack([[np.nan, 1, 2, 3, 4, 5], REAL]),
    ),
    'no names, negative whole numbers first': (
        table(np.vstack([[-1, 0, 1, 2, 3, 4], REAL])),
        np.vstack([[-1, 0, 1, 2, 3, 4], REAL]),
    ),
    'no names, few digits': (table(REAL.round(1)), REAL.round(1)),
    'Windows line ends and a mark of the encoding': (
        lambda f: f.write_bytes(
            b'\xef\xbb\xbf' + pd.DataFrame(REAL).to_csv(index=False, header=GAPS).replace('\n', '\r\n').encode()
        ),
        REAL,
    ),
    'UTF-16': (lambda f: f.write_text(pd.DataFrame(REAL).to_csv(index=False, header=GAPS), encoding='utf-16'), REAL),
    'empty lines at the end': (
        lambda f: f.write_text(pd.DataFrame(REAL).to_csv(index=False, header=GAPS) + '\n\n'),
        REAL,
    ),
}


@pytest.mark.parametrize('how', NUMBERED)
@pytest.mark.parametrize('suffix', ['csv', 'tsv'])
def test_a_first_row_of_numbers_is_names_or_a_sample_and_no_sample_is_lost_or_made(tmp_path, how, suffix):
    write, values = NUMBERED[how]
    file = tmp_path / f'run.{suffix}'
    write(file)
    if suffix == 'tsv':
        encoding = 'utf-16' if how == 'UTF-16' else 'utf-8-sig'
        file.write_text(file.read_text(encoding).replace(',', '\t'), encoding)
    found = read_table(file)
    assert found.values.shape == values.shape and np.allclose(found.values, values, equal_nan=True)
    assert (found.names is None) == how.startswith('no names')
    if 'gaps' in how or how in ('quoted', 'as fractions'):
        assert found.names == tuple(map(str, GAPS))


DOUBTFUL = {
    'two numbers': (table(REAL[:, :2], [1, 2]), 'begins with .1, 2.: the names of the parcels, or the first sample'),
    'one number': (table(REAL[:, :1], [1]), 'names of the parcels, or the first sample'),
    'a number twice': (table(REAL, [1, 2, 2, 3, 4, 5]), 'names of the parcels, or the first sample'),
    'whole numbers like the rows below': (table(RNG.integers(0, 300, (30, 6)), [140, 3, 7, 201, 9, 255][::-1]), None),
    'a ramp': (table(np.arange(60).reshape(10, 6)), 'names of the parcels, or the first sample'),
    'small whole numbers that rise': (
        table(RNG.integers(0, 9, (30, 5)), [1, 2, 3, 4, 5]),
        'names of the parcels, or the first sample',
    ),
}


@pytest.mark.parametrize('how', DOUBTFUL)
def test_a_doubtful_first_row_is_refused_with_the_way_to_choose_and_the_choice_is_kept(tmp_path, how):
    write, message = DOUBTFUL[how]
    file = tmp_path / 'run.csv'
    write(file)
    rows = len(file.read_text().splitlines())
    if message:
        with pytest.raises(ValueError, match=f'run.csv .*{message}.* Say header: true in cohort.yaml'):
            read_table(file)
    assert len(read_table(file, header=False).values) == rows
    if how == 'a number twice':
        with pytest.raises(ValueError, match="names '2' twice"):
            read_table(file, header=True)
    else:
        assert len(read_table(file, header=True).values) == rows - 1


def test_many_first_rows_of_real_samples_stay_and_of_names_go(tmp_path):
    "No table of any width and precision loses or gains a sample without a word."
    rng, file = np.random.default_rng(1), tmp_path / 'run.csv'
    for trial in range(300):
        n = int(rng.integers(1, 30))
        kind = trial % 4
        x = [
            rng.normal(size=(25, n)).round(int(rng.integers(0, 5))),
            rng.integers(-5, 6, (25, n)),
            rng.integers(800, 1200, (25, n)),
            100 + rng.normal(size=(25, n)).round(1),
        ][kind]
        names = np.sort(rng.choice(300, n, replace=False)) if trial % 2 else None
        table(x, names)(file)
        try:
            found = read_table(file)
        except ValueError as e:
            assert 'names of the parcels, or the first sample' in str(e) or ('rises' in str(e) and n > 1), e
            continue
        assert len(found.values) == 25 and (found.names is not None) == (names is not None), (trial, n, x[:2])


REFUSED = {
    'a column of volume numbers': (
        lambda f: pd.DataFrame(REAL, columns=list('ABCDEF')).to_csv(f, index_label='volume'),
        "the first column, 'volume', rises in every row",
    ),
    'a column of times': (
        table(np.c_[np.arange(30) * 2.0, REAL[:, :5]], ['time', *'ABCDE']),
        "the first column, 'time', rises in every row: an index or a clock",
    ),
    'row numbers without names': (table(REAL, index=True), 'the first column rises in every row'),
    'frames that were kept': (
        table(np.c_[np.cumsum(RNG.integers(1, 4, 30)), REAL[:, :5]], ['frame', *'ABCDE']),
        "the first column, 'frame'",
    ),
    'decimal commas': (
        lambda f: f.write_text(pd.DataFrame(REAL).to_csv(sep=';', decimal=',', index=False, header=False)),
        'has semicolons in its rows.* Part columns by commas and write decimal points',
    ),
    'semicolons': (
        lambda f: f.write_text(pd.DataFrame(REAL).to_csv(sep=';', index=False, header=list('ABCDEF'))),
        'has semicolons in its rows',
    ),
    'tabulators in a .csv': (
        lambda f: f.write_text(pd.DataFrame(REAL).to_csv(sep='\t', index=False, header=GAPS)),
        'has tabulators in its rows',
    ),
    'spaces': (lambda f: np.savetxt(f, REAL), 'has spaces in its rows'),
    'cut in the middle of a row': (
        lambda f: f.write_text(pd.DataFrame(REAL).to_csv(index=False, header=GAPS)[:-30]),
        'row 31 has . columns, the first row has 6',
    ),
    'row names of R': (
        lambda f: f.write_text('A,B,C\n' + ''.join(f'{i},1.5,{i}.25,{i * i}.5\n' for i in range(9))),
        'row 2 has 4 columns, the first row has 3',
    ),
    'two headers': (lambda f: f.write_text('A,B\nx,y\n1.5,2\n1,2.5\n'), 'is not a table of numbers'),
    'a name twice': (table(REAL, ['A', 'A', *'BCDE']), "names 'A' twice"),
    'a parcel without a name': (table(REAL, ['A', '', *'BCDE']), 'column 2 has no name'),
    'names only': (lambda f: f.write_text('A,B,C\n'), 'has names of parcels and no samples'),
    'nothing': (lambda f: f.write_text('\n'), 'is empty'),
    'binary': (lambda f: f.write_bytes(bytes(range(256))), 'is not text in UTF-8|is no text'),
}


@pytest.mark.parametrize('how', REFUSED)
def test_a_table_that_cannot_be_right_is_refused_by_name(tmp_path, how):
    write, message = REFUSED[how]
    write(tmp_path / 'run.csv')
    with pytest.raises(ValueError, match=f'run.csv.*({message})'):
        read_table(tmp_path / 'run.csv')


def test_row_numbers_that_pandas_wrote_are_left_out_and_reported(study):
    folder = study({
        ('ann', 'a'): lambda f: pd.DataFrame(REAL, columns=GAPS).to_csv(f),
        ('ann', 'v'): lambda f: pd.DataFrame(REAL, columns=GAPS).to_csv(f),
    })
    with pytest.warns(
        UserWarning,
        match='the first column of 2 tables, first ann-a.csv, has no name and counts the rows: it is left out',
    ):
        cohort = Cohort.open(folder)
    assert cohort.names == tuple(map(str, GAPS)) and np.allclose(cohort.rows(cohort.runs.iloc[0]), REAL)


@pytest.mark.parametrize('parcels', [4, 'common'])
def test_regions_that_not_everybody_has_are_left_out_and_reported(study, parcels):
    ann, bob = [1, 2, 3, 5, 9, 12], [1, 2, 4, 5, 9, 13]
    folder = study({('ann', 'a'): table(REAL, ann), ('bob', 'a'): table(REAL + 1, bob[::-1])}, parcels)
    with pytest.warns(UserWarning, match='4 of 8 parcels are in every table and are used; left out: 3, 4, 12, 13'):
        cohort = Cohort.open(folder)
    assert cohort.parcels == 4 and cohort.names == ('1', '2', '5', '9')
    a, b = (cohort.rows(r) for r in cohort.runs.itertuples())
    # by name, whatever the place
    assert np.array_equal(a, REAL[:, [0, 1, 3, 4]]) and np.array_equal(b, REAL[:, [5, 4, 2, 1]] + 1)
    z = cohort.bold_window(cohort.runs.iloc[1], 3, 9)
    x = REAL[:, [5, 4, 2, 1]]
    assert np.allclose(z, ((x - x.mean(0)) / x.std(0))[3:9], atol=1e-5)


def test_other_regions_under_the_same_number_of_columns_are_refused_with_the_way_to_choose(study):
    folder = study({('ann', 'a'): table(REAL, [1, 2, 3, 5, 9, 12]), ('bob', 'a'): table(REAL, [1, 2, 4, 5, 9, 13])})
    with pytest.raises(
        ValueError,
        match='ann-a.csv names 6 parcels, .*bob-a.csv 6; 4 are in all tables, and cohort.yaml says parcels: 6. Write '
        'parcels: common',
    ):
        Cohort.open(folder)
    with pytest.raises(ValueError, match='name no parcel in common'):
        Cohort.open(study({('ann', 'a'): table(REAL, list('ABCDEF')), ('bob', 'a'): table(REAL, list('GHIJKL'))}))


def test_columns_in_another_order_are_matched_by_name_and_reported(study):
    folder = study({('ann', 'a'): table(REAL, list('ABCDEF')), ('bob', 'a'): table(REAL, list('FABCDE'))})
    with pytest.warns(
        UserWarning, match='1 of 2 tables have the parcels in another order: columns are matched by name'
    ):
        cohort = Cohort.open(folder)
    assert cohort.names == tuple('ABCDEF') and np.array_equal(
        cohort.rows(cohort.runs.iloc[1]), REAL[:, [1, 2, 3, 4, 5, 0]]
    )


@pytest.mark.parametrize('prefix', ['7Networks_', ''])
def test_tables_with_the_names_of_the_atlas_are_put_in_its_order(study, prefix):
    from mirage.data.parcels import parcel_table

    atlas = [name.replace('7Networks_', prefix) for name in parcel_table().name]
    order = np.random.default_rng(0).permutation(1000)
    x = RNG.normal(size=(5, 1000)).round(3)
    about = 'atlas: schaefer1000'
    with pytest.warns(UserWarning, match='in another order than the Schaefer atlas: columns are matched by name'):
        cohort = Cohort.open(study({('ann', 'a'): table(x[:, order], [atlas[k] for k in order])}, 1000, about))
    assert cohort.names == tuple(atlas) and np.array_equal(cohort.rows(cohort.runs.iloc[0]), x)
    cohort = Cohort.open(study({('ann', 'a'): table(x[:, order], order + 1)}, 1000, about))
    assert np.array_equal(cohort.rows(cohort.runs.iloc[0]), x)
    with pytest.warns(UserWarning, match='not those of the Schaefer atlas'):
        Cohort.open(study({('ann', 'a'): table(x, [f'V{k}' for k in range(1000)])}, 1000, about))


@pytest.mark.parametrize('begin', [0, 1])
def test_names_that_only_count_are_places_and_nothing_is_shifted(study, begin):
    counted = table(REAL, range(begin, begin + 6))
    cohort = Cohort.open(study({('ann', 'a'): counted, ('bob', 'a'): counted, ('cat', 'a'): REAL}))
    assert cohort.names is None and all(np.allclose(cohort.rows(r), REAL) for r in cohort.runs.itertuples())
    with pytest.raises(ValueError, match=r'bob-a.csv has shape \(30, 5\), but cohort.yaml says \(TRs, 6\)'):
        Cohort.open(study({('ann', 'a'): table(REAL, range(1, 7)), ('bob', 'a'): table(REAL[:, :5], range(1, 6))}))


def test_one_table_counts_from_0_and_another_from_1_and_nobody_knows_what_1_is(study):
    with pytest.raises(ValueError, match='ann-a.csv numbers its parcels from 0, .*bob-a.csv from 1'):
        Cohort.open(study({('ann', 'a'): table(REAL, range(6)), ('bob', 'a'): table(REAL, range(1, 7))}))


def test_whoever_has_all_regions_counts_as_named_beside_those_with_gaps(study):
    folder = study(
        {('ann', 'a'): table(REAL, range(1, 7)), ('bob', 'a'): table(REAL[:, 1:], [1, 2, 4, 5, 6])}, 'common'
    )
    with pytest.warns(UserWarning, match='5 of 6 parcels .* left out: 3'):
        cohort = Cohort.open(folder)
    assert cohort.names == ('1', '2', '4', '5', '6')


def test_a_file_without_names_beside_files_with_some(study):
    with pytest.warns(
        UserWarning,
        match='1 files without names, first bob-a.npy, are taken to have the parcels of ann-a.csv in the same order',
    ):
        assert Cohort.open(study({('ann', 'a'): table(REAL, GAPS), ('bob', 'a'): REAL})).names == tuple(map(str, GAPS))
    with pytest.raises(ValueError, match='cat-a.npy does not name its parcels'):
        Cohort.open(
            study(
                {
                    ('ann', 'a'): table(REAL, [1, 2, 3, 5, 9, 12]),
                    ('bob', 'a'): table(REAL, [1, 2, 4, 5, 9, 13]),
                    ('cat', 'a'): REAL[:, :4],
                },
                'common',
            )
        )


def test_a_header_that_is_said_in_cohort_yaml_settles_a_doubt(study):
    doubtful = {('ann', 'a'): table(REAL[:, :2], [1, 2])}
    with pytest.raises(ValueError, match='Say header: true'):
        Cohort.open(study(doubtful, 2))
    assert Cohort.open(study(doubtful, 2, 'header: true')).runs.n_tr.tolist() == [30]
    assert Cohort.open(study(doubtful, 2, 'header: false')).runs.n_tr.tolist() == [31]


def test_bold_that_is_a_link_out_of_the_folder_is_read(study, tmp_path_factory):
    far = tmp_path_factory.mktemp('scratch')
    np.save(far / 'x.npy', REAL)
    (far / 'folder').mkdir()
    np.save(far / 'folder/y.npy', REAL)
    folder = study({('ann', 'a'): lambda f: f.with_suffix('.npy').symlink_to(far / 'x.npy')}, suffix='npy')
    assert np.array_equal(Cohort.open(folder).rows(Cohort.open(folder).runs.iloc[0]), REAL)
    (folder / 'away').symlink_to(far / 'folder')
    (folder / 'runs.csv').write_text('subject,split,set,bold\nann,a,train,away/y.npy\n')
    assert Cohort.open(folder).check().runs.n_tr.tolist() == [30]
    (folder / 'features/text/a.npy').unlink()
    np.save(far / 'a.npy', RNG.normal(size=(120, 2, 4)).astype('f2'))
    (folder / 'features/text/a.npy').symlink_to(far / 'a.npy')
    assert ready_features(Cohort.open(folder)).read('text', 'a', 0, 4).shape == (4, 2, 4)


def test_a_hole_in_one_parcel_loses_the_parcel_and_nothing_else(study):
    x = REAL.copy()
    x[7, 2] = np.nan
    cohort = Cohort.open(study({('ann', 'a'): x, ('ann', 'v'): REAL, ('bob', 'a'): REAL, ('bob', 'v'): REAL}))
    with pytest.warns(
        UserWarning, match=r'1 of 6 parcels of ann .*NaN or infinite in some samples: 1; first in ann-a.npy.*parcel 3'
    ) as reported:
        cohort.check()
    assert len(reported) == 1 and [int(np.isnan(cohort.bold(r)).any(0).sum()) for r in cohort.runs.itertuples()] == [
        1,
        1,
        0,
        0,
    ]


def test_a_faint_signal_on_a_large_offset_is_measured(study):
    x = (1e6 + 0.5 * RNG.normal(size=(30, 6))).astype(np.float32)
    cohort = Cohort.open(study({('ann', 'a'): x}))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        z = cohort.bold(cohort.runs.iloc[0])
    wide = x.astype(float)
    assert np.allclose(z, (wide - wide.mean(0)) / wide.std(0), atol=1e-3)


@pytest.fixture
def watched(study, monkeypatch):
    """Two people and four movies of features; ann was scanned from 8 s before the movie on and lacks parcel 3 in one
    run."""

    def make(tr=2.0):
        rng = np.random.default_rng(0)
        bold = {(s, f): rng.normal(size=(40, 6)).astype('f4') for s in ('ann', 'bob') for f in ('a', 'b', 'v', 'w')}
        bold['ann', 'b'][:, 2] = np.nan
        folder = study(bold)
        runs = pd.read_csv(folder / 'runs.csv').assign(
            onset=lambda t: np.where(t.subject == 'ann', -8, 0),
            set=lambda t: np.where(t.split.isin(['v', 'w']), 'val', 'train'),
        )
        runs.to_csv(folder / 'runs.csv', index=False)
        monkeypatch.setenv('MIRAGE_ROOT', str(folder.parent / 'project'))
        (folder.parent / 'project').mkdir(exist_ok=True)
        return folder

    return make


def test_windows_follow_the_onset_of_each_run(watched):
    from mirage.training.loader import make_windows
    from mirage.data.stimuli import first_frame

    windows = make_windows(Cohort.open(watched()), 'train', 20, 20)
    assert len(windows) == 8 and {len(w.runs) for w in windows} == {1}  # nobody shares a stretch of movie
    for w in windows:
        ((subject, _, row),) = w.runs
        assert w.onset == row.onset == (-8 if subject == 0 else 0) and w.frame == first_frame(w.start, 2.0) + round(
            2 * w.onset
        )


def test_training_ridge_and_scores_run_with_a_missing_parcel_and_onsets(watched):
    from mirage.core import mean_of
    from mirage.evaluation.ensemble import choose, split_sums
    from mirage.evaluation.evaluate import evaluate, read_bold
    from mirage.training.train import train

    folder = watched()
    with pytest.warns(
        UserWarning, match=r'1 of 6 parcels of ann were not measured \(NaN: 1; first in ann-b.npy\): parcel 3\.'
    ):
        run = train(str(folder), preset='smoke', epochs=1, seed=0)
    lost = run.scores[run.scores.r.isna()]
    assert list(zip(lost.subject, lost.parcel)) == [('ann', 3)] and run.metrics['parcels'] == {'ann': 5, 'bob': 6}
    by_subject = run.scores.groupby('subject').r.mean()
    assert np.isclose(run.metrics['val_r'], by_subject.mean()) and np.isfinite(run.metrics['val_r'])
    with h5py.File(run.path / 'predictions.h5') as f:
        assert {(s, k): f['val'][s][k].shape for s in f['val'] for k in f['val'][s]} == {
            (s, k): (40, 6) for s in ('ann', 'bob') for k in 'vw'
        }
        # silent where nothing was learned
        assert (f['val/ann/v'][:, 2] == 0).all() and np.ptp(f['val/bob/v'][:, 2]) > 0
    cohort = Cohort.open(folder)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        found = evaluate(run, cohort, draws=20)['val']
        file = run.path / 'predictions.h5'
        blend = choose([file], [split_sums(file, read_bold(cohort, 'val'))], 'vw', k=1)
    assert np.allclose(found.bootstrap.r, found.score.r, atol=1e-9, equal_nan=True) and np.isnan(
        found.score.r.loc[('ann', 'all'), 3]
    )
    assert found.score.measured.tolist() == [5, 6] and np.isclose(found.score.mean, found.bootstrap.interval().estimate)
    assert found.table().query('movie == "all"').parcels.tolist() == [6, 5, 6] and np.isclose(
        mean_of(mean_of(found.bootstrap.r)), found.score.mean
    )
    assert (
        np.isnan(blend.r[0, 0, 2])
        and blend.member_weights[0, 0, 2] == 0
        and all(np.isfinite(x).all() for *_, x in blend.predict('val'))
    )


def test_stages_of_a_model_are_averaged_at_the_ridges_seconds():
    from mirage.interpretation.attribute import StageRows
    from mirage.models.ridge import DELAYS, delayed_means
    from mirage.data.stimuli import first_frame
    import torch
    from types import SimpleNamespace

    x = torch.arange(200.0)[:, None]  # a stage that counts the frames of the movie
    rows = StageRows({'m': 40, ('m', -8.0): 40}, 2.0, 2.0, delays=DELAYS)
    for start in (0, 20):
        at = first_frame(start, 2.0)
        states = torch.zeros(80, 1)
        states[max(0, -at) :] = x[max(at, 0) : at + 80]
        rows.update([SimpleNamespace(split='m', frame=at)], {'raw': states[None]})
    found = rows.close()['raw']
    frames = x.numpy()[: first_frame(20, 2.0) + 80]
    for key, onset in (('m', 0.0), (('m', -8.0), -8.0)):
        assert found[key].shape == (6, 40, 1) and np.allclose(
            found[key], delayed_means(frames, 40, 2.0, hz=2.0, onset=onset, delays=DELAYS), equal_nan=True
        )
    # four TRs of countdown
    assert np.isnan(found['m', -8.0][0, :4]).all() and not np.isnan(found['m', -8.0][0, 4:]).any()
