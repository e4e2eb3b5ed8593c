"""The pipeline on a cluster: jobs ask for what they need, a failing and a killed one are named with their logs and stop
nobody else, and a rerun completes. SLURM's commands are stand-ins."""

import json, os, re, shlex, shutil, subprocess, sys
from pathlib import Path

import numpy as np, pytest

import slurm
from mirage.core import cohort_id, hardware
from mirage.data.simulate import make_stimulus
from mirage.data.release import stimulus_paths

ROOT = Path(__file__).resolve().parents[1]
MOVIES = 's01e01a s01e01b s06e01a'.split()
SHARDED = 'results/mine/extract/tiny-qwen3-omni-thinking-tower-aligned'


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    "A copy of the project with three short movies of one's own, and stand-ins for SLURM on PATH."
    d = tmp_path_factory.mktemp('cluster')
    rng = np.random.default_rng(0)
    lines = ['subject,split,set,bold,video,transcript']
    for name in ('nbs', 'mirage', 'profiles'):
        shutil.copytree(ROOT / name, d / name, ignore=shutil.ignore_patterns('__pycache__', '.*'))
    for name in ('settings.ini', 'data_manifest.yaml', 'pyproject.toml'):
        shutil.copy(ROOT / name, d / name)
    for split in MOVIES:
        make_stimulus(d / 'data/mine', split, split[:3], 10, seed=0)
        video, transcript = (p.relative_to(d / 'data/mine') for p in stimulus_paths(d / 'data/mine', split))
        for s in ('sub-01', 'sub-02'):
            np.save(d / f'data/mine/{s}_{split}.npy', rng.standard_normal((10, 20)).astype(np.float32))
            lines.append(f'{s},{split},{"val" if split[2] == "6" else "train"},{s}_{split}.npy,{video},{transcript}')
    (d / 'data/mine/runs.csv').write_text('\n'.join(lines))
    (d / 'data/mine/cohort.yaml').write_text('tr: 1.49\nparcels: 20\n')
    slurm.install(d / 'bin')
    (d / 'state').mkdir()
    return d


