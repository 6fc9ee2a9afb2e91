"""Other tools on the cases of the detection benchmark: what they say of the same trainings, mapped in their favour."""
