"Files that were once read wrongly without a word: each is read right, reported or refused."

import json
import warnings

import numpy as np
import pytest

from mirage.data.cohort import Cohort
from mirage.data.recordings import look_at, match_parcels, read_table
from mirage.data.stimuli import tell_faults
from mirage.data.words import read_words

SAMPLES = np.random.default_rng(0).normal(10, 1, (12, 4)).round(3)


def table(path, rows, head=()):
    path.write_text('\n'.join([*head, *(','.join(map(str, row)) for row in rows)]) + '\n')
    return path


def test_pandas_dropped_a_dead_region_and_the_numbers_are_names():
    named = {'a.csv': tuple('01345'), 'b.csv': tuple('01245')}
    widths = dict.fromkeys(named, 5)
    with pytest.raises(ValueError, match='Write parcels: common'):
        match_parcels(5, widths, named, 'cohort.yaml')
    found = match_parcels('common', widths, named, 'cohort.yaml')
    assert found.names == tuple('0145') and list(found.picks['a.csv']) == [0, 1, 3, 4]
    assert list(found.picks['b.csv']) == [0, 1, 3, 4]


def test_every_cell_is_quoted_and_the_first_row_is_a_sample(tmp_path):
    rows = [list(map('"{}"'.format, row)) for row in SAMPLES]
    assert read_table(table(tmp_path / 'a.csv', rows), None).values.shape == (12, 4)
    named = read_table(table(tmp_path / 'b.csv', rows, ['"A","B","C","D"']), None)
    assert named.names == ('A', 'B', 'C', 'D') and named.values.shape == (12, 4)


@pytest.mark.parametrize('nothing', ['-1.#IND', '1.#QNAN', '#NA', '#N/A N/A'])
def test_a_missing_parcel_as_windows_writes_it_costs_no_sample(tmp_path, nothing):
    rows = [[nothing, *row[1:]] for row in SAMPLES]
    found = read_table(table(tmp_path / 'a.csv', rows), None)
    assert found.values.shape == (12, 4) and found.names is None and np.isnan(found.values[:, 0]).all()


def test_an_empty_line_among_samples_is_refused(tmp_path):
    path = table(tmp_path / 'a.csv', SAMPLES)
    lines = path.read_text().splitlines()
    path.write_text('\n'.join([*lines[:5], '', *lines[5:], '', '']))
    with pytest.raises(ValueError, match=r'a.csv: row 6 is empty.*Write NaN'):
        read_table(path, None)
    path.write_text('\n'.join([*lines, '', '']))
    assert len(read_table(path, None).values) == 12


def test_a_decimal_comma_in_runs_csv_is_refused(tmp_path):
    (tmp_path / 'cohort.yaml').write_text('tr: 2.0\nparcels: 4\nfeatures: {text: 2.0}\n')
    table(tmp_path / 'a.csv', SAMPLES)
    (tmp_path / 'runs.csv').write_text('subject,split,set,bold,onset\nsub-1,walk,train,a.csv,8,5\n')
    with pytest.raises(ValueError, match=r'runs.csv, line 2: it has 6 cells for 5 columns. Write a decimal point'):
        Cohort.open(tmp_path)
    (tmp_path / 'runs.csv').write_text('subject,split,set,bold,onset\nsub-1,walk,train,a.csv,8.5,\n')
    assert Cohort.open(tmp_path).runs.onset.tolist() == [8.5]


def heard(path, text):
    path.write_text(text)
    with warnings.catch_warnings(record=True) as reported:
        warnings.simplefilter('always')
        words = read_words(path)
    return words.values.tolist(), ' '.join(str(w.message) for w in reported)


def test_a_word_without_a_time_is_no_word_at_second_0(tmp_path):
    with pytest.raises(ValueError, match="a.csv: 1 words .* the first is 'you' at -1 s"):
        heard(tmp_path / 'a.csv', 'word,start,end\nhi,1,1.5\nyou,-1,-1\nall,2,2.4\n')
    words, reported = heard(tmp_path / 'b.csv', 'word,onset,duration\nhi,-0.5,1.0\n')
    assert words == [['hi', 0.0, 0.5]] and 'begin less than 1 s before the movie begin with it (1)' in reported


