"""What people do to running work: they kill it, start it twice, fill the disk, interrupt the kernel, build from a
read-only checkout, without git, over links to another disk.

The pipeline of these tests begins as nbs/paper.smk does and goes on with rules that only wait. Kills at many moments of
the real one: `make test-all`."""

import contextlib, json, os, shutil, signal, subprocess, sys, textwrap, time
from pathlib import Path

import nbformat, numpy as np, pytest

import mirage.core
from mirage.core import build, package_version, pipeline_name, provenance, start_run, write_json
from mirage.processes import InUse, atomic, cores, give, hold, machine, pipelines, read_holder, take
from mirage.processes import worker_pool

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
ENV = {k: v for k, v in os.environ.items() if k not in ('IN_TEST', 'MIRAGE_ROOT')}
ENV |= {
    'PATH': f'{BIN}:{os.environ["PATH"]}',
    'OMP_NUM_THREADS': '1',
    'PYTHONPATH': str(ROOT),
    'PYTHONWARNINGS': 'ignore',
}
RULES = """
rule slow:
    output: 'results/{name}/slow.txt'
    shell: 'sleep $(cat pace); echo done > {output}'

rule all_three:
    input: expand('results/{{name}}-{n}/slow.txt', n=(1, 2))
    output: 'results/{name}/three.txt'
    shell: 'cat {input} > {output}'

rule fails:
    output: 'results/{name}/fails.txt'
    shell: 'echo because it is Monday >&2; exit 3'

rule fills:
    output: 'results/{name}/fills.txt'
    shell: 'dd if=pace of=$(cat where) && cp pace {output}'

rule mute:
    output: 'results/{name}/mute.txt'
    shell: 'kill -9 $PPID; sleep 1'
"""


