"From fMRIPrep's folder to a cohort: a small tree of each kind beside nilearn's maskers, and what is refused."

import json
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.interfaces.fmriprep import load_confounds_strategy
from nilearn.maskers import NiftiLabelsMasker, SurfaceLabelsMasker
from nilearn.signal import clean as nilearn_clean
from nilearn.surface import InMemoryMesh, PolyData, PolyMesh, SurfaceImage

from mirage.core import read_json
from mirage.data.cohort import Cohort
from mirage.data.derivatives import (
    Cleaning,
    changed_sources,
    first_row,
    import_derivatives,
    parse_bids_name,
    plan_import,
)
from mirage.data.parcels import cohort_atlas, open_atlas, open_image
from mirage.evaluation.methods import import_sentences

TR, VOLUMES, SPACE = 1.49, 40, 'MNI152NLin2009cAsym'
AFFINE = np.array([[3.0, 0, 0, -9], [0, 3, 0, -12], [0, 0, 3, -6], [0, 0, 0, 1]])
VERTICES = dict(L=60, R=50)
BASES = [f'{kind}_{axis}' for kind in ('trans', 'rot') for axis in 'xyz'] + ['csf', 'white_matter']
NAMES = [f'{base}{end}' for base in BASES for end in ('', '_derivative1', '_power2', '_derivative1_power2')]


@pytest.fixture(autouse=True)
def own_root(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'root'))


def write_confounds(path, rng, dummies=2, outliers=()):
    "What fMRIPrep writes: derivatives have no value in the first row."
    table = pd.DataFrame({name: rng.normal(size=VOLUMES) for name in NAMES})
    table.loc[0, [c for c in table if 'derivative1' in c]] = np.nan
    table['cosine00'] = np.cos(np.arange(VOLUMES) / VOLUMES * np.pi)
    table['framewise_displacement'], table['std_dvars'] = 0.05, 1.0
    for row in outliers:
        table.loc[row, 'framewise_displacement'] = 2.0
    for k in range(dummies):
        table[f'non_steady_state_outlier0{k}'] = (np.arange(VOLUMES) == k).astype(float)
    table.to_csv(path, sep='\t', index=False, na_rep='n/a')


def write_volume(func, stem, x, tr=TR, json_tr=TR, affine=AFFINE):
    image = nib.Nifti1Image(x, affine)
    image.header.set_zooms((3, 3, 3, tr))
    image.header.set_xyzt_units('mm', 'sec')
    name = f'{stem}_space-{SPACE}_desc-preproc_bold'
    image.to_filename(func / f'{name}.nii.gz')
    if json_tr is not None:
        (func / f'{name}.json').write_text(json.dumps(dict(RepetitionTime=json_tr)))
    return func / f'{name}.nii.gz'


def write_gifti(func, stem, rng):
    for hemi, n in VERTICES.items():
        x = rng.normal(500, 10, (VOLUMES, n)).astype(np.float32)
        arrays = [nib.gifti.GiftiDataArray(row, intent='NIFTI_INTENT_TIME_SERIES') for row in x]
        name = f'{stem}_hemi-{hemi}_space-fsaverage5_bold'
        nib.save(nib.gifti.GiftiImage(darrays=arrays), func / f'{name}.func.gii')
        (func / f'{name}.json').write_text(json.dumps(dict(RepetitionTime=TR)))


def cifti_models():
    left = nib.cifti2.BrainModelAxis.from_surface(np.arange(5, VERTICES['L']), VERTICES['L'], 'CortexLeft')
    right = nib.cifti2.BrainModelAxis.from_surface(np.arange(VERTICES['R']), VERTICES['R'], 'CortexRight')
    mask = np.zeros((4, 4, 4), bool)
    mask[1:3, 1, 1] = True
    return left + right + nib.cifti2.BrainModelAxis.from_mask(mask, 'ThalamusLeft', AFFINE)


def write_cifti(func, stem, rng):
    axes = nib.cifti2.SeriesAxis(0, TR, VOLUMES), cifti_models()
    x = rng.normal(500, 10, (VOLUMES, len(axes[1]))).astype(np.float32)
    nib.save(
        nib.Cifti2Image(x, nib.cifti2.Cifti2Header.from_axes(axes)),
        func / f'{stem}_space-fsLR_den-91k_bold.dtseries.nii',
    )


