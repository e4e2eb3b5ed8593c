"Files that were once read wrongly without a word: each is read right, reported or refused."

import warnings

import numpy as np
import pytest

from mirage.data.cohort import Cohort
from mirage.data.recordings import match_parcels, read_table
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
    rows = [[f'"{v}"' for v in row] for row in SAMPLES]
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
        tell_faults(tmp_path / 'a.ts', 'video', 0, [], {(96, 64, 1): 0.0, (128, 128, 1): 3.0})
