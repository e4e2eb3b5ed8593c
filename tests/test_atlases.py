"Any atlas: by its name, as a file with names, on the map or beside it; what is not drawn is said."

import gzip, warnings
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import mirage.data.parcels
from mirage.core import PARCELS
from mirage.data.cohort import Cohort
from mirage.data.parcels import NO_NAMES, cohort_atlas, open_atlas, packaged_atlas
from mirage.data.recordings import read_regions
from mirage.plotting.atlases import map_of, region_map

AFFINE = np.array([[4.0, 0, 0, -90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])


@pytest.fixture(autouse=True)
def own_root(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'root'))


def slabs(count, folder, name='mine.nii.gz'):
    "Parcels from left to right through the whole brain."
    x = np.zeros((46, 55, 46), np.int16)
    for k in range(count):
        x[6 + k * 34 // count : 6 + (k + 1) * 34 // count] = k + 1
    folder.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(x, AFFINE).to_filename(folder / name)
    return folder / name


def write_cohort(folder, labels, parcels):
    "Arrays of one's own, with an atlas beside them."
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / 'a.npy', np.random.default_rng(0).normal(size=(20, parcels)))
    (folder / 'runs.csv').write_text('subject,split,set,bold\nann,walk,train,a.npy\n')
    (folder / 'cohort.yaml').write_text(
        f'tr: 2.0\nparcels: {parcels}\nfeatures: {{text: 2.0}}\nregions: regions.csv\nlabels: {labels}\n'
    )
    lines = [f'{k},region {k},net{k % 2}' for k in range(1, parcels + 1)]
    (folder / 'regions.csv').write_text('\n'.join(['label,name,network', *lines]) + '\n')
    return folder


def test_schaefers_atlas_of_another_size_and_order_is_fetched_once_by_its_name(tmp_path, monkeypatch):
    from nilearn import datasets

    asked, file = [], slabs(3, tmp_path / 'fetched', 'Schaefer2018_200Parcels_17Networks_order_FSLMNI152_2mm.nii.gz')

    def fetch(**options):
        asked.append(options)
        names = ['Background', *(f'17Networks_{side}H_VisCent_ExStr_{k}' for k, side in enumerate('LLR', 1))]
        return dict(maps=str(file), lut=pd.DataFrame(dict(index=range(4), name=names)), template='MNI152NLin6Asym')

    monkeypatch.setattr(datasets, 'fetch_atlas_schaefer_2018', fetch)
    atlas = open_atlas('schaefer200-17-2mm')
    assert {k: v for k, v in asked[0].items() if k != 'data_dir'} == dict(
        n_rois=200, yeo_networks=17, resolution_mm=2, verbose=0
    )
    assert atlas.size == 3 and atlas.table.network.tolist() == ['VisCent'] * 3 and atlas.table.hemi.tolist() == [*'LLR']
    slabs(4, tmp_path / 'fetched', file.name)
    with pytest.raises(ValueError, match='is not the file that was fetched first'):
        open_atlas('schaefer200-17-2mm')
    with pytest.raises(ValueError, match="schaefer250: Schaefer's atlas has 100, 200"):
        open_atlas('schaefer250')


def test_without_a_network_an_atlas_by_name_is_one_error_that_says_how_else(monkeypatch):
    from nilearn import datasets

    def fetch(*args, **options):
        raise ConnectionError('no route')

    monkeypatch.setattr(datasets, 'fetch_atlas_aal', fetch)
    with pytest.raises(OSError, match='aal could not be fetched .*no route.*Give it as a file'):
        open_atlas('aal')


@pytest.mark.parametrize(
    'text, says',
    [
        ('label,region\n1,a\n', 'expected label,name'),
        ('label,name\n1,a\n1,b\n', 'the label 1 twice|label 1 twice|label np.int64'),
        ('label,name\n1,a\n2,a\n', "the name 'a' twice"),
        ('label,name\n1.5,a\n', "label '1.5' is no whole number"),
        ('label,name\n1,\n', 'label 1: the name of the region is'),
        ('label,name\n0,background\n', 'names no region'),
    ],
)
def test_a_table_of_regions_that_cannot_be_right_is_refused(tmp_path, text, says):
    (tmp_path / 'names.csv').write_text(text)
    with pytest.raises(ValueError, match=says):
        read_regions(tmp_path / 'names.csv')


def test_a_label_image_beside_ones_own_arrays_gives_names_networks_and_a_map(tmp_path):
    folder = write_cohort(tmp_path / 'mine', 'mine.nii.gz', 12)
    slabs(12, folder)
    cohort = Cohort.open(folder)
    assert cohort.atlas is None and cohort_atlas(cohort).table.name.tolist() == list(cohort.names)
    drawn = map_of(cohort)
    assert drawn.patches is not None and not drawn.lost and map_of(Cohort.open(folder)) is drawn
    fig, ax = plt.subplots()
    region_map(np.arange(12.0), cohort, ax, 'r')
    assert len(ax.images) == 2  # both hemispheres
    left = drawn.patches['left'].labels
    assert {*np.unique(left[left > 0])} <= {1, 2, 3, 4, 5, 6, 7} and left.max() >= 5  # x grows to the right
    plt.close(fig)
    table = cohort.named(pd.DataFrame(dict(parcel=[1, 2], r=[0.1, 0.2])))
    assert table.name.tolist() == ['region 1', 'region 2'] and table.network.tolist() == ['net1', 'net0']


