"The manifest's facts, and fetching from servers, disks and processes that fail."

import email, hashlib, http.server, multiprocessing, os, re, resource, signal, sys, threading, time, urllib.parse
from pathlib import Path

import pytest

from mirage.data import manifest
from mirage.data.manifest import COPYLEFT, FetchError, address, check_files, fetch, fetch_file, fetch_https
from mirage.data.manifest import bundled, load_manifest, md5_of, select, package_licence, package_licences

REPO = Path(__file__).parents[1]
FACTS = REPO / 'tests' / 'data' / 'algonauts2025'


def test_the_facts():
    assets = load_manifest(REPO / 'data_manifest.yaml')
    release = assets['algonauts2025']
    assert len(release['files']) == 819 and sum(f['bytes'] for f in release['files'].values()) == 140573721205
    bold = select(release, 'bold')
    assert len(bold) == 4 * 5 and sum(f['bytes'] for f in bold.values()) == 2420444460
    assert sum('/func/' in p for p in bold) == 8 and len(select(release, 'transcripts')) == 395
    assert [len(select(release, f'friends-s{k}')) for k in range(1, 8)] == [2 * n for n in (48, 48, 50, 48, 48, 50, 49)]
    assert (
        len(select(release, 'ood')) == 12 + 10
        and len(select(release, 'uncut')) == 7
        and len(select(release, 'movie10')) == 2 * 44
    )
    assert set().union(*(select(release, g) for g in release['groups'])) == set(release['files'])


def test_our_copies_are_the_release_s():
    "The eight length files of the tests and the atlas of the package, bit for bit."
    assets = load_manifest(REPO / 'data_manifest.yaml')
    lengths = {p: f for p, f in assets['algonauts2025']['files'].items() if p.endswith('.npy')}
    assert len(lengths) == 8
    for p, f in lengths.items():
        assert md5_of(FACTS / 'target_samples' / Path(p).relative_to('fmri')) == f['md5']
    for p, f in assets['schaefer1000']['files'].items():
        assert ((REPO / p).stat().st_size, md5_of(REPO / p)) == (f['bytes'], f['md5'])


@pytest.mark.parametrize(
    'old, new, message',
    [
        (
            'md5: c62dbfef65f486c626c10f778ebbe4f2',
            'md5: c62dbfef65f486c6',
            "sub-01.*nii.gz: md5 is 'c62dbfef65f486c6', expected 32 hexadecimal",
        ),
        ('bytes: 105090', 'bytes: lots', "bytes is 'lots', expected a whole number"),
        ('fmri/sub-01/atlas/', '../fmri/sub-01/atlas/', "the path '../fmri/sub-01/atlas/.*' leaves its folder"),
        ('    fmri/sub-01/atlas/', '    /fmri/sub-01/atlas/', "the path '/fmri/sub-01/atlas/.*' leaves its folder"),
        ('not needed", files: [\'', 'not needed", files: [\'nothing', 'no group has stimuli/movies/ood/'),
        ('  licence: "MIT"\n', '', 'wav2vec-bert-2.0: licence is missing'),
        ('  licence_read_in:', '  seen:', 'seen is called licence_read_in now'),  # as earlier versions had it
        (
            'provider: "Meta AI"',
            'provider: !!python/object/apply:os.getcwd []',
            'is no manifest: .*could not determine a constructor',
        ),
    ],
)
def test_a_manifest_that_cannot_be_right(tmp_path, old, new, message):
    text = (REPO / 'data_manifest.yaml').read_text()
    assert old in text
    (tmp_path / 'm.yaml').write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=f'(?s)m.yaml.*{message}.*Restore it'):
        load_manifest(tmp_path / 'm.yaml')


def test_sizes_of_the_whole_release_at_once(tmp_path):
    "819 sparse files of the true sizes: only sizes are looked at, so 140 GB take no time."
    files = load_manifest()['algonauts2025']['files']
    gone, cut, *rest = files
    for p, f in files.items():
        (tmp_path / p).parent.mkdir(parents=True, exist_ok=True)
        with open(tmp_path / p, 'wb') as out:
            out.truncate(f['bytes'])
    (tmp_path / gone).unlink()
    (tmp_path / gone).symlink_to('../.git/annex/objects/elsewhere')
    os.truncate(tmp_path / cut, files[cut]['bytes'] - 1)
    began = time.perf_counter()
    state = check_files(files, tmp_path, md5=False).set_index('path').state
    assert time.perf_counter() - began < 3
    assert state[gone] == 'missing' and state[cut] == 'truncated' and set(state[rest]) == {'sized'}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    "An asset of four files, and the memory of what was verified."
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    contents = {f'a/run {k}.h5': os.urandom(300_000 + k) for k in range(4)}
    files = {p: dict(bytes=len(b), md5=hashlib.md5(b).hexdigest()) for p, b in contents.items()}
    return dict(name='toy', source='here', folder='toy', groups={'all': dict(files=['*'])}, files=files), contents


