"""What git keeps of results: a page that shows every item with its verdict, and a comparison that names the item in
which a number was altered."""

import re
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pandas as pd
import pytest

from mirage.plotting.figures import Claim
from mirage.plotting.results import (
    CLAIM_COLUMNS,
    committed_folder,
    main,
    publish,
    tolerance_table,
    verify,
    whose_data,
    write_results,
)
from test_overview import EVIL, draw

ROOT = Path(__file__).resolve().parents[1]
SIMULATED = SimpleNamespace(simulated=True, subjects=('sub-01', 'sub-02'), atlas=None)
PEOPLE = SimpleNamespace(simulated=False, subjects=tuple(f'sub-{k:02}' for k in range(1, 16)), atlas=None)
HOLDS = Claim('Native is above post-hoc fusion (§3.1)', 'r of native minus r of post-hoc', 0.1, 0.05, 0.15)
FAILS = Claim('(planted) it falls', 'slope', 0.2, 0.1, 0.3, threshold=0.015, claimed='below')
FIRST_CLAIM = f'table1_scores,{HOLDS.paper},{HOLDS.here},'
NEAR = Claim('Each step up gains (§3.1)', 'r of one minus r of the other', 0.1, 0.0004, 0.2)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    "A cohort of nobody: two items drawn, and what git keeps of them in a checkout of their own."
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    (tmp_path / 'nbs/figures').mkdir(parents=True)
    (tmp_path / 'figures').mkdir()
    shutil.copy(ROOT / 'figures/tolerances.csv', tmp_path / 'figures/tolerances.csv')
    for item in ('fig2_early', 'table1_scores'):
        (tmp_path / f'nbs/figures/{item}.ipynb').write_text('{}')
    redraw()
    publish('toy', about=SIMULATED)
    return tmp_path


def redraw(near=NEAR):
    draw('fig2_early', claims=(HOLDS, FAILS, near))
    draw('table1_scores', claims=(HOLDS,))
    write_results('toy', about=SIMULATED)


def alter(path, old, new):
    text = path.read_text()
    assert text.count(old) >= 1, (path, old)
    path.write_text(text.replace(old, new, 1))


def test_somebody_who_opens_the_folder_sees_every_item_with_its_verdict(toy):
    page = (toy / 'figures/toy/README.md').read_text()
    assert page.index('Simulated data.') < page.index('| item |') < page.index('## Figure 2') < page.index('## Table 1')
    for claim in (HOLDS, FAILS):
        row = next(line for line in page.splitlines() if claim.here in line and claim.verdict in line)
        assert f'{claim.low:.3f}' in row
    assert "The paper's own claims: 2 numbers, of which 2 hold, 0 fail and 0 are undecided; checks of ours: 1" in page
    targets = [unquote(t) for t in re.findall(r'\]\(([^)#]+)\)', page)]
    assert {'fig2_early.png', 'fig2_early.csv', '../../nbs/figures/fig2_early.ipynb'} < set(targets)
    assert all((toy / 'figures/toy' / t).is_file() for t in targets if '://' not in t), targets


def test_a_page_of_people_names_the_data_and_how_many_they_are():
    assert whose_data('algonauts2025', PEOPLE) == '**Real BOLD: Algonauts 2025 challenge data, 15 people.**'
    assert 'simulated' not in whose_data('mine', PEOPLE).lower() and 'mine, 15 people' in whose_data('mine', PEOPLE)


def test_markup_of_others_is_shown_as_text_on_the_page(toy):
    draw('fig2_early', claims=(Claim(f'{EVIL} | [a](javascript:1)', '`x` *y*', 1, 0.5, 2),))
    page = write_results('toy', about=SIMULATED).read_text()
    assert '<script' not in page and '<img' not in page and not re.search(r'(?<!\\)\]\(javascript', page)
    row = next(line for line in page.splitlines() if 'javascript' in line)
    assert len(re.findall(r'(?<!\\)\|', row)) == 5


def test_what_was_not_altered_passes_and_is_the_same(toy, capsys):
    assert set(verify('toy').verdict) == {'the same'}
    redraw()
    assert main(['verify', 'toy']) == 0 and 'All 2 items are as committed' in capsys.readouterr().out