def write_tree(folder, kinds=('volume',), people=2, runs=3, **confounds):
    "Two people, three runs of a movie that began at 4 s."
    rng = np.random.default_rng(0)
    (folder / 'dataset_description.json').parent.mkdir(parents=True)
    made = dict(GeneratedBy=[dict(Name='fMRIPrep', Version='24.1.0')])
    (folder / 'dataset_description.json').write_text(json.dumps(made))
    for who in range(1, people + 1):
        func = folder / f'sub-0{who}' / 'func'
        func.mkdir(parents=True)
        for run in range(1, runs + 1):
            stem = f'sub-0{who}_task-walk_run-{run}'
            if 'volume' in kinds:
                write_volume(func, stem, rng.normal(1000, 10, (6, 8, 5, VOLUMES)).astype(np.float32))
            if 'gifti' in kinds:
                write_gifti(func, stem, rng)
            if 'cifti' in kinds:
                write_cifti(func, stem, rng)
            write_confounds(func / f'{stem}_desc-confounds_timeseries.tsv', rng, **confounds)
            (func / f'{stem}_events.tsv').write_text('onset\tduration\n4.0\t50\n')
    return folder


def volume_labels():
    x = np.zeros((6, 8, 5), np.int16)
    x[1:3], x[3:5, :4], x[3:5, 5:] = 30, 12, 7
    return x


def write_atlas(
    folder, labels=None, names='label,name,network\n7,aud,Som\n12,vis,Vis\n30,"front, left",Def\n', affine=AFFINE
):
    folder.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(volume_labels() if labels is None else labels, affine).to_filename(folder / 'mine.nii.gz')
    if names:
        (folder / 'mine.csv').write_text(names)
    return folder / 'mine.nii.gz'


SURFACE = dict(L=np.repeat([0, 1, 2], 20), R=np.repeat([3, 4], 25))


def write_surface_atlas(folder, labels=SURFACE, prefix='tpl-fsaverage5_'):
    folder.mkdir(parents=True, exist_ok=True)
    for hemi, x in labels.items():
        array = nib.gifti.GiftiDataArray(x.astype(np.int32), intent='NIFTI_INTENT_LABEL')
        image = nib.gifti.GiftiImage(darrays=[array])
        for key in range(5):
            label = nib.gifti.GiftiLabel(key)
            label.label = '???' if not key else f'area {key}'
            image.labeltable.labels.append(label)
        nib.save(image, folder / f'{prefix}hemi-{hemi}_mine.label.gii')
    return folder / f'{prefix}hemi-L_mine.label.gii'


def first_run(folder):
    return next(Cohort.open(folder).runs.itertuples())


def expected(x, files):
    "Parcels cleaned as nilearn's maskers clean them."
    table, mask = load_confounds_strategy(files, denoise_strategy='simple')
    with warnings.catch_warnings(action='ignore'):
        return nilearn_clean(x, confounds=table, sample_mask=mask, standardize='zscore_sample', detrend=False)


def test_volumes_give_the_arrays_of_nilearns_masker(tmp_path):
    tree, atlas = write_tree(tmp_path / 'fmriprep'), write_atlas(tmp_path / 'atlas')
    made = import_derivatives(tree, atlas, 'mine', features='text=2', smoothing=4.0, high_pass=0.01)
    cohort = Cohort.open(made)
    assert cohort.tr == TR and cohort.subjects == ('sub-01', 'sub-02') and cohort.names == ('aud', 'vis', 'front, left')
    masker = NiftiLabelsMasker(
        str(atlas), smoothing_fwhm=4.0, high_pass=0.01, t_r=TR, standardize='zscore_sample', reports=False
    )
    for row in cohort.runs.itertuples():
        (file,) = tree.glob(f'{row.subject}/func/{row.subject}_task-{row.split}*_desc-preproc_bold.nii.gz')
        table, mask = load_confounds_strategy(str(file), denoise_strategy='simple')
        with warnings.catch_warnings(action='ignore'):
            theirs = masker.fit_transform(file, confounds=table, sample_mask=mask)
        assert len(mask) == VOLUMES - 2 and row.n_tr == VOLUMES - 3 and row.onset == 0.47
        np.testing.assert_allclose(cohort.rows(row), theirs[1:], atol=1e-6, rtol=0)
    assert (cohort_atlas(cohort).parcels['volume'] == 1).sum() == (volume_labels() == 7).sum()
    assert cohort.named(pd.DataFrame(dict(parcel=[2]))).iloc[0].tolist() == [2, 'vis', 'Vis']