def test_phones_of_a_praat_table_are_no_words(tmp_path):
    rows = 'tmin,tier,text,tmax\n0,words,cat,1\n0,phones,K,.3\n.3,phones,AE1,1\n1,words,sat,2\n'
    assert heard(tmp_path / 'a.csv', rows)[0] == [['cat', 0.0, 1.0], ['sat', 1.0, 2.0]]
    with pytest.raises(ValueError, match='its column tier holds phones, sentences, none of which says words'):
        heard(tmp_path / 'b.csv', 'tmin,tier,text,tmax\n0,sentences,cat,1\n0,phones,K,.3\n')


def test_a_column_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="two columns called 'onset'"):
        heard(tmp_path / 'a.csv', 'word,onset,duration,onset\nhi,1,0.5,900\n')


def test_two_discs_in_one_file_are_reported(tmp_path):
    cue = '1\n00:00:0{0},000 --> 00:00:0{1},000\nword\n\n'
    words, reported = heard(tmp_path / 'a.srt', cue.format(1, 2) + cue.format(5, 6) + cue.format(2, 3))
    assert [w[1] for w in words] == [1.0, 5.0, 2.0]
    assert 'time goes back from 5.0 to 2.0 s at word 3 (1 times)' in reported


def test_a_stream_s_clock_in_webvtt_is_reported(tmp_path):
    head = 'WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:1800000,LOCAL:00:00:00.000\n\n'
    assert 'MPEGTS:1800000' in heard(tmp_path / 'a.vtt', head + '00:01.000 --> 00:02.000\nhello\n')[1]


def test_pictures_that_change_their_shape_are_reported(tmp_path):
    with pytest.warns(
        UserWarning, match='a.ts: the shape of its pictures changes at 3.0 s, and all are given the first'
    ):
        tell_faults(tmp_path / 'a.ts', 'video', damaged=0, holes=[], shapes={(96, 64, 1): 0.0, (128, 128, 1): 3.0})


CLOCKS = {
    'an uneven clock between the parcels': np.cumsum(np.random.default_rng(3).uniform(0.9, 1.1, 24)),
    'volumes of which some are missing': np.delete(np.arange(40), range(3, 19)),
    'a clock that counts down by an even step': 100 - 1.49 * np.arange(24),
}
LONGER = np.random.default_rng(2).normal(10, 1, (24, 4)).round(3)


@pytest.mark.parametrize('kind', CLOCKS)
@pytest.mark.parametrize('place', [0, 2, 4])
def test_a_column_that_rises_in_every_row_is_no_parcel_wherever_it_stands(tmp_path, kind, place):
    rows = np.insert(LONGER, place, CLOCKS[kind], axis=1)
    with pytest.raises(ValueError, match='a.csv: (the first column|column [35]).* rises in every row'):
        read_table(table(tmp_path / 'a.csv', rows, [','.join('VWXYZ')]), None)
    with pytest.raises(ValueError, match=f'run.npy: column {place + 1} rises in every row'):
        look_at(rows, 'run.npy')
    look_at(LONGER, 'run.npy')


@pytest.mark.parametrize('name', ['volume', 'Time (s)', 'TR', 'run', 'frame'])
def test_a_column_is_no_parcel_by_its_name(tmp_path, name):
    rows = np.insert(SAMPLES, 2, np.random.default_rng(0).permutation(12), axis=1)
    with pytest.raises(ValueError, match='column 3, .* is no parcel by its name'):
        read_table(table(tmp_path / 'a.csv', rows, [f'A,B,"{name}",C,D']), None)


@pytest.mark.parametrize('second', ['1,2,3,4', '7,7,1,2', '"3","1","2","9"'])
def test_a_second_row_of_names_is_no_sample(tmp_path, second):
    with pytest.raises(ValueError, match='a.csv: row 2, .*looks like a second row of names'):
        read_table(table(tmp_path / 'a.csv', SAMPLES, ['V1,V2,M1,M2', second]), None)
    zeros = read_table(table(tmp_path / 'b.csv', SAMPLES, ['V1,V2,M1,M2', '0,0,0,0']), None)
    assert zeros.values.shape == (13, 4)