def script(text, *arguments, **env):
    "A Python process of its own."
    return subprocess.Popen(
        [sys.executable, '-c', textwrap.dedent(text), *map(str, arguments)],
        env=ENV | {k: str(v) for k, v in env.items()},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for(what, seconds=60.0):
    "Until it is true; its value."
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, 'it never came'
        time.sleep(0.05)
    return value


def gone(*numbers):
    return not any(mirage.processes.alive(n) for n in numbers)


def dead_process():
    job = subprocess.Popen(['true'])
    job.wait()
    return job.pid


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    "A folder in which rules wait, behind the beginning of the real pipeline."
    (tmp_path / 'nbs').mkdir()
    beginning, found, _ = (ROOT / 'nbs/paper.smk').read_text().partition('\nfrom mirage.core import')
    assert found and 'begin_pipeline' in beginning
    (tmp_path / 'nbs/paper.smk').write_text(beginning + RULES)
    (tmp_path / 'pace').write_text('.5')  # seconds that a step takes
    (tmp_path / 'mirage').symlink_to(ROOT / 'mirage')
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    return tmp_path


def snakemake(folder, *targets):
    return subprocess.Popen(
        [BIN / 'snakemake', *targets, '-s', 'nbs/paper.smk', '--cores', '2', '--rerun-incomplete'],
        cwd=folder,
        env=ENV,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def locks(folder):
    return list((folder / '.snakemake' / 'locks').glob('*')) if (folder / '.snakemake' / 'locks').is_dir() else []


# cores


def test_a_job_that_was_given_one_core_of_many_counts_one():
    one = script(
        'import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from mirage.processes import cores; '
        'print(cores())'
    )
    assert one.communicate()[0].strip() == '1' and cores() >= 1


# the pipeline


@pytest.mark.promise('pipeline', 'kill')
def test_a_pipeline_killed_with_all_its_children_goes_on_by_the_same_command(pipeline):
    (pipeline / 'pace').write_text('8')
    job = snakemake(pipeline, 'results/a/three.txt')
    wait_for(lambda: locks(pipeline))
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    (pipeline / 'pace').write_text('.5')
    assert locks(pipeline) and not (pipeline / 'results/a/three.txt').exists()
    again = snakemake(pipeline, 'results/a/three.txt')
    printed = again.communicate()[0]
    assert again.returncode == 0, printed
    assert (
        'was killed; its lock is removed' in printed
        and (pipeline / 'results/a/three.txt').read_text() == 'done\ndone\n'
        and not locks(pipeline)
    )


def test_a_living_pipeline_is_never_unlocked(pipeline):
    (pipeline / 'pace').write_text('8')
    job = snakemake(pipeline, 'results/a/three.txt')
    wait_for(lambda: locks(pipeline))
    second = snakemake(pipeline, 'results/a/three.txt')
    printed = second.communicate()[0]
    assert second.returncode != 0 and f'process {job.pid} on' in printed and 'cannot be locked' in printed, printed
    job.communicate()
    assert job.returncode == 0 and (pipeline / 'results/a/three.txt').is_file()


@pytest.mark.long
def test_a_killed_pipeline_beside_a_living_one_unlocks_nothing(pipeline):
    (pipeline / 'pace').write_text('8')
    job = snakemake(pipeline, 'results/a/three.txt')
    wait_for(lambda: locks(pipeline))
    (pipeline / '.snakemake/pipelines/killed.lock').write_text(
        json.dumps(dict(host='here', machine=machine(), pid=dead_process(), began='', since=''))
    )
    second = snakemake(pipeline, 'results/a/three.txt')
    assert 'cannot be locked' in second.communicate()[0]
    job.communicate()
    assert job.returncode == 0
    other = snakemake(pipeline, 'results/b/slow.txt')
    assert other.communicate() and other.returncode == 0 and not list((pipeline / '.snakemake/pipelines').iterdir())


@pytest.mark.long
def test_a_dry_run_beside_a_living_pipeline_disturbs_nobody(pipeline):
    (pipeline / 'pace').write_text('8')
    job = snakemake(pipeline, 'results/a/three.txt')
    wait_for(lambda: locks(pipeline))
    dry = snakemake(pipeline, 'results/a/three.txt', '--dry-run')
    printed = dry.communicate()[0]
    assert dry.returncode == 0, printed
    job.communicate()
    assert job.returncode == 0


def test_jobs_end_with_the_pipeline_when_it_alone_is_killed(pipeline):
    notebook = dict(
        cells=[
            dict(
                cell_type='code',
                id='a',
                metadata={},
                outputs=[],
                execution_count=None,
                source="import os, time; open('pids', 'w').write(f'{os.getpid()} {os.getppid()}'); time.sleep(60)",
            )
        ],
        metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')),
        nbformat=4,
        nbformat_minor=5,
    )
    (pipeline / 'nbs/long.ipynb').write_text(json.dumps(notebook))
    with open(pipeline / 'nbs/paper.smk', 'a') as rules:
        rules.write(
            "\nrule long:\n    output: 'results/long.txt'\n    shell: 'papermill nbs/long.ipynb nbs/out.ipynb; "
            "touch {output}'\n"
        )
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in what a script starts with &
    try:
        job = snakemake(pipeline, 'results/long.txt')
    finally:
        signal.signal(signal.SIGINT, former)
    wait_for(lambda: (pipeline / 'pids').is_file() and len((pipeline / 'pids').read_text().split()) == 2)
    kernel, papermill = map(int, (pipeline / 'pids').read_text().split())
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    wait_for(lambda: gone(kernel, papermill), 30)


# build()


def test_build_makes_what_is_missing_and_counts_its_steps(pipeline, capsys):
    build(pipeline / 'results/a/three.txt')
    printed = capsys.readouterr().out
    assert (pipeline / 'results/a/three.txt').is_file() and '1 of 3 steps' in printed and '3 of 3 steps' in printed
    build(pipeline / 'results/a/three.txt')
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    'target, says',
    [
        ('results/a/fails.txt', ('because it is Monday', 'fails')),
        ('results/a/nothing.txt', ('MissingRule', 'nothing.txt')),
        ('results/a/mute.txt', ('SIGKILL',)),
    ],
)
def test_build_never_fails_without_a_reason(pipeline, target, says):
    with pytest.raises(RuntimeError, match='could not build') as e:
        build(pipeline / target)
    for word in says:
        assert word in str(e.value)


@pytest.mark.promise('pipeline', 'two at once')
def test_build_names_the_process_that_has_locked_the_pipeline(pipeline):
    (pipeline / 'pace').write_text('8')
    job = snakemake(pipeline, 'results/a/three.txt')
    wait_for(lambda: locks(pipeline))
    with pytest.raises(
        RuntimeError, match=f'another pipeline makes the same files: process {job.pid} on .*kill {job.pid}'
    ):
        build(pipeline / 'results/a/three.txt')
    job.communicate()
    assert job.returncode == 0


@pytest.mark.long
def test_build_says_what_to_type_where_nobody_knows_who_locked_it(pipeline):
    (pipeline / 'pace').write_text('8')
    job = snakemake(pipeline, 'results/a/three.txt')
    wait_for(lambda: locks(pipeline))
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    shutil.rmtree(pipeline / '.snakemake/pipelines')
    with pytest.raises(RuntimeError, match='nobody is written down .* type: cd .* --unlock'):
        build(pipeline / 'results/a/three.txt')


BUILDS = 'import sys; from mirage.core import build; build(sys.argv[1])'


@pytest.mark.promise('pipeline', 'full disk')
def test_a_job_for_which_no_room_is_left_is_named_with_its_reason_and_the_same_command_goes_on(pipeline):
    (pipeline / 'where').write_text('/dev/full')
    with pytest.raises(RuntimeError, match='could not build results/a/fills.txt: (.|\n)*No space left on device'):
        build(pipeline / 'results/a/fills.txt')
    assert not (pipeline / 'results/a/fills.txt').exists() and not locks(pipeline)
    (pipeline / 'where').write_text('/dev/null')
    build(pipeline / 'results/a/fills.txt')
    assert (pipeline / 'results/a/fills.txt').read_text() == '.5'


@pytest.mark.promise('pipeline', 'signal')
def test_a_kernel_interrupted_while_it_builds_leaves_nothing_locked_and_the_next_call_works(pipeline):
    (pipeline / 'pace').write_text('8')
    job = script(BUILDS, pipeline / 'results/a/three.txt', MIRAGE_ROOT=pipeline)
    wait_for(lambda: locks(pipeline))
    children = [p['pid'] for p in pipelines(pipeline)[0]]
    os.kill(job.pid, signal.SIGINT)  # as Jupyter's stop button
    out, err = job.communicate(timeout=60)
    assert 'KeyboardInterrupt' in err and 'Stopping the pipeline' in out
    assert children and gone(*children) and not locks(pipeline)
    (pipeline / 'pace').write_text('.5')
    build(pipeline / 'results/a/three.txt')


@pytest.mark.long
def test_a_kernel_killed_while_it_builds_takes_the_pipeline_along(pipeline):
    (pipeline / 'pace').write_text('8')
    job = script(BUILDS, pipeline / 'results/a/three.txt', MIRAGE_ROOT=pipeline)
    wait_for(lambda: locks(pipeline))
    (one,) = pipelines(pipeline)[0]
    os.kill(job.pid, signal.SIGKILL)
    job.communicate()
    wait_for(lambda: gone(one['pid']))
    (pipeline / 'pace').write_text('.5')
    build(pipeline / 'results/a/three.txt')


@pytest.mark.long
def test_two_notebooks_that_miss_the_same_files_build_them_once(pipeline):
    jobs = [script(BUILDS, pipeline / 'results/a/three.txt', MIRAGE_ROOT=pipeline) for _ in range(2)]
    printed = [job.communicate()[0] for job in jobs]
    assert (
        [job.returncode for job in jobs] == [0, 0]
        and sum('3 of 3 steps' in s for s in printed) == 1
        and sum('Another notebook builds (process' in s for s in printed) == 1
    )


def test_MIRAGE_ROOT_without_notebooks_gets_the_line_that_links_them(tmp_path, monkeypatch):
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match='MIRAGE_ROOT names, has no nbs/paper.smk. Link the notebooks there: ln -s'
    ) as e:
        build(tmp_path / 'results/a.txt')
    subprocess.run(str(e.value).partition('there: ')[2], shell=True, check=True)
    assert (tmp_path / 'nbs/paper.smk').is_file() and (tmp_path / 'mirage/core.py').is_file()