def test_surfaces_give_the_arrays_of_nilearns_masker(tmp_path):
    tree, atlas = write_tree(tmp_path / 'fmriprep', ('gifti',)), write_surface_atlas(tmp_path / 'atlas')
    made = import_derivatives(tree, atlas, 'mine', features='text=2')
    files = [str(tree / f'sub-01/func/sub-01_task-walk_run-1_hemi-{h}_space-fsaverage5_bold.func.gii') for h in 'LR']
    sides = dict(zip(('left', 'right'), 'LR'))
    mesh = PolyMesh(**{
        s: InMemoryMesh(np.random.rand(VERTICES[h], 3), np.array([[0, 1, 2]])) for s, h in sides.items()
    })
    data = {s: nib.load(f).agg_data() for s, f in zip(sides, files)}
    labels = SurfaceImage(mesh, PolyData(**{s: SURFACE[h].astype(np.int32) for s, h in sides.items()}))
    table, mask = load_confounds_strategy(files, denoise_strategy='simple')
    masker = SurfaceLabelsMasker(labels, standardize='zscore_sample', t_r=TR, reports=False)
    with warnings.catch_warnings(action='ignore'):
        theirs = masker.fit_transform(SurfaceImage(mesh, PolyData(**data)), confounds=table, sample_mask=mask)
    np.testing.assert_allclose(Cohort.open(made).rows(first_run(made)), theirs[1:], atol=1e-6, rtol=0)
    assert Cohort.open(made).regions.hemi.tolist() == ['L', 'L', 'R', 'R']
    assert [x.tolist() for x in cohort_atlas(Cohort.open(made)).parcels.values()] == [
        x.tolist() for x in SURFACE.values()
    ]


def test_each_vertex_can_be_a_parcel_of_its_own(tmp_path):
    tree = write_tree(tmp_path / 'fmriprep', ('gifti',), people=1, runs=1)
    made = import_derivatives(tree, 'vertices', 'mine', features='text=2', confounds='none', standardize='none')
    cohort = Cohort.open(made)
    files = [tree / f'sub-01/func/sub-01_task-walk_run-1_hemi-{h}_space-fsaverage5_bold.func.gii' for h in 'LR']
    theirs = np.concatenate([nib.load(file).agg_data() for file in files]).T
    np.testing.assert_array_equal(cohort.rows(first_run(made)), theirs[3:])
    assert cohort.names[:2] == ('L1', 'L2') and cohort.names[-1] == 'R50' and cohort.parcels == 110


def write_dlabel(path):
    models = cifti_models()
    keys = np.concatenate([SURFACE['L'][5:], SURFACE['R'], [9, 9]])
    table = {0: ('???', (0, 0, 0, 0))} | {k: (f'area {k}', (1, 1, 1, 1)) for k in (1, 2, 3, 4, 9)}
    axes = nib.cifti2.LabelAxis(['mine'], [table]), models
    nib.save(nib.Cifti2Image(keys[None].astype(np.float32), nib.cifti2.Cifti2Header.from_axes(axes)), path)
    return path


