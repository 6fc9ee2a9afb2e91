"""Other tools on the cases of the detection benchmark: what they say of the same trainings, mapped in their favour.

HTA 0.6.1 is not among them: its idle, overlap and straggler analyses read kernels of a device, and these cases have none.
"""
