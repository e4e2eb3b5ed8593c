"What was shown and what was measured: the release, cohorts, movies, transcripts, simulation."