def test_grayordinates_give_means_that_are_cleaned_as_nilearn_does(tmp_path):
    tree = write_tree(tmp_path / 'fmriprep', ('cifti',))
    atlas = write_dlabel(tmp_path / 'mine.dlabel.nii')
    made = import_derivatives(tree, atlas, 'mine', features='text=2')
    file = tree / 'sub-01/func/sub-01_task-walk_run-1_space-fsLR_den-91k_bold.dtseries.nii'
    x, keys = nib.load(file).get_fdata(), nib.load(atlas).get_fdata()[0]
    means = np.stack([x[:, keys == k].mean(1) for k in (1, 2, 3, 4, 9)], 1)
    theirs = expected(means, str(file))
    np.testing.assert_allclose(Cohort.open(made).rows(first_run(made)), theirs[1:], atol=1e-6, rtol=0)
    kept = Cohort.open(made).labels
    assert [len(open_image(path).agg_data()) for path in kept] == [*VERTICES.values()]
    places = cohort_atlas(Cohort.open(made))  # the thalamus has no vertex
    assert places.size == 5 and {*np.unique(np.concatenate([*places.parcels.values()]))} == {0, 1, 2, 3, 4}
    surface = write_surface_atlas(tmp_path / 'atlas', prefix='')  # labels of the surface read grayordinates too
    other = import_derivatives(tree, surface, 'surface', features='text=2')
    np.testing.assert_allclose(
        Cohort.open(other).rows(first_run(other)), Cohort.open(made).rows(first_run(made))[:, :4], atol=1e-6
    )


def test_every_choice_is_in_the_cohorts_file_and_in_the_methods(tmp_path):
    tree, atlas = write_tree(tmp_path / 'fmriprep', runs=1), write_atlas(tmp_path / 'atlas')
    settings = dict(
        confounds='motion,wm_csf', motion='basic', dummy=4, high_pass=0.02, smoothing=5.0, standardize='psc'
    )
    made = import_derivatives(tree, atlas, 'mine', features='text=2', **settings)
    cohort = Cohort.open(made)
    assert {k: cohort.imported[k] for k in settings} == settings and cohort.imported['generator'] == 'fMRIPrep 24.1.0'
    sentences = import_sentences(cohort.imported)
    for words in (
        *(
            'fMRIPrep 24.1.0',
            SPACE,
            'atlas mine',
            '5 mm',
            '0.02 Hz',
            '`motion,wm_csf`',
            'basic',
            '4 volumes',
            'percent',
        ),
    ):
        assert words in sentences, (words, sentences)
    assert pd.read_csv(made / 'import.csv').dummy.tolist() == [4, 4]
    assert cohort.runs.onset.tolist() == [1.96, 1.96]  # row 4, at 5.96 s, of a movie that began at 4 s


