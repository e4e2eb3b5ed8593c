"Cohorts of EEG, MEG and ECoG: arrays, tables and MNE files, found with rate and channels, or refused in one line."

import numpy as np
import pandas as pd
import pytest

from mirage.data.cohort import Cohort
from mirage.data.signals import open_any, open_signals, read_signals
from mirage.features.store import ChangedInUse, check_inputs, inputs_of

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


@pytest.mark.parametrize('name', ['a.npy', 'a.csv', 'a.tsv'])
def test_channels_in_rows_are_refused_whatever_the_file(tmp_path, name):
    folder = write(tmp_path / 'own', ('a.npy', 'b.csv'))
    across = np.random.default_rng(0).standard_normal((6, 300))
    if name.endswith('npy'):
        np.save(folder / name, across.T)  # an array has a row per channel
    else:
        np.savetxt(folder / name, across, delimiter=',' if name.endswith('csv') else '\t')
    runs = (folder / 'runs.csv').read_text()
    (folder / 'runs.csv').write_text(runs.replace('a.npy', name))
    with pytest.raises(ValueError, match='Transpose it'):
        open_signals(folder)


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


def write_brainvision(folder, stem, x, bad=None):
    "Header, samples and markers as their format has them, by hand: 32-bit floats in microvolts, channel by channel."
    channels = [f'Ch{k}={name},,1,µV' for k, name in enumerate(NAMES, 1)]
    header = [
        'Brain Vision Data Exchange Header File Version 1.0',
        '[Common Infos]',
        'Codepage=UTF-8',
        f'DataFile={stem}.eeg',
        f'MarkerFile={stem}.vmrk',
        'DataFormat=BINARY',
        'DataOrientation=MULTIPLEXED',
        f'NumberOfChannels={len(NAMES)}',
        f'SamplingInterval={1e6 / RATE:g}',
        '[Binary Infos]',
        'BinaryFormat=IEEE_FLOAT_32',
        '[Channel Infos]',
        *channels,
    ]
    marks = ['Brain Vision Data Exchange Marker File, Version 1.0', '[Common Infos]', f'DataFile={stem}.eeg']
    marks += ['[Marker Infos]', 'Mk1=New Segment,,1,1,0']
    if bad:
        marks.append(f'Mk2=Bad Interval,Bad Min-Max,{bad[0] + 1},{bad[1] - bad[0]},0')
    (folder / f'{stem}.vhdr').write_text('\n'.join(header) + '\n', encoding='utf-8')
    (folder / f'{stem}.vmrk').write_text('\n'.join(marks) + '\n', encoding='utf-8')
    x.T.astype('<f4').tofile(folder / f'{stem}.eeg')


def brainvision_cohort(folder, bad=None):
    rng = np.random.default_rng(0)
    folder.mkdir()
    (folder / 'cohort.yaml').write_text('rate: 50\nfeatures: {audio: 50}\n')
    (folder / 'runs.csv').write_text('subject,split,set,bold\np1,story,train,a.vhdr\n')
    x = rng.normal(size=(3, 300))
    write_brainvision(folder, 'a', x, bad)
    return x


def test_a_brainvision_recording_is_read_and_its_samples_count_as_part_of_it(tmp_path):
    pytest.importorskip('mne')
    x = brainvision_cohort(tmp_path / 'own')
    cohort = open_signals(tmp_path / 'own')
    assert cohort.names == tuple(NAMES) and cohort.kept(next(cohort.runs.itertuples())).all()
    np.testing.assert_allclose(cohort.rows(next(cohort.runs.itertuples())), x.T * 1e-6, rtol=1e-6)
    read = inputs_of(cohort)['bold']
    assert set(read) == {'a.vhdr', 'a.eeg', 'a.vmrk'}
    check_inputs(dict(bold=read), cohort)
    (x[:, ::-1].T.astype('<f4')).tofile(tmp_path / 'own' / 'a.eeg')
    with pytest.raises(ChangedInUse, match='changed while they were in use: a.eeg'):
        check_inputs(dict(bold=read), cohort)
    (tmp_path / 'own' / 'runs.csv').write_text('subject,split,set,bold\np1,story,train,a.eeg\n')
    with pytest.raises(ValueError, match='a.eeg is a part of a BrainVision recording. Give its header, a.vhdr'):
        open_signals(tmp_path / 'own')
    (tmp_path / 'own' / 'runs.csv').write_text('subject,split,set,bold\np1,story,train,a.vhdr\n')
    (tmp_path / 'own' / 'a.eeg').unlink()
    with pytest.raises(ValueError, match='a.vhdr cannot be read'):
        open_signals(tmp_path / 'own')


def test_samples_that_an_annotation_calls_bad_are_left_out_and_reported(tmp_path):
    pytest.importorskip('mne')
    x = brainvision_cohort(tmp_path / 'own', bad=(100, 150))
    x[:, 100:150] = 1e4  # an artefact
    write_brainvision(tmp_path / 'own', 'a', x, bad=(100, 150))
    cohort = open_signals(tmp_path / 'own')
    row = next(cohort.runs.itertuples())
    with pytest.warns(UserWarning, match='a.vhdr: 1 of 6 s are annotated as bad and left out'):
        y = cohort.bold(row)
    kept = cohort.kept(row)
    assert (~kept).nonzero()[0].tolist() == list(range(100, 150)) and np.isnan(y[~kept]).all()
    plain = x[:, kept].T
    np.testing.assert_allclose(y[kept], (plain - plain.mean(0)) / plain.std(0), atol=1e-4)
    write_brainvision(tmp_path / 'own', 'a', x, bad=(0, 300))
    with pytest.raises(ValueError, match='a.vhdr: 6 of 6 s are annotated as bad. Leave the run out'):
        open_signals(tmp_path / 'own').bold(row)


def test_files_that_place_a_channel_elsewhere_are_refused_and_a_table_decides(tmp_path):
    mne = pytest.importorskip('mne')
    folder = write(tmp_path / 'own', ('a_raw.fif', 'b_raw.fif'))
    raw = mne.io.read_raw(folder / 'b_raw.fif', preload=True, verbose='error')
    raw.info['chs'][1]['loc'][:3] += [0, 0, 0.0005]
    raw.save(folder / 'b_raw.fif', fmt='double', overwrite=True, verbose='error')
    assert open_signals(folder).positions is not None  # half a millimetre is the same place
    raw.info['chs'][1]['loc'][:3] += [0, 0, 0.0105]
    raw.save(folder / 'b_raw.fif', fmt='double', overwrite=True, verbose='error')
    with pytest.raises(
        ValueError, match=r'b_raw.fif places channel O2 11 mm from where .*a_raw.fif .*digitised per.*positions.csv'
    ):
        open_signals(folder)
    (folder / 'positions.csv').write_text('name,x,y\nO1,-1,0\nO2,1,0\nCz,0,1\n')
    with (folder / 'cohort.yaml').open('a') as f:
        f.write('positions: positions.csv\n')
    assert open_signals(folder).positions.x.tolist() == [-1, 1, 0]
    raw.info['chs'][0]['loc'][:3] = 0  # one channel without a place keeps the others' places
    raw.save(folder / 'b_raw.fif', fmt='double', overwrite=True, verbose='error')
    assert np.isnan(read_signals(folder / 'b_raw.fif').places[0]).all()
    assert np.isfinite(read_signals(folder / 'b_raw.fif').places[1:]).all()