@pytest.mark.parametrize(
    'linked',
    ['results', *(pytest.param(folder, marks=pytest.mark.long) for folder in ('results/a', 'data', 'features'))],
)
def test_folders_that_are_links_to_a_scratch_disk(pipeline, tmp_path_factory, linked):
    scratch = tmp_path_factory.mktemp('scratch')
    (pipeline / linked).parent.mkdir(exist_ok=True)
    (pipeline / linked).symlink_to(scratch)
    target = pipeline / 'results/a/slow.txt'
    build(target)
    assert target.is_file()
    inside = (pipeline / linked / 'b/c.json').resolve()
    if linked != 'results/a':
        assert pipeline_name(inside) == pipeline_name(pipeline / linked / 'b/c.json') == f'{linked}/b/c.json'


def test_a_link_to_a_scratch_disk_that_was_emptied_is_named(tmp_path):
    (tmp_path / 'results').symlink_to(tmp_path / 'purged')
    for write in (
        lambda: write_json(tmp_path / 'results/a/b.json', {}),
        lambda: start_run(tmp_path / 'results/a/run', {}),
        lambda: take(tmp_path / 'results/.lock', 'it'),
    ):
        with pytest.raises(FileNotFoundError, match='results is a link to .*purged, which is not there'):
            write()


