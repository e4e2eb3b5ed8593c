"""Transcripts that people have: each gives the right words at the right times, or one error that names file and
remedy."""

import json, time, warnings

import numpy as np, pandas as pd, pytest

from mirage.data.stimuli import word_overlaps
from mirage.data.words import read_words, released_words, transcript_seconds


RELEASE = 'text_per_tr\twords_per_tr\tonsets_per_tr\tdurations_per_tr\n'


def written(path, text, encoding='utf-8'):
    path.write_bytes(text.encode(encoding))
    return path


def test_release_rows_empty_nan_and_out_of_order(tmp_path):
    rows = [
        """x\t"[""it's"", 'long', 'short']"\t[0.2, 0.3, 0.5]\t[0.1, 1.4, 0.1]""",
        '\t[]\t[]\t[]',
        '\t\t\t',
        'nan\tnan\tnan\tnan',
        "y\t['lost', nan]\t[nan, 6.1]\t[nan, 0.2]",
    ]
    words = read_words(written(tmp_path / 't.tsv', RELEASE + '\n'.join(rows)), tr=1.5)
    assert words.word.tolist() == ["it's", 'long', 'short', 'lost']  # in the file's order; what is no word is left out
    # no onset: where row 5 begins
    assert np.allclose(words[['onset', 'offset']], [[0.2, 0.3], [0.3, 1.7], [0.5, 0.6], [6.0, 6.0]])
    assert transcript_seconds(tmp_path / 't.tsv', 1.5) == 7.5  # five rows


@pytest.mark.parametrize(
    'row, says',
    [
        ("x\t['a'\t[1]\t[1]", 'row 2: .*never closed'),
        ("x\t['a', 'b']\t[1]\t[1]", 'row 2: .*2 words, 1 onsets'),
        ("x\t['a']\t['soon']\t[1]", 'row 2: .*soon'),
        ("x\t['a']\t[1e999]\t[1]", 'row 2: .*inf'),
        ("x\t[open('f', 'w')]\t[1]\t[1]", 'row 2'),
        ("x\t'a'\t[1]\t[1]", 'row 2: .*not a list'),
    ],
)
def test_broken_rows_name_file_and_row(tmp_path, row, says):
    with pytest.raises(ValueError, match=r'b\.tsv, ' + says):
        read_words(written(tmp_path / 'b.tsv', RELEASE + 'x\t[]\t[]\t[]\n' + row + '\n'))


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32'])
@pytest.mark.filterwarnings('ignore:.*read as utf-16')
def test_encodings(tmp_path, encoding):
    path = written(tmp_path / 'e.tsv', 'word\tonset\tduration\r\ncafé\t1\t0.5\r\nnaïf\t2\t0.5\r\n', encoding)
    assert read_words(path).word.tolist() == ['café', 'naïf']


@pytest.mark.parametrize(
    'name, text',
    {
        'a.csv': 'word,onset,duration\n"a, b",1,.5\nNA,2,1\n',
        'b.csv': 'Start;End;Word\n1;1.5;a, b\n2;3;NA\n',
        'c.tsv': 'word\tonset\toffset\na, b\t1\t1.5\nNA\t2\t3\n',
        'd.json': '[{"word": "NA", "onset": 2, "duration": 1}, {"word": "a, b", "onset": 1, "duration": 0.5}]',
        'e.json': '{"words": [{"text": "a, b", "start": 1, "end": 1.5}, {"text": "NA", "start": "2", "end": 3.0}]}',
    }.items(),
)
def test_plain_forms(tmp_path, name, text):
    assert sorted(read_words(written(tmp_path / name, text)).values.tolist()) == [['NA', 2.0, 3.0], ['a, b', 1.0, 1.5]]
    assert transcript_seconds(tmp_path / name) == 3.0


@pytest.mark.parametrize(
    'name, text, says',
    [
        ('a.csv', 'word,onset,duration\na,1,1\nb,one,1\n', 'row 2.*one'),
        ('b.csv', 'what,when\na,1\n', 'columns what, when'),
        ('c.json', '[{"word"', 'is not JSON'),
        ('d.json', '{"speech": 1}', 'expected a list'),
    ],
)
def test_plain_errors(tmp_path, name, text, says):
    with pytest.raises(ValueError, match=rf'{name}.*{says}'):
        read_words(written(tmp_path / name, text))


@pytest.mark.filterwarnings('ignore:.*no words')
@pytest.mark.parametrize('text', ['', RELEASE, RELEASE + '\t[]\t[]\t[]\n', 'word\tonset\tduration\n'])
def test_no_words_at_all(tmp_path, text):
    words = read_words(written(tmp_path / 'n.tsv', text))
    assert words.empty and list(words) == ['word', 'onset', 'offset'] and word_overlaps(words, 10).shape == (0, 2)


