"The cohort: the release's skeleton counted, and everything that can be wrong with a folder of data."

import csv, json, os, pickle, re, shutil, subprocess, sys, time
from pathlib import Path

import h5py, numpy as np, pytest

from mirage.data.cohort import Cohort
from mirage.core import PARCELS, SUBJECTS, cohort_id, cohort_name, root, run_path
from mirage.data.release import RELEASE, read_lengths
from mirage.features.store import ready_features

FACTS = Path(__file__).parent / 'data' / 'algonauts2025'
COUNTS = json.loads((FACTS / 'sample_counts.json').read_text())


def bold_file(root, subject, task):
    desc = 'desc-s123456_' if task == 'friends' else ''
    return (
        root
        / RELEASE
        / 'fmri'
        / subject
        / 'func'
        / f'{subject}_task-{task}_space-MNI152NLin2009cAsym_atlas-Schaefer18_parcel-1000Par7Net_{desc}bold.h5'
    )


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "The release's real keys, shapes and length files; the datasets are never written, so they take no room."
    root, files = tmp_path_factory.mktemp('whole'), {}
    for r in csv.DictReader(open(FACTS / 'h5_expected_keys.csv')):
        path = bold_file(root, r['subject'], r['h5'])
        if path not in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            files[path] = h5py.File(path, 'w')
        files[path].create_dataset(
            r['key'], (int(r['n_vols'] or COUNTS['train_sub01'][r['key'].split('_task-')[1]]), PARCELS), 'f4'
        )
    for f in files.values():
        f.close()
    for s in SUBJECTS:
        shutil.copytree(FACTS / 'target_samples' / s, root / RELEASE / 'fmri' / s, dirs_exist_ok=True)
    return root


@pytest.fixture
def small(tmp_path):
    "The same tree with one or two short runs per file."
    rng = np.random.default_rng(0)
    for s in SUBJECTS:
        for task, keys in dict(
            friends=('ses-001_task-s01e02a', 'ses-030_task-s06e01a'),
            movie10=('ses-002_task-life01_run-2', 'ses-009_task-life01_run-1'),
        ).items():
            path = bold_file(tmp_path, s, task)
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, 'w') as f:
                for k, key in enumerate(keys):
                    f[key] = (50 + rng.normal(size=(30 + k, PARCELS))).astype('f4')
        shutil.copytree(FACTS / 'target_samples' / s, tmp_path / RELEASE / 'fmri' / s, dirs_exist_ok=True)
    return tmp_path


def open_small(root, **k):
    return Cohort.open('algonauts2025', root, **k)


def test_skeleton_counts(whole):
    runs = open_small(whole).runs
    sizes = runs.groupby(['movie', 'subject'])['split'].nunique().unstack().T
    expected = dict(
        s01=48,
        s02=48,
        s03=50,
        s04=48,
        s05=48,
        s06=50,
        s07=49,
        bourne=10,
        figures=12,
        life=5,
        wolf=17,
        chaplin=2,
        mononoke=2,
        passepartout=2,
        planetearth=2,
        pulpfiction=2,
        wot=2,
    )
    assert set(sizes) == set(expected)
    for movie, n in expected.items():
        missing = {('s04', 'sub-05'): 3, ('s05', 'sub-03'): 1}
        assert sizes[movie].to_dict() == {s: n - missing.get((movie, s), 0) for s in SUBJECTS}
    gone = {(s, x) for s in SUBJECTS for x in set(runs.split) - set(runs.split[runs.subject == s])}
    assert gone == {('sub-03', 's05e20a'), ('sub-05', 's04e01a'), ('sub-05', 's04e01b'), ('sub-05', 's04e13b')}
    for which, name in (('s7', 'friends_s7'), ('ood', 'ood')):
        for s in SUBJECTS:
            assert runs[(runs.subject == s) & (runs.set == which)].set_index('split').n_tr.to_dict() == COUNTS[name][s]
    assert runs[runs.set == 's7'].groupby('subject').n_tr.sum().tolist() == [23499, 23464, 23499, 23499]
    assert runs[runs.split == 's07e03b'].n_tr.tolist() == [452, 417, 452, 452]
    assert runs[runs.set == 'ood'].groupby('subject').n_tr.sum().tolist() == [4918] * 4
    assert set(runs.movie[runs.set == 'val']) == {'s06'} and runs.key.isna().sum() == 4 * (49 + 12)
    assert runs.bold.isna().equals(runs['set'].isin(['s7', 'ood']))


