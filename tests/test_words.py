"""Transcripts that people have: each gives the right words at the right times, or one error that names file and remedy."""
import numpy as np, pytest

from mirage.stimuli import word_overlaps
from mirage.words import read_words, transcript_seconds


RELEASE = 'text_per_tr\twords_per_tr\tonsets_per_tr\tdurations_per_tr\n'


def written(path, text, encoding='utf-8'): path.write_bytes(text.encode(encoding)); return path


def test_release_rows_empty_nan_and_out_of_order(tmp_path):
    rows = ['''x\t"[""it's"", 'long', 'short']"\t[0.2, 0.3, 0.5]\t[0.1, 1.4, 0.1]''', '\t[]\t[]\t[]', '\t\t\t', 'nan\tnan\tnan\tnan',
            "y\t['lost', nan]\t[nan, 6.1]\t[nan, 0.2]"]
    words = read_words(written(tmp_path/'t.tsv', RELEASE + '\n'.join(rows)), tr=1.5)
    assert words.word.tolist() == ["it's", 'long', 'short', 'lost']                     # in the file's order; what is no word is left out
    assert np.allclose(words[['onset', 'offset']], [[.2, .3], [.3, 1.7], [.5, .6], [6., 6.]])    # no onset: where row 5 begins
    assert transcript_seconds(tmp_path/'t.tsv', 1.5) == 7.5                               # five rows


@pytest.mark.parametrize('row, says', [
    ("x\t['a'\t[1]\t[1]", 'row 2: .*never closed'), ("x\t['a', 'b']\t[1]\t[1]", 'row 2: .*2 words, 1 onsets'),
    ("x\t['a']\t['soon']\t[1]", 'row 2: .*soon'), ("x\t['a']\t[1e999]\t[1]", 'row 2: .*inf'),
    ("x\t[open('f', 'w')]\t[1]\t[1]", 'row 2'), ("x\t'a'\t[1]\t[1]", 'row 2: .*not a list')])
def test_broken_rows_name_file_and_row(tmp_path, row, says):
    with pytest.raises(ValueError, match=r'b\.tsv, ' + says):
        read_words(written(tmp_path/'b.tsv', RELEASE + 'x\t[]\t[]\t[]\n' + row + '\n'))


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'latin-1'])
def test_encodings(tmp_path, encoding):
    path = written(tmp_path/'e.tsv', 'word\tonset\tduration\r\ncafé\t1\t0.5\r\nnaïf\t2\t0.5\r\n', encoding)
    assert read_words(path).word.tolist() == ['café', 'naïf']


@pytest.mark.parametrize('name, text', {
    'a.csv': 'word,onset,duration\n"a, b",1,.5\nNA,2,1\n', 'b.csv': 'Start;End;Word\n1;1.5;a, b\n2;3;NA\n',
    'c.tsv': 'word\tonset\toffset\na, b\t1\t1.5\nNA\t2\t3\n',
    'd.json': '[{"word": "NA", "onset": 2, "duration": 1}, {"word": "a, b", "onset": 1, "duration": 0.5}]',
    'e.json': '{"words": [{"text": "a, b", "start": 1, "end": 1.5}, {"text": "NA", "start": "2", "end": 3.0}]}'}.items())
def test_plain_forms(tmp_path, name, text):
    assert sorted(read_words(written(tmp_path/name, text)).values.tolist()) == [['NA', 2., 3.], ['a, b', 1., 1.5]]
    assert transcript_seconds(tmp_path/name) == 3.


@pytest.mark.parametrize('name, text, says', [
    ('a.csv', 'word,onset,duration\na,1,1\nb,one,1\n', 'row 2.*one'), ('b.csv', 'what,when\na,1\n', 'columns what, when'),
    ('c.json', '[{"word"', 'is not JSON'), ('d.json', '{"speech": 1}', 'expected a list')])
def test_plain_errors(tmp_path, name, text, says):
    with pytest.raises(ValueError, match=rf'{name}.*{says}'): read_words(written(tmp_path/name, text))


@pytest.mark.parametrize('text', ['', RELEASE, RELEASE + '\t[]\t[]\t[]\n', 'word\tonset\tduration\n'])
def test_no_words_at_all(tmp_path, text):
    words = read_words(written(tmp_path/'n.tsv', text))
    assert words.empty and list(words) == ['word', 'onset', 'offset'] and word_overlaps(words, 10).shape == (0, 2)