# what people have


def clock(seconds):
    return f'{int(seconds // 3600):02d}:{int(seconds // 60 % 60):02d}:{seconds % 60:06.3f}'.replace('.', ',')


def srt(*cues):  # (begins, ends, text)
    return '\n'.join(f'{i + 1}\n{clock(a)} --> {clock(b)}\n{text}\n' for i, (a, b, text) in enumerate(cues))


def read_text_of(path, text, encoding='utf-8'):  # the words in one string, what was reported
    with warnings.catch_warnings(record=True) as reported:
        warnings.simplefilter('always')
        words = read_words(written(path, text, encoding))
    assert all(str(w.message).startswith(f'{path}: ') for w in reported)
    return ' '.join(words.word), ' '.join(str(w.message) for w in reported)


CAPTIONS = """WEBVTT
Kind: captions
Language: en

00:00:01.000 --> 00:00:03.000 align:start position:0%
 
every<00:00:01.400><c> story</c><00:00:01.900><c> begins</c>

00:00:03.000 --> 00:00:03.010 align:start position:0%
every story begins
 

00:00:03.010 --> 00:00:05.000 align:start position:0%
every story begins
and<00:00:03.500><c> ends</c>

00:00:05.000 --> 00:00:05.010 align:start position:0%
and ends
 
"""


def test_captions_of_a_video_site_have_each_word_once_at_its_inline_time(tmp_path):
    with pytest.warns(UserWarning, match='rolling captions'):
        words = read_words(written(tmp_path / 'c.vtt', CAPTIONS))
    assert words.word.tolist() == ['every', 'story', 'begins', 'and', 'ends']
    assert words.onset.tolist() == [1.0, 1.4, 1.9, 3.01, 3.5] and words.offset.tolist() == [1.4, 1.9, 3.0, 3.5, 5.0]


ROLLING = {
    'with cues of 10 ms': [
        (1, 3, ' \na story begins'),
        (3, 3.01, 'a story begins\n '),
        (3.01, 5, 'a story begins\nand ends'),
        (5, 5.01, 'and ends\n '),
        (5.01, 7, 'and ends\ngood night'),
    ],
    'without them': [(1, 3, 'a story begins'), (3, 5, 'a story begins\nand ends'), (5, 7, 'and ends\ngood night')],
    'that overlap': [(1, 4, 'a story begins'), (3, 6, 'a story begins\nand ends'), (5, 8, 'and ends\ngood night')],
    'over three lines': [
        (1, 3, 'a story begins'),
        (3, 5, 'a story begins\nand ends'),
        (5, 7, 'a story begins\nand ends\ngood night'),
    ],
    'word by word': [
        (1, 2, 'a'),
        (2, 3, 'a story'),
        (3, 4, 'a story begins'),
        (4, 5, 'a story begins\nand ends'),
        (5, 6, 'and ends\ngood night'),
    ],
}


@pytest.mark.parametrize('how', ROLLING)
def test_rolling_captions_converted_to_srt_have_each_word_once(tmp_path, how):
    words, reported = read_text_of(tmp_path / 'c.srt', srt(*ROLLING[how]))
    assert words == 'a story begins and ends good night' and 'rolling captions' in reported


def test_lines_that_stay_while_the_next_is_shown_are_said_one_after_the_other(tmp_path):
    with pytest.warns(UserWarning, match='most cues overlap'):
        words = read_words(
            written(tmp_path / 'o.srt', srt((1, 5, 'a story begins'), (3, 7, 'and ends'), (5, 9, 'good night')))
        )
    assert words.sort_values(
        'offset'
    ).word.tolist() == 'a story begins and ends good night'.split() and words.offset.tolist()[2::2] == [3.0, 5.0, 9.0]


def test_two_people_who_talk_at_once_keep_their_own_times(tmp_path):
    words = read_words(
        written(tmp_path / 'o.srt', srt((1, 5, 'Wait'), (2, 4, 'No'), (6, 7, 'Well'), (8, 9, 'Now'), (10, 11, 'Go')))
    )
    assert words.offset.tolist() == [5.0, 4.0, 7.0, 9.0, 11.0]


@pytest.mark.parametrize('mark', ['u', 'b', 'font color="#00ff00"'])
def test_words_that_are_underlined_in_turn_are_one_line_with_times(tmp_path, mark):
    def lit(line, word):
        return line.replace(word, f'<{mark}>{word}</{mark.split()[0]}>')

    first, second = 'every story begins', 'and the story ends'
    cues = [
        (1, 1.4, lit(first, 'every')),
        (1.4, 1.5, first),
        (1.5, 2, lit(first, 'story')),
        (2, 2.5, lit(first, 'begins')),
        (3, 3.2, lit(second, 'and')),
        (3.2, 3.3, lit(second, 'the')),
        (3.3, 3.6, lit(second, 'story')),
        (3.6, 4, lit(second, 'ends')),
    ]
    with pytest.warns(UserWarning, match='mark one word after the other'):
        words = read_words(written(tmp_path / 'u.srt', srt(*cues)))
    assert words.values.tolist() == [
        ['every', 1.0, 1.4],
        ['story', 1.5, 2.0],
        ['begins', 2.0, 2.5],
        ['and', 3.0, 3.2],
        ['the', 3.2, 3.3],
        ['story', 3.3, 3.6],
        ['ends', 3.6, 4.0],
    ]