def test_every_key_is_a_run(whole):
    "Nothing is dropped: the table has exactly the keys of the files, each with its own length."
    runs = open_small(whole).runs.dropna(subset='key')
    for (bold, _subject), mine in runs.groupby(['bold', 'subject']):
        with h5py.File(bold) as f:
            assert {k: len(v) for k, v in f.items()} == mine.set_index('key').n_tr.to_dict()
    assert len(runs) == 1408


def test_splits_name_every_movie_of_the_release(whole):
    from mirage.data.manifest import load_manifest

    tree, splits = whole / RELEASE, open_small(whole).splits
    movies = {p for p in load_manifest()['algonauts2025']['files'] if p.startswith('stimuli/')}
    named = {str(p.relative_to(tree)) for c in ('video', 'transcript') for p in splits[c].dropna()}
    assert named <= movies and len(splits) == 397
    left = movies - named  # seven uncut movies, and the splits of the challenge's movies that nobody was shown
    assert len([p for p in left if '/ood/' in p]) == 7 and all('/ood/' in p for p in left)


def test_skeleton_opens_fast_and_small(whole):
    # its own peak: getrusage would begin at the parent's
    code = (
        'import re, sys, time; from mirage.data.cohort import Cohort; t = time.time(); c = '
        'Cohort.open("algonauts2025", sys.argv[1]); '
        'print(time.time() - t, int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])/2**20)'
    )
    seconds, gigabytes = map(
        float,
        subprocess.run([sys.executable, '-c', code, whole], capture_output=True, text=True, check=True).stdout.split(),
    )
    assert seconds < 10 and gigabytes < 1


def test_a_window_reads_in_milliseconds(tmp_path, small):
    "From a file of 300 compressed runs, as the release's are."
    path, rng = bold_file(small, 'sub-01', 'friends'), np.random.default_rng(0)
    x = rng.normal(size=(480, PARCELS)).astype('f4')
    with h5py.File(path, 'w') as f:
        for i in range(300):
            f.create_dataset(
                f'ses-001_task-s01e{i // 3 % 99 + 1:02d}{"abcdefgh"[i % 3 + 3 * (i // 297)]}',
                data=x[: 480 if i < 9 else 2],
                compression='gzip',
                compression_opts=1,
            )
    cohort = open_small(small, subjects='sub-01')
    rows = [r for r in cohort.runs.itertuples() if r.bold and r.n_tr == 480]
    for r in rows:
        cohort.scale(r)
    times = []
    for k in range(60):
        r, start = rows[k % len(rows)], int(rng.integers(380))
        t = time.process_time()
        window = cohort.bold_window(r, start, start + 100)
        times.append(time.process_time() - t)
        assert window.shape == (100, PARCELS)
    assert np.median(times) < 0.03, np.median(times)


def test_z_scored_over_the_run_and_cut_from_it(small):
    cohort = open_small(small)
    row = cohort.runs[(cohort.runs.subject == 'sub-02') & (cohort.runs.split == 'life01')].iloc[1]
    with h5py.File(row.bold) as f:
        x = f['ses-002_task-life01_run-2'][()].astype(float)
    z = cohort.bold(row)
    assert row['repeat'] == 2 and z.dtype == np.float32 and np.allclose(z, (x - x.mean(0)) / x.std(0), atol=1e-4)
    assert np.array_equal(cohort.bold_window(row, 5, 9), z[5:9])
    for start, stop in ((0, 32), (-1, 3), (4, 4)):
        with pytest.raises(ValueError, match='life01 has TRs 0 to'):
            cohort.bold_window(row, start, stop)


def test_one_subject_of_four(small):
    shutil.rmtree(small / RELEASE / 'fmri' / 'sub-03')
    with pytest.raises(FileNotFoundError, match='fmri/sub-03 is not there. Fetch'):
        open_small(small)
    assert open_small(small, subjects='sub-05,sub-01').subjects == ('sub-01', 'sub-05')
    with pytest.raises(ValueError, match="no subject 'sub-04'; there are: sub-01, sub-02"):
        open_small(small, subjects='sub-04')


def test_unknown_cohort():
    with pytest.raises(
        FileNotFoundError, match='unknown cohort .embeded.: it is none of embedded, algonauts2025, smoke'
    ):
        Cohort.open('embeded')


