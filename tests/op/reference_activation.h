/* Activation functions and their derivatives in f64, for every kind that has an activation. */
#ifndef CT_TESTS_OP_REFERENCE_ACTIVATION_H
#define CT_TESTS_OP_REFERENCE_ACTIVATION_H

#include "op.h"

double ct_reference_activation(double x, ct_activation act);
double ct_reference_activation_derivative(double x, ct_activation act);

#endif