def test_emphasis_that_is_said_twice_is_no_karaoke(tmp_path):
    assert (
        read_text_of(tmp_path / 'e.srt', srt((1, 2, 'I said <i>no</i>'), (2, 3, 'I said <i>no</i>'), (3, 4, 'Fine.')))[
            0
        ]
        == 'I said no I said no Fine.'
    )


def test_a_line_that_only_one_cue_shows_again_takes_no_time_from_the_new_one(tmp_path):
    with pytest.warns(UserWarning, match='rolling'):
        words = read_words(written(tmp_path / 'c.srt', srt(*ROLLING['without them'])))
    assert words.onset.tolist()[3:5] == [3.0, 3.0 + 2 * 3 / 7] and words.offset[4] == 5.0


@pytest.mark.parametrize(
    'cues, words',
    {
        'two cues': ([(1, 2, 'No!'), (2, 3, 'No!')], 'No! No!'),
        'a chorus': ([(k, k + 1, 'la la la') for k in range(6)], ' '.join(['la la la'] * 6)),
        'once above a new line': (
            [(1, 2, 'Run!'), (2, 3, 'Run!\nWhy?'), (3, 4, 'Because.'), (4, 5, 'Of what?'), (5, 6, 'Of that.')],
            'Run! Run! Why? Because. Of what? Of that.',
        ),
        'in rolling captions': (
            [
                (1, 3, 'a story'),
                (3, 5, 'a story\nno no'),
                (5, 7, 'no no\nno no'),
                (7, 9, 'no no\nno no'),
                (9, 11, 'no no\nthe end'),
            ],
            'a story no no no no no no the end',
        ),
    }.values(),
)
def test_a_line_said_twice_in_succession_does_not_vanish(tmp_path, cues, words):
    assert read_text_of(tmp_path / 'c.srt', srt(*cues))[0] == words


def test_an_isolated_line_that_comes_back_is_reported(tmp_path):
    cues = [(1, 2, 'Run!'), (2, 3, 'Run!\nWhy?'), (3, 4, 'Because.'), (4, 5, 'Of what?'), (5, 6, 'Of that.')]
    assert 'was said again: line 6' in read_text_of(tmp_path / 'c.srt', srt(*cues))[1]


def test_karaoke_times_stand_before_words_or_inside_them(tmp_path):
    text = 'WEBVTT\n\n00:01.000 --> 00:05.000\n<00:01.200>some<00:02.000>where <00:03.000>o<00:03.500>ver<00:04.000>\n'
    assert read_words(written(tmp_path / 'k.vtt', text)).values.tolist() == [
        ['somewhere', 1.2, 3.0],
        ['over', 3.0, 4.0],
    ]


PLAYERS = {
    'no empty line between cues': '1\n00:00:01,000 --> 00:00:02,000\nHello there\n2\n00:00:03,000 --> '
    '00:00:04,000\nGeneral\n',
    'empty lines inside and before': '1\n\n00:00:01,000 --> 00:00:02,000\n\nHello\n\nthere\n\n2\n\n00:00:03,000 '
    '--> 00:00:04,000\nGeneral\n',
    'no indices': '00:00:01,000 --> 00:00:02,000\nHello there\n\n00:00:03,000 --> 00:00:04,000\nGeneral\n',
    'one index missing': '1\n00:00:01,000 --> 00:00:02,000\nHello there\n\n00:00:03,000 --> 00:00:04,000\nGeneral\n',
    'CR': '1\r00:00:01,000 --> 00:00:02,000\rHello there\r\r2\r00:00:03,000 --> 00:00:04,000\rGeneral\r',
    'CRLF and BOM': '\ufeff1\r\n00:00:01,000 --> 00:00:02,000\r\nHello there\r\n\r\n2\r\n00:00:03,000 --> '
    '00:00:04,000\r\nGeneral\r\n',
    'points, few digits, positions': '1\n0:0:1.0 --> 0:0:2.00 X1:10 X2:20\nHello there\n\n2\n00:00:03,0 --> '
    '00:00:04\nGeneral\n',
    'tags, speakers, sounds': '1\n00:00:01,000 --> 00:00:02,000\n{\\an8}-<i>Hello</i> [music]\n- '
    'there\n\n2\n00:00:03,000 --> '
    '00:00:04,000\n>> <b>General</b> (sighs (softly)) ♪\n',
    'the last index without a cue': '1\n00:00:01,000 --> 00:00:02,000\nHello there\n\n2\n00:00:03,000 --> '
    '00:00:04,000\nGeneral\n\n3\n',
}


