"Real brains: what the manifest lists, and how its files become a cohort."

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mirage.data.manifest import load_manifest, select
from mirage.data.studyforrest import STARTS, TRS, bold_file, half_seconds, lines_of_run, read_annotations, scanned
from mirage.data.studyforrest import sound_features, speech_features

REPO = Path(__file__).parents[1]


def test_the_manifest_lists_all_files_at_pinned_commits():
    assets = load_manifest(REPO / 'data_manifest.yaml')
    files = {
        name: select(assets[name], 'studyforrest') for name in ('studyforrest-aggregate', 'studyforrest-annotations')
    }
    assert [len(f) for f in files.values()] == [120, 45]
    assert len({p.split('/')[0] for p in files['studyforrest-aggregate']}) == 15
    for name in files:
        assert assets[name]['revision'] in assets[name]['https'] and len(assets[name]['revision']) == 40
    for run in range(1, 9):
        assert bold_file('sub-20', run).removeprefix('aggregate/') in files['studyforrest-aggregate']
        for kind in ('audio', 'visual'):
            assert f'segments/avmovie/conf_{kind}_run-{run}_events.tsv' in files['studyforrest-annotations']


def test_a_download_that_stopped_is_no_cohort(tmp_path):
    with pytest.raises(FileNotFoundError, match='holds nobody.*make data GROUP=studyforrest ACTION=fetch'):
        scanned(tmp_path)
    for run in range(1, 8):
        path = tmp_path / bold_file('sub-04', run)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(FileNotFoundError, match=r'sub-04 has runs \[1, 2, 3, 4, 5, 6, 7\] only'):
        scanned(tmp_path)


def test_a_line_is_on_the_clock_of_its_run():
    dialogue = pd.DataFrame(
        dict(start=[880.0, 890.0, 5000.0, 900.0], end=[884.0, 893.0, 5001.0, 899.9], text=['a', 'b', 'c', 'd'])
    )
    first, second = lines_of_run(dialogue, 1), lines_of_run(dialogue, 2)
    # shown twice at the join
    assert first.values.tolist() == [['a', 880.0, 884.0], ['b', 890.0, 893.0], ['d', 900.0, 900.0]]
    assert second.values.tolist() == [['b', 4.0, 7.0], ['d', 14.0, 14.0]]
    assert STARTS[1] == 886.0 and TRS[0] * 2 == 902


def test_a_half_second_is_the_mean_of_what_begins_in_it():
    onset = np.array([0.0, 0.04, 0.48, 0.52, 1.72])
    assert half_seconds(onset, [1.0, 3.0, 100.0, 5.0, 7.0], 5).tolist() == [2.0, 52.5, 52.5, 7.0, 7.0]


def test_silence_and_noise_have_other_codes():
    table = pd.DataFrame(dict(onset=[0.0, 0.5, 1.0], rms=[0.0, 0.01, 0.5], lrdiff=[0.0, 0.2, -0.2]))
    x = sound_features(table, 3)
    assert (
        x.shape == (3, 16)
        and x[:, :12].argmax(1).tolist() == sorted(x[:, :12].argmax(1))
        and x[0].argmax() != x[2].argmax()
    )


def test_words_under_way_are_counted():
    words = pd.DataFrame(dict(word=['one', 'three'], onset=[0.2, 0.6], offset=[0.9, 0.9]))
    x = speech_features(words, 4)
    assert x.shape == (4, 8) and len(np.unique(x[:3, :4].round(6), axis=0)) == 3 and (x[2] == x[3]).all()


def test_a_damaged_table_of_annotations_is_named(tmp_path):
    (tmp_path / 'a.tsv').write_text('begin\trms\n1\t2\n')
    with pytest.raises(ValueError, match='a.tsv is no table of annotations.*Fetch it again'):
        read_annotations(tmp_path / 'a.tsv')
    with pytest.raises(FileNotFoundError, match='make data GROUP=studyforrest'):
        read_annotations(tmp_path / 'b.tsv')
