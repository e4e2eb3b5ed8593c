"What predictions rest on: modalities, layers, stages."