@pytest.mark.parametrize('case', PLAYERS)
def test_srt_is_read_as_players_read_it(tmp_path, case):
    words = read_words(written(tmp_path / 'p.srt', PLAYERS[case]))
    assert (
        words.word.tolist() == ['Hello', 'there', 'General']
        and words.onset.tolist()[::2] == [1.0, 3.0]
        and words.offset.tolist()[1:] == [2.0, 4.0]
    )


def test_numbers_that_are_said_are_no_indices(tmp_path):
    assert read_text_of(tmp_path / 'n.srt', srt((1, 2, 'Say\n42'), (2, 3, '1984')))[0] == 'Say 42 1984'
    assert (
        read_text_of(tmp_path / 'm.srt', '00:00:01,000 --> 00:00:02,000\n1984\n00:00:03,000 --> 00:00:04,000\nNo\n')[0]
        == '1984 No'
    )


def test_clocks_and_arrows_that_are_said_are_no_times(tmp_path):
    assert (
        read_text_of(tmp_path / 'a.srt', srt((1, 2, 'look --> there'), (3, 4, '10:30 - 11:45')))[0]
        == 'look there 10:30 11:45'
    )


@pytest.mark.parametrize(
    'times',
    [
        '00:00:xx,000 --> 00:00:04,000',
        '00:00:03,000 -- 00:00:04,000',
        '00:00:04,000 --> 00:00:03,000',
        '00:00:03,000 -->',
        '00:00:61,000 --> 00:01:04,000',
        '00:00:03:12 --> 00:00:04:05',
        'soon --> later',
    ],
)
def test_one_bad_cue_is_left_out_and_reported(tmp_path, times):
    words, reported = read_text_of(
        tmp_path / 'b.srt',
        f'1\n00:00:01,000 --> 00:00:02,000\nHello\n\n2\n{times}\nlost\n\n3\n00:00:05,000 --> 00:00:06,000\nGeneral\n',
    )
    assert words == 'Hello General' and f'left out (1): line 6, {times!r}' in reported


@pytest.mark.parametrize(
    'text',
    [
        '1\nsoon --> later\nHello\n',
        'Hello there\n',
        '1\n00:00:01,000 --> 00:00:02,000\nHello\n\n2\n00:x --> 00:y\na\n\n3\n00:x --> 00:y\na\n',
    ],
)
def test_subtitles_that_are_mostly_bad_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r'b\.srt.* export the subtitles again'):
        read_words(written(tmp_path / 'b.srt', text))


def test_webvtt_with_everything_that_is_no_speech(tmp_path):
    text = (
        'WEBVTT - title\nX: y\n\nSTYLE\n::cue { color: red }\n\nREGION\nid:a\n\nNOTE two\nlines\n\nid '
        'one\n00:01.000 --> 00:02.000 align:start line:0\n'
        '<v.loud Ann Lee>Be <i.x>quick</i>!</v>\n\nstray\n\n100:00:03.000 --> 100:00:04.000\n- Now '
        '&lt;then&nbsp;<ruby>more<rt>less</rt></ruby>\n\nNOTE end'
    )
    words, reported = read_text_of(tmp_path / 's.vtt', text)
    assert (
        words == 'Be quick! Now <then more'
        and "line 17, 'stray'" in reported
        and read_words(tmp_path / 's.vtt').onset[2] == 360_003.0
    )


@pytest.mark.parametrize(
    'name, text',
    {
        'a.json': json.dumps([
            dict(text='every story, begins', start=1.0, duration=2.0),
            dict(text='and ends [Music]', start=3.0, duration=2.0),
        ]),
        'b.csv': 'text,start,duration\n"every story, begins",1,2\nand ends [Music],3,2\n',
        'c.tsv': 'line\tstart\tend\nevery story, begins\t00:00:01.0\t00:00:03,000\n- and ends\t0:03\t0:05\n',
        'd.json': json.dumps(
            dict(
                segments=[
                    dict(start=1, end=3, text=' every story, begins'),
                    dict(start=3, end=5, text='(door) and ends'),
                ]
            )
        ),
    }.items(),
)
def test_tables_of_lines_are_split_and_spread_like_cues(tmp_path, name, text):
    words = read_words(written(tmp_path / name, text))
    assert (
        words.word.tolist() == ['every', 'story,', 'begins', 'and', 'ends']
        and words.onset.tolist()[::3] == [1.0, 3.0]
        and words.offset[4] == 5.0
    )


