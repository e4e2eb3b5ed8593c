"From a movie file to predicted BOLD, and models to share."