def write(folder, contents):
    for p, b in contents.items():
        (folder / p).parent.mkdir(parents=True, exist_ok=True)
        (folder / p).write_bytes(b)


def test_a_second_check_reads_nothing_and_a_change_is_noticed(tmp_path, toy, monkeypatch):
    a, contents = toy
    write(tmp_path / 'toy', contents)
    read = []
    monkeypatch.setattr(
        manifest, 'md5_of', lambda p, tick=None: read.append(p.name) or hashlib.md5(p.read_bytes()).hexdigest()
    )

    def states():
        return check_files(a['files'], tmp_path / 'toy').state.tolist()

    assert states() == ['ok'] * 4 and len(read) == 4 and states() == ['ok'] * 4 and len(read) == 4
    path = tmp_path / 'toy/a/run 2.h5'
    times = path.stat().st_mtime_ns  # one bit, the same size and the same date
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times, times))
    assert states() == ['ok', 'ok', 'altered', 'ok'] and read[4:] == ['run 2.h5']
    (tmp_path / 'data/.md5.json').write_text('{"half')  # a broken memory is no memory
    assert states() == ['ok', 'ok', 'altered', 'ok'] and len(read) == 9
    with pytest.raises(FetchError, match='run 2.h5 is not the file of the manifest .one of 1.. Move it away'):
        fetch(a, 'all', url='http://127.0.0.1:9')
    assert path.read_bytes() == data


@pytest.fixture
def mirror():
    "A server that misbehaves as asked."

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            path, ask = urllib.parse.unquote(self.path)[1:], self.headers.get('Range')
            s = self.server
            s.asked.append((path, ask))
            start = int(ask[6:-1]) if ask and s.resumes else 0
            if s.fail > 0:
                s.fail -= 1
                return self.send_error(503)
            if path not in s.contents:
                return self.send_error(404)
            data = s.contents[path]
            if start >= len(data):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header('Content-Length', str(len(data) - start))
            if start:
                self.send_header('Content-Range', f'bytes {start}-{len(data) - 1}/{len(data)}')
            self.end_headers()
            self.wfile.write(data[start : start + s.at_most])
            self.wfile.flush()
            time.sleep(s.wait)

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    server.asked, server.contents, server.at_most, server.resumes, server.fail, server.wait = [], {}, 10**9, True, 0, 0
    server.url = f'http://127.0.0.1:{server.server_port}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def get(toy, mirror, tmp_path, **k):
    fetch_https(toy[0]['files'], tmp_path / 'toy', mirror.url, patience=0.001, **k)


def there(tmp_path):
    return {str(p.relative_to(tmp_path / 'toy')) for p in (tmp_path / 'toy').rglob('*') if p.is_file()}


def test_interrupted_in_the_middle(tmp_path, toy, mirror):
    mirror.contents, mirror.at_most = toy[1], 70_000
    get(toy, mirror, tmp_path)
    assert check_files(toy[0]['files'], tmp_path / 'toy').state.eq('ok').all() and there(tmp_path) == set(toy[1])
    assert len(mirror.asked) == 4 * 5 and ('a/run 3.h5', 'bytes=280000-') in mirror.asked


def test_a_server_that_cannot_continue(tmp_path, toy, mirror):
    "It always sends the file from its beginning, and hangs up early until it does not."
    mirror.contents, mirror.at_most, mirror.resumes = toy[1], 70_000, False
    with pytest.raises(
        FetchError,
        match=r'4 of 4 files failed.*stopped at 70000 of 30000\d bytes \(the connection ended\). Fetch again',
    ):
        get(toy, mirror, tmp_path)
    assert all(p.endswith('.part') for p in there(tmp_path))
    mirror.at_most = 10**9
    get(toy, mirror, tmp_path)
    assert there(tmp_path) == set(toy[1]) and check_files(toy[0]['files'], tmp_path / 'toy').state.eq('ok').all()