# the code's state


def test_without_git_a_run_finishes_and_its_provenance_says_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    made = provenance()
    assert made['commit'] == made['dirty'] == 'unknown'


def test_a_folder_that_is_no_checkout_says_unknown_and_so_does_one_within_somebody_elses(tmp_path, monkeypatch):
    (tmp_path / 'copy/nbs').mkdir(parents=True)
    (tmp_path / 'copy/nbs/00_core.ipynb').write_text('{}')
    monkeypatch.setenv('MIRAGE_ROOT', str(tmp_path / 'copy'))
    assert provenance()['commit'] == provenance()['dirty'] == 'unknown'
    git = ['git', '-C', tmp_path, '-c', 'user.name=a', '-c', 'user.email=a@b.c']
    subprocess.run([*git, 'init', '-q'], check=True)
    subprocess.run([*git, 'commit', '-q', '--allow-empty', '-m', 'their own work'], check=True)
    assert provenance()['commit'] == provenance()['dirty'] == 'unknown'
    subprocess.run([*git, 'add', 'copy/nbs'], check=True)
    subprocess.run([*git, 'commit', '-q', '-m', 'a copy of it'], check=True)
    assert len(provenance()['commit']) == 40 and provenance()['dirty'] is False
    (tmp_path / 'copy/figures').mkdir()
    (tmp_path / 'copy/figures/fig1.png').write_text('drawn')
    assert provenance()['dirty'] is False  # what is drawn is not executed
    (tmp_path / 'copy/nbs/00_core.ipynb').write_text('{"changed": 1}')
    assert provenance()['dirty'] is True


def test_a_package_without_its_version_is_unknown():
    assert package_version('surely-not-installed') == 'unknown'


# one at a time

