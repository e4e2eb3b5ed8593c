"""What the figure notebooks cannot check about themselves: drawn whole from finished runs, refused from anything less,
the same bytes twice, honest where nothing was planted."""

import json, os, re, shutil, subprocess, warnings

import numpy as np, pandas as pd, pytest
from PIL import Image

import mirage.data.cohort
import mirage.plotting.cortex as cortex
from mirage.core import Run, finish_run, run_path, start_run
from mirage.plotting.cortex import flatmap, surface_html
from mirage.data.parcels import packaged_atlas
from mirage.plotting.atlases import make_map
from mirage.plotting.page import stencil
from mirage.plotting.figures import attention_of, faults, new_figure
from owncohorts import execute
from toycohorts import VAL_ROWS, OneSet

NOTEBOOKS = 'fig3_modalities fig4_gains fig5_attention fig7_heads'.split()


def draw(item, **params):
    return execute(f'figures/{item}', **params)


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    "Makes a toy cohort, and opens it under its name."
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    monkeypatch.setenv('IN_TEST', '1')

    def make(kind=OneSet, **how):
        toy = kind(tmp_path / 'data' / 'toy', **how).write()
        monkeypatch.setattr(mirage.data.cohort.Cohort, 'open', classmethod(lambda cls, name, *a, **k: toy))
        return toy

    return make


def drawn(tmp_path):
    return {p.name for p in (tmp_path / 'results/toy/figures').rglob('*') if p.is_file()}


def test_every_figure_is_whole_tagged_and_the_same_twice(cohort, tmp_path):
    cohort()
    for item in NOTEBOOKS:
        draw(item, cohort='toy')
        about = json.loads((tmp_path / f'results/toy/figures/{item}.json').read_text())
        assert about['faults'] == [] and about['simulated'] and about['claims'] and '-p cohort toy' in about['command']
        assert {f'{item}.{e}' for e in ('png', 'pdf', 'csv')} <= drawn(tmp_path) and set(about['files']) <= drawn(
            tmp_path
        )
        width, _ = Image.open(tmp_path / f'results/toy/figures/{item}.png').size
        assert 3 * 180 < width <= 6.9 * 180 + 1  # a column or a page, at 180 dots an inch
        pdf = (tmp_path / f'results/toy/figures/{item}.pdf').read_bytes()
        assert b'/FontFile2' in pdf and b'CreationDate' not in pdf  # letters are letters; no time stamp
        assert len(pd.read_csv(tmp_path / f'results/toy/figures/{item}.csv'))
    verdicts = {
        c['paper']: c['verdict']
        for i in NOTEBOOKS
        for c in json.loads((tmp_path / f'results/toy/figures/{i}.json').read_text())['claims']
    }
    assert (
        verdicts['(planted) the dominant modality comes back'] == 'holds'
        and verdicts['The learned encoder outperforms the linear readout (§3.3)'] == 'holds'
    )
    assert (
        verdicts['(planted) training draws attention into the planted band']
        == verdicts['(planted) attention peaks within the planted band']
        == 'holds'
    )
    assert verdicts['Audio is the most diffuse (§3.4)'] != 'holds'  # all modalities were given the same profile
    first = {n: (tmp_path / 'results/toy/figures' / n).read_bytes() for n in drawn(tmp_path)}
    draw('fig3_modalities', cohort='toy')
    assert first == {n: (tmp_path / 'results/toy/figures' / n).read_bytes() for n in first}


@pytest.mark.parametrize('how', [{}, dict(parcels=30, atlas=None)])
def test_figures_survive_parcels_that_were_not_measured(cohort, tmp_path, how):
    cohort(lost=True, **how)
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*(nan|empty slice|invalid value|All-NaN).*')
        for item in NOTEBOOKS:
            draw(item, cohort='toy')
    for item in ('fig3_modalities', 'fig4_gains'):
        about = json.loads((tmp_path / f'results/toy/figures/{item}.json').read_text())
        drawn_numbers = pd.read_csv(tmp_path / f'results/toy/figures/{item}.csv')
        assert about['faults'] == [] and all(
            np.isfinite([c['estimate'], c['low'], c['high']]).all() for c in about['claims']
        ), about['claims']
        r = drawn_numbers.r if item == 'fig3_modalities' else drawn_numbers.gain
        assert r.isna().sum() == 3 and r[:10].notna().all()  # one of two people has these ten