def test_an_import_that_was_stopped_goes_on_and_a_changed_file_is_noticed(tmp_path, monkeypatch):
    tree, atlas = write_tree(tmp_path / 'fmriprep', people=1), write_atlas(tmp_path / 'atlas')
    import mirage.data.derivatives as module

    written, real = [], module.write_array

    def stops_at_the_third(job, plan, path):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        real(job, plan, path)

    monkeypatch.setattr(module, 'write_array', stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        import_derivatives(tree, atlas, 'mine', features='text=2')
    folder = tmp_path / 'root/data/mine'
    assert not (folder / 'cohort.yaml').exists() and len([*folder.glob('bold/*.npy')]) == 2
    monkeypatch.setattr(module, 'write_array', lambda *a: (written.append(a[2].name), real(*a)))
    made = import_derivatives(tree, atlas, 'mine', features='text=2')
    assert len(written) == len(set(written)) == 3  # none was made twice
    assert import_derivatives(tree, atlas, 'mine', features='text=2') == made and len(written) == 3
    before = (made / 'cohort.yaml').read_bytes()
    events = next(tree.glob('sub-01/func/*run-2_events.tsv'))
    events.write_text('onset\tduration\n7.0\t50\n')
    assert [events.name in path for path in changed_sources(made)] == [True]
    with pytest.raises(FileExistsError, match='files that changed since: .*run-2_events.tsv.*overwrite'):
        import_derivatives(tree, atlas, 'mine', features='text=2')
    assert (made / 'cohort.yaml').read_bytes() == before and len(Cohort.open(made).runs) == 3
    import_derivatives(tree, atlas, 'mine', features='text=2', overwrite=True)
    assert len(written) == 4 and Cohort.open(made).runs.onset.tolist() == [0.47, 0.45, 0.47]
    assert len(read_json(made / 'import.json')['arrays']) == len([*made.glob('bold/*.npy')]) == 3


def test_a_table_says_which_run_is_which_movie(tmp_path):
    tree, atlas = write_tree(tmp_path / 'fmriprep'), write_atlas(tmp_path / 'atlas')
    table = tmp_path / 'runs.csv'
    table.write_text('task,run,movie,set,began\nwalk,1,alpha,train,\nwalk,02,beta,val,0\nwalk,3,beta,val,\n')
    with pytest.raises(ValueError, match='both beta of sub-01. Give the table a column split'):
        import_derivatives(tree, atlas, 'mine', features='text=2', table=str(table))
    table.write_text(
        'task,run,movie,set,began,split\nwalk,1,alpha,train,,\nwalk,02,beta,val,0,b1\nwalk,3,beta,val,,b2\n'
    )
    runs = Cohort.open(import_derivatives(tree, atlas, 'mine', features='text=2', table=str(table))).runs
    assert runs[runs.subject == 'sub-02'][['movie', 'split', 'set', 'onset']].values.tolist() == [
        ['alpha', 'alpha', 'train', 0.47],
        ['beta', 'b1', 'val', 2.98],
        ['beta', 'b2', 'val', 0.47],
    ]
    table.write_text('task,run,movie,set\nwalk,7,alpha,train\n')
    with pytest.raises(ValueError, match='line 2: there is no recording of task walk run 7'):
        plan_import(tree, atlas, 'mine', features='text=2', table=str(table))
    table.write_text('task,run,movie,set\nwalk,,alpha,train\nwalk,1,alpha,train\n')
    with pytest.raises(ValueError, match='lines 2 and 3 both fit sub-01 task-walk run-1'):
        plan_import(tree, atlas, 'mine', features='text=2', table=str(table))


def test_what_is_guessed_is_reported(tmp_path):
    tree, atlas = write_tree(tmp_path / 'fmriprep'), write_atlas(tmp_path / 'atlas')
    notes = plan_import(tree, atlas, 'mine', features='text=2', events='none').notes
    assert any('walk_run-2 (val), walk_run-3 (test)' in note for note in notes)
    assert any('when the movie began in 6 runs: it is taken to begin with the first volume' in note for note in notes)
    assert any('2.98 s' in note for note in notes)  # two volumes are left out, so that row 0 shows a later second


def spoken(folder, text, who='sub-01', run=1):
    (folder / who / 'func' / f'{who}_task-walk_run-{run}_events.tsv').write_text(text)


def test_rows_after_the_movie_and_the_delay_are_cut_kept_or_refused_and_reported(tmp_path):
    tree, atlas = write_tree(tmp_path / 'fmriprep'), write_atlas(tmp_path / 'atlas')
    spoken(tree, 'onset\tduration\n4.0\t30\n')  # the end at 38.47 s with the delay: row 26 of 1.49 s is too late
    spoken(tree, 'onset\tduration\n4.0\t300\n', run=2)
    plan = plan_import(tree, atlas, 'mine', features='text=2')
    first = plan.table.iloc[0]
    assert (first.cut, first.n_tr, first.movie_seconds) == (3, 26 - 3, 30.0) and plan.table.n_tr[1] == VOLUMES - 3
    notes = ' '.join(plan.notes)
    assert 'are cut in 1 runs: sub-01 task-walk run-1 14 rows, movie 30 s' in notes
    assert 'the scan ends before its movie in 1 runs: sub-01 task-walk run-2 244 s' in notes
    whole = import_derivatives(tree, atlas, 'whole', features='text=2', tail='keep')
    cut = import_derivatives(tree, atlas, 'cut', features='text=2')
    rows = [Cohort.open(made).rows(first_run(made)) for made in (whole, cut)]
    assert len(rows[0]) == VOLUMES - 3 and np.array_equal(rows[0][: len(rows[1])], rows[1])
    assert 'after its end and the haemodynamic delay' in import_sentences(Cohort.open(cut).imported)
    assert 'after its end' not in import_sentences(Cohort.open(whole).imported)
    with pytest.raises(ValueError, match='14 of 40 volumes come after the end of the movie.*tail: cut'):
        import_derivatives(tree, atlas, 'refused', features='text=2', tail='refuse')
    spoken(tree, 'onset\tduration\n4.0\tlong\n')
    with pytest.raises(ValueError, match="duration is 'long', expected seconds"):
        plan_import(tree, atlas, 'mine', features='text=2')


def test_the_time_to_which_slices_were_moved_is_added_to_the_time_of_each_row(tmp_path):
    tree, atlas = write_tree(tmp_path / 'fmriprep'), write_atlas(tmp_path / 'atlas')
    for file in tree.rglob('*_bold.json'):
        file.write_text(json.dumps(dict(RepetitionTime=TR, StartTime=0.7, SliceTimingCorrected=True)))
    plan = plan_import(tree, atlas, 'mine', features='text=2')
    assert set(plan.table.cut) == {3} and set(plan.table.onset) == {round(3 * TR + 0.7 - 4, 6)}
    assert any('0.7 s after the beginning of their volume' in note for note in plan.notes)
    next(tree.rglob('*_bold.json')).write_text(json.dumps(dict(RepetitionTime=TR, StartTime=30)))
    with pytest.raises(ValueError, match='StartTime, seconds, is 30'):
        plan_import(tree, atlas, 'mine', features='text=2')


def test_runs_are_found_with_their_acquisition_and_direction(tmp_path):
    tree, atlas = write_tree(tmp_path / 'fmriprep', people=1), write_atlas(tmp_path / 'atlas')
    for path in list(tree.rglob('sub-01_task-walk_run-*')):
        path.rename(path.with_name(path.name.replace('_run-', '_acq-mb_dir-AP_run-')))
    plan = plan_import(tree, atlas, 'mine', features='text=2')
    assert set(plan.table.cut) == {3} and plan.table.regressors.min() > 0  # events and confounds were found


def test_a_gap_in_the_numbers_is_named_and_nothing_is_guessed(tmp_path):
    tree, atlas = write_tree(tmp_path / 'fmriprep', people=1), write_atlas(tmp_path / 'atlas')
    table = next(tree.rglob('*run-1*confounds*.tsv'))
    whole = table.read_text()
    frame = pd.read_csv(table, sep='\t')
    frame.loc[7, 'trans_x'] = np.nan
    frame.to_csv(table, sep='\t', index=False, na_rep='n/a')
    with pytest.raises(ValueError, match='run-1.*trans_x has no value in row 7'):
        plan_import(tree, atlas, 'mine', features='text=2')
    table.write_text('\n'.join(whole.splitlines()[:-5]) + '\n')
    with pytest.raises(ValueError, match='has 35 rows.* 40 volumes'):
        plan_import(tree, atlas, 'mine', cleaning=Cleaning(confounds='none'), features='text=2')
    table.write_text(whole)
    file = next(tree.rglob('*run-1*_bold.nii.gz'))
    image = nib.load(file)
    x = image.get_fdata()
    x[1, 1, 1, 5] = np.nan
    nib.save(nib.Nifti1Image(x, image.affine, image.header), file)
    with pytest.raises(ValueError, match='1 voxels of parcels hold NaN or infinite values in some volumes'):
        import_derivatives(tree, atlas, 'mine', features='text=2')
    x[1, 1, 1] = np.nan
    nib.save(nib.Nifti1Image(x, image.affine, image.header), file)
    with pytest.warns(UserWarning, match='1 voxels of parcels hold no number in any volume'):
        import_derivatives(tree, atlas, 'mine', features='text=2')


def test_scrubbed_volumes_are_refused_or_interpolated_by_name(tmp_path):
    tree, atlas = write_tree(tmp_path / 'fmriprep', outliers=(20,)), write_atlas(tmp_path / 'atlas')
    with pytest.raises(ValueError, match='scrubbing takes .* out, first volume .*scrubbed: interpolate'):
        plan_import(tree, atlas, 'mine', features='text=2', cleaning=Cleaning(confounds='scrubbing'))
    made = import_derivatives(tree, atlas, 'mine', features='text=2', confounds='scrubbing', scrubbed='interpolate')
    report = pd.read_csv(made / 'import.csv')
    assert (report.scrubbed > 0).all() and (report.n_tr == VOLUMES - 3).all()
    assert np.isfinite(Cohort.open(made).rows(first_run(made))).all()


def spoil_header(tree, atlas):
    image = next(tree.glob('sub-02/func/*run-2*bold.nii.gz'))
    image.write_bytes(image.read_bytes()[:200])


def spoil_rest(tree, atlas):
    image = next(tree.glob('sub-02/func/*run-2*bold.nii.gz'))
    image.write_bytes(image.read_bytes()[:-5_000])


def no_orientation(tree, atlas):
    path = next(tree.glob('sub-02/func/*run-2*bold.nii.gz'))
    image = nib.load(path)
    image = nib.Nifti1Image(image.get_fdata(dtype=np.float32), None, image.header)
    image.header['sform_code'] = image.header['qform_code'] = 0
    image.to_filename(path)


def other_tr(tree, atlas):
    path = next(tree.glob('sub-02/func/*run-2*bold.json'))
    path.write_text(json.dumps(dict(RepetitionTime=2.0)))


def milliseconds(tree, atlas):
    path = next(tree.glob('sub-02/func/*run-2*bold.json'))
    path.write_text(json.dumps(dict(RepetitionTime=1490)))


def no_unit(tree, atlas):
    path = next(tree.glob('sub-02/func/*run-2*bold.nii.gz'))
    image = nib.load(path)
    image = nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine, image.header)
    image.header.set_xyzt_units('mm', 'unknown')
    image.to_filename(path)
    next(tree.glob('sub-02/func/*run-2*bold.json')).unlink()