HOLDS = """
    import sys, time
    from mirage.processes import take
    take(sys.argv[1], 'the run')
    print('taken', flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_at_once_by_name_and_a_killed_one_is_succeeded(tmp_path):
    job = script(HOLDS, tmp_path / '.lock')
    assert job.stdout.readline() == 'taken\n'
    began = time.monotonic()
    with pytest.raises(InUse, match=rf'the run is in use by process {job.pid} on .*kill {job.pid}'):
        take(tmp_path / '.lock', 'the run')
    assert time.monotonic() - began < 1
    os.kill(job.pid, signal.SIGKILL)
    wait_for(lambda: mirage.processes.process_state(job.pid)[0] in ('Z', ''))  # nobody has collected it
    with hold(tmp_path / '.lock', 'the run'):
        pass
    job.communicate()


def elsewhere(path, silence):
    path.write_text(
        json.dumps(dict(host='node7', machine='node7-1', pid=os.getpid(), began='', since='2030-01-01 00:00:00'))
    )
    os.utime(path, (time.time() - silence,) * 2)


def test_a_holder_on_another_node_is_named_and_succeeded_only_when_it_has_long_been_silent(tmp_path):
    elsewhere(tmp_path / '.lock', 30)
    with pytest.raises(InUse, match=r'on node7 since 2030.*last sign of life was \d+ s ago; after 90 s'):
        take(tmp_path / '.lock', 'the run')
    elsewhere(tmp_path / '.lock', 120)
    with hold(tmp_path / '.lock', 'the run'):
        assert read_holder((tmp_path / '.lock').read_text())['machine'] == machine()
    assert not (tmp_path / '.lock').exists()


def test_the_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(mirage.processes, 'BEAT', 0.05)
    with hold(tmp_path / '.lock', 'the run'):
        os.utime(tmp_path / '.lock', (0, 0))
        wait_for(lambda: (tmp_path / '.lock').stat().st_mtime > 1e9, 5)


def test_a_lock_that_somebody_took_over_is_not_removed_by_its_former_holder(tmp_path):
    take(tmp_path / '.lock', 'the run')
    elsewhere(tmp_path / '.lock', 0)
    give(tmp_path / '.lock')
    assert read_holder((tmp_path / '.lock').read_text())['host'] == 'node7'


def test_of_many_that_ask_at_once_one_gets_it(tmp_path):
    jobs = [
        script(
            """
        import sys, time
        from mirage.processes import InUse, take
        time.sleep(float(sys.argv[2]) - time.time())
        try: take(sys.argv[1], 'it'); print('taken', flush=True)
        except InUse: print('refused', flush=True)
        time.sleep(2)
        """,
            tmp_path / '.lock',
            time.time() + 2,
        )
        for _ in range(5)
    ]
    assert sorted(job.communicate()[0] for job in jobs) == ['refused\n'] * 4 + ['taken\n']


# workers

POOL = """
    import os, sys, time
    from pathlib import Path
    from mirage.processes import worker_pool
    if __name__ == '__main__':
        with worker_pool(2, 'fork') as pool:
            for i in range(2): pool.submit(time.sleep, 60)
            Path(sys.argv[1]).write_text(' '.join(map(str, pool._processes)))
            time.sleep(60)