def test_what_was_not_planted_is_not_found(cohort, tmp_path):
    cohort(planted=False)
    draw('fig3_modalities', cohort='toy')
    verdicts = {
        c['paper']: c['verdict']
        for c in json.loads((tmp_path / 'results/toy/figures/fig3_modalities.json').read_text())['claims']
    }
    assert verdicts['(planted) the dominant modality comes back'] == 'fails'
    assert {v for k, v in verdicts.items() if 'dominates' in k} <= {'fails', 'undecided'}


class Deaf(OneSet):
    "Forty parcels that the movie does not reach."

    def __init__(self, folder, **how):
        super().__init__(folder, **how)
        rng = np.random.default_rng(1)
        for of_subject in self.measured.values():
            for y in of_subject.values():
                y[:, :40] = rng.standard_normal((VAL_ROWS, 40))


def test_parcels_that_are_not_predicted_have_no_dominant_modality(cohort, tmp_path):
    cohort(Deaf, parcels=200, atlas=None)
    draw('fig3_modalities', cohort='toy')
    table = pd.read_csv(tmp_path / 'results/toy/figures/fig3_modalities.csv', keep_default_na=False)
    assert (table.dominant[:40] == 'none').sum() >= 37 and (table.dominant[40:] == 'none').sum() <= 8


@pytest.mark.parametrize('item', NOTEBOOKS)
def test_nothing_is_drawn_from_less_than_finished_runs(cohort, tmp_path, item):
    cohort()
    run, attribution = (run_path('toy', s, 'mirage-native-s0') for s in ('train', 'attribute'))
    with pytest.raises(FileNotFoundError, match='there is no .*train/other'):
        draw(item, cohort='toy', run='other')
    kept = (attribution / 'bootstrap.h5').read_bytes()
    (attribution / 'bootstrap.h5').write_bytes(kept[:-9])
    with pytest.raises(FileNotFoundError, match='bootstrap.h5 was altered or cut short'):
        draw(item, cohort='toy')
    (attribution / 'bootstrap.h5').write_bytes(kept)
    (attribution / 'provenance.json').rename(tmp_path / 'aside')
    with pytest.raises(FileNotFoundError, match='has not ended'):
        draw(item, cohort='toy')
    (tmp_path / 'aside').rename(attribution / 'provenance.json')
    again = start_run(run, Run(run).config)
    (run / 'weights.safetensors').write_bytes(b'trained again')
    finish_run(again, {})
    with pytest.raises(ValueError, match='was made of another train/mirage-native-s0'):
        draw(item, cohort='toy')
    finish_run(start_run(run, Run(run).config | dict(cohort='elsewhere'), overwrite=True), {})
    with pytest.raises(ValueError, match='made on cohort elsewhere, not toy'):
        draw(item, cohort='toy')
    assert not drawn(tmp_path)


def test_a_cohort_without_the_atlas_is_drawn_by_rank(cohort, tmp_path):
    cohort(parcels=60, atlas=None)
    for item in NOTEBOOKS:
        space = draw(item, cohort='toy')
        assert json.loads((tmp_path / f'results/toy/figures/{item}.json').read_text())['faults'] == []
        if item in ('fig3_modalities', 'fig4_gains'):
            assert any('no Schaefer atlas' in ax.get_title() for ax in space['fig'].axes)
    assert not [n for n in drawn(tmp_path) if n.endswith('.html')]


@pytest.mark.parametrize('many', [3, 14, 30])
def test_gains_are_drawn_by_the_networks_of_ones_own_atlas(cohort, tmp_path, many):
    toy = cohort(parcels=60, atlas=None)
    networks, sides = [f'Net {k % many}' for k in range(60)], ['L', 'R'] * 30
    toy.regions = pd.DataFrame(dict(label=range(1, 61), name='region', network=networks, hemi=sides))
    found = draw('fig4_gains', cohort='toy')
    about = json.loads((tmp_path / 'results/toy/figures/fig4_gains.json').read_text())
    gain = found['gain'][np.array(networks) == 'Net 2'].mean()
    if many <= 20:
        assert len(found['networks']) == many and about['faults'] == []
        assert np.isclose(found['networks'].set_index('network').value['Net 2'], gain)
    else:
        assert set(found['networks'].network) == {'L', 'R'}
        assert 'has 30 networks, 20 can be shown: hemispheres' in about['caption']