def no_confounds(tree, atlas):
    next(tree.glob('sub-02/func/*run-2*timeseries.tsv')).unlink()


def short_confounds(tree, atlas):
    path = next(tree.glob('sub-02/func/*run-2*timeseries.tsv'))
    path.write_text('\n'.join(path.read_text().splitlines()[:-1]) + '\n')


def no_motion(tree, atlas):
    path = next(tree.glob('sub-02/func/*run-2*timeseries.tsv'))
    pd.read_csv(path, sep='\t').drop(columns='trans_x').to_csv(path, sep='\t', index=False)


def other_grid(tree, atlas):
    write_atlas(atlas.parent, np.repeat(volume_labels(), 2, 2))


def moved(tree, atlas):
    write_atlas(atlas.parent, affine=AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 1]))


def other_space(tree, atlas):
    for path in [*atlas.parent.glob('mine.*')]:
        path.rename(path.with_name('tpl-MNI152NLin6Asym_' + path.name))


def nameless(tree, atlas):
    (atlas.parent / 'mine.csv').write_text('label,name\n7,aud\n12,vis\n')


def no_names(tree, atlas):
    (atlas.parent / 'mine.csv').unlink()


def no_voxels(tree, atlas):
    with open(atlas.parent / 'mine.csv', 'a') as f:
        f.write('31,nowhere,\n')


