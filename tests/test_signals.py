"Cohorts of EEG, MEG and ECoG: arrays, tables and MNE files, found with rate and channels, or refused in one line."

import numpy as np
import pandas as pd
import pytest

from mirage.data.cohort import Cohort
from mirage.data.signals import open_any, open_signals, read_signals

RATE, NAMES = 50.0, ['O1', 'O2', 'Cz']


def write(folder, files=('a.npy', 'b.npy'), about='rate: 50\nfeatures: {audio: 50}\n', extra=''):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ['subject,split,set,bold']
    for k, name in enumerate(files):
        x = rng.normal(size=(3, 300))
        if name.endswith('.npy'):
            np.save(folder / name, x)
        elif name.endswith('.csv'):
            pd.DataFrame(x.T, columns=NAMES).to_csv(folder / name, index=False)
        else:
            write_mne(folder / name, x)
        lines.append(f'p1,story{k},{"train" if k else "test"},{name}')
    (folder / 'cohort.yaml').write_text(about + extra)
    (folder / 'runs.csv').write_text('\n'.join(lines) + '\n')
    return folder


def write_mne(path, x, rate=RATE, kinds=('eeg', 'eeg', 'eeg'), bads=()):
    mne = pytest.importorskip('mne')
    stimulus = path.suffix == '.fif'  # EDF knows no kinds of channels
    info = mne.create_info([*NAMES, *['STI'] * stimulus], rate, [*kinds, *['stim'] * stimulus])
    places = dict(zip(NAMES, [(-0.03, -0.08, 0.02), (0.03, -0.08, 0.02), (0, 0, 0.09)]))
    info.set_montage(mne.channels.make_dig_montage(places, coord_frame='head'), on_missing='ignore')
    info['bads'] = list(bads)
    raw = mne.io.RawArray(np.concatenate([x * 1e-6, np.zeros((int(stimulus), x.shape[1]))]), info, verbose='error')
    if path.suffix == '.fif':
        raw.save(path, fmt='double', overwrite=True, verbose='error')
    else:
        mne.export.export_raw(path, raw, overwrite=True, verbose='error')


def test_arrays_and_tables_are_one_cohort_whose_clock_is_its_rate(tmp_path):
    cohort = open_signals(write(tmp_path / 'own', ('a.npy', 'b.csv')))
    assert cohort.parcels == 3 and cohort.names == tuple(NAMES) and cohort.tr == 1 / RATE
    assert cohort.delay == 0 and cohort.lags == (-0.1, 0.4)
    for row in cohort.runs.itertuples():
        assert row.n_tr == 300
        np.testing.assert_allclose(cohort.bold(row).std(0), 1, atol=1e-4)
    assert open_any(tmp_path / 'own').rate == RATE


def test_chapters_about_bold_refuse_fast_signals_and_name_the_one_that_takes_them(tmp_path):
    folder = write(tmp_path / 'own')
    with pytest.raises(ValueError, match=r'EEG, MEG or ECoG at 50 Hz.*03g_lags.ipynb out.ipynb -p cohort'):
        Cohort.open(folder)
    (folder / 'cohort.yaml').write_text('tr: 2\nparcels: 300\nfeatures: {audio: 2}\n')
    with pytest.raises(ValueError, match='holds BOLD'):
        open_signals(folder)


def test_a_file_that_mne_wrote_is_read_with_its_names_places_and_bad_channels(tmp_path):
    folder = write(tmp_path / 'own', ('a_raw.fif', 'b_raw.fif'))
    cohort = open_signals(folder)
    assert cohort.names == tuple(NAMES) and cohort.parcels == 3  # the stimulus channel is none
    assert np.isfinite(cohort.positions.to_numpy()).all() and cohort.positions.x[0] < 0 < cohort.positions.x[1]
    (first, _) = cohort.runs.itertuples()
    wanted = np.random.default_rng(0).normal(size=(3, 300)).T
    np.testing.assert_allclose(cohort.rows(first), wanted * 1e-6, atol=1e-12)
    write_mne(folder / 'a_raw.fif', wanted.T, bads=['O2'])
    with pytest.warns(UserWarning, match='1 of 3 parcels of p1 were not measured.*O2'):
        measured = open_signals(folder).measured
    assert measured.tolist() == [[True, False, True]]
    assert read_signals(folder / 'a_raw.fif').rate == RATE