"""


def test_workers_end_with_the_process_that_is_killed(tmp_path):
    job = script(POOL, tmp_path / 'pids')
    workers = [
        int(n) for n in wait_for(lambda: (tmp_path / 'pids').is_file() and (tmp_path / 'pids').read_text().split())
    ]
    assert len(workers) == 2 and not gone(*workers)
    os.kill(job.pid, signal.SIGKILL)
    wait_for(lambda: gone(*workers), 10)
    job.communicate()


def test_workers_end_when_the_block_fails():
    with pytest.raises(ZeroDivisionError), worker_pool(2, 'fork') as pool:
        for _ in range(4):
            pool.submit(time.sleep, 60)
        workers = list(pool._processes)
        _ = 1 / 0
    assert len(workers) == 2
    wait_for(lambda: gone(*workers), 10)


# disks


def in_small_disk(text, megabytes, *options):
    "Run a script whose first argument is a folder on a disk of so many megabytes, which only it sees."
    inner = f'd=$(mktemp -d) && mount -t tmpfs -o size={megabytes}m none "$d" && exec "$0" -c "$1" "$d"'
    probe = (
        subprocess.run(
            ['unshare', '-rm', 'bash', '-c', inner, sys.executable, 'print(1)'], capture_output=True, text=True
        )
        if shutil.which('unshare')
        else None
    )
    if not probe or probe.stdout.strip() != '1':
        pytest.skip('needs unshare and tmpfs')
    return subprocess.run(
        ['unshare', '-rm', 'bash', '-c', inner, sys.executable, textwrap.dedent(text)],
        capture_output=True,
        text=True,
        env=ENV,
    )


def test_a_full_disk_says_so_whatever_library_writes_and_what_was_there_stays():
    done = in_small_disk(
        """
        import sys, h5py, numpy as np, pandas as pd, torch
        from pathlib import Path
        from safetensors.torch import save_file
        from mirage.processes import DiskFull, atomic
        folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
        big = rng.normal(size=(1000, 2000))          # 16 MB, on a disk of 8

        def hdf5(path):
            with h5py.File(path, 'w') as f: f['x'] = big
        def pieces(path):
            with h5py.File(path, 'w') as f:
                for i in range(8): f[f'x{i}'] = big[125*i:125*(i + 1)]
        def text(path):
            with open(path, 'w') as f: f.write('x'*16_000_000)
        writers = dict(hdf5=hdf5, pieces=pieces, text=text, npy=lambda path: np.save(open(path, 'wb'), big), torch=lambda path: torch.save({'x': torch.tensor(big)}, path),
                       safetensors=lambda path: save_file({'x': torch.tensor(big)}, path), csv=lambda path: pd.DataFrame(big[:, :500]).to_csv(path),
                       parquet=lambda path: pd.DataFrame(big, columns=list(map(str, range(2000)))).to_parquet(path))
        for name, write in writers.items():
            (folder/name).write_text('what was there')
            try:
                with atomic(folder/name) as part: write(part)
            except DiskFull as e: assert 'the disk is full' in str(e) and str(folder/name) in str(e)
            else: raise AssertionError(name)
            assert (folder/name).read_text() == 'what was there' and len(list(folder.iterdir())) == 1, name
            (folder/name).unlink()
        try:
            with atomic(folder/'fine') as part: part.write_text('x'); raise ValueError('something else')
        except ValueError as e: assert str(e) == 'something else'
        print('all of them')
        """,  # noqa: E501
        8,
    )
    assert done.stdout.strip() == 'all of them', done.stderr[-3000:]


def test_a_checkout_that_may_not_be_written_names_MIRAGE_ROOT_as_the_way_out():
    done = in_small_disk(
        """
        import os, subprocess, sys
        from pathlib import Path
        from mirage.core import build, start_run, write_json
        from mirage.processes import take
        folder = Path(sys.argv[1]); (folder/'nbs').mkdir(); (folder/'nbs/paper.smk').write_text('')
        os.environ['MIRAGE_ROOT'] = str(folder)
        subprocess.run(['mount', '-o', 'remount,ro', folder], check=True)
        for name, act in dict(file=lambda: write_json(folder/'a.json', 1), folder=lambda: start_run(folder/'results/a', {}), lock=lambda: take(folder/'.lock', 'a'),
                              build=lambda: build(folder/'results/b.txt')).items():
            try: act()
            except PermissionError as e: assert 'export MIRAGE_ROOT=' in str(e) and 'Read-only' in str(e), e
            else: raise AssertionError(name)
        print('all of them')
        """,  # noqa: E501
        2,
    )
    assert done.stdout.strip().endswith('all of them'), done.stderr[-3000:]


def test_every_file_is_readable_by_those_whom_the_umask_allows(tmp_path):
    import tempfile

    before = os.umask(0o022)
    try:
        with atomic(tmp_path / 'a.txt') as part:
            number, name = tempfile.mkstemp(dir=tmp_path)  # as safetensors does: for its owner only
            os.close(number)
            os.replace(name, part)
        assert (tmp_path / 'a.txt').stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_what_a_killed_run_left_goes_when_it_is_started_again_and_that_of_others_stays(tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    names = dict(
        dead=f'.resume.{machine()}.{dead_process()}-1.tmp.pt',
        living=f'.resume.{machine()}.{os.getppid()}-1.tmp.pt',
        elsewhere='.resume.node7-1.1-1.tmp.pt',
    )
    for name in names.values():
        (run / name).write_bytes(bytes(1000))
    start_run(run, {})
    assert {k for k, name in names.items() if (run / name).exists()} == {'living', 'elsewhere'}


# what is typed


def first_lines_of_readme():
    "The commands of README's block for a shell, without remarks."
    block = next(b for b in (ROOT / 'README.md').read_text().split('```') if b.startswith('\nmake env'))
    return [line.partition('#')[0].strip() for line in block.splitlines() if line.strip()]


def test_the_commands_of_the_readme_work_in_their_order_in_a_shell_that_knows_nothing(tmp_path):
    commands = first_lines_of_readme()
    assert commands[:2] == ['make env', 'source .venv/bin/activate'] and {'make lab', 'make paper', 'make test'} < set(
        commands
    )
    for name in ('Makefile', 'pyproject.toml', 'requirements.lock', 'settings.ini'):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / '.venv').symlink_to(ROOT / '.venv')
    plain = dict(PATH='/usr/local/bin:/usr/bin:/bin', HOME=str(tmp_path))
    lines = [line if line.startswith('source') else f'make --dry-run {line.removeprefix("make ")}' for line in commands]
    typed = '\n'.join([
        'set -e',
        *lines,
        'command -v papermill jupyter snakemake nbdev_export',
        'papermill --version',
        'jupyter lab --version',
    ])
    done = subprocess.run(['bash', '-c', typed], cwd=tmp_path, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr
    assert (
        '/jupyter lab' in done.stdout
        and 'results/embedded/figures/index.html' in done.stdout
        and done.stdout.count('.venv/bin/papermill') >= 1
    )


def test_somebody_who_ran_and_saved_a_notebook_is_shown_the_command_that_clears_it(tmp_path):
    notebook = tmp_path / 'nbs/05_train.ipynb'
    notebook.parent.mkdir()
    saved = json.loads((ROOT / 'nbs/05_train.ipynb').read_text())
    code = next(c for c in saved['cells'] if c['cell_type'] == 'code')
    code['outputs'] = [dict(output_type='stream', name='stdout', text='0.5')]
    notebook.write_text(json.dumps(saved))
    look = (
        'import sys; from pathlib import Path; import sync; sync.ROOT = Path(sys.argv[1]); print(*sync.dirty(), '
        'sep=chr(10))'
    )
    says = subprocess.run(
        [sys.executable, '-c', look, tmp_path],
        env=ENV | dict(PYTHONPATH=f'{ROOT}:{ROOT / "tests"}'),
        capture_output=True,
        text=True,
    ).stdout
    command = says.partition('outputs: ')[2].strip()
    assert command == 'jupyter nbconvert --clear-output --inplace nbs/05_train.ipynb', says
    subprocess.run(command, shell=True, cwd=tmp_path, env=ENV, check=True, capture_output=True)
    assert not any(c.get('outputs') for c in json.loads(notebook.read_text())['cells'])


@pytest.mark.parametrize(
    'options, says',
    [
        (('video', 'nothere.mp4'), 'video: there is no file nothere.mp4'),
        (('movies', 'nothere.csv'), 'movies: there is no file'),
        (('weights', 'results/embedded/train/nothere'), 'weights: there is no folder'),
        (('transcript', 'a.srt'), 'there is no video'),
    ],
)
def test_a_wrong_path_is_refused_before_anything_is_imported(tmp_path, options, says):
    done = subprocess.run(
        [BIN / 'papermill', ROOT / 'nbs/09b_predict.ipynb', tmp_path / 'out.ipynb', '-p', *options],
        cwd=ROOT,
        env=ENV | dict(MIRAGE_ROOT=str(tmp_path)),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and says in done.stderr, done.stderr[-2000:]
    cells = json.loads((tmp_path / 'out.ipynb').read_text())['cells']
    imports = next(c for c in cells if ''.join(c['source']).startswith('#| export'))
    assert imports['execution_count'] is None and [p.name for p in tmp_path.iterdir()] == ['out.ipynb']


def test_a_job_of_the_pipeline_says_nothing_while_all_goes_well_and_names_what_went_wrong(tmp_path):
    def notebook(source):
        return dict(
            cells=[dict(cell_type='code', id='a', metadata={}, outputs=[], execution_count=None, source=source)],
            metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')),
            nbformat=4,
            nbformat_minor=5,
        )

    printed = {}
    for name, source in dict(fine='1 + 1', wrong='1/0').items():
        (tmp_path / f'{name}.ipynb').write_text(json.dumps(notebook(source)))
        done = subprocess.run(
            [sys.executable, '-m', 'mirage.processes', f'{name}.ipynb', 'out.ipynb'],
            cwd=tmp_path,
            env=ENV,
            capture_output=True,
            text=True,
        )
        printed[name] = done.stdout + done.stderr
        assert (done.returncode == 0) == (name == 'fine')
    assert (
        'eavesdropping' not in printed['fine'] + printed['wrong']
        and len(printed['fine']) < 200
        and 'ZeroDivisionError' in printed['wrong']
    ), printed


# many moments


@pytest.mark.long
@pytest.mark.parametrize('seed', range(12))
def test_killed_at_any_moment_the_pipeline_goes_on_by_the_same_command(pipeline, seed):
    (pipeline / 'pace').write_text('1')
    job = snakemake(pipeline, 'results/a/three.txt')
    time.sleep(np.random.default_rng(seed).uniform(0.5, 8))
    group = seed % 2  # with its children, or it alone
    (os.killpg if group else os.kill)(job.pid, signal.SIGKILL)
    job.communicate()
    again = snakemake(pipeline, 'results/a/three.txt')
    printed = again.communicate()[0]
    assert again.returncode == 0 and (pipeline / 'results/a/three.txt').read_text() == 'done\ndone\n', printed


EXTRACTS = """
    import sys
    import pandas as pd
    from mirage.core import Contexts
    from mirage.features.extract import extract_splits
    if __name__ == '__main__':
        movies = pd.read_csv(sys.argv[1])
        extract_splits(
            movies, sys.argv[2], 'tiny-qwen3-omni-thinking', fusion='native', protocol='aligned',
            contexts=Contexts(words=8, audio=2., video=1.), workers=2,
        )