WHISPERX = dict(
    segments=[
        dict(
            start=0.5,
            end=4,
            text='In 2024 we',
            words=[
                dict(word='In', start=0.5, end=0.8, score=0.1),
                dict(word='2024'),
                dict(word='we', start=2, end=2.4),
            ],
        )
    ]
)


@pytest.mark.parametrize(
    'data, words',
    {
        'whisper': (
            dict(
                segments=[
                    dict(
                        start=0.5,
                        end=1.4,
                        text=' Hi all.',
                        words=[dict(word=' Hi', start=0.5, end=0.8), dict(word=' all.', start=0.9, end=1.4)],
                    )
                ]
            ),
            [['Hi', 0.5, 0.8], ['all.', 0.9, 1.4]],
        ),
        'whisper-timestamped': (
            dict(segments=[dict(start=0.5, end=4, words=[dict(text='In', start=0.5, end=0.8)])]),
            [['In', 0.5, 0.8]],
        ),
        'whisperX, a number without times': (WHISPERX, [['In', 0.5, 0.8], ['2024', 0.8, 2.0], ['we', 2.0, 2.4]]),
        'faster-whisper, a list': (
            [dict(start=0, end=1, words=[dict(start=0.1, end=0.4, word=' Hi')])],
            [['Hi', 0.1, 0.4]],
        ),
        'transformers': (dict(text='x', chunks=[dict(text=' hi', timestamp=[0.5, 0.9])]), [['hi', 0.5, 0.9]]),
        'whisper.cpp': (dict(transcription=[dict(offsets={'from': 500, 'to': 2000}, text=' hi')]), [['hi', 0.5, 2.0]]),
        'vosk': (dict(result=[dict(word='hi', start=0.5, end=0.9, conf=1.0)], text='hi'), [['hi', 0.5, 0.9]]),
        'gentle': (
            dict(
                transcript='hi',
                words=[dict(word='hi', alignedWord='hi', start=0.5, end=0.9, startOffset=0, endOffset=2)],
            ),
            [['hi', 0.5, 0.9]],
        ),
        'MFA': (
            dict(tiers=dict(words=dict(entries=[[0.5, 0.9, 'hi']]), phones=dict(entries=[[0.5, 0.6, 'HH']]))),
            [['hi', 0.5, 0.9]],
        ),
        'AssemblyAI, milliseconds': (
            dict(words=[dict(text='hello', start=500, end=900), dict(text='there', start=900, end=1300)]),
            [['hello', 0.5, 0.9], ['there', 0.9, 1.3]],
        ),
        'YouTube': (
            dict(
                events=[
                    dict(tStartMs=0, dDurationMs=9000),
                    dict(tStartMs=500, dDurationMs=1500, segs=[dict(utf8='hi'), dict(utf8=' all', tOffsetMs=400)]),
                ]
            ),
            [['hi', 0.5, 0.9], ['all', 0.9, 2.0]],
        ),
    }.values(),
)
@pytest.mark.filterwarnings('ignore:.*milliseconds')
def test_what_recognisers_and_aligners_write(tmp_path, data, words):
    assert read_words(written(tmp_path / 'r.json', json.dumps(data))).values.tolist() == words


def test_one_json_object_a_line(tmp_path):
    lines = json.dumps(dict(text='a line', start=1, end=3)), json.dumps(dict(text='and more', start=3, end=5))
    assert read_text_of(tmp_path / 'l.jsonl', '\n'.join(lines) + '\n')[0] == 'a line and more'


def test_the_phones_of_mfa_are_no_words(tmp_path):
    assert (
        read_text_of(tmp_path / 'm.csv', 'Begin,End,Label,Type,Speaker\n.5,.9,hello,words,s\n.5,.6,HH,phones,s\n')[0]
        == 'hello'
    )


@pytest.mark.parametrize(
    'name, text, remedy',
    [
        ('a.ass', '[Script Info]\n', 'SubStation.*ffmpeg -i a.ass a.srt'),
        ('a.sub', '{1}{20}Hi\n', 'MicroDVD.*ffmpeg'),
        ('a.ttml', '<?xml version="1.0"?>\n', 'XML.*ffmpeg'),
        ('a.xlsx', 'PK\x03\x04', 'workbook.*CSV'),
        ('a.lrc', '[00:12.00]la\n', 'lyrics.*ffmpeg'),
        ('a.json', '{"results": []}', 'form of JSON .*results.*expected'),
    ],
)
def test_other_formats_are_refused_by_name_with_the_way_out(tmp_path, name, text, remedy):
    with pytest.raises(ValueError, match=rf'{name}.*{remedy}'):
        read_words(written(tmp_path / name, text))


# times


