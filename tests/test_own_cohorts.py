"""Items and chapters on the cohorts that people bring: one stream or two, one layer, one person or fifteen, missing
sets and runs. Each is drawn whole from real runs, or says what it lacks."""

import json
import warnings

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mirage.plotting.figures import NEEDS, lacking
from mirage.data.cohort import Cohort
from owncohorts import COHORTS, execute, make_runs, write_own

ITEMS = 'fig1_pipeline fig3_modalities fig4_gains fig5_attention fig7_heads fig8_maps fig9_depth fig10_ceiling'.split()
ITEMS += ['fig12_streams', 'table1_scores', 'table2_hyperparameters', 'sanity']
FOREIGN = ['control', 'fig2_fusion']  # of embedded, and of movies that are extracted here
MIXED = dict(
    people=3, streams=dict(text=(3, 8), audio=(1, 4)), lost={('p2', 'm3'), ('p2', 'm4'), ('p3', 'm1'), ('p1', 'm5')}
)
NO_DEPTH = ['fig5_attention', 'fig7_heads', 'fig9_depth']
LACKS = dict(one_layer=NO_DEPTH, one_person=['fig10_ceiling'])
for name in (
    'one_stream',
    'fifteen_people',
    'one_run_a_set',
    'missing_runs',
    'mixed',
):  # nothing to share, or to leave out
    LACKS.setdefault(name, []).append('fig12_streams')
PEOPLE = dict(one_person='1 person', fifteen_people='15 people', missing_runs='3 people', mixed='3 people')
NOBODYS = ['fig1_pipeline', 'table2_hyperparameters']  # show nobody's BOLD
LONG = [name for name in COHORTS if name != 'no_validation']


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "Opens a small cohort with its runs, made when first asked for."
    patch, folders = pytest.MonkeyPatch(), {}

    def open_one(name):
        fresh = name not in folders
        root = folders.setdefault(name, tmp_path_factory.mktemp(name) if fresh else folders.get(name))
        patch.setenv('MIRAGE_ROOT', str(root))
        patch.setenv('IN_TEST', '1')
        if fresh:
            write_own(root / 'data/own', **(COHORTS | dict(mixed=MIXED))[name])
            if name != 'no_validation':
                make_runs('own')
        return root

    yield open_one
    patch.undo()


def cohorts(*quick):
    return [*quick, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)]


def is_empty(ax):
    "An axis that is shown and shows nothing."
    shown = [*ax.lines, *ax.patches, *ax.collections, *ax.images, *ax.texts]
    return ax.axison and not any(artist.get_visible() for artist in shown) and not ax.child_axes


@pytest.mark.parametrize('item', ITEMS)
@pytest.mark.parametrize('name', cohorts('mixed'))
def test_an_item_is_drawn_whole_or_says_what_the_cohort_lacks(made, name, item):
    root = made(name)
    if item in LACKS.get(name, []):
        with pytest.raises(ValueError, match=f'{item} has nothing to show for cohort own: '):
            execute(f'figures/{item}', cohort='own')
        return
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*(nan|empty slice|invalid value|All-NaN).*')
        drawn = execute(f'figures/{item}', cohort='own')
    about = json.loads((root / f'results/own/figures/{item}.json').read_text())
    assert about['faults'] == []
    assert about['source'] == ('' if item in NOBODYS else f'real BOLD: own, {PEOPLE.get(name, "2 people")}')
    assert not [ax for ax in drawn['fig'].axes if is_empty(ax)]
    plt.close('all')


@pytest.mark.parametrize('item', sorted(NEEDS))
def test_without_a_validation_set_items_say_so_before_anything_else(made, item):
    made('no_validation')
    cohort = Cohort.open('own')
    if item == 'sanity':
        assert not lacking(item, cohort)
    elif item not in FOREIGN:
        assert 'no run with BOLD is of the set val' in lacking(item, cohort)
        with pytest.raises((ValueError, FileNotFoundError), match='nothing to show|there is no'):
            execute(f'figures/{item}', cohort='own')


@pytest.mark.parametrize('item', FOREIGN)
def test_what_only_other_cohorts_have_is_not_drawn(made, item):
    made('mixed')
    with pytest.raises((ValueError, FileNotFoundError), match='nothing to show|has no control'):
        execute(f'figures/{item}', cohort='own')


def test_no_region_that_is_not_predicted_has_a_dominant_modality(made):
    root = made('mixed')
    execute('figures/fig3_modalities', cohort='own')
    table = pd.read_csv(root / 'results/own/figures/fig3_modalities.csv', keep_default_na=False, na_values=[''])
    unpredicted = (table.q >= 0.05) | (table.r <= 0)
    assert unpredicted.any() and (table.dominant[unpredicted] == 'none').all()
    assert table.strength[unpredicted].isna().all()


def test_the_table_of_scores_sets_no_challenge_beside_own_data(made):
    made('mixed')
    space = execute('figures/table1_scores', cohort='own')
    assert space['table'].published.isna().all()
    words = ' '.join(t.get_text() for t in space['fig'].findobj(plt.Text))
    assert 'Algonauts' not in words and 'S7' not in words and 'Test' in words


def test_the_table_of_scores_says_who_predicts_better_over_movies_and_over_people(made):
    root = made('mixed')
    execute('figures/table1_scores', cohort='own')
    about = json.loads((root / 'results/own/figures/table1_scores.json').read_text())
    direct = [c['here'] for c in about['claims'] if c['paper'] == 'MIRAGE above the linear readout (§3.1)']
    assert len(direct) == 6 and sum(what.endswith(' people') for what in direct) == 3  # three sets
    assert 'MIRAGE minus the linear readout is' in about['caption'] and 'of 12 regions' in about['caption']
    assert 'over movies' in str(about['table']['data']) and 'over people' in str(about['table']['data'])


def test_the_table_of_settings_is_about_the_cohort_s_own_streams_people_and_preset(made):
    made('mixed')
    table = execute('figures/table2_hyperparameters', cohort='own')['table'].set_index(['group', 'hyper-parameter'])
    assert list(table) == ['paper', 'preset paper', 'preset smoke, this cohort']
    own = table.iloc[:, 2]
    assert own['Readout', 'Per-subject linear head'] == '3 × 12 parcels'
    assert own['Backbone', 'Model'] == 'features that came with the data'
    assert own['Backbone', 'Transcript words'] == '–' and own['Backbone', 'Streams (post-fusion)'] == 'language / audio'


@pytest.mark.parametrize('name', cohorts('mixed'))
def test_scores_and_ensembles_of_cohorts_with_missing_runs(made, name):
    root = made(name)
    execute('06b_evaluate', cohort='own', runs='train/mirage-native-s0,ridge/linear-native', draws=20)
    assert (root / 'results/own/evaluate/mirage-native-s0/ceiling.parquet').is_file() == (name != 'one_person')
    execute('06c_ensemble', cohort='own', preset='smoke')
    assert (root / 'results/own/ensemble/mirage-native/provenance.json').is_file()


def test_a_person_without_validation_runs_gets_the_plain_mean_of_the_members(made):
    made('mixed')
    ensemble = execute('06c_ensemble', cohort='own', preset='smoke')['ensemble']
    assert ensemble.subjects == ('p1', 'p3', 'p2') and (ensemble.member_weights[:, 2] == 1).all()
