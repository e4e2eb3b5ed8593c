"What somebody types who has just installed the package: a clip, and the BOLD that a model expects for it."

import shutil
from pathlib import Path

from mirage.data.release import stimulus_paths
from mirage.data.simulate import make_stimulus

make_stimulus(Path('clip'), 's01e01a', 's01', n_tr=8, seed=0)
for file, name in zip(stimulus_paths(Path('clip'), 's01e01a'), ('clip.mkv', 'words.tsv')):
    shutil.move(file, name)

from mirage import predict

p = predict('clip.mkv', 'words.tsv', weights='untrained', subjects='sub-01')
print(p.bold['sub-01'].shape, p.source)