@pytest.mark.parametrize(
    'where, old, new, item',
    [
        ('figures/toy/fig2_early.csv', '\n1', '\n2', 'fig2_early'),
        ('results/toy/figures/fig2_early.csv', '\n1', '\n1.5', 'fig2_early'),
        ('figures/toy/table1_scores.csv', '\n1', '\n', 'table1_scores'),
        ('figures/toy/table1_scores.csv', 'x\n', 'y\n', 'table1_scores'),
        ('figures/toy/claims.csv', FIRST_CLAIM + '0.1', FIRST_CLAIM + '0.2', 'table1_scores'),
        ('figures/toy/claims.csv', 'below,fails', 'below,holds', 'fig2_early'),
        ('results/toy/figures/claims.csv', 'slope,0.2', 'slope,-0.2', 'fig2_early'),
        ('figures/toy/README.md', '0.200 \\[0.100', '0.100 \\[0.100', 'fig2_early'),
        ('figures/toy/README.md', '**holds** |', '***fails*** |', 'fig2_early'),
    ],
)  # fmt: skip
def test_an_altered_number_ends_with_status_1_and_the_name_of_its_item(toy, capsys, where, old, new, item):
    alter(toy / where, old, new)
    found = verify('toy')
    assert found['item'][found.verdict == 'DIFFERS'].tolist() == [item]
    assert main(['verify', 'toy']) == 1
    assert f'Not as committed: {item}.' in capsys.readouterr().out


def test_an_item_that_is_there_on_one_side_only_is_named(toy, capsys):
    (toy / 'figures/toy/table1_scores.csv').rename(toy / 'figures/toy/table9_old.csv')
    assert main(['verify', 'toy']) == 1
    printed = capsys.readouterr().out
    assert (
        'not committed' in printed
        and 'not drawn' in printed
        and 'Not as committed: table1_scores, table9_old.' in printed
    )
    with pytest.raises(FileNotFoundError, match='table9_old.csv is committed, but was not drawn'):
        publish('toy', about=SIMULATED)


def test_an_item_that_is_drawn_by_a_command_of_its_own_stays_where_it_was_not_drawn(toy, capsys):
    (toy / 'nbs/figures/adapt.ipynb').write_text('{}')
    draw('adapt', claims=(FAILS,))
    publish('toy', about=SIMULATED)
    kept, drawn = toy / 'figures/toy', toy / 'results/toy/figures'
    before = {p.name: p.read_bytes() for p in kept.iterdir()}
    assert {'adapt.json', 'adapt.png', 'adapt.csv'} < set(before) and b'## Adapt. ' in before['README.md']
    for path in drawn.glob('adapt.*'):
        path.unlink()
    redraw()
    assert main(['verify', 'toy']) == 0 and 'All 2 items' in capsys.readouterr().out
    publish('toy', about=SIMULATED)
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == before
    alter(kept / 'adapt.csv', '\n1', '\n2')
    with pytest.raises(ValueError, match='adapt.csv is not the file that adapt.json describes'):
        publish('toy', about=SIMULATED)
    (kept / 'adapt.json').unlink()
    with pytest.raises(FileNotFoundError, match='adapt.csv is committed, but was not drawn.*make adapt'):
        publish('toy', about=SIMULATED)


def test_a_verdict_may_turn_only_where_rounding_decides(toy):
    redraw(Claim(NEAR.paper, NEAR.here, 0.1, -0.0001, 0.2))
    assert set(verify('toy').verdict) <= {'the same', 'within tolerance'}
    alter(toy / 'results/toy/figures/claims.csv', 'above,undecided', 'above,holds')
    alter(toy / 'results/toy/figures/claims.csv', 'above,holds', 'above,fails')
    assert verify('toy').verdict.tolist()[0] == 'DIFFERS'


def test_without_anything_to_compare_the_way_is_reported(toy, capsys):
    shutil.rmtree(committed_folder('toy'))
    assert main(['verify', 'toy']) == 1 and 'make figures COHORT=toy' in capsys.readouterr().err
    (toy / 'results/toy/figures/claims.csv').unlink()
    assert main(['verify', 'toy']) == 1 and 'make paper' in capsys.readouterr().err


@pytest.mark.parametrize(
    'line, says',
    [
        ('*,r,-1,why', 'line 2'),
        ('*,r,much,why', 'line 2'),
        ('*,r,nan,why', 'line 2'),
        ('*,r,0.1,', 'line 2'),
        ('', 'must end'),
    ],
)
def test_a_table_of_tolerances_that_is_none_is_refused(tmp_path, line, says):
    path = tmp_path / 'tolerances.csv'
    path.write_text(f'item,column,tolerance,why\n{line}\n' + '*,*,0.1,else\n' * bool(line))
    with pytest.raises(ValueError, match=says):
        tolerance_table(path)
    path.write_text('item,column\n*,*\n')
    with pytest.raises(ValueError, match='expected item, column, tolerance, why'):
        tolerance_table(path)


def test_every_row_of_the_committed_tolerances_is_needed():
    "A row that no committed number falls under is a leftover."
    table = tolerance_table()
    used = {tuple(first_row(table, 'claims', column)) for column in CLAIM_COLUMNS}
    folder = committed_folder('embedded')
    for path in folder.glob('*.csv'):
        for column in pd.read_csv(path, nrows=0):
            used.add(tuple(first_row(table, path.stem, column)))
    assert used == set(zip(table['item'], table.column))


def first_row(table, item, column):
    return next(
        t[:2] for t in table.itertuples(index=False) if fnmatchcase(item, t.item) and fnmatchcase(column, t.column)
    )