def test_an_edf_file_is_read(tmp_path):
    pytest.importorskip('edfio')
    cohort = open_signals(write(tmp_path / 'own', ('a.edf', 'b.edf')))
    assert cohort.names == tuple(NAMES) and next(cohort.runs.itertuples()).n_tr == 300


def test_positions_come_from_a_table_and_may_name_the_channels(tmp_path):
    folder = write(tmp_path / 'own', extra='positions: where.csv\n')
    (folder / 'where.csv').write_text('name,x,y\nA,0,1\nB,1,0\nC,1,1\n')
    cohort = open_signals(folder)
    assert cohort.names == ('A', 'B', 'C') and cohort.positions.x.tolist() == [0, 1, 1]
    (folder / 'where.csv').write_text('name,x,y\nA,0,1\nB,1,0\n')
    with pytest.raises(ValueError, match='has 2 channels, the recordings 3'):
        open_signals(folder)


@pytest.mark.parametrize(
    ('about', 'says'),
    [
        ('rate: 50\ntr: 2\n', 'rate and tr'),
        ('tr: 0.01\nparcels: 3\n', r'tr is 0.01, too short for BOLD.*rate: 100 \(Hz\)'),
        ('tr: 2\nparcels: 3\ndelay: 0\n', 'delay is for EEG, MEG or ECoG'),
        ('rate: fast\n', "rate, Hz, is 'fast'"),
        ('rate: 50\nlags: [0.4, 0]\n', 'expected the first before the last'),
        ('rate: 50\nlags: 0.4\n', 'expected the first and the last'),
        ('rate: 50\ndelay: -1\n', 'delay, seconds, is -1'),
        ('rate: 50\natlas: schaefer1000\nparcels: 1000\n', 'rate and atlas'),
        ('rate: 50\nparcels: 4\n', 'has 3 channels, expected 4'),
    ],
)
def test_what_a_clock_cannot_be_is_refused_with_a_way_out(tmp_path, about, says):
    folder = write(tmp_path / 'own', about=about, extra='features: {audio: 50}\n')
    with pytest.raises(ValueError, match=says):
        open_any(folder)


def test_recordings_that_do_not_fit_are_refused(tmp_path):
    folder = write(tmp_path / 'own')
    np.save(folder / 'a.npy', np.zeros((300, 3)))
    with pytest.raises(ValueError, match=r'expected \(channels, samples\).*Transpose it'):
        open_signals(folder)
    np.save(folder / 'a.npy', np.zeros((4, 300)))
    with pytest.raises(ValueError, match='b.npy has 3 channels, expected 4'):
        open_signals(folder)
    other = write(tmp_path / 'other', ('a.csv', 'b.csv'))
    pd.DataFrame(np.random.default_rng(1).normal(size=(300, 3)), columns=['O1', 'Oz', 'Cz']).to_csv(
        other / 'b.csv', index=False
    )
    with pytest.raises(ValueError, match='channel 2 called Oz.*calls it O2'):
        open_signals(other)


def test_a_file_at_another_rate_or_damaged_is_refused_by_name(tmp_path):
    pytest.importorskip('mne')
    folder = write(tmp_path / 'own', ('a_raw.fif', 'b_raw.fif'))
    write_mne(folder / 'b_raw.fif', np.random.default_rng(0).normal(size=(3, 300)), rate=100.0)
    with pytest.raises(ValueError, match=r'b_raw.fif has 100 samples a second.*rate: 50'):
        open_signals(folder)
    (folder / 'b_raw.fif').write_bytes(b'nothing')
    with pytest.raises(ValueError, match='b_raw.fif cannot be read'):
        open_signals(folder)