# What can be wrong with the release: what is done to the file of sub-02, and what is said about it.
def edit(change):
    def do(root):
        with h5py.File(bold_file(root, 'sub-02', 'friends'), 'a') as f:
            change(f)

    return do


def cut(root):
    path = bold_file(root, 'sub-02', 'friends')
    with open(path, 'r+b') as f:
        f.truncate(path.stat().st_size // 2)


def lengths_file(root):
    return root / RELEASE / 'fmri/sub-02/target_sample_number/sub-02_ood_fmri_samples.npy'


def other_lengths(value):
    return lambda root: np.save(lengths_file(root), np.array(value), allow_pickle=True)


def link(root):
    path = bold_file(root, 'sub-02', 'friends')
    path.unlink()
    path.symlink_to('.git/annex/objects/nowhere')


def external(f):
    with h5py.File(Path(f.filename).with_name('other.h5'), 'w') as g:
        g['x'] = np.random.default_rng(0).normal(size=(9, PARCELS))
    f['ses-004_task-s02e01a'] = h5py.ExternalLink('other.h5', 'x')


FAULTS = {
    'truncated': (cut, OSError, r'sub-02_task-friends.*bold.h5 is cut short .* fetch it again'),
    'not HDF5': (
        lambda r: bold_file(r, 'sub-02', 'friends').write_text('annex'),
        OSError,
        r'is cut short or is not HDF5 .* fetch it again',
    ),
    'not fetched': (link, FileNotFoundError, 'is a link to content that is not on this disk. Fetch the group bold'),
    'no file': (
        lambda r: bold_file(r, 'sub-02', 'movie10').unlink(),
        FileNotFoundError,
        r'sub-02/func holds 0 files .* Fetch the group bold',
    ),
    'no subject': (
        lambda r: shutil.rmtree(r / RELEASE / 'fmri/sub-02'),
        FileNotFoundError,
        'fmri/sub-02 is not there. Fetch the group bold, or name',
    ),
    'parcels': (
        edit(lambda f: f.create_dataset('ses-004_task-s02e01a', data=np.zeros((9, 400), 'f4'))),
        ValueError,
        r'has shape \(9, 400\), expected numbers \(TRs, 1000\)',
    ),
    'twice': (
        edit(lambda f: f.create_dataset('ses-009_task-s01e02a', data=np.zeros((9, PARCELS), 'f4'))),
        ValueError,
        r'ses-001_task-s01e02a and ses-009_task-s01e02a both are repeat 1 .* Remove one',
    ),
    'odd key': (
        edit(lambda f: f.create_dataset('s02e01a', data=np.zeros((9, PARCELS), 'f4'))),
        ValueError,
        r"has a dataset 's02e01a'; keys look like",
    ),
    'no split': (
        edit(lambda f: f.create_dataset('ses-009_task-s09e01a', data=np.zeros((9, PARCELS), 'f4'))),
        ValueError,
        "'s09e01a' is no split",
    ),
    'a link': (edit(external), ValueError, r'ses-004_task-s02e01a has shape None, expected numbers'),
    'no lengths': (
        lambda r: lengths_file(r).unlink(),
        FileNotFoundError,
        'sub-02_ood_fmri_samples.npy is not there. Fetch',
    ),
    'lengths are text': (
        lambda r: lengths_file(r).write_text('wot1,353'),
        ValueError,
        'sub-02_ood.*is not a plain table of run lengths .*fetch it again',
    ),
    'lengths cut': (lambda r: os.truncate(lengths_file(r), 200), ValueError, 'is not a plain table of run lengths'),
    'lengths of floats': (other_lengths({'wot1': 353.0}), ValueError, r"it says 'wot1': 353.0\); fetch it again"),
    'lengths of bools': (other_lengths({'wot1': True}), ValueError, "it says 'wot1': True"),
    'lengths of NumPy': (
        other_lengths({'wot1': np.int64(353)}),
        ValueError,
        r"it names '?numpy\.\w*core.multiarray.scalar",
    ),
    'lengths nested': (other_lengths({'wot1': {'a': 1}}), ValueError, "it says 'wot1': {'a': 1}"),
    'lengths elsewhere': (other_lengths({'../../wot1': 353}), ValueError, "'../../wot1' is no split"),
    'lengths in a list': (other_lengths(['wot1']), ValueError, 'is not a plain table of run lengths'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_faults_of_the_release(small, fault):
    break_it, kind, message = FAULTS[fault]
    assert len(open_small(small).runs) == 4 * 4 + 4 * (49 + 12)
    break_it(small)
    with pytest.raises(kind, match=message):
        open_small(small)


@pytest.mark.parametrize(
    'value, fault',
    [(np.nan, 'NaN: 2'), (np.inf, 'NaN or infinite in some samples: 2'), (0.0, 'zero: 2'), (3.3, 'one value: 2')],
)
def test_a_parcel_that_was_not_measured_is_reported_once_and_nan_in_every_run_of_that_person(small, value, fault):
    with h5py.File(bold_file(small, 'sub-05', 'friends'), 'a') as f:
        f['ses-030_task-s06e01a'][:, 7:10:2] = value
    cohort = open_small(small)
    with pytest.warns(
        UserWarning,
        match=rf'2 of 1000 parcels of sub-05 were not measured \({fault}; first in sub-05_task-friends.*\): parcel 8, '
        r'10\.',
    ) as reported:
        cohort.check()
        cohort.check()
    assert len(reported) == 1
    for row in cohort.runs[cohort.runs.bold.notna()].itertuples():
        assert np.flatnonzero(np.isnan(cohort.bold(row)).any(0)).tolist() == ([7, 9] if row.subject == 'sub-05' else [])
    assert cohort.measured.sum(1).tolist() == [1000, 1000, 1000, 998]


def test_removed_samples_and_a_recording_that_is_mostly_lost_are_refused(small):
    with h5py.File(bold_file(small, 'sub-05', 'friends'), 'a') as f:
        f['ses-030_task-s06e01a'][4:6] = np.nan
    with pytest.raises(
        ValueError, match='ses-030_task-s06e01a: 2 samples, first sample 4, hold no number in any parcel. Fill them in'
    ):
        open_small(small).check()
    with h5py.File(bold_file(small, 'sub-05', 'friends'), 'a') as f:
        f['ses-030_task-s06e01a'][:] = 1.0
        f['ses-030_task-s06e01a'][:, :400] = np.random.default_rng(0).normal(size=(31, 400))
    with pytest.raises(ValueError, match=r'600 of 1000 parcels were not measured \(one value: 600\)'):
        open_small(small).check()


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('protocol', range(6))
def test_a_malicious_pickle_does_not_run(tmp_path, protocol):
    whole, plain = tmp_path / 'a.npy', tmp_path / 'b.npy'
    np.save(plain, np.array({'wot1': 353}), allow_pickle=True)
    header = plain.read_bytes()[:128]
    evil = Evil(tmp_path / 'ran')
    for value in (
        np.array({'wot1': evil}, dtype=object),
        evil,
        {evil: 1},
        b'\x80\x04}r\xff\xff\xff\x7f.',
        b'\x80\x04\x8d' + b'\xff' * 7 + b'\x7f.',
    ):
        whole.write_bytes(header + (value if isinstance(value, bytes) else pickle.dumps(value, protocol)))
        with pytest.raises(ValueError, match='Nothing in it was run'):
            read_lengths(whole)
    assert not (tmp_path / 'ran').exists()
    assert read_lengths(plain) == {'wot1': 353}


# Data of one's own: one folder that is right, and each way in which it can be wrong.
@pytest.fixture
def own(tmp_path):
    root, rng = tmp_path / 'mine', np.random.default_rng(0)
    for sub in ('bold', 'features/text', 'features/vision'):
        (root / sub).mkdir(parents=True)
    (root / 'cohort.yaml').write_text('tr: 2.0\nparcels: 5\nfeatures: {text: 2.0, vision: 4.0}\n')
    lines = ['subject,split,set,bold,key,repeat,movie']
    for s in ('ann', 'bob'):
        with h5py.File(root / 'bold' / f'{s}.h5', 'w') as f:
            f['first'] = rng.normal(size=(20, 5))
            f['again'] = rng.normal(size=(19, 5))
        np.save(root / 'bold' / f'{s}-b.npy', rng.normal(size=(12, 5)))
        np.savetxt(root / 'bold' / f'{s}-c.csv', rng.normal(size=(12, 5)), delimiter=',')
        lines += [
            f'{s},a1,train,bold/{s}.h5,first,1,a',
            f'{s},a1,train,bold/{s}.h5,again,2,a',
            f'{s},b,val,bold/{s}-b.npy,,,',
            f'{s},c,test_by_movie,bold/{s}-c.csv,,,',
        ]
    (root / 'runs.csv').write_text('\n'.join(lines) + '\n')
    for split, n in dict(a1=40, b=24, c=25).items():
        np.save(root / 'features/text' / f'{split}.npy', rng.normal(size=(n, 3, 4)).astype('f4'))
        np.save(root / 'features/vision' / f'{split}.npy', rng.normal(size=(2 * n, 6, 7)).astype('f2'))
    return root


def test_own_data(own):
    cohort = Cohort.open(own).check()
    assert (cohort.name, cohort.tr, cohort.parcels, cohort.subjects, cohort.atlas, cohort.ceiling) == (
        cohort_id(own),
        2.0,
        5,
        ('ann', 'bob'),
        None,
        None,
    )
    assert cohort.runs.n_tr.tolist() == [20, 19, 12, 12] * 2 and cohort.runs.movie.tolist() == ['a', 'a', 'b', 'c'] * 2
    assert ready_features(cohort).streams == {'text': (3, 4), 'vision': (6, 7)} and ready_features(cohort).read(
        'text', 'b', -1, 3
    ).shape == (4, 3, 4)
    for row in cohort.runs.itertuples():
        assert np.allclose(cohort.bold(row).mean(0), 0, atol=1e-5) and cohort.bold(row).shape == (row.n_tr, 5)
    assert Cohort.open(own, subjects=['bob']).runs.subject.unique().tolist() == ['bob']


@pytest.fixture
def elsewhere(own, tmp_path, monkeypatch):
    "A project of its own, and a working directory outside it."
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'project'))
    (tmp_path / 'project/data').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return own


def names_of(path):
    return (
        Cohort.open(path).name,
        cohort_id(path),
        run_path(path, 'train', 'a').parts[-3],
        cohort_id(cohort_name(str(path))),
        Cohort.open(cohort_name(str(path))).name,
    )


def test_two_studies_whose_folders_bear_the_same_name_share_nothing(elsewhere, tmp_path):
    shutil.copytree(elsewhere, tmp_path / 'other/mine')
    here, there = names_of(elsewhere), names_of(tmp_path / 'other/mine')
    assert (
        len({*here}) == len({*there}) == 1
        and here[0] != there[0]
        and all(n.startswith('mine-') for n in (here[0], there[0]))
    )


def test_a_relative_and_an_absolute_path_and_a_link_are_one_cohort(elsewhere, tmp_path, monkeypatch):
    (tmp_path / 'link').symlink_to(elsewhere)
    known = {
        names_of(p)[k]
        for p in (elsewhere, 'mine', './mine', 'mine/', 'mine/../mine', 'link', tmp_path / 'link')
        for k in range(5)
    }
    (tmp_path / 'mine/deep').mkdir()
    monkeypatch.chdir(tmp_path / 'mine/deep')
    assert known == {*names_of('..')} == {*names_of('../../mine')}
    monkeypatch.chdir(tmp_path / 'mine')
    assert known == {*names_of('.')} and Cohort.open('.').name not in ('', '.')


def test_a_folder_in_data_goes_by_its_name_and_opens_by_it_from_anywhere(elsewhere, tmp_path, monkeypatch):
    shutil.copytree(elsewhere, root() / 'data/study')
    assert {*names_of('study')} == {*names_of(root() / 'data/study')} == {*names_of('data/study')} == {'study'}
    monkeypatch.chdir('/')
    assert Cohort.open('study').root == root() / 'data/study'
    shutil.copytree(elsewhere, root() / 'data/movies')  # where predictions go
    assert (
        Cohort.open('data/movies').name.startswith('movies-')
        and run_path('movies', 'predict', 'a').parts[-3] == 'movies'
    )


def test_a_word_that_names_two_cohorts_is_refused_and_each_path_opens_its_own(elsewhere):
    shutil.copytree(elsewhere, root() / 'data/mine')
    with pytest.raises(ValueError, match='mine is a cohort in .*data/mine and another in .*mine: give the path of one'):
        Cohort.open('mine')
    assert Cohort.open('data/mine').name == cohort_id('mine') == 'mine' and Cohort.open('./mine').name.startswith(
        'mine-'
    )


@pytest.mark.parametrize(
    'folder', ['my scans', 'été', '-x', '.hidden', "it's; rm", 'embedded', 'algonauts2025', 'movies']
)
def test_a_folder_of_any_name_has_an_id_that_is_a_plain_word(elsewhere, tmp_path, folder):
    shutil.copytree(elsewhere, tmp_path / 'other' / folder)
    found = {*names_of(tmp_path / 'other' / folder)}
    assert len(found) == 1 and re.fullmatch(r'\w[\w.-]*-[0-9a-f]{6}', *found) and folder not in found


def test_a_cohort_without_a_name_is_refused():
    for name in ('', ' '):
        with pytest.raises(ValueError, match='a cohort needs a name'):
            Cohort.open(name)
        with pytest.raises(ValueError, match='a cohort needs a name'):
            run_path(name, 'train', 'a')


def text(file, old, new):
    def do(root):
        before = (root / file).read_text()
        assert old in before
        (root / file).write_text(before.replace(old, new, 1))

    return do


def onset(root, value, split='b', subject='ann'):
    lines = (root / 'runs.csv').read_text().splitlines()
    (root / 'runs.csv').write_text(
        '\n'.join([
            lines[0] + ',onset',
            *(line + (f',{value}' if line.startswith(f'{subject},{split},') else ',') for line in lines[1:]),
        ])
        + '\n'
    )


def linked(target):
    def do(root):
        (root / 'bold/link.npy').symlink_to(target)
        text('runs.csv', 'bold/ann-b.npy', 'bold/link.npy')(root)

    return do


OWN = {
    'no tr': (
        text('cohort.yaml', 'tr: 2.0\n', ''),
        'cohort.yaml: tr, seconds between BOLD samples, is None, expected a number from 0.1',
    ),
    'tr in words': (text('cohort.yaml', '2.0', 'two'), "cohort.yaml: tr, seconds between BOLD samples, is 'two'"),
    'tr in milliseconds': (text('cohort.yaml', '2.0', '2000'), 'is 2000, expected a number from 0.1 to 100'),
    'unknown entry': (text('cohort.yaml', 'tr:', 'TR:'), 'cohort.yaml says .* it may say tr, parcels'),
    'not YAML': (text('cohort.yaml', 'tr: 2.0', 'tr: [2'), 'cohort.yaml is not YAML'),
    'code in YAML': (text('cohort.yaml', '2.0', '!!python/object/apply:os.getcwd []'), 'cohort.yaml is not YAML'),
    'atlas': (text('cohort.yaml', 'tr:', 'atlas: schaefer1000\ntr:'), 'atlas is .schaefer1000.. Write schaefer1000 if'),
    'stream': (text('cohort.yaml', 'vision', 'smell'), 'expected frames per second for some of text, audio, vision'),
    'parcels': (
        text('cohort.yaml', 'parcels: 5', 'parcels: 6'),
        r'ann.h5 has shape \(20, 5\), but cohort.yaml says \(TRs, 6\)',
    ),
    'transposed': (
        lambda r: np.save(r / 'bold/ann-b.npy', np.zeros((5, 12))),
        r'ann-b.npy has shape \(5, 12\).*Transpose it',
    ),
    'no table': (lambda r: (r / 'runs.csv').unlink(), 'runs.csv is not there. It lists the runs'),
    'empty table': (lambda r: (r / 'runs.csv').write_text('subject,split,set,bold\n'), 'runs.csv lists no runs'),
    'column': (text('runs.csv', 'movie', 'cinema'), "runs.csv has a column 'cinema'; it may have subject"),
    'set': (
        text('runs.csv', 'val', 'validation'),
        "line 4: set is 'validation', expected one of train, val, test, test_b",
    ),
    "the challenge's set": (text('runs.csv', ',val,', ',s7,'), "line 4: set s7 is the challenge's; .* called test$"),
    "the challenge's other set": (text('runs.csv', ',val,', ',ood,'), 'line 4: set ood .* called test_by_movie$'),
    'subject': (text('runs.csv', 'ann,b', '../ann,b'), "line 4: subject is '../ann'"),
    'split': (text('runs.csv', 'ann,b', 'ann,../b'), "line 4: split is '../b'"),
    'repeat': (text('runs.csv', 'again,2', 'again,two'), "line 3: repeat is 'two'"),
    'twice': (text('runs.csv', 'again,2', 'again,1'), 'runs.csv lists ann a1 twice. Number repeats'),
    'two sets': (text('runs.csv', 'bob,b,val', 'bob,b,train'), 'runs.csv: b has more than one task, movie, set'),
    'no file': (
        text('runs.csv', 'ann-b.npy', 'ann-d.npy'),
        'ann-d.npy is not there. Correct the column bold of .*line 4',
    ),
    'no key': (text('runs.csv', 'again', 'thrice'), "ann.h5 has no array 'thrice'; it has again, first"),
    'leaves the folder': (
        text('runs.csv', 'bold/ann-b.npy', '../secret.npy'),
        r"'../secret.npy' leads out of .*mine. Copy the file",
    ),
    'absolute': (text('runs.csv', 'bold/ann-b.npy', '/etc/hostname'), "'/etc/hostname' leads out of"),
    'link to a device': (linked('/dev/zero'), 'bold/link.npy is no plain file'),
    'link to a folder': (linked('/etc'), 'bold/link.npy is no plain file'),
    'link to nothing': (
        linked('nowhere.npy'),
        'bold/link.npy is a link to content that is not on this disk. Correct the column bold',
    ),
    'link to other content': (linked('/etc/passwd'), 'bold/link.npy is cut short or not a plain array'),
    'onset in words': (lambda r: onset(r, 'late'), "line 4: onset is 'late', expected the second of the movie"),
    'onset without an end': (lambda r: onset(r, 'inf'), "line 4: onset is 'inf'"),
    'one sample': (
        lambda r: np.save(r / 'bold/ann-b.npy', np.zeros((1, 5))),
        'ann-b.npy has 1 samples: nothing can be z-scored',
    ),
    'one dimension': (
        lambda r: np.save(r / 'bold/ann-b.npy', np.zeros(12)),
        r'ann-b.npy has shape \(12,\), expected \(TRs, parcels\)',
    ),
    'words in an array': (
        lambda r: np.save(r / 'bold/ann-b.npy', np.array([['a'] * 5] * 12)),
        'ann-b.npy holds <U1, expected numbers',
    ),
    'header is a word': (text('cohort.yaml', 'tr:', 'header: maybe\ntr:'), "header is 'maybe', expected true or false"),
    'half a line': (text('runs.csv', 'ann,b,val,bold/ann-b.npy,,,', 'ann,b,val'), 'line 4: give bold, or n_tr'),
    'other file': (text('runs.csv', 'bold/ann-b.npy', 'cohort.yaml'), r'cohort.yaml is no BOLD file. Use .h5, .npy'),
    'cut array': (
        lambda r: os.truncate(r / 'bold/ann-b.npy', 300),
        'ann-b.npy is cut short or not a plain array .* Write it again',
    ),
    'pickled array': (
        lambda r: np.save(r / 'bold/ann-b.npy', np.array([Evil(r / 'ran')], object), allow_pickle=True),
        'ann-b.npy is cut short or not a plain array',
    ),
    'words in numbers': (
        lambda r: (r / 'bold/ann-c.csv').write_text('a,b,c,d,e\n1,2,3,four,5\n'),
        'ann-c.csv is not a table of numbers',
    ),
    'no features': (lambda r: (r / 'features/text/b.npy').unlink(), 'features/text.* b'),
    'other depth': (
        lambda r: np.save(r / 'features/text/b.npy', np.zeros((24, 2, 4), 'f4')),
        r'features/text/.*\(L, D\) = \(\d, 4\), others',
    ),
    'no layers': (
        lambda r: np.save(r / 'features/text/b.npy', np.zeros((24, 4), 'f4')),
        r'features/text/b.npy holds .*\(24, 4\), expected floats \(T, L, D\)',
    ),
    'no movie': (
        text('cohort.yaml', 'features: {text: 2.0, vision: 4.0}', ''),
        'line 2: give video or transcript, or ready-made features',
    ),
}


@pytest.mark.parametrize('fault', OWN)
def test_faults_of_own_data(own, fault):
    break_it, message = OWN[fault]
    break_it(own)
    with pytest.raises((ValueError, OSError), match=message):
        ready_features(Cohort.open(own).check())
    assert not (own / 'ran').exists()
