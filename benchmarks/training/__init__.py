"""How good diagnoses and suggestions of training trouble are, on recorded runs split by problem."""
