"From a movie to the hidden states of a frozen model, stored by layer and time."
