"From features to parcels: the pooler, the model, its published weights, and the linear baseline."
