"""What the lecture prints with BatchNorm and gain 1 after its 1,001 steps.

The std of the gradient at each Tanh, and the grad:data ratio of each weight, the embedding's first.
"""

GRADIENT_STD = [2.640702e-03, 2.245584e-03, 2.045742e-03, 1.983134e-03, 1.952382e-03]
GRAD_TO_DATA = [8.012630e-03, 4.881091e-02, 6.964619e-02, 6.073741e-02, 5.631483e-02, 5.570125e-02, 1.160106e-01]