def test_busy_then_fine(tmp_path, toy, mirror):
    mirror.contents, mirror.fail = toy[1], 3
    get(toy, mirror, tmp_path, threads=1)
    assert there(tmp_path) == set(toy[1])


def test_missing_wrong_longer_and_shorter_files(tmp_path, toy, mirror):
    "Each is reported, none is kept, and the good one arrives."
    p = sorted(toy[1])
    mirror.contents = dict(toy[1])
    del mirror.contents[p[0]]
    mirror.contents |= {p[1]: toy[1][p[1]][::-1], p[2]: toy[1][p[2]] + b'more'}
    with pytest.raises(FetchError, match='3 of 4 files failed') as e:
        get(toy, mirror, tmp_path)
    for message in (
        r'run%200.h5 answers 404 Not Found: the mirror does not have run 0.h5',
        r'run%201.h5 gives MD5 \w+, the manifest says',
        r'run%202.h5 gives 300006 bytes',
    ):
        assert re.search(message, str(e.value))
    assert there(tmp_path) == {p[3]}
    mirror.contents = dict(toy[1], **{p[2]: toy[1][p[2]][:-9]})
    with pytest.raises(FetchError, match='1 of 4.*gives 299993 bytes, the manifest says 300002'):
        get(toy, mirror, tmp_path)
    assert there(tmp_path) == {p[0], p[1], p[3]}


@pytest.mark.promise('fetch', 'kill')
def test_killed_in_the_middle(tmp_path, toy, mirror):
    "kill -9 leaves no file under its name, and the next attempt asks for the rest only."
    mirror.contents, mirror.at_most, mirror.wait = toy[1], 70_000, 60
    p, f = next(iter(toy[0]['files'].items()))
    path = tmp_path / p
    job = multiprocessing.get_context('fork').Process(
        target=fetch_file, args=(address(mirror.url, p, f), path, f['bytes']), kwargs=dict(md5=f['md5'])
    )
    part, until = manifest.partial_path(path, f['md5']), time.time() + 20
    job.start()
    while time.time() < until and not (part.exists() and part.stat().st_size >= 70_000):
        time.sleep(0.05)
    with pytest.raises(FetchError, match='run 0.h5 is being fetched by another process'):
        fetch_file(address(mirror.url, p, f), path, f['bytes'], md5=f['md5'])
    job.kill()
    job.join()
    assert not path.exists() and part.stat().st_size == 70_000
    mirror.at_most, mirror.wait = 10**9, 0
    fetch_file(address(mirror.url, p, f), path, f['bytes'], md5=f['md5'])
    assert path.read_bytes() == toy[1][p] and not part.exists() and mirror.asked[-1][1] == 'bytes=70000-'


def test_no_room_is_reported_before_anything_is_written(tmp_path, toy, mirror, monkeypatch):
    monkeypatch.setattr(manifest, 'room', lambda folder: 10**6)
    with pytest.raises(FetchError, match='4 files need 1.2 MB, and .*toy has 1.0 MB free. Make room'):
        fetch(toy[0], 'all', url=mirror.url)
    assert not mirror.asked and not (tmp_path / 'toy').exists()


@pytest.mark.promise('fetch', 'full disk')
def test_the_disk_fills_up(tmp_path, toy, mirror):
    "A limit on the size of files stands in for the disk: the write itself fails, in another process."
    mirror.contents = toy[1]

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            get(toy, mirror, tmp_path, threads=1)
        except FetchError as e:
            (tmp_path / 'said').write_text(str(e))

    job = multiprocessing.get_context('fork').Process(target=limited)
    job.start()
    job.join()
    assert re.match(
        '1 of 4 files failed. .*run 0.h5 does not fit on the disk .* Make room and fetch again to continue',
        (tmp_path / 'said').read_text(),
    )
    assert not set(toy[1]) & there(tmp_path)
    get(toy, mirror, tmp_path)
    assert there(tmp_path) == set(toy[1]) and ('a/run 0.h5', 'bytes=100000-') in mirror.asked


def test_paths_stay_in_the_folder(tmp_path, toy, mirror):
    mirror.contents = {'../evil': b'x', 'out/evil': b'x'}
    (tmp_path / 'toy').mkdir()
    (tmp_path / 'toy/out').symlink_to(tmp_path)
    for path in mirror.contents:
        with pytest.raises(ValueError, match='leads out of'):
            fetch_https({path: dict(bytes=1, md5=hashlib.md5(b'x').hexdigest())}, tmp_path / 'toy', mirror.url)
    assert not (tmp_path / 'evil').exists() and not mirror.asked