def snakemake(d, *options, on='slurm', cohort='data/mine', **config):
    env = {k: v for k, v in os.environ.items() if k not in ('IN_TEST', 'MIRAGE_ROOT')} | dict(
        PATH=f'{d / "bin"}:{Path(sys.executable).parent}:{os.environ["PATH"]}',
        PYTHONPATH=str(d),
        STANDIN=str(d / 'state'),
        OMP_NUM_THREADS='1',
        PYTHONWARNINGS='ignore',
    )
    where = (
        [
            '--profile',
            'profiles/slurm',
            '--slurm-init-seconds-before-status-checks',
            '1',
            '--latency-wait',
            '5',
            '--jobs',
            '3',
        ]
        if on == 'slurm'
        else ['--cores', '1']
    )
    done = subprocess.run(
        [
            Path(sys.executable).parent / 'snakemake',
            *options,
            '-s',
            'nbs/paper.smk',
            *where,
            '--config',
            f'cohort={cohort}',
            'preset=smoke',
            *(f'{k}={v}' for k, v in config.items()),
        ],
        cwd=d,
        env=env,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_dry_run_lists_the_jobs_with_what_they_ask_for(cluster):
    code, printed = snakemake(cluster, 'paper', '--dry-run', shards=2)
    assert code == 0, printed[-3000:]

    def job(rule):
        return re.findall(rf'^rule {rule}:(.*?)(?=^\[|\Z)', printed, re.M | re.S)

    # every extraction in two
    assert len(job('shard')) == 2 * len(job('extract')) >= 4 and all(
        'gpu=1' in j and 'mem_mb=120000' in j and 'runtime=480' in j for j in job('shard')
    )
    assert (
        all('gpu=1' in j for j in job('train'))
        and all('gpu=0' in j for j in job('ridge') + job('figure'))
        and '-p shard 2/2' in printed
    )
    assert not (cluster / 'results').exists() and not slurm.jobs(cluster / 'state')
    revision = '0123456789abcdef0123456789abcdef01234567'
    code, printed = snakemake(
        cluster,
        SHARDED + '/provenance.json',
        '--dry-run',
        '--printshellcmds',
        revisions=f'{{tiny-qwen3-omni-thinking: "{revision}"}}',
        shards=64,
    )
    assert code == 0 and f'-p shard 64/64 -r revision {revision}' in printed


def test_a_folder_anywhere_is_a_cohort_and_goes_by_its_id(cluster, tmp_path_factory):
    away = tmp_path_factory.mktemp('a study') / 'mine'
    shutil.copytree(cluster / 'data/mine', away)
    name = cohort_id(away)
    run = 'ridge/linear-native/provenance.json'
    assert re.fullmatch('mine-[0-9a-f]{6}', name)
    code, printed = snakemake(cluster, f'results/{name}/{run}', '--dry-run', '--printshellcmds', on='here', cohort=away)
    assert code == 0, printed[-3000:]
    assert (
        f"-p cohort '{away}' -p preset" in printed
        and f'results/{name}/notebooks/linear-native.ipynb' in printed
        and 'results/mine/' not in printed
    )
    code, printed = snakemake(
        cluster, f'results/mine/{run}', '--dry-run', '--printshellcmds', on='here', cohort=cluster / 'data/mine'
    )
    assert code == 0, printed[-3000:]
    assert '-p cohort mine -p preset' in printed  # in data/, the folder's name is enough, wherever it is typed


def test_nothing_is_extracted_for_a_cohort_that_brings_its_features(cluster, tmp_path):
    home = tmp_path / 'ready'
    (home / 'features/text').mkdir(parents=True)
    (home / 'cohort.yaml').write_text('tr: 2.0\nparcels: 3\nfeatures: {text: 2.0}\n')
    rng = np.random.default_rng(0)
    lines = ['subject,split,set,bold']
    for movie, which in dict(a='train', b='val').items():
        np.save(home / f'features/text/{movie}.npy', rng.normal(size=(240, 2, 4)).astype(np.float16))
        np.save(home / f'{movie}.npy', rng.normal(size=(60, 3)).astype(np.float32))
        lines.append(f'ann,{movie},{which},{movie}.npy')
    (home / 'runs.csv').write_text('\n'.join(lines) + '\n')
    code, printed = snakemake(
        cluster,
        f'results/{cohort_id(home)}/train/mirage-native-s0/provenance.json',
        '--dry-run',
        on='here',
        cohort=home,
    )
    assert code == 0, printed[-3000:]
    assert 'rule train:' in printed and 'rule extract:' not in printed


def test_the_cost_is_printed_before_anything_is_made(cluster):
    laws = cluster / 'results/benchmarks/laws.csv'  # a ridge takes an hour and two for each subject
    laws.parent.mkdir(parents=True)
    laws.write_text('kind,term,seconds\nridge,once,3600\nridge,once subjects,7200\nprediction,parcels,360\n')
    code, printed = snakemake(cluster, 'cost', on='here', shards=2)
    assert code == 0, printed[-3000:]
    shards = re.search(r'shard +(\d+) +120 +8 +(\d+)\b', printed)  # jobs of 120 GB, 8 hours and one GPU each
    assert shards and int(shards[2]) == 8 * int(shards[1]) >= 32, printed[-3000:]
    assert f'TFLOP/s ({hardware()})' in printed and 'hours of extraction' in printed and 'GB on disk' in printed
    for fusion in ('native', 'tower'):
        # three movies, so many hours
        assert re.search(rf'tiny-qwen3-omni-thinking {fusion} aligned +3 +0\.0\d+', printed), printed[-2000:]
    assert 'by results/benchmarks/laws.csv: ridge 5, prediction 2\n' in printed
    assert not (cluster / SHARDED).exists()


def kill_second_shard(cluster):  # for its memory, once
    (cluster / 'state/oom').write_text(
        json.dumps(
            dict(
                match='_2_3$|_3_2$|2of3|-2-3',
                when=str(cluster / 'results/mine/notebooks/extract-tiny-qwen3-omni-thinking-tower-aligned-2of3.ipynb'),
            )
        )
    )


def check_asked_and_reported(cluster, jobs, printed):
    "Each shard asks for a GPU; the report names the jobs that failed, and logs that are there."
    asked = [j['asked'] for j in jobs.values() if 'rule_shard' in j['asked']['comment']]
    assert len(asked) == 3 and all(
        a['gpus'] == '1'
        and a['mem'] == '120000'
        and a['time'] == '480'
        and a['cpus-per-task'] == '8'
        and a['partition'] == 'main'
        for a in asked
    )
    for state in ('FAILED', 'OUT_OF_MEMORY'):
        job = next(j for j in jobs.values() if j['state'] == state)
        log = cluster / job['log']
        assert (
            f"SLURM status is: '{state}'" in printed
            and str(log.relative_to(cluster)) in printed.replace(str(cluster) + '/', '')
            and log.is_file()
        )


def test_a_failing_and_a_killed_job_stop_nobody_else_and_a_rerun_completes(cluster):
    targets = f'{SHARDED}/provenance.json', 'results/mine/figures/table3_licences.json'
    shards = [cluster / f'{SHARDED}-{k}of3/provenance.json' for k in (1, 2, 3)]
    broken = stimulus_paths(cluster / 'data/mine', MOVIES[0])[0]
    kept = broken.read_bytes()
    broken.write_bytes(kept[:100])  # in shard 1
    kill_second_shard(cluster)
    code, printed = snakemake(cluster, *targets, shards=3)
    jobs = slurm.jobs(cluster / 'state')
    assert code != 0
    assert sorted(j['state'] for j in jobs.values()) == ['COMPLETED', 'COMPLETED', 'FAILED', 'OUT_OF_MEMORY'], printed[
        -4000:
    ] + str([(j['state'], j['asked']['comment']) for j in jobs.values()])
    assert (
        (cluster / targets[1]).is_file()
        and shards[2].is_file()
        and not shards[0].exists()
        and not shards[1].exists()
        and not (cluster / targets[0]).exists()
    )
    check_asked_and_reported(cluster, jobs, printed)
    failed = cluster / 'results/mine/notebooks/extract-tiny-qwen3-omni-thinking-tower-aligned-1of3.ipynb'
    # the executed notebook keeps the traceback
    assert failed.name in printed and MOVIES[0] in failed.read_text() and 'Error' in failed.read_text()

    broken.write_bytes(kept)
    before = (cluster / targets[1]).stat().st_mtime_ns, shards[2].stat().st_mtime_ns
    code, printed = snakemake(cluster, *targets, shards=3)
    assert code == 0, printed[-4000:]
    again = [j for n, j in slurm.jobs(cluster / 'state').items() if n not in jobs]
    # two shards and the whole; nothing twice
    assert [j['state'] for j in again] == ['COMPLETED'] * 3 and (cluster / targets[0]).is_file()
    assert before == ((cluster / targets[1]).stat().st_mtime_ns, shards[2].stat().st_mtime_ns)
    assert json.loads((cluster / SHARDED / 'metrics.json').read_text())['stimuli'] == 3
    assert not [j['log'] for j in again if (cluster / j['log']).exists()]  # logs of what succeeded are removed


@pytest.mark.parametrize(
    'given, says',
    [
        (dict(revisions='{qwen3-omni-thinking: "main; touch ran"}'), 'the 40 digits of a commit'),
        (dict(cohort='x$(touch ran)'), 'x\\$\\(touch ran\\)|no rule to produce|MissingInput|unknown cohort'),
        (dict(cohort="x'; touch ran; '"), 'touch ran|unknown cohort'),
    ],
)
def test_what_is_given_to_the_pipeline_runs_nothing(cluster, given, says):
    code, printed = snakemake(cluster, 'paper', '--printshellcmds', '--dry-run', on='here', **given)
    assert re.search(says, printed) and not (cluster / 'ran').exists()
    for line in re.findall(r'Shell command: (.*)', printed):
        assert 'touch' not in ' '.join(
            word for word in shlex.split(line, comments=False) if word in (';', 'touch', 'ran')
        )