@pytest.mark.parametrize(
    'text',
    [
        'word,start,end\nhello,1000,1400\nthere,1500,1900\n',
        'word,onset_ms,duration_ms\nhello,1000,400\nthere,1500.0,400\n',
        'word,Begin (ms),End (ms)\nhello,1000,1400\nthere,1500,1900\n',
        'word;start;end\nhello;1,0;1,4\nthere;1,500;1,9\n',
        'word,start,end\nhello,00:00:01,00:00:01.4\nthere,0:01.5,0:01.9\n',
        'word,start,end\nhello,1000ms,1.4s\nthere,1.5 s,1900 ms\n',
    ],
)
@pytest.mark.filterwarnings('ignore:.*milliseconds')
def test_times_in_milliseconds_clocks_and_decimal_commas(tmp_path, text):
    assert read_words(written(tmp_path / 't.csv', text)).values.tolist() == [['hello', 1.0, 1.4], ['there', 1.5, 1.9]]


def test_milliseconds_that_no_column_names_are_reported(tmp_path):
    assert (
        'read as milliseconds'
        in read_text_of(tmp_path / 't.csv', 'word,start,end\nhello,1000,1400\nthere,1500,1900\n')[1]
    )


@pytest.mark.parametrize(
    'rows, says',
    [
        ('hello,1000.5,1400.5', 'not in seconds.*onset_ms'),
        ('hello,16000,22400', 'not in seconds'),
        ('hello,0.01,0.02', 'not in seconds'),
        ('hello,00:00:01:12,00:00:02:05', 'row 1.*no time'),
        ('hello,soon,2', "row 1: 'soon' is no time.*onset_ms"),
        ('hello,2,1', 'row 1: it ends at 1, before'),
        ('hello,-5,-4', 'before the movie'),
        ('hello,1,1e300', 'not in seconds|ten days'),
        ('hello,1_0,11', 'no time'),
        ('hello,inf,2', 'no time'),
    ],
)
def test_times_in_doubt_are_refused_with_the_way_out(tmp_path, rows, says):
    with pytest.raises(ValueError, match=rf't\.csv.*({says})'):
        read_words(written(tmp_path / 't.csv', f'word,start,end\n{rows}\n'))


def test_commas_that_may_be_thousands_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"row 1: '1,050' is no time"):
        read_words(written(tmp_path / 't.tsv', 'word\tstart\tend\nhello\t1,050\t1,400\n'))


def test_a_duration_that_contradicts_the_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match='from 5 for 1 is not until 9'):
        read_words(written(tmp_path / 't.csv', 'word,onset,duration,end\nhello,5,1,9\n'))


# quotation marks


@pytest.mark.parametrize(
    'text, words',
    {
        'an inch': ('word\tonset\tduration\n"\t1\t.5\nmy\t2\t.5\n', ['"', 'my']),
        'two of them': ('word\tonset\tduration\n"\t1\t.5\nmy\t2\t.5\n"\t3\t.5\n', ['"', 'my', '"']),
        'speech': ('word\tonset\tduration\n"Hello\t1\t.5\nthere"\t2\t.5\n', ['"Hello', 'there"']),
        'pandas with its index': (
            pd.DataFrame(dict(word=['"', 'a "b" c', 'd'], onset=[1, 2, 3.0], duration=0.5)).to_csv(sep='\t'),
            ['"', 'a "b" c', 'd'],
        ),
        'pandas without': (
            pd.DataFrame(dict(word=['"', 'tab\there'], onset=[1, 2.0], duration=0.5)).to_csv(sep='\t', index=False),
            ['"', 'tab\there'],
        ),
    }.values(),
)
def test_quotation_marks_of_aligners_and_of_pandas(tmp_path, text, words):
    assert read_words(written(tmp_path / 'q.tsv', text)).word.tolist() == words


@pytest.mark.parametrize(
    'name, text, says',
    [
        ('a.csv', 'text,start,duration\n"two\nlines",1,2\n', 'row 1.*over a line break'),
        ('b.tsv', 'word\tonset\tduration\nHello\t1\n', 'row 1: 2 fields under 3'),
        ('c.tsv', 'word\tonset\tduration\n1\tHello\t1\t.5\n', 'row 1: 4 fields under 3'),
        ('d.csv', 'text,start,duration\nHello, you,1,2\n', '4 fields under 3'),
    ],
)
def test_rows_that_do_not_fit_their_header_are_refused(tmp_path, name, text, says):
    with pytest.raises(ValueError, match=rf'{name}.*{says}'):
        read_words(written(tmp_path / name, text))


# letters