def test_another_atlas_with_the_same_names_is_refused_where_the_cohort_records_its_own(tmp_path):
    folder = write_cohort(tmp_path / 'mine', 'mine.nii.gz', 12)
    slabs(12, folder)
    with pytest.warns(UserWarning, match='does not record which labels are its own') as said:
        cohort_atlas(Cohort.open(folder))
    line = str(said[0].message).split('add the line: ')[1]
    about = (folder / 'cohort.yaml').read_text()
    (folder / 'cohort.yaml').write_text(f'{about}{line}\n')
    with warnings.catch_warnings(action='error'):
        own = cohort_atlas(Cohort.open(folder))
    image = nib.load(folder / 'mine.nii.gz')
    again = nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float32), image.affine)
    again.to_filename(folder / 'mine.nii.gz')  # other bytes, the same atlas
    assert cohort_atlas(Cohort.open(folder)).labels_digest == own.labels_digest
    for x, affine in (
        (np.asarray(image.dataobj)[::-1], AFFINE),
        (np.asarray(image.dataobj), AFFINE + np.eye(4)[:, [3]]),
    ):
        nib.Nifti1Image(x, affine).to_filename(folder / 'mine.nii.gz')
        with pytest.raises(ValueError, match='mine.nii.gz holds other labels than .*cohort.yaml records'):
            map_of(Cohort.open(folder))
    for wrong in ('labels_digest: 12', "labels_digest: 'ABC'"):
        (folder / 'cohort.yaml').write_text(f'{about}{wrong}\n')
        with pytest.raises(ValueError, match='labels_digest is .*16 digits and letters'):
            Cohort.open(folder)


@pytest.mark.parametrize('shape', [(30000, 30000, 30000), (8, 8, -3), (0, 8, 8)])
@pytest.mark.parametrize('name', ['huge.nii', 'huge.nii.gz'])
def test_a_header_that_claims_an_absurd_grid_is_one_error_before_memory_is_asked_for(tmp_path, shape, name):
    header = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), AFFINE).header
    header['dim'][:4], header['vox_offset'], header['magic'] = (3, *shape), 352, b'n+1'
    data = header.binaryblock + bytes(4) + bytes(128)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
    with pytest.raises(ValueError, match=f'{name} cannot be read: its header says shape .*rite it again'):
        open_atlas(tmp_path / name, NO_NAMES)


def test_an_atlas_with_more_voxels_than_one_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(mirage.data.parcels, 'MOST_VOXELS', 1000)
    with pytest.raises(ValueError, match=r'mine.nii.gz has shape \(46, 55, 46\), 116,380 voxels, .*resample_to_img'):
        open_atlas(slabs(3, tmp_path), NO_NAMES)


def test_labels_that_are_not_the_columns_are_refused(tmp_path):
    folder = write_cohort(tmp_path / 'mine', 'mine.nii.gz', 12)
    slabs(11, folder)
    with pytest.raises(ValueError, match='has 11 labels, .* 12 parcels'):
        map_of(Cohort.open(folder))
    (folder / 'regions.csv').write_text('label,name\n1,a\n2,b\n')
    with pytest.raises(ValueError, match='has 2 labels, 1, 2; expected 1 to 12'):
        Cohort.open(folder)


@pytest.mark.parametrize('space, axes', [('MNI152NLin6Asym', 2), ('native', 1)])
def test_a_volume_that_hardly_meets_the_cortex_has_a_glass_brain_beside_its_slices(tmp_path, space, axes):
    folder = write_cohort(tmp_path / 'mine', f'space-{space}_dseg.nii.gz', 2)
    x = np.zeros((46, 55, 46), np.int16)
    x[16, 26, 24], x[29:31, 26, 24] = 1, 2
    nib.Nifti1Image(x, AFFINE).to_filename(folder / f'space-{space}_dseg.nii.gz')
    cohort = Cohort.open(folder)
    fig, ax = plt.subplots(figsize=(8, 2))
    region_map(np.array([0.1, 0.9]), cohort, ax, 'r', limits=(0, 1), cmap='viridis')
    pictures = [picture for part in (ax, *ax.child_axes) for picture in part.images]
    assert len(pictures) == axes and 'no flat map' in ax.get_title()
    glass = [picture for picture in pictures if picture.get_array().ndim == 3]
    assert len(glass) == axes - 1  # an outline of MNI space says nothing of another
    for picture in glass:
        colours = np.asarray(picture.get_array())[..., :3].astype(int)
        high, low = (np.abs(colours - 255 * np.array(plt.get_cmap('viridis')(v)[:3])).sum(-1) < 60 for v in (0.9, 0.1))
        assert high.any() and low.any()
    plt.close(fig)


def test_a_mesh_that_is_not_here_gives_ranked_values_and_says_so(tmp_path):
    folder = write_cohort(tmp_path / 'mine', 'space-fsLR_hemi-L.label.gii,space-fsLR_hemi-R.label.gii', 4)
    for hemi, keys in dict(L=(1, 2), R=(3, 4)).items():
        array = nib.gifti.GiftiDataArray(np.repeat(keys, 16246).astype(np.int32), intent='NIFTI_INTENT_LABEL')
        nib.save(nib.gifti.GiftiImage(darrays=[array]), folder / f'space-fsLR_hemi-{hemi}.label.gii')
    fig, ax = plt.subplots()
    region_map(np.arange(4.0), Cohort.open(folder), ax, 'r')
    assert ax.get_title() == 'no map: there is no mesh of fsLR with 32,492 vertices' and not ax.images
    plt.close(fig)


def test_schaefers_thousand_parcels_are_drawn_as_before():
    cohort = SimpleNamespace(labels=(), atlas='schaefer1000')
    assert packaged_atlas().size == PARCELS
    fig, ax = plt.subplots()
    region_map(np.arange(float(PARCELS)), cohort, ax, 'r')
    assert len(ax.images) == 2
    plt.close(fig)
