"Scores, their uncertainty, ensembles, and the files of the challenge."