LETTERS = {
    'cp1251': 'Он вышел из дома рано утром, когда город ещё спал, и пошёл по пустой улице к реке.',
    'koi8-r': 'Он вышел из дома рано утром, когда город ещё спал, и пошёл по пустой улице к реке.',
    'cp1250': 'Wyszedł z domu wcześnie rano, gdy miasto jeszcze spało, i poszedł pustą ulicą ku rzece. Żółć, gęś, '
    'jaźń, '
    'łódź, ćma, źrebię, wąż, ślimak, '
    'źródło, późno, święto, książę, żołądź, pięść, gałąź, kość, mgła, świt.',
    'cp1253': 'Βγήκε από το σπίτι νωρίς το πρωί, όταν η πόλη κοιμόταν ακόμη.',
    'cp1255': 'הוא יצא מהבית מוקדם בבוקר כשהעיר עדיין ישנה והלך אל הנהר ברחוב הריק',
    'gb18030': '他清晨离开家的时候，城市还在沉睡，他沿着空荡荡的街道走向河边。',
    'big5': '他清晨離開家的時候，城市還在沉睡，他沿著空蕩蕩的街道走向河邊。',
    'shift_jis': '彼は朝早く家を出て、まだ眠っている街の中を川に向かって歩いた。',
    'euc_kr': '그는 아침 일찍 집을 나와 아직 잠든 도시의 빈 거리를 따라 강으로 걸어갔다.',
    'cp1252': 'Né à l’été, il était déjà là où le garçon âgé avait été élevé près du château, à côté d’une forêt '
    'gelée, '
    'dès la fin de l’année écoulée. '
    'Où étais-tu, frère ? À l’hôtel, très fatigué, épuisé même ; la fenêtre fermée, la lumière éteinte.',
    'iso2022_jp': '彼は朝早く家を出た',
}


@pytest.mark.parametrize('encoding', LETTERS)
def test_encodings_of_other_countries_are_recognised_and_reported(tmp_path, encoding):
    words, reported = read_text_of(tmp_path / 'e.srt', srt((1, 9, LETTERS[encoding])), encoding)
    assert (
        words.replace(' ', '') == LETTERS[encoding].replace(' ', '').replace('?', '').replace(';', '')
        and 'read as' in reported
    )


def test_english_with_curly_quotes_of_windows(tmp_path):
    words, reported = read_text_of(tmp_path / 'e.srt', srt((1, 2, 'I don’t know — “maybe”')), 'cp1252')
    assert words == 'I don’t know “maybe”' and 'windows-1252' in reported


def test_one_line_in_another_encoding_is_right_or_refused(tmp_path):
    for text, encoding in (
        ('你好世界', 'gb18030'),
        ('こんにちは', 'shift_jis'),
        ('Привет', 'cp1251'),
        ('Привет', 'koi8-r'),
        ('café', 'cp1252'),
        ('café', 'cp850'),
        ('żółć', 'cp1250'),
        ('שלום', 'cp1255'),
        ('안녕', 'euc_kr'),
        ('你好', 'big5'),
    ):
        try:
            words, reported = read_text_of(tmp_path / 'e.srt', srt((1, 2, text)), encoding)
        except ValueError as e:
            assert 'e.srt' in str(e) and 'iconv -f' in str(e)
        else:
            assert words.replace(' ', '') == text and 'a guess' in reported


@pytest.mark.parametrize(
    'data, says',
    [
        (srt((1, 2, 'Привет, как дела')).encode()[:-2], 'UTF-8 but for a few bytes'),
        (srt((1, 2, 'Hi')).encode('utf-16')[:-1], 'begins as utf-16'),
        (b'\0\1\2\3 movie\0', 'zero bytes'),
        (b'1\n00:00:01,000 --> 00:00:02,000\nHe\0llo\n', 'zero bytes'),
        (b'1\n00:00:01,000 --> 00:00:02,000\nHe\x07llo\n', 'control character.*line 3'),
    ],
)
def test_damaged_letters_are_refused(tmp_path, data, says):
    (tmp_path / 'd.srt').write_bytes(data)
    with pytest.raises(ValueError, match=rf'd\.srt.*{says}'):
        read_words(tmp_path / 'd.srt')


@pytest.mark.parametrize(
    'text, words',
    [
        ('你好，世界。', ['你', '好，', '世', '界。']),
        ('彼はiPhoneを', ['彼', 'は', 'iPhone', 'を']),
        ('สวัสดี', ['ส', 'วั', 'ส', 'ดี']),
        ('안녕하세요 여러분', ['안녕하세요', '여러분']),
    ],
)
def test_lines_without_spaces_become_characters_with_times(tmp_path, text, words):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        table = read_words(written(tmp_path / 'z.srt', srt((1, 3, text))))
    assert (
        table.word.tolist() == words
        and table.onset.is_monotonic_increasing
        and table.offset.max() == 3.0
        and len(set(table.onset)) == len(words)
    )


def test_words_that_an_aligner_timed_stay_whole(tmp_path):
    assert read_words(written(tmp_path / 'z.tsv', 'word\tonset\tduration\n世界\t1\t.5\n')).word.tolist() == ['世界']