def fractions(tree, atlas):
    write_atlas(atlas.parent, volume_labels() + np.float32(0.5))


def two_events(tree, atlas):
    next(tree.glob('sub-02/func/*run-2_events.tsv')).write_text(
        'onset\tduration\ttrial_type\n0\t4\tfixation\n4\t9\tfilm\n'
    )


def late_movie(tree, atlas):
    next(tree.glob('sub-02/func/*run-2_events.tsv')).write_text('onset\tduration\n400\t9\n')


FAULTS = {
    spoil_header: r'sub-02_.*run-2.*bold.nii.gz cannot be read|sub-02_.*run-2.*bold.nii.gz is cut short',
    spoil_rest: r'run-2.*bold.nii.gz is cut short or damaged',
    no_orientation: 'run-2.*bold.nii.gz: its header says in no space where the voxels are',
    other_tr: 'its header says TR 1.49 s, .*run-2.*json says 2 s',
    milliseconds: r'run-2.*json: the repetition time, seconds, is 1490',
    no_unit: r'run-2.*its header has a step of 1.49 without a unit, and no JSON file',
    no_confounds: 'no table of confounds for sub-02 task-walk run-2',
    short_confounds: 'run-2.*timeseries.tsv has 39 rows, .* 40 volumes',
    no_motion: 'run-2.*timeseries.tsv does not have what confounds: simple .* needs.*trans_x',
    other_grid: r'has shape \(6, 8, 5\) .* the atlas mine \(6, 8, 10\)',
    moved: 'or another affine',
    other_space: f'is in space {SPACE}, the atlas .* in MNI152NLin6Asym',
    nameless: 'mine.nii.gz has 1 labels that mine.csv does not name: 30',
    no_names: 'mine.nii.gz has labels and no names',
    no_voxels: r'mine.csv names 1 parcels of which mine.nii.gz has no voxel: 31 \(nowhere\)',
    fractions: 'mine.nii.gz holds numbers that are not whole',
    two_events: 'has 2 events.*event: film, fixation',
    late_movie: 'the movie begins at 400 s',
}


