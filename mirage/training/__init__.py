"Batches, names of runs, and the training loop."