def test_addresses():
    f = dict(bytes=5, md5='0' * 32)
    assert address('https://host/base/', 'fmri/a b.nii.gz', f) == 'https://host/base/fmri/a%20b.nii.gz'
    assert address('https://host/{key}', 'fmri/a.nii.gz', f) == f'https://host/MD5E-s5--{"0" * 32}.nii.gz'
    with pytest.raises(ValueError, match="'file:///etc' is no address"):
        address('file:///etc', 'passwd', f)


def test_through_datalad(tmp_path, toy, monkeypatch):
    "A stand-in for datalad: `install` makes links without content, `get` brings the content of the paths it is given."
    a, contents = toy
    write(tmp_path / 'annex', contents)
    bin = tmp_path / 'bin'
    bin.mkdir()
    (bin / 'datalad').write_text(f"""#!{sys.executable}
import os, sys
from pathlib import Path
annex, arguments = Path({str(tmp_path / 'annex')!r}), sys.argv[2:]
if sys.argv[1] == 'install':
    assert arguments[:3] == ['-r', '-s', 'here']; folder = Path(arguments[3]); (folder/'.datalad').mkdir(parents=True)
    for p in annex.rglob('*.h5'): t = folder/p.relative_to(annex); t.parent.mkdir(exist_ok=True); t.symlink_to('nowhere')
else:
    assert arguments[0] == '-d'; folder = Path(arguments[1])
    if os.environ.get('BROKEN'): sys.exit('get(error): no known url')
    for p in map(Path, arguments[2:]): p.unlink(); p.write_bytes((annex/p.relative_to(folder)).read_bytes())
""")  # noqa: E501
    (bin / 'datalad').chmod(0o755)
    monkeypatch.setenv('PATH', f'{bin}:{os.environ["PATH"]}')
    monkeypatch.setenv('BROKEN', '1')
    with pytest.raises(FetchError, match=r'datalad get failed: get\(error\): no known url'):
        fetch(a, 'all')
    assert check_files(a['files'], tmp_path / 'toy').state.eq('missing').all()
    monkeypatch.delenv('BROKEN')
    assert fetch(a, 'all').state.eq('ok').all()


def test_neither_datalad_nor_address(tmp_path, toy, monkeypatch):
    monkeypatch.setenv('PATH', '/nowhere')
    with pytest.raises(FetchError, match='no datalad here, and no plain address of toy is known. Install it .*-p url'):
        fetch(toy[0], 'all')
    assert not (tmp_path / 'toy').exists()
    with pytest.raises(ValueError, match="toy has no group 'bolt'; there are: all"):
        fetch(toy[0], 'bolt')


@pytest.mark.parametrize(
    'metadata, licence, copyleft',
    [
        ('License-Expression: MPL-2.0 AND MIT\n', 'MPL-2.0 AND MIT', True),
        (
            'Classifier: License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)\n',
            'GNU Lesser General Public License v3 (LGPLv3)',
            True,
        ),
        ('License: BSD-3-Clause\n', 'BSD-3-Clause', False),
        ('Classifier: License :: OSI Approved :: MIT License\nLicense: see LICENSE\n', 'MIT License', False),
        ('', 'not said', False),
    ],
)
def test_what_a_package_says_of_its_licence(metadata, licence, copyleft):
    about = email.message_from_string(f'Name: x\n{metadata}\n')
    assert package_licence(about) == licence and bool(re.search(COPYLEFT, licence)) is copyleft


def test_every_installed_package_is_listed_and_copyleft_is_marked():
    table = package_licences().set_index('package')
    assert (
        table.index.is_unique and table.licence.ne('').all() and table.copyleft['tqdm'] and not table.copyleft['numpy']
    )
    assert 'MIT License' in table.licence['conda-inject']  # its metadata says nothing, its licence does


def test_libraries_under_copyleft_inside_a_wheel_are_named():
    table = package_licences().set_index('package')
    assert table.licence['av'].startswith('BSD') and table.copyleft['av'] and 'x264, GPL' in table.bundled['av']
    assert table.bundled['soundfile'] == 'libsndfile, LGPL-2.1-or-later' and table.bundled['torch'] == ''
    files = [Path(name) for name in ('a/libx264-1f.so.164', 'a/libx264.txt', 'a/libavutil.59.dylib', 'libgmpxx.so')]
    assert bundled(files) == 'FFmpeg, LGPL-2.1-or-later; x264, GPL-2.0-or-later'