@pytest.mark.parametrize(
    'rate, table',
    [
        (24, 'word,onset,offset\n{0},{1},{2}\n{3},{4},{5}\n'),
        (25, 'word,start,duration\n{0},{1},7\n{3},{4},9\n'),
        (100, 'word,onset,offset\n{0},{1},{2}\n{3},{4},{5}\n'),
        (30, 'word,onset,offset\n{0},{1}.0,{2}.0\n{3},{4}.0,{5}.0\n'),
    ],
)
def test_times_in_video_frames_or_hundredths_are_neither_seconds_nor_milliseconds(tmp_path, rate, table):
    times = [round(rate * t) for t in (1.2, 1.55, 2.0, 2.5)]
    text = table.format('every', times[0], times[1], 'story', times[2], times[3])
    with pytest.raises(ValueError, match='a.csv: its times are not in seconds'):
        heard(tmp_path / 'a.csv', text)


def test_whole_seconds_and_milliseconds_are_read(tmp_path):
    words, _ = heard(tmp_path / 'a.csv', 'text,start,end\nevery story begins somewhere,1,3\nand ends,3,4\n')
    assert [w[0] for w in words] == ['every', 'story', 'begins', 'somewhere', 'and', 'ends'] and words[0][1] == 1.0
    words, reported = heard(tmp_path / 'b.csv', 'word,start,end\nevery,1000,1400\nstory,1500,1900\n')
    assert words == [['every', 1.0, 1.4], ['story', 1.5, 1.9]] and 'read as milliseconds' in reported


@pytest.mark.parametrize('mark', ['<eps>', 'sp', '<unk>', 'SIL', '{NS}', '[noise]', 'spn'])
def test_what_aligners_write_for_silence_and_noise_is_no_word_and_reported(tmp_path, mark):
    words, reported = heard(tmp_path / 'a.csv', f'word,onset,offset\nhi,0.5,0.9\n{mark},0.9,2\nspace,2,2.5\n')
    assert [w[0] for w in words] == ['hi', 'space']
    assert '1 marks of silence, noise or unknown words are left out' in reported and mark in reported


def test_characters_that_webvtt_must_escape_are_said(tmp_path):
    cue = 'WEBVTT\n\n00:01.000 --> 00:02.000\nif a &lt; b &lt;and&gt; c &gt; d &amp; so\n'
    words = [w[0] for w in heard(tmp_path / 'a.vtt', cue)[0]]
    assert '<and>' in words and 'so' in words
    line = '&lt;i&gt;quick&lt;/i&gt;&lt;br&gt;now &lt;font color="red"&gt;red&lt;/font&gt;'
    cue = f'1\n00:00:01,000 --> 00:00:02,000\n{line}\n'
    assert [w[0] for w in heard(tmp_path / 'b.srt', cue)[0]] == ['quick', 'now', 'red']


def test_a_transcript_whose_rows_hold_no_word_is_refused(tmp_path):
    for text in ('word,onset,offset\n,1,2\n,2,3\n', 'text,word,start,end\nhello,,1,2\n'):
        with pytest.raises(ValueError, match=r'a.csv has \d rows, and no word in any of them'):
            heard(tmp_path / 'a.csv', text)
    with pytest.raises(ValueError, match='b.json has 1 rows, and no word'):
        heard(tmp_path / 'b.json', '[{"word": null, "onset": 1, "duration": 1}]')
    assert 'hold no words' in heard(tmp_path / 'c.srt', '1\n00:00:01,000 --> 00:00:02,000\n[Music]\n')[1]