@pytest.mark.parametrize('spoil', FAULTS, ids=lambda f: f.__name__)
def test_what_cannot_be_right_is_one_error_and_no_cohort(tmp_path, spoil):
    tree, atlas = write_tree(tmp_path / 'fmriprep', runs=2), write_atlas(tmp_path / 'atlas')
    spoil(tree, atlas)
    given = next(path for path in atlas.parent.glob('*mine.nii.gz'))
    with pytest.raises((ValueError, FileNotFoundError), match=FAULTS[spoil]):
        import_derivatives(tree, given, 'mine', features='text=2')
    assert not (tmp_path / 'root/data/mine/cohort.yaml').exists()
    if spoil is not spoil_rest:  # all else is seen before anything is written
        assert not (tmp_path / 'root/data/mine').exists()


def test_another_grid_is_resampled_where_it_is_asked_for_by_name(tmp_path):
    tree = write_tree(tmp_path / 'fmriprep', runs=1)
    fine = np.repeat(np.repeat(np.repeat(volume_labels(), 2, 0), 2, 1), 2, 2)
    affine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] -= 0.75
    atlas = write_atlas(tmp_path / 'atlas', fine, affine=affine)
    made = import_derivatives(tree, atlas, 'mine', features='text=2', resample='atlas')
    plain = import_derivatives(tree, write_atlas(tmp_path / 'plain'), 'plain', features='text=2')
    ours, theirs = (Cohort.open(folder).rows(first_run(folder)) for folder in (made, plain))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_several_spaces_have_to_be_named(tmp_path):
    tree, atlas = write_tree(tmp_path / 'fmriprep', runs=1), write_atlas(tmp_path / 'atlas')
    for path in [*tree.glob('sub-*/func/*_bold.*')]:
        path.with_name(path.name.replace(SPACE, 'T1w')).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=f'recordings in 2 spaces. Name one: space: {SPACE}, T1w'):
        plan_import(tree, atlas, 'mine', features='text=2')
    assert len(plan_import(tree, atlas, 'mine', features='text=2', space='T1w').jobs) == 2


def test_labels_on_both_hemispheres_are_one_parcel_or_two_as_is_said(tmp_path):
    both = dict(L=np.repeat([0, 1, 2], 20), R=np.repeat([1, 2], 25))
    atlas = write_surface_atlas(tmp_path, both)
    with pytest.raises(ValueError, match='share 2 labels: 1, 2. Say hemispheres: apart'):
        open_atlas(atlas)
    assert open_atlas(atlas, hemispheres='together').table.name.tolist() == ['area 1', 'area 2']
    assert open_atlas(atlas, hemispheres='apart').table.name.tolist() == [
        'L area 1',
        'L area 2',
        'R area 1',
        'R area 2',
    ]


def test_names_of_files_are_parsed_or_refused():
    name = parse_bids_name('sub-01_ses-2_task-walk_run-1_space-T1w_desc-preproc_bold.nii.gz')
    assert name.entities == dict(sub='01', ses='2', task='walk', run='1', space='T1w', desc='preproc')
    assert name[1:] == ('bold', '.nii.gz')
    for wrong in (
        'bold.nii.gz',
        'sub-01_bold_.nii',
        'sub-01_sub-01_bold.nii',
        'ses-1_sub-01_bold.nii',
        'sub-_bold.nii',
    ):
        assert parse_bids_name(wrong) is None


@pytest.mark.parametrize(
    'began, dummy, wanted', [(0, 0, (0, 0)), (4, 0, (3, 0.47)), (2.98, 0, (2, 0)), (-2, 1, (1, 3.49))]
)
def test_the_first_row_is_the_first_that_the_movie_was_on_for(began, dummy, wanted):
    assert first_row(began, dummy, TR) == wanted