def test_lines_stay_vectors_and_meshes_are_raster(tmp_path):
    fig = new_figure(3.35, 1.5)
    flatmap(np.linspace(0, 1, 1000), fig.add_axes((0, 0, 1, 1)))
    fig.savefig(tmp_path / 'map.pdf')
    pdf = (tmp_path / 'map.pdf').read_bytes()
    # the hemispheres (and their masks), not 40,000 triangles
    assert pdf.count(b'/Subtype /Image') <= 4 and len(pdf) < 3e6
    assert not faults(fig)


def test_what_is_kept_of_a_map_is_what_would_be_drawn(tmp_path, monkeypatch):
    anew, _ = stencil.__wrapped__, make_map(packaged_atlas())
    monkeypatch.setattr(cortex, 'kept_folder', lambda: tmp_path / 'kept')
    first = anew(width=408)
    (file,) = (tmp_path / 'kept').iterdir()
    with monkeypatch.context() as without:
        without.setattr('mirage.plotting.page.black_and_white', None)  # nothing can be drawn
        again = anew(width=408)
    for part in ('labels', 'base', 'light'):
        a, b = getattr(first, part), getattr(again, part)
        assert a.dtype == b.dtype and np.array_equal(a, b)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # altered
    file.write_bytes(content)
    assert np.array_equal(anew(width=408).base, first.base) and file.read_bytes() != content
    with monkeypatch.context() as other:
        other.setattr(cortex.nilearn, '__version__', 'another')
        anew(width=408)
    assert len(list((tmp_path / 'kept').iterdir())) == 2


def test_a_folder_that_cannot_be_written_keeps_nothing_and_stops_nobody(tmp_path, monkeypatch):
    (tmp_path / 'kept').write_text('a file in the place of the folder')
    monkeypatch.setattr(cortex, 'kept_folder', lambda: tmp_path / 'kept')
    drawn = cortex.make_patch('left', cortex.vertex_labels()['left'], ['', *cortex.parcel_table().net])
    assert np.array_equal(drawn.labels, cortex.patch('left').labels)


BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


@pytest.mark.skipif(not BROWSER, reason='no Chromium: the interactive surface is not opened')
def test_the_surface_opens_offline_and_knows_every_parcel(tmp_path):
    page = surface_html(np.linspace(0, 1, 1000), tmp_path / 'surface.html', 'Test', 'r')
    text = page.read_text()
    probe = (
        "<script>addEventListener('load', () => setTimeout(() => document.body.dataset.parcels = "
        "document.getElementById('map').data.map(t => new Set(t.text).size).join(), 100))</script>"
    )
    page.write_text(text.replace('</body>', probe + '</body>'))
    done = subprocess.run(
        [
            BROWSER,
            '--headless',
            '--no-sandbox',
            '--use-angle=swiftshader',
            '--enable-unsafe-swiftshader',
            '--host-resolver-rules=MAP * ~NOTFOUND',
            '--enable-logging=stderr',
            '--virtual-time-budget=8000',
            '--dump-dom',
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {'HOME': str(tmp_path)},
    )
    assert 'data-parcels="501,501"' in done.stdout and '<canvas' in done.stdout, done.stderr[-2000:]
    assert not re.search(r'CONSOLE.*(Uncaught|[Ee]rror)', done.stderr), done.stderr[-2000:]


@pytest.mark.parametrize('column', ['attention_weight', 'weight'])  # the second: as earlier versions wrote it
def test_the_attention_of_an_earlier_version_is_still_read(tmp_path, column):
    pd.DataFrame({'modality': ['text'], 'layer': [3], column: [0.25]}).to_parquet(tmp_path / 'attention.parquet')
    found = attention_of(Run(tmp_path))
    assert list(found) == ['modality', 'layer', 'attention_weight'] and found.attention_weight[0] == 0.25