"""


def children(number):
    "The processes whose parent this is."
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(')')[2].split()[1]) == number:
                found.append(int(path.parent.name))
    return found


@pytest.mark.long
def test_the_workers_of_a_killed_extraction_end_with_it_and_the_same_call_completes_it(tmp_path):
    import pandas as pd
    from mirage.data.release import stimulus_paths
    from mirage.data.simulate import make_stimulus

    names = ['s01e01a', 's01e01b', 's02e01a']
    for name in names:
        make_stimulus(tmp_path, name, name[:3], n_tr=20, seed=0)
    pd.DataFrame([(n, *stimulus_paths(tmp_path, n)) for n in names], columns=['split', 'video', 'transcript']).to_csv(
        tmp_path / 'movies.csv', index=False
    )
    (tmp_path / 'extract.py').write_text(textwrap.dedent(EXTRACTS))
    command = [sys.executable, tmp_path / 'extract.py', tmp_path / 'movies.csv', tmp_path / 'store']
    job = subprocess.Popen(command, env=ENV, start_new_session=True)
    workers = wait_for(lambda: len(found := children(job.pid)) >= 3 and found, 120)  # two, and multiprocessing's own
    time.sleep(3)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    wait_for(lambda: gone(*workers))
    subprocess.run(command, env=ENV, check=True)
    assert len(list((tmp_path / 'store').rglob('[!.]*.h5'))) == 9


def test_who_types_a_papermill_command_sees_progress_and_the_notebook_keeps_it(tmp_path):
    code = "from mirage.core import terminal\nprint('about 9 s', file=terminal())"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    notebook.metadata['kernelspec'] = dict(name='python3', display_name='python3', language='python')
    nbformat.write(notebook, tmp_path / 'in.ipynb')
    env = {k: v for k, v in os.environ.items() if k != 'JPY_SESSION_NAME'}
    command = [sys.executable, '-m', 'papermill', 'in.ipynb', 'out.ipynb']
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and 'about 9 s' in done.stderr, done.stderr[-2000:]
    assert 'about 9 s' in (tmp_path / 'out.ipynb').read_text()