# files that were damaged, and files made to hurt


@pytest.mark.parametrize(
    'text',
    [
        '[' * 100_000,
        '{"a":' * 50_000,
        '[{"word":"a","onset":' + '9' * 6000 + ',"duration":1}]',
        '[{"word":"a","onset":1e300,"duration":1}]',
        '[{"word":"a","onset":true,"duration":1}]',
        '{"words": [1, 2]}',
        '{"segments": [{"words": [{}]}]}',
        '[null]',
        '{"events": [1]}',
        '5',
        '[[1]]',
        '{"words": [{"word": {"a": 1}, "start": 1, "end": 2}]}',
        '[{"word"',
    ],
)
def test_json_of_any_shape_is_read_or_refused_by_name(tmp_path, text):
    with pytest.raises(ValueError, match=r'j\.json'):
        read_words(written(tmp_path / 'j.json', text))


@pytest.mark.parametrize(
    'repeated', ['<', '[', '(', '{', '&', '&#', '>', '-', '<b', '((', '<00:00:01.5>', '-->\n', '"', '\n', ' ']
)
@pytest.mark.parametrize('name', ['b.srt', 'b.vtt', 'b.json', 'b.csv', 'b.tsv'])
def test_whatever_is_opened_and_never_closed_takes_no_time(tmp_path, name, repeated):
    body = (repeated * 160_000)[:160_000]
    heads = {
        'b.srt': '1\n00:00:01,000 --> 00:00:02,000\n',
        'b.vtt': 'WEBVTT\n\n00:01.000 --> 00:02.000\n',
        'b.json': '[{"start": 1, "end": 2, "text": ',
        'b.csv': 'text,start,end\n',
        'b.tsv': 'words_per_tr\tonsets_per_tr\tdurations_per_tr\n[',
    }
    path = written(tmp_path / name, heads[name] + (json.dumps(body) + '}]' if name == 'b.json' else body))
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            read_words(path)
        except ValueError as e:
            assert name in str(e)
    assert time.process_time() - began < 4  # quadratic rules took 38


SEEDS = [
    ('s.srt', srt((1, 2, 'Hello <i>there</i>'), (2, 3, 'General &amp; co'))),
    ('c.vtt', CAPTIONS),
    ('w.json', json.dumps(WHISPERX)),
    ('q.tsv', 'word\tonset\tduration\n"\t1\t.5\n'),
    ('r.tsv', RELEASE + "x\t['a', nan]\t[1, 2]\t[1, nan]\n"),
    ('l.csv', 'text,start,end\n"a, b",1,2\n'),
]
PIECES = [  # that formats are made of, and that none is
    b'"',
    b'\n',
    b'\r',
    b'\t',
    b',',
    b'<',
    b'[',
    b'{',
    b'\0',
    b'-->',
    b'9' * 400,
    b'1e999',
    b'nan',
    b'null',
    b'true',
    b'\xff',
    b'\xfe',
    b'\xed\xa0\x80',
    b'\x1b$B',
    b'00:00:01.000',
    b'&#99999999;',
    b'"words":',
    b'[1]',
    b'{}',
    b'\xe4\xbd\xa0',
]


def mutated(text, rng):  # bytes
    data = bytearray(text.encode())
    for _ in range(rng.integers(1, 8)):
        i = int(rng.integers(len(data) + 1))
        how = rng.integers(4)
        if how == 0 and i < len(data):
            data[i] = rng.integers(256)
        elif how == 1:
            del data[i : i + 5]
        elif how == 2:
            data[i:i] = PIECES[rng.integers(len(PIECES))]
        else:
            data = data[: max(i, 10)]
    return bytes(data)


def test_mutated_files_are_read_or_refused_by_name(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(600):
        name, text = SEEDS[rng.integers(len(SEEDS))]
        data = mutated(text, rng)
        (tmp_path / name).write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                words = read_words(tmp_path / name)
            except ValueError as e:
                assert str(tmp_path / name) in str(e), data
            else:
                assert (
                    (words.onset >= 0).all() and (words.offset >= words.onset).all() and words.word.str.len().min() != 0
                )


@pytest.mark.parametrize('name', ['a.tsv', 'a.txt'])
def test_a_table_of_the_release_is_one_whatever_its_name(tmp_path, name):
    "Words stand as they are, and durations are the table's own: .36 s + .75 s would else last two frames."
    (tmp_path / name).write_text(
        "text_per_tr\twords_per_tr\tonsets_per_tr\tdurations_per_tr\n\t[' hi ', 'you']\t[0.36, 1.2]\t[0.75, 0.1]\n"
    )
    words = released_words(tmp_path / name)
    assert words.word.tolist() == [' hi ', 'you'] and words.duration.tolist() == [0.75, 0.1]