def test_rows_of_other_tiers_are_left_out_and_reported(tmp_path):
    rows = 'tmin,Tier Name,text,tmax\n0,words,cat,1\n0,phones,K,.3\n.3,phones,AE1,1\n1,words,sat,2\n'
    words, reported = heard(tmp_path / 'a.csv', rows)
    assert words == [['cat', 0.0, 1.0], ['sat', 1.0, 2.0]]
    assert "2 rows of other tiers than the words are left out ('phones')" in reported
    tiers = {'words': dict(entries=[[0, 1, 'cat']]), 'phones': dict(entries=[[0, 0.5, 'K'], [0.5, 1, 'AE1']])}
    words, reported = heard(tmp_path / 'b.json', json.dumps(dict(tiers=tiers)))
    assert words == [['cat', 0.0, 1.0]] and "2 rows of other tiers than the words are left out ('phones')" in reported


def textgrid(**tiers):  # name → [(begins, ends, label)]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', '', 'xmin = 0', 'xmax = 3', 'tiers? <exists>']
    lines += [f'size = {len(tiers)}', 'item []:']
    for k, (name, entries) in enumerate(tiers.items(), 1):
        about = ['class = "IntervalTier"', f'name = "{name}"', 'xmin = 0', 'xmax = 3']
        about += [f'intervals: size = {len(entries)}']
        lines += [f'    item [{k}]:', *(' ' * 8 + line for line in about)]
        for i, (begins, ends, label) in enumerate(entries, 1):
            about = [f'xmin = {begins}', f'xmax = {ends}', f'text = "{label}"']
            lines += [f'        intervals [{i}]:', *(' ' * 12 + line for line in about)]
    return '\n'.join(lines) + '\n'


SPOKEN = [(0, 0.5, ''), (0.5, 1, 'cat'), (1, 1.5, 'sp'), (1.5, 3, '""sat""')]


def test_a_textgrid_gives_its_words(tmp_path):
    text = textgrid(words=SPOKEN, phones=[(0, 1, 'K'), (1, 3, 'AE1')])
    words, reported = heard(tmp_path / 'a.TextGrid', text)
    assert (
        words == [['cat', 0.5, 1.0], ['"sat"', 1.5, 3.0]] and '2 rows of other tiers' in reported and '(sp)' in reported
    )
    (tmp_path / 'b.TextGrid').write_bytes(text.encode('utf-16'))
    assert read_words(tmp_path / 'b.TextGrid').values.tolist() == words
    two = {'Ann - words': SPOKEN, 'Bob - words': [(0, 2.5, ''), (2.5, 3, 'no')], 'Bob - phones': [(0, 3, 'N')]}
    assert [w[0] for w in heard(tmp_path / 'c.TextGrid', textgrid(**two))[0]] == ['cat', '"sat"', 'no']
    lines = heard(tmp_path / 'd.TextGrid', textgrid(sentence=[(0, 2, 'hi you'), (2, 3, '')]))[0]
    assert [w[0] for w in lines] == ['hi', 'you'] and lines[1][2] == 2.0
    with pytest.raises(ValueError, match=r"none of its tiers \('phones'\) is called words"):
        heard(tmp_path / 'e.TextGrid', textgrid(phones=SPOKEN))


def test_every_cut_of_a_textgrid_is_refused_or_changes_nothing(tmp_path):
    text = textgrid(words=SPOKEN, phones=[(0, 1, 'K'), (1, 3, 'AE1')])
    whole, refused = heard(tmp_path / 'a.TextGrid', text), 0
    for cut in range(30, len(text)):
        try:
            assert heard(tmp_path / 'a.TextGrid', text[:cut]) == whole or cut > len(text) - 10, cut
        except ValueError as e:
            assert 'a.TextGrid' in str(e)
            refused += 1
    assert refused > len(text) - 60


@pytest.mark.parametrize('name', ['V1\u200b', 'V\u202e1', 'x' * 300])
def test_a_parcel_whose_name_does_not_show_is_refused(tmp_path, name):
    (tmp_path / 'a.csv').write_text(f'V2,{name}\n' + '0.5,0.25\n0.75,0.125\n0.25,0.5\n')
    with pytest.raises(ValueError, match='a.csv names a parcel'):
        read_table(tmp_path / 'a.csv', None)
